"""A server process that serves any number of pools, each below a path of its own; tests start it once."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

START_SECONDS = 60.0


class ServedPools:
    """The process, seen from the tests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._numbers = itertools.count()

    def serve(self, pool_url: str) -> str:
        """Serve a pool, which is made where it is missing; return its URL through the server."""
        name = f"pool{next(self._numbers)}"
        body = json.dumps({"name": name, "url": pool_url}).encode()
        with urllib.request.urlopen(f"{self.address}/_serve", body, START_SECONDS) as answer:
            assert answer.status == 200
        return f"tokenpool+{self.address}/{name}"


@contextlib.contextmanager
def served_pools() -> Iterator[ServedPools]:
    """Run the process."""
    process = subprocess.Popen([sys.executable, str(Path(__file__))], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert select.select([process.stdout], [], [], START_SECONDS)[0], "the server did not start"
        yield ServedPools(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


# --- in the process ----------------------------------------------------------------------------------------------------


class Dispatcher:
    """An application that has one of ours below each path."""

    def __init__(self) -> None:
        self._apps: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await _lifespan(receive, send)
            return
        name = scope["path"].split("/")[1]
        if name != "_serve":
            await self._apps[name](scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        told = json.loads(body)
        self._apps[told["name"]] = _application(told["url"], f"/{told['name']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _application(url: str, path: str) -> Any:
    from tokenpool.backends import open_backend
    from tokenpool.pool import Pool
    from tokenpool.web.app import make_app
    from tokenpool.web.options import WebOptions

    return make_app(Pool(open_backend(url, create=True)), WebOptions(root_path=path))


def main() -> None:
    """Serve until a signal."""
    import uvicorn

    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- until the end
        config = uvicorn.Config(Dispatcher(), log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=1)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
