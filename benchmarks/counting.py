"""A proxy in front of a server that counts the requests which pass; it changes nothing."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from urllib.parse import urlsplit


class CountingProxy:
    """Context manager: listens on a free port of this machine, passes on to `server` (a URL without a password)."""

    def __init__(self, server: str) -> None:
        split = urlsplit(server)
        self._target = split.hostname or "127.0.0.1", split.port or 5984
        self.requests = 0
        self.address = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        listener = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0, backlog=2000))
        self.address = "{}:{}".format(*listener.sockets[0].getsockname()[:2])
        self._ready.set()
        self._loop.run_forever()
        listener.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        answers = asyncio.ensure_future(_copy(there, writer))
        with suppress(OSError, EOFError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                back.write(head)
                await _body(head, reader, back)
        with suppress(OSError):
            back.close()
        await answers


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.close()


async def _body(head: bytes, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    """Pass on what follows a head: so many bytes, or chunks up to an empty one."""
    lines = head.lower().split(b"\r\n")
    names = dict(line.split(b":", 1) for line in lines[1:] if b":" in line)
    if b"chunked" in names.get(b"transfer-encoding", b""):
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            back.write(line + await reader.readexactly(size + 2))
            await back.drain()
    left = int(names.get(b"content-length", b"0"))
    while left:
        data = await reader.read(min(left, 1 << 16))
        left -= len(data)
        back.write(data)
        await back.drain()
        if not data:
            raise EOFError
