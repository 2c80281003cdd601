"""The FASTQ files of public sequencing runs: run+fastq://ACCESSION, by the file reports of the European archive ENA."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import urllib3

from ..errors import BadInput, NotFound, ServerAway
from . import base
from .base import Entry, Storage
from .urls import name_of

#: Where ENA is, unless the option ``base_url`` or TOKENPOOL_ENA_URL says otherwise.
ENA = "https://www.ebi.ac.uk"
#: Runs, experiments, samples and studies of ENA, SRA and DDBJ, and BioSamples and BioProjects.
_ACCESSION = re.compile(r"(?:[EDS]R[RXSP]\d{6,}|SAM(?:N|D|EA?)[A-Z]?\d+|PRJ(?:EB|NA|DB)\d+)")
_FIELDS = "run_accession,fastq_ftp,fastq_bytes,fastq_md5"
_HINT = "a run, experiment, sample or study, for example run+fastq://SRR890934"
_Entries = list[Entry]
_Runs = list[Mapping[str, str]]
#: Tries of a question that ENA is too busy to answer, with pauses that double from the first.
_TRIES, _PAUSE = 5, 0.5


class FastqStorage(Storage):
    """Storage that others fill: a listing yields the URLs of the files' own servers, which have other schemes.

    Options: ``base_url`` of ENA or of a mirror; ``scheme`` of the files, where not ENA's own server is asked (https).
    """

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._base = str(options.get("base_url") or environ.get("TOKENPOOL_ENA_URL") or ENA).rstrip("/")
        self._scheme = str(options.get("scheme") or "https")
        wait = urllib3.Timeout(connect=20, read=float(options.get("stall") or base.STALL))
        busy = urllib3.Retry(
            _TRIES, backoff_factor=_PAUSE, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False,
            respect_retry_after_header=False,
        )  # fmt: skip
        self._web = urllib3.PoolManager(timeout=wait, retries=busy)
        self._known: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()

    def stat(self, url: str) -> Entry:
        """Return one file of a run, named ``run+fastq://ACCESSION/FILE``; NotFound for the accession alone."""
        found = self._entry(url)
        return replace(found, url=url)

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the files of all runs of an accession, by the URLs where they are; their names are those URLs' last."""
        accession, name = _parts(url)
        if name:
            raise NotFound(f"{url} is no folder", f"leave out the file's name: run+fastq://{accession}")
        yield from sorted(self._files(accession), key=lambda entry: entry.url)

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes of one file, from the server that has it."""
        there = self._entry(url).url
        yield from self._storages().of(there).read(there, start, end)

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Refuse: ENA takes submissions in other ways."""
        raise BadInput(f"{url}: nothing can be written to a public archive", "name another URL for the output")

    def _storages(self) -> Any:
        from . import Storages

        return Storages(environ=self.environ)

    def _entry(self, url: str) -> Entry:
        accession, name = _parts(url)
        if not name:
            raise NotFound(f"{url} is a folder, no file", f"end it in / for all files: run+fastq://{accession}/")
        files = self._files(accession)
        for each in files:
            if name_of(each.url) == name:
                return each
        raise NotFound(
            f"{accession} has no file {name}", f"there are: {', '.join(name_of(each.url) for each in files)}"
        )

    def _files(self, accession: str) -> _Entries:
        with self._lock:
            if accession not in self._known:
                self._known[accession] = self._asked(accession)
            return self._known[accession]

    def _asked(self, accession: str) -> _Entries:
        runs = self._report(accession)
        if not runs:
            raise NotFound(f"ENA knows no accession {accession}", f"look at {ENA}/ena/browser/view/{accession}")
        found = [entry for run in runs for entry in self._entries(run)]
        if not found:
            what = f"{accession} has no FASTQ files in ENA"
            raise NotFound(what, "it may be too new, or only its submitted files are there; ask for another run")
        return found

    def _report(self, accession: str) -> _Runs:
        """Return what ENA says of each run, empty for an accession that it does not know."""
        url = f"{self._base}/ena/portal/api/filereport"
        asked = {"accession": accession, "result": "read_run", "fields": _FIELDS, "format": "json", "limit": "0"}
        try:
            answer = self._web.request("GET", url, fields=asked)
        except urllib3.exceptions.HTTPError as error:
            silent = isinstance(getattr(error, "reason", error), urllib3.exceptions.ReadTimeoutError)
            kind = base.Stalled if silent else ServerAway
            hint = "try again later; TOKENPOOL_ENA_URL names a mirror"
            raise kind(f"ENA at {self._base} {'says nothing' if silent else 'cannot be reached'}", hint) from error
        if answer.status in (204, 404):
            return []
        text = answer.data.decode("utf-8", "replace")
        if answer.status == 400:
            raise NotFound(f"ENA refuses the accession {accession}: {text[:200].strip()}", _HINT)
        if answer.status != 200:
            raise ServerAway(
                f"ENA at {self._base} answers {answer.status}", "try again later; TOKENPOOL_ENA_URL names a mirror"
            )
        try:
            runs = json.loads(text or "[]")
        except ValueError as error:
            raise ServerAway(f"ENA at {self._base} answers no list of files", "is TOKENPOOL_ENA_URL right?") from error
        return [run for run in runs if isinstance(run, dict)]

    def _entries(self, run: Mapping[str, str]) -> _Entries:
        places, sizes, sums = ((run.get(name) or "").split(";") for name in _FIELDS.split(",")[1:])
        found = []
        for n, place in enumerate(filter(None, places)):
            size = sizes[n] if n < len(sizes) else ""
            digest = sums[n].lower() if n < len(sums) else ""
            url = place if "://" in place else f"{self._scheme}://{quote(place, safe='/:')}"
            found.append(Entry(url, int(size) if size.isdigit() else None, f"md5:{digest}" if digest else "", digest))
        return found


def _parts(url: str) -> tuple[str, str]:
    """Return the accession and the file name of a URL, "" for all files of it."""
    place = re.sub(r"^run\+fastq:?/+", "", url, flags=re.IGNORECASE)
    accession, _, name = place.partition("/")
    if not _ACCESSION.fullmatch(accession.upper()):
        raise BadInput(f"{url} names no accession", _HINT)
    return accession.upper(), name
