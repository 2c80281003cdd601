"""A line to nova that does harm exactly when a machine has been made: it is cut, or who asked for the machine is killed."""

from __future__ import annotations

import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3


class CutLine(ThreadingHTTPServer):
    """The line; a context manager. `victim`: the process to kill; else only the answer is lost. None of it twice."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.target, self.victim, self.armed, self.made = target, 0, False, 0
        self.http = urllib3.PoolManager(retries=False, timeout=60)
        self._thread = threading.Thread(target=self.serve_forever, name="line")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> CutLine:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        self.http.clear()


class _Line(BaseHTTPRequestHandler):
    server: CutLine

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        answer = self.server.http.request(self.command, self.server.target + self.path, body=body, headers=headers)
        if self.command == "POST" and self.path.endswith("/servers") and answer.status < 300:
            self.server.made += 1
            if self.server.armed:
                self.server.armed = False
                if self.server.victim:
                    os.kill(self.server.victim, signal.SIGKILL)
                self.close_connection = True
                return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.data)))
        self.end_headers()
        self.wfile.write(answer.data)

    do_GET = do_POST = do_PUT = do_DELETE = _pass

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
