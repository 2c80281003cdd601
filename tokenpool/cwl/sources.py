"""From a word to a workflow: a URL, a file here, `user/repo[:ref][/path.cwl]`, a git URL, a .zip with a path inside."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import BadInput, NotFound

GITHUB = "https://github.com"
#: The file that is run where nobody names one; else the only .cwl beside it.
DEFAULT_FILE = "Dockstore.cwl"
#: A workflow's url that names what is attached to its token.
ATTACHED = "attachment:"

_URL = re.compile(r"(https?|file|ssh|git)://")
_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(.*)", re.DOTALL)
_GIT_URL = re.compile(r"((?:https?|file|ssh|git)://.+?\.git)((?:[:/#].*)?)", re.DOTALL)
_ZIP = re.compile(r"(.+?\.zip)(?:/(.*))?", re.DOTALL | re.IGNORECASE)
#: Endings of files with commands: such a word is a file that is not there, not a repository.
_COMMANDS = (".txt", ".csv", ".json", ".jsonl", ".ndjson", ".yaml", ".yml", ".sh")
_HINT = "write user/repo[:ref][/path.cwl], a URL, or a file of this machine"


@dataclass(frozen=True)
class Source:
    """Where a workflow is: at a url, in a repository, or in a local file; `path` is inside a repository or a .zip.

    `path` and `url` may end with ``#name``, the process that is meant in a file of several.
    """

    url: str = ""
    repo: str = ""
    ref: str = ""
    path: str = ""
    commit: str = ""
    local: str = ""

    def field(self) -> dict[str, str]:
        """Return the token's field `workflow`."""
        names = ("url", "repo", "ref", "path", "commit")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def archive(self) -> str:
        """The .zip that it is in; "" where it is in none."""
        at = self.local or self.url
        return at if at.lower().endswith(".zip") else ""


def source_of(field: Mapping[str, Any]) -> Source:
    """Return the source that a token's field `workflow` names."""
    return Source(**{name: str(field.get(name) or "") for name in ("url", "repo", "ref", "path", "commit")})


def is_source(word: str) -> bool:
    """Tell whether a word can only mean a workflow, not a file of commands.

    >>> [is_source(word) for word in ("ctb/salmon:master", "tool.cwl#main", "night/jobs.txt", "https://host/x.cwl")]
    [True, True, False, True]
    """
    file, _ = split_fragment(word)
    if file.endswith(".cwl") or _URL.match(word) or _ZIP.fullmatch(file):
        return True
    if os.path.exists(word) or os.path.splitext(word)[1].lower() in _COMMANDS:
        return False
    return _REPOSITORY.fullmatch(word) is not None


def split_fragment(word: str) -> tuple[str, str]:
    """Return a path, or a URL, and the ``#name`` at its end."""
    file, mark, name = word.partition("#")
    return file, mark + name


def parse(word: str, github: str = GITHUB) -> Source:
    """Return the source that a word means; raises BadInput, NotFound for a file that is not there.

    >>> parse("ctb/salmon:v1/tools/index.cwl").field()
    {'repo': 'https://github.com/ctb/salmon', 'ref': 'v1', 'path': 'tools/index.cwl'}
    >>> parse("ctb/salmon/tools/index.cwl:v1") == parse("ctb/salmon:v1/tools/index.cwl")
    True
    """
    file, name = split_fragment(word)
    if os.path.isfile(file):
        return Source(local=file, path=name)
    if _URL.match(word):
        return _of_url(word)
    zipped = _ZIP.fullmatch(file)
    if zipped and os.path.isfile(zipped[1]):
        return Source(local=zipped[1], path=(zipped[2] or "") + name)
    repository = _REPOSITORY.fullmatch(word)
    # A tool that is misspelled here is likelier than a repository of its name.
    if repository and not (repository[2] == "" and word.endswith(".cwl")) and not word.startswith("."):
        ref, path = _tail(word, repository[2])
        return Source(repo=f"{github.rstrip('/')}/{repository[1]}", ref=ref, path=path)
    if os.path.isdir(file):
        raise BadInput(f"{file} is a folder, not a workflow", "name the .cwl file in it")
    raise NotFound(f"there is no workflow {word}", _HINT)


def _of_url(word: str) -> Source:
    found = _GIT_URL.fullmatch(word)
    if found:
        ref, path = _tail(word, found[2])
        return Source(repo=found[1], ref=ref, path=path)
    file, name = split_fragment(word)
    zipped = _ZIP.fullmatch(file)
    if zipped:
        return Source(url=zipped[1], path=(zipped[2] or "") + name)
    if not urlsplit(word).path.strip("/"):
        raise BadInput(f"{word} names no workflow", _HINT)
    return Source(url=word)


def _tail(word: str, tail: str) -> tuple[str, str]:
    """Return the ref and the path that stand behind a repository: ``/path:ref`` or ``:ref/path.cwl``."""
    file, name = split_fragment(tail)
    if file.startswith(":"):
        ref, slash, path = file[1:].partition("/")
        if slash and not path.endswith(".cwl"):
            ref, path = f"{ref}/{path}", ""  # a branch may have slashes in its name
    else:
        path, _, ref = file.lstrip("/").partition(":")
    if ref.startswith("-") or re.search(r"[\s\0~^:?*\[\\]|\.\.", ref) or (":" in tail and not ref):
        raise BadInput(f"{word} names no branch, tag or commit that there can be", _HINT)
    return ref, path + name


# --- what is in a folder ---------------------------------------------------------------------------------------------


def choose(folder: Path, path: str, named: str) -> str:
    """Return the path of the file to run inside of a folder, with its ``#name``: `path`, or the one that is meant without.

    Raises NotFound for one that is not there, BadInput where several could be meant; `named` stands in errors.
    """
    file, name = split_fragment(path)
    if file.startswith("/") or ".." in Path(file).parts:
        raise BadInput(f"{path} leaves {named}", "write it as seen from its top, without ..")
    at = folder / file
    if at.is_file():
        return path
    if not at.is_dir():
        raise NotFound(f"there is no file {file} in {named}", _choices(folder))
    within = f"{file.strip('/')}/" if file.strip("/") else ""
    if (at / DEFAULT_FILE).is_file():
        return f"{within}{DEFAULT_FILE}{name}"
    found = sorted(each.name for each in at.glob("*.cwl"))
    if len(found) == 1:
        return f"{within}{found[0]}{name}"
    if not found:
        raise NotFound(f"there is no .cwl file at the top of {named}{within and ' in ' + within}", _choices(folder))
    raise BadInput(
        f"{named} has several workflows and no {DEFAULT_FILE}: {', '.join(within + each for each in found)}",
        "write the one that is meant behind it: /path.cwl",
    )


def _choices(folder: Path) -> str:
    found = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*.cwl"))
    if not found:
        return "it has no .cwl file at all"
    shown = ", ".join(found[:10])
    return f"it has {shown}" + (f" and {len(found) - 10} more" if len(found) > 10 else "")


def local_path(url: str) -> str:
    """Return the path of a ``file://`` URL.

    >>> local_path("file:///data/a%20b.txt")
    '/data/a b.txt'
    """
    return unquote(urlsplit(url).path)
