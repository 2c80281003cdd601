"""Brings the files of finished tokens to this machine: what is there already stays, what is missing is told at the end."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import quote

from ..errors import BadInput, OutOfSpace, TokenpoolError
from ..staging.transfers import Transfers
from ..staging.values import Download, Progress, Stopped
from ..storage import shown

Json = Mapping[str, Any]

#: What a token writes in place of a URL for a file that is attached to it.
ATTACHED = "attachment:"
#: Files that wait for their turn at a time; a pool may name millions.
MOST = 1000


@dataclass(frozen=True)
class Wanted:
    """A file of a token that is wanted here: from a storage by its URL, or from the token itself."""

    token: str
    #: Its name below the folder of the token.
    name: str
    path: Path
    size: int | None = None
    #: ``sha256:...``, or ``md5:...`` in small hexadecimal; "": nobody knows.
    checksum: str = ""
    url: str = ""
    credentials: str = ""
    #: Its name among the token's attachments, where it has no URL.
    attachment: str = ""

    @property
    def source(self) -> str:
        """Where it is, for people."""
        return shown(self.url) if self.url else f"token {self.token}"

    def is_here(self) -> bool:
        """Tell whether a file with the right size and content is at its place."""
        if not self.path.is_file() or self.size is None or self.path.stat().st_size != self.size:
            return False
        kind, _, wanted = self.checksum.partition(":")
        return not wanted or digest(self.path, kind) == wanted


def digest(path: Path, kind: str) -> str:
    """Return the checksum of a file in small hexadecimal."""
    found = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


@dataclass
class Brought:
    """What became of it."""

    fetched: int = 0
    present: int = 0
    bytes: int = 0
    failed: list[tuple[Wanted, TokenpoolError]] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: all is here; the code of the errors if they are of one kind, else 1."""
        codes = {error.exit_code for _, error in self.failed}
        return (codes.pop() if len(codes) == 1 else 1) if codes else 0


class Attachments(Protocol):
    """Where what is attached to tokens can be read."""

    def get_attachment(self, doc_id: str, name: str, rev: str = "") -> Iterator[bytes]:
        """Yield an attachment in pieces; raises NotFound."""


# --- what there is -------------------------------------------------------------------------------------------------------


def wanted_of(
    token: Json, folder: Path, logs: bool, usable: Callable[[str], bool]
) -> Iterator[Wanted | tuple[Wanted, BadInput]]:
    """Yield the files of a token: its outputs, what is attached to it, and its logs if they are asked for.

    `usable` tells whether this machine knows credentials of a name. A file whose name leads elsewhere comes with that error.
    """
    for each in _files_of(token, logs, usable):
        try:
            yield replace(each, path=place(folder, each.name))
        except BadInput as error:
            yield each, error


def _files_of(token: Json, logs: bool, usable: Callable[[str], bool]) -> Iterator[Wanted]:
    """Yield the files of a token; they have no place yet."""
    doc_id = str(token.get("_id"))
    output = token.get("output")
    files = output.get("files") if isinstance(output, Mapping) else None
    attachments = token.get("_attachments")
    stubs = attachments if isinstance(attachments, Mapping) else {}
    told: set[str] = set()
    for each in files if isinstance(files, list) else []:
        if not isinstance(each, Mapping) or not isinstance(each.get("url"), str) or not each["url"]:
            continue
        url, size = each["url"], each.get("size") if isinstance(each.get("size"), int) else None
        name = str(each.get("path") or url.rstrip("/").rpartition("/")[2])
        checksum = f"sha256:{each['sha256']}" if each.get("sha256") else ""
        if url.startswith(ATTACHED):
            told.add(url[len(ATTACHED) :])
            yield Wanted(doc_id, name, Path(), size, checksum, attachment=url[len(ATTACHED) :])
        else:
            yield Wanted(doc_id, name, Path(), size, checksum, url, _credentials(token, url, usable))
    for name, stub in stubs.items():
        if name in told or name.startswith("checkpoint/") or (not logs and name.startswith(f"logs_{doc_id}.")):
            continue
        length = stub.get("length") if isinstance(stub, Mapping) else None
        md5 = str(stub.get("digest") or "") if isinstance(stub, Mapping) else ""
        checksum = f"md5:{base64.b64decode(md5[4:]).hex()}" if md5.startswith("md5-") else ""
        yield Wanted(doc_id, name, Path(), length, checksum, attachment=name)


def place(folder: Path, name: str) -> Path:
    """Return where a file of this name goes; raises BadInput for a name that leads out of the folder.

    Tokens are written by whoever may write to the pool: no name of theirs is trusted.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise BadInput(f"a file of the token is called {name!r}", "that leads out of the folder; it is not fetched")
    return folder.joinpath(*parts)


def folder_of(root: Path, doc_id: str) -> Path:
    """Return the folder of a token, whatever letters its id has."""
    name = quote(doc_id, safe=" !#$&'()+,;=@[]^`{}~:")
    return root / (name if name.strip(".") else name.replace(".", "%2E"))


def _credentials(token: Json, url: str, usable: Callable[[str], bool]) -> str:
    """Return the name of the secret that the token's output went there with, where this machine knows it too."""
    outputs = token.get("outputs")
    for each in outputs if isinstance(outputs, list) else []:
        if isinstance(each, Mapping) and url.startswith(str(each.get("url") or "\0").rstrip("/")):
            name = each.get("credentials")
            return name if isinstance(name, str) and usable(name) else ""
    return ""


# --- bringing ------------------------------------------------------------------------------------------------------------


class Bringer:
    """Brings files, several at a time; one that fails keeps no other one away."""

    def __init__(self, transfers: Transfers, attachments: Attachments, told: Callable[[Wanted | None], None]) -> None:
        self.progress = Progress()
        self.result = Brought()
        self._transfers, self._attachments, self._told = transfers, attachments, told
        #: Files that were found so far.
        self.seen = 0
        self._taken: dict[Path, Wanted] = {}
        self._stopped = False

    def bring(self, those: Iterator[Wanted | tuple[Wanted, TokenpoolError]]) -> None:
        """Bring all of them."""
        with ThreadPoolExecutor(self._transfers.width) as pool:
            try:
                jobs: dict[Future[int | TokenpoolError | None], Wanted] = {}
                for each in those:
                    self.seen += 1
                    if isinstance(each, tuple):
                        self._failed(*each)
                        continue
                    clash = self._taken.setdefault(each.path, each)
                    if clash is not each and (clash.token, clash.checksum) == (each.token, each.checksum):
                        self.seen -= 1  # it went to two places
                    elif clash is not each:
                        hint = "without --flat each token has a folder of its own"
                        self._failed(each, BadInput(f"{clash.source} has a file of that name too", hint))
                    elif each.url:
                        jobs[pool.submit(self._caught, each)] = each
                        self._collect(jobs, MOST)
                    else:  # in this thread: a pool may be one that only its own thread may ask
                        self._done(each, self._caught(each))
                self._collect(jobs, 0)
            except BaseException:
                self._stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _collect(self, jobs: dict[Future[int | TokenpoolError | None], Wanted], most: int) -> None:
        """Count what is done, and wait until at most so many files are on their way."""
        while len(jobs) > most:
            for job in wait(jobs, return_when=FIRST_COMPLETED).done:
                self._done(jobs.pop(job), job.result())

    def _caught(self, wanted: Wanted) -> int | TokenpoolError | None:
        """Return the bytes that came, None where the file was here, or why it could not be had."""
        try:
            if wanted.is_here():
                return None
            _make_room(wanted.path)
            return self._fetched(wanted) if wanted.url else self._attached(wanted)
        except Stopped:
            raise
        except TokenpoolError as error:
            return error
        except OSError as error:
            from .output import of_os_error

            return of_os_error(error)

    def _fetched(self, wanted: Wanted) -> int:
        kind, _, checksum = wanted.checksum.partition(":")
        download = Download(wanted.url, str(wanted.path), wanted.credentials, checksum if kind == "sha256" else "")
        (file,) = self._transfers.run([download], self.progress, lambda: self._stopped)
        return file.size

    def _attached(self, wanted: Wanted) -> int:
        partial = wanted.path.with_name(f".{wanted.path.name[:200]}.part")
        try:
            with open(partial, "wb") as file:
                for piece in self._attachments.get_attachment(wanted.token, wanted.attachment):
                    file.write(piece)
                size = file.tell()
            os.replace(partial, wanted.path)
        finally:
            partial.unlink(missing_ok=True)
        return size

    def _done(self, wanted: Wanted, came: int | TokenpoolError | None) -> None:
        if isinstance(came, TokenpoolError):
            self._failed(wanted, came)
            return
        self.result.present += came is None
        self.result.fetched += came is not None
        self.result.bytes += came or 0
        self._told(None)

    def _failed(self, wanted: Wanted, error: TokenpoolError) -> None:
        self.result.failed.append((wanted, error))
        self._told(wanted)
        if isinstance(error, OutOfSpace):
            raise error


def _make_room(path: Path) -> None:
    """Make the folders above a file; raises BadInput where a file, or a link that leads away, is in the way."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise BadInput(f"{path.parent} is no folder", "a file is in the way: move it, or fetch elsewhere") from None
    if path.is_dir():
        raise BadInput(f"{path} is a folder", "a file should come there: move it, or fetch elsewhere")
