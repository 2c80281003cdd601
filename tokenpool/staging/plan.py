"""Reads from a token's fields which files go where: what is fetched to which path, which paths are sent to which URL."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..data_checks import UNPACK
from ..engines.base import FOLDERS, WORK
from ..errors import BadInput
from ..storage.urls import below, is_glob, name_of, path_of, scheme_of, split_glob

Token = Mapping[str, Any]

#: The fields for which a token needs its data brought, or taken away.
FIELDS = ("inputs", "outputs", "volumes", "reuse")
#: What an unpacked file's name no longer ends with.
_ENDINGS = {"gunzip": (".gz", ".gzip"), "zstd": (".zst", ".zstd")}
_WILD = re.compile(r"[*?\[]")
_FASTQ = "run+fastq"


def has_data(token: Token) -> bool:
    """Tell whether something has to be done for a token's data before or after it runs."""
    return any(token.get(name) for name in FIELDS) or bool(token.get("executors") and _stream_folders(token))


# --- folders -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """Where the paths that a token names are on this machine: pairs of a path as the token sees it and its folder here."""

    work: str
    places: tuple[tuple[str, str], ...]
    #: The places that are neither the work folder nor one of its four.
    volumes: tuple[tuple[str, str], ...] = ()

    def host(self, path: str, base: str) -> str:
        """Return the path on this machine; a relative one is below the folder `base`. Raises BadInput."""
        if not path.startswith("/"):
            return os.path.normpath(os.path.join(self.work, base, path)) + ("/" if path.endswith("/") else "")
        whole = posixpath.normpath(path)
        for seen, folder in sorted((*self.places, *self.volumes), key=lambda place: -len(place[0])):
            if whole == seen or whole.startswith(f"{seen}/"):
                return folder + whole[len(seen) :] + ("/" if path.endswith("/") else "")
        raise BadInput(
            f"{path} is no folder of the token's own",
            f"without a container: a relative path, or one below {', '.join(FOLDERS.values())}",
        )


def layout_of(token: Token, work: str) -> Layout:
    """Return the folders of an attempt; those that only a container can see by their paths are its volumes."""
    contained = bool(token.get("image") or token.get("executors"))
    places = tuple((seen, os.path.join(work, name)) for name, seen in FOLDERS.items())
    if not contained:
        return Layout(work, places)
    places = (*places, (WORK, work))
    points = {str(each).rstrip("/") for each in token.get("volumes") or ()}
    for each in token.get("inputs") or ():
        points.add(_point(str(each.get("path") or ""), _is_many(each) or str(each.get("unpack")) in ("untar", "unzip")))
    for each in token.get("outputs") or ():
        points.add(_point(_front(str(each.get("path") or "")), each.get("type") == "DIRECTORY"))
    points |= _stream_folders(token)
    own = sorted(point for point in points if point and not any(_below(point, seen) for seen, _ in places))
    if "/" in own or any(_below(seen, point) for point in own for seen, _ in places):
        raise BadInput("a path of an input or output is right below /", "put it into a folder: /data/file")
    tops = [point for point in own if not any(_below(point, other) for other in own if other != point)]
    volumes = tuple((point, os.path.join(work, "volumes", str(n))) for n, point in enumerate(tops))
    return Layout(work, places, volumes)


def _stream_folders(token: Token) -> set[str]:
    """Return the folders of the files that executors read and write as their streams, but for those that always are."""
    found = set()
    for each in token["executors"] if isinstance(token.get("executors"), list) else ():
        for name in ("stdin", "stdout", "stderr") if isinstance(each, Mapping) else ():
            point = _point(str(each.get(name) or ""), False)
            if point and not any(_below(point, seen) for seen in (*FOLDERS.values(), WORK)):
                found.add(point)
    return found


def _point(path: str, is_folder: bool) -> str:
    """Return the folder that has to be mounted for a path to be there, "" where none has."""
    if not path.startswith("/"):
        return ""
    whole = posixpath.normpath(path)
    return whole if is_folder or path.endswith("/") else posixpath.dirname(whole)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


# --- inputs ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """One input: where it comes from, and where it goes on this machine."""

    #: The file, or the folder where `is_many` or where an archive is unpacked.
    target: str
    url: str = ""
    content: str | None = None
    #: All files of a folder, or those that match.
    is_many: bool = False
    sha256: str = ""
    unpack: str = ""
    shared: bool = False
    credentials: str = ""

    @property
    def is_archive(self) -> bool:
        """What comes is a whole folder, in one file."""
        return self.unpack in ("untar", "unzip")


def inputs_of(token: Token, layout: Layout) -> list[Wanted]:
    """Return what a token wants, in its order; raises BadInput."""
    found = [_wanted(each, layout) for each in token.get("inputs") or ()]
    seen: set[str] = set()
    for each in found:
        if not (each.is_many or each.is_archive):
            if each.target in seen:
                raise BadInput(f"two inputs go to {os.path.basename(each.target)}", "give them different paths")
            seen.add(each.target)
    return found


def _wanted(each: Mapping[str, Any], layout: Layout) -> Wanted:
    shared = bool(each.get("shared"))
    base = "resource" if shared else "input"
    path = str(each.get("path") or "")
    if each.get("content") is not None:
        return Wanted(layout.host(path, base), content=str(each["content"]))
    url, unpack = spelled(str(each["url"]), str(each.get("unpack") or ""))
    many = _is_many({**each, "url": url})
    into_folder = many or unpack in ("untar", "unzip")
    target = layout.host(path, base)
    if not into_folder and (not path or path.endswith("/")):
        name = unpacked_name(name_of(url), unpack)
        if not name:
            raise BadInput(f"{url} names no file", "say where it goes: path")
        target = os.path.join(target, name)
    return Wanted(
        target.rstrip("/"),
        url,
        is_many=many,
        sha256=str(each.get("sha256") or ""),
        unpack=unpack,
        shared=shared,
        credentials=str(each.get("credentials") or ""),
    )


def spelled(url: str, unpack: str = "") -> tuple[str, str]:
    """Return a URL without the suffix by which PYTQ says how it is unpacked, and how it is.

    >>> spelled("s3://b/x.gz|gunzip"), spelled("run+fastq/SRR1/")
    (('s3://b/x.gz', 'gunzip'), ('run+fastq://SRR1', ''))
    """
    front, bar, word = url.rpartition("|")
    if bar and word in UNPACK:
        url, unpack = front, unpack or word
    if url.startswith(f"{_FASTQ}/"):
        url = f"{_FASTQ}://{url[len(_FASTQ) + 1 :].strip('/')}"
    return url, unpack


def _is_many(each: Mapping[str, Any]) -> bool:
    url = spelled(str(each.get("url") or ""))[0]
    accession = scheme_of(url) == _FASTQ and "/" not in url.partition("://")[2].strip("/")
    return bool(url) and (url.endswith("/") or each.get("type") == "DIRECTORY" or is_glob(url) or accession)


def unpacked_name(name: str, unpack: str) -> str:
    """Return how a file is called when it is unpacked.

    >>> unpacked_name("x.fq.gz", "gunzip"), unpacked_name("x.fq", "gunzip")
    ('x.fq', 'x.fq')
    """
    ending = next((end for end in _ENDINGS.get(unpack, ()) if name.lower().endswith(end) and len(name) > len(end)), "")
    return name[: -len(ending)] if ending else name


def listed(wanted: Wanted) -> tuple[str, str]:
    """Return the URL of the folder to be listed for an input of many files, and the pattern of names below it, or ""."""
    if is_glob(wanted.url):
        return split_glob(wanted.url)
    is_folder = wanted.url.endswith("/") or scheme_of(wanted.url) == _FASTQ
    return (wanted.url if is_folder else f"{wanted.url}/"), ""


def relative(url: str, folder: str) -> str:
    """Return the name of a file below a folder's URL; raises BadInput where it would lead out of it.

    >>> relative("s3://b/run/a/x", "s3://b/run/")
    'a/x'
    """
    path, top = path_of(url), path_of(folder).rstrip("/") + "/"
    # The files of run+fastq are at other servers, whose folders say nothing.
    inside = path.startswith(top) and scheme_of(url) == scheme_of(folder)
    name = path[len(top) :] if inside else path.rpartition("/")[2]
    if not name or name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise BadInput(f"{name!r} in {folder} is no name for a file here", "fetch such files one by one, with a path")
    return name


def matching(pattern: str) -> re.Pattern[str]:
    """Return what a name below a folder must match: ``*`` stays within one name, ``**`` goes deeper.

    >>> bool(matching("run*/x.fq").fullmatch("run1/x.fq")), bool(matching("*").fullmatch("a/b"))
    (True, False)
    """
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}

    def spell(found: re.Match[str]) -> str:
        word = found.group()
        if word in words:
            return words[word]
        if len(word) > 1:
            return "[" + word[1:-1].replace("\\", "\\\\").replace("!", "^", word[1] == "!") + "]"
        return re.escape(word)

    return re.compile(re.sub(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|.", spell, pattern, flags=re.DOTALL), re.DOTALL)


# --- outputs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """One output: which paths of this machine go where."""

    #: As the token has it, for people; "": all that is in OUTPUT.
    path: str
    #: The folder that is walked, and the pattern of names below it; "" where `target` is the thing itself.
    top: str
    pattern: str
    url: str
    #: What is taken off the front of names, a folder of this machine.
    prefix: str
    when: str = "success"
    credentials: str = ""
    is_folder: bool = False


def outputs_of(token: Token, layout: Layout) -> list[Sent]:
    """Return what a token gives, in its order; raises BadInput."""
    return [_sent(each, layout) for each in token.get("outputs") or ()]


def _sent(each: Mapping[str, Any], layout: Layout) -> Sent:
    path, url = str(each.get("path") or ""), str(each.get("url") or "")
    whole = layout.host(path, "output").rstrip("/")
    front = _front(path)
    pattern = path[len(front) :].lstrip("/") if front != path else ""
    top = layout.host(front, "output").rstrip("/") if pattern else whole
    url, prefix = _cut(str(each.get("path_prefix") or ""), front if pattern else "", url, layout)
    return Sent(
        path,
        top,
        pattern,
        url,
        prefix,
        str(each.get("when") or "success"),
        str(each.get("credentials") or ""),
        is_folder=not path or path.endswith("/") or each.get("type") == "DIRECTORY",
    )


def _cut(prefix: str, front: str, url: str, layout: Layout) -> tuple[str, str]:
    """Return the URL of an output, and the folder of this machine that is taken off the front of its names.

    Nothing that a container sees has to be mounted for a prefix: what is between it and the wildcards goes to the URL.
    """
    if not prefix:
        return url, ""
    if url and front.startswith("/") and _below(posixpath.normpath(front), posixpath.normpath(prefix)):
        between = posixpath.relpath(front, prefix)
        return (url if between == "." else below(url, between)), ""
    return url, layout.host(prefix, "output").rstrip("/")


def _front(path: str) -> str:
    """Return the folder before the first wildcard; a path without one whole.

    >>> _front("a/b*/c"), _front("a/b"), _front("*.bam")
    ('a/', 'a/b', '')
    """
    found = _WILD.search(path)
    return path[: path.rfind("/", 0, found.start()) + 1] if found else path
