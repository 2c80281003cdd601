"""What tests of CWL workflows may ask for: the real cwltool, and a GitHub of their own."""

from __future__ import annotations

import functools
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))

from cwl_tools import Remotes, need


@pytest.fixture
def cwltool() -> None:
    """The reference runner, and the JavaScript engine that it evaluates expressions with."""
    need("cwltool", "node")


@pytest.fixture
def remotes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remotes:
    """A place for repositories that stands for GitHub."""
    need("git")
    made = Remotes(tmp_path.with_name(f"{tmp_path.name}-github"))
    made.root.mkdir()
    monkeypatch.setenv("TOKENPOOL_GITHUB", made.file_url)
    return made


@pytest.fixture
def over_http(remotes: Remotes) -> Iterator[str]:
    """The same repositories, and all else that is put there, on a plain web server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(remotes.root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
