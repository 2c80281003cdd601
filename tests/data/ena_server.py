"""A server on loopback that answers file reports as ENA does, and has the files that it names."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from data_servers import free_ports


class Ena:
    """What the archive holds, and how it behaves."""

    def __init__(self) -> None:
        self.url = ""
        #: The host, port and folder of its files, as a report names them: without a scheme.
        self.place = ""
        self.runs: dict[str, dict[str, bytes]] = {}
        #: Further accessions, by the runs that belong to them.
        self.groups: dict[str, list[str]] = {}
        #: Answers that come before the true one, by their status.
        self.busy: list[int] = []
        self.asked: list[str] = []
        #: What is answered instead of a report.
        self.page = b""
        self.wrong_sums = False

    def report(self, accession: str) -> list[dict[str, str]]:
        """Return the report of all runs of an accession, with several files in one field."""
        return [self._row(run) for run in self.groups.get(accession, [accession]) if run in self.runs]

    def _row(self, run: str) -> dict[str, str]:
        files = self.runs[run]
        sums = [hashlib.md5(b"?" if self.wrong_sums else data).hexdigest() for data in files.values()]
        return {
            "run_accession": run,
            "fastq_ftp": ";".join(f"{self.place}/{run}/{name}" for name in files),
            "fastq_bytes": ";".join(str(len(data)) for data in files.values()),
            "fastq_md5": ";".join(sums),
        }


class _Answers(BaseHTTPRequestHandler):
    server: Any

    def do_GET(self) -> None:
        ena: Ena = self.server.ena
        parts = urlsplit(self.path)
        if parts.path == "/ena/portal/api/filereport":
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            ena.asked.append(asked["accession"])
            assert (asked["result"], asked["format"]) == ("read_run", "json")
            if ena.busy:
                self._send(ena.busy.pop(0), b"too many requests")
                return
            if ena.page:
                self._send(200, ena.page)
                return
            rows = ena.report(asked["accession"])
            self._send(200 if rows else 204, json.dumps(rows).encode() if rows else b"")
            return
        _, _, run, name = unquote(parts.path).split("/")
        data = ena.runs[run][name]
        first, _, last = self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")
        start, end = int(first), min(int(last or len(data)) + 1, len(data))
        self._send(206 if "Range" in self.headers else 200, data[start:end], start, len(data))

    do_HEAD = do_GET

    def _send(self, status: int, data: bytes, start: int = 0, size: int = 0) -> None:
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def ena_server() -> Iterator[Ena]:
    """Run the archive until the body ends; its files come by http."""
    ena = Ena()
    server = ThreadingHTTPServer(("127.0.0.1", free_ports(1)[0]), _Answers)
    server.daemon_threads = True
    server.ena = ena  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    ena.url = f"http://127.0.0.1:{server.server_address[1]}"
    ena.place = f"127.0.0.1:{server.server_address[1]}/vol1"
    try:
        yield ena
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
