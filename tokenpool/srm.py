"""Copy files to and from Grid storage with the programs srmls, srmcp and srmrm."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from typing import NoReturn

from .errors import BadInput, NotFound, TokenpoolError
from .executers import execute

_SRMCP = ["srmcp", "-2", "-server_mode=passive"]


class SrmError(TokenpoolError, OSError):
    """An SRM program failed, and may succeed another time."""


class SrmNotFound(NotFound, FileNotFoundError):
    """The file, or the program, is not there: another try would not find it either."""


class SrmExists(BadInput, FileExistsError):
    """The storage holds such a file already."""


class SRMClient:
    """One SRM server and what can be done with its files."""

    def __init__(self, logger: logging.Logger, host: str = "srm://srm.grid.sara.nl/") -> None:
        self.logger = logger
        self.srm_host = host

    def remote_exists(self, loc: str) -> bool:
        """Tell whether the storage lists a file, or directory, of exactly this name at `loc`."""
        try:
            listing = self._call(["srmls", self.srm_host + loc], "list")
        except SrmError:
            return False
        name = os.path.basename(loc.rstrip("/"))
        lines = (line.strip().rstrip("/") for line in listing.splitlines())
        # A line is a size and a path; the name must be the whole of its last part.
        return any(line == name or line.endswith(("/" + name, " " + name)) for line in lines)

    def upload(self, local_file: str, srm_dir: str, check: bool = False) -> str:
        """Copy a file into `srm_dir` and return its address; with `check`, refuse to miss or to overwrite one."""
        srm_file = os.path.join(srm_dir, os.path.basename(local_file))
        if check and not os.path.isfile(local_file):
            raise SrmNotFound(f"no file {local_file}", "say what to upload")
        if check and self.remote_exists(srm_file):
            raise SrmExists(
                f"{self.srm_host}{srm_file} is there already", "remove it first, or choose another directory"
            )
        self._call([*_SRMCP, f"file:///{local_file}", self.srm_host + srm_file], "upload")
        return self.srm_host + srm_file

    def download(self, srm_file: str, local_dir: str = "./", check: bool = False) -> str:
        """Copy a file into `local_dir` and return its path there; with `check`, look first whether it exists."""
        local_file = os.path.join(local_dir, os.path.basename(srm_file))
        if check and not self.remote_exists(srm_file):
            raise SrmNotFound(f"{self.srm_host}{srm_file} does not exist", "look with: srmls")
        self._call([*_SRMCP, self.srm_host + srm_file, f"file:///{local_file}"], "download")
        return local_file

    def remove(self, srm_file: str) -> bool:
        """Delete a file on the storage; True, or an error."""
        self._call(["srmrm", self.srm_host + srm_file], "remove")
        return True

    def _call(self, command: Sequence[str], deed: str) -> str:
        """Run one SRM program and return what it printed."""
        self.logger.info(" ".join(command))
        try:
            _, code, out, err = execute(list(command))
        except FileNotFoundError as absent:
            raise SrmNotFound(f"no program {command[0]}", "install the SRM clients, or load their module") from absent
        if code:
            told = err.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise SrmError(
                f"{deed} failed: {command[0]} ended with {code}: {told[-1]}", f"run it by hand: {' '.join(command)}"
            )
        return out.decode(errors="replace")


class Downloader(threading.Thread):
    """A thread that downloads the files in a queue until it is empty; `failures` says which it could not."""

    def __init__(
        self, q: queue.Queue[str], logger: logging.Logger | None = None, *, tries: int = 25, pause: float = 1.0
    ) -> None:
        super().__init__(daemon=False)
        self.q = q
        self.logger = logger or logging.getLogger("SRM")
        self.srm = SRMClient(self.logger)
        self.tries = tries
        self.pause = pause
        self.failures: dict[str, Exception] = {}

    def run(self) -> None:
        """Download one file after another; a file that fails does not stop the rest."""
        while True:
            try:
                srm_file = self.q.get_nowait()
            except queue.Empty:
                return
            try:
                self._download(srm_file)
            except Exception as error:
                self.failures[srm_file] = error
                self.logger.error("gave up on %s: %s", srm_file, error)
            finally:
                # Without this, whatever happened, `q.join()` would wait for ever.
                self.q.task_done()

    def _download(self, srm_file: str) -> None:
        """Download one file, trying again what may go better the next time."""
        for left in reversed(range(self.tries)):
            try:
                self.srm.download(srm_file)
                return
            except SrmError:
                if not left:
                    raise
                time.sleep(self.pause)


def download_many(
    files: Iterable[str],
    poolsize: int = 10,
    logger: logging.Logger | None = None,
    *,
    tries: int = 25,
    pause: float = 1.0,
) -> None:
    """Download files into the current directory, `poolsize` at a time; an OSError names those that failed."""
    q: queue.Queue[str] = queue.Queue()
    for srm_file in files:
        q.put(srm_file)
    run_all([Downloader(q, logger, tries=tries, pause=pause) for _ in range(min(max(1, poolsize), q.qsize()))])


def run_all(workers: Sequence[Downloader]) -> None:
    """Start downloaders, wait for all, and raise what any of them could not do."""
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except BaseException:
        # Interrupted: the threads end after the file in their hands.
        for worker in workers:
            _empty(worker.q)
        raise
    failures = {srm_file: error for worker in workers for srm_file, error in worker.failures.items()}
    if failures:
        first = next(iter(failures.values()))
        raise SrmError(f"{len(failures)} not downloaded: {', '.join(sorted(failures))}", f"the first one: {first}")


def download(remotefile: str) -> NoReturn:
    """Refuse: which server to ask is known to `SRMClient` only."""
    raise NotImplementedError(f"use SRMClient(logger).download({remotefile!r})")


def upload(localfile: str) -> NoReturn:
    """Refuse: which server to ask is known to `SRMClient` only."""
    raise NotImplementedError(f"use SRMClient(logger).upload({localfile!r}, directory)")


def upload_many(files: Iterable[str], poolsize: int = 10) -> NoReturn:
    """Refuse: which server to ask is known to `SRMClient` only."""
    raise NotImplementedError("use SRMClient(logger).upload for each file")


def _empty(q: queue.Queue[str]) -> None:
    """Take everything out of a queue."""
    while True:
        try:
            q.get_nowait()
        except queue.Empty:
            return
        q.task_done()
