"""Takes a token's outputs where they belong: whole files only, by path or pattern, to a URL or into the token."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import TokenpoolError
from ..storage import shown
from ..storage.urls import below
from .checksums import sums_of
from .plan import Sent, matching
from .transfers import Progress, Transfers, Upload

#: The attachments that are a token's output files begin with this, as those of workflows do.
FRONT = "output/"


class NotMade(TokenpoolError):
    """A token did not make what it was to make, or made too much."""


@dataclass(frozen=True)
class Leaving:
    """One file that is to go: where it is, the name that people know it by, and its URL ("": into the token)."""

    path: str
    name: str
    url: str
    credentials: str = ""


@dataclass
class Delivered:
    """What went: as the token lists it, and the files to be attached by their names there."""

    files: list[dict[str, Any]] = field(default_factory=list)
    attached: dict[str, str] = field(default_factory=dict)


def leaving(those: Sequence[Sent], work: str, succeeded: bool) -> list[Leaving]:
    """Return the files that go; raises NotMade where one that was named is not there after success."""
    found: dict[tuple[str, str], Leaving] = {}
    for sent in those:
        if succeeded or sent.when == "always":
            for each in _files_of(sent, work, must=succeeded):
                found.setdefault((each.path, each.url), each)
    return list(found.values())


def _files_of(sent: Sent, work: str, must: bool) -> Iterator[Leaving]:
    if not sent.pattern and not os.path.isdir(sent.top):
        if _is_own(sent.top, work):
            yield _one(sent, sent.top, os.path.basename(sent.top), work, single=True)
        elif must:
            raise NotMade(f"the token did not make {sent.path}", "look at its logs, and at the path of the output")
        return
    match = matching(sent.pattern).fullmatch if sent.pattern else None
    for path in _walk(sent.top, work):
        name = os.path.relpath(path, sent.top)
        # A pattern that fits a folder means all that is in it.
        if match is None or any(match("/".join(name.split("/")[:n])) for n in range(name.count("/") + 1, 0, -1)):
            yield _one(sent, path, name, work)


def _one(sent: Sent, path: str, name: str, work: str, single: bool = False) -> Leaving:
    if sent.prefix and (path == sent.prefix or path.startswith(f"{sent.prefix}/")):
        name, single = os.path.relpath(path, sent.prefix), False
    url = sent.url
    if url and not (single and not url.endswith("/")):
        url = below(url, name)
    out = os.path.join(work, "output")
    told = os.path.relpath(path, out if path.startswith(f"{out}/") else work)
    return Leaving(path, told, url, sent.credentials)


def _walk(top: str, work: str) -> Iterator[str]:
    """Give the files below a folder in the order of their names; links to folders are not entered."""
    for folder, folders, files in os.walk(top):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            if _is_own(path, work):
                yield path


def _is_own(path: str, work: str) -> bool:
    """Tell whether a path is a file of the attempt's own: no pipe, and no link that leads elsewhere."""
    real, top = os.path.realpath(path), os.path.realpath(work)
    try:
        return real.startswith(f"{top}/") and stat.S_ISREG(os.stat(real).st_mode)
    except OSError:
        return False


def deliver(
    those: Sequence[Leaving],
    transfers: Transfers,
    attach_limit: int,
    progress: Progress,
    stopped: Callable[[], bool],
) -> Delivered:
    """Send the files; return what the token is to say of them. Raises as Transfers does, and NotMade for too much."""
    delivered = Delivered()
    kept = [each for each in those if not each.url]
    for each in kept:
        size = os.stat(each.path).st_size
        if size > attach_limit:
            raise NotMade(
                f"{each.name} has {size:,} bytes: a token carries files of at most {attach_limit:,}",
                "give the output a url, or the worker a larger --attach-limit",
            )
    sent = [each for each in those if each.url]
    files = transfers.run(
        [Upload(os.path.realpath(each.path), each.url, each.credentials) for each in sent], progress, stopped
    )
    for each, file in zip(sent, files):
        delivered.files.append({"path": each.name, "url": shown(file.url), "size": file.size, "sha256": file.sha256})
    for each in kept:
        name = FRONT + each.name
        delivered.attached[name] = each.path
        size, sha256 = os.stat(each.path).st_size, sums_of(each.path).of("sha256")
        delivered.files.append({"path": each.name, "url": f"attachment:{name}", "size": size, "sha256": sha256})
    return delivered
