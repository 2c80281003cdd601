"""The warm processes in which a worker's functions run: started when there is work, replaced when one ends.

All hosts read from one socket, so that whoever is free has the next call without asking the worker. Only as many calls
wait there as keep the hosts busy while the worker does something else; what waits can be taken back until a host has it.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ..children import Child, Finished
from ..links import SupervisorLost
from .ends import Answered, Call
from .host_handle import Host, end_of

log = logging.getLogger(__name__)

#: Starts a host: its arguments, the file of its errors, who is told when it ended.
Start = Callable[[list[str], str, Callable[[Child], None]], Child]

#: Seconds of work that wait in the socket, and the most calls.
AHEAD, AHEAD_MOST = 0.02, 64
#: Seconds between two looks at the hosts while there is more to do anyway: each look costs the worker.
BREATH = 0.003
#: Hosts in a row that may end before they are ready.
FALSE_STARTS = 3
#: Seconds that a host may take to say what it took.
LIMBO = 5.0
#: Tells whoever is free to leave.
QUIT = b'{"quit":1}'
#: Bytes of a request that go through the socket.
DIRECT = 1 << 16
#: Seconds after which a host that has nothing to do is ended, with the memory that it holds.
IDLE = 300.0


class Hosts:
    """Runs calls, so many at a time, first come first served. Safe from several threads."""

    def __init__(self, start: Start, hello: Mapping[str, Any], grace: float) -> None:
        self._grace = grace
        self._start, self._hello = start, json.dumps(hello).encode()
        self._folder = tempfile.mkdtemp(prefix="tokenpool-")
        self._log = os.path.join(self._folder, "hosts.err")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(self._folder, "s"))
        self._listener.listen(64)
        # A socket of whole messages that many may read.
        self._queue, self._shared = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._queue.setblocking(False)
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self._width = 1
        self._backlog: deque[Call] = deque()
        self._out: dict[int, Call] = {}  # in the socket or in a host
        self._hosts: dict[int, Host] = {}
        self._gone: deque[Host] = deque()
        self._over: list[Call] = []  # ended, and not told yet
        self._took: float | None = None  # seconds that calls take, lately
        self._false_starts = 0
        self._quits = 0  # hosts that were told to leave, and have not heard it yet
        self._limbo = 0.0  # when calls that no host has, and that are not in the socket, count as lost (monotonic)
        self._closed = self.broken = False  # broken: by a fault of ours, and of no use any more
        self._thread = threading.Thread(target=self._serve, name="tokenpool-hosts", daemon=True)
        self._thread.start()

    # --- asked by the worker -----------------------------------------------------------------------------------------

    def add(
        self, request: Mapping[str, Any], timeout: float | None, on_end: Callable[[Any], None] | None = None
    ) -> Call:
        """Hand in a call; it goes on at the next `push`."""
        number = next(self._numbers)
        data, path = json.dumps({**request, "n": number}).encode(), ""
        if len(data) > DIRECT:
            path = f"{request['work']}.call"
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
            data = json.dumps({"file": path}).encode()
        call = Call(self, number, data, timeout, on_end, path)
        with self._lock:
            self._backlog.append(call)
        return call

    def push(self) -> None:
        """Let what was handed in go on."""
        with self._lock:
            self._pump()
        self._notify()

    def widen(self, n: int) -> None:
        """Let so many calls run at a time."""
        with self._lock:
            self._width = n

    def kill(self, call: Call, grace: float) -> None:
        """End a call, wherever it is."""
        with self._lock:
            if call.over:
                return
            call.grace = grace
            if call.sent and call.host is None:
                self._recall()
            if call.host is not None:
                self._end_host(call.host, grace)
            elif call in self._backlog:
                self._backlog.remove(call)
                self._take_back(call)
        self._notify()

    def close(self) -> None:
        """End all hosts; nothing runs any more."""
        with self._lock:
            self._closed = True
            for host in self._hosts.values():
                host.child.kill(0)
        self._notify()
        self._thread.join(5.0)
        for each in (self._listener, self._queue, self._shared, self._wake, self._waker):
            each.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    # --- handing out: with the lock ----------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what the hosts can begin now or soon, and start hosts."""
        if self._closed:
            return
        limit = self._width
        live = [host for host in self._hosts.values() if not host.leaving]
        free = sum(1 for host in live if host.call is None) - self._quits
        queued = len(self._out) - sum(1 for host in self._hosts.values() if host.call is not None)
        room = limit - (len(live) - self._quits)
        # What is in the socket counts too: those for whom it was sent may have died.
        while room > 0 and free < queued + len(self._backlog) and self._start_host():
            free, room = free + 1, room - 1
        while self._backlog and queued < free + self._ahead(limit) and self._send(self._backlog[0].request):
            call = self._backlog.popleft()
            call.sent = True
            self._out[call.number] = call
            queued += 1

    def _send(self, message: bytes) -> bool:
        try:
            return bool(self._queue.send(message))
        except BlockingIOError:
            return False

    def _trim(self) -> None:
        """Tell as many hosts to leave as are too many, or have had nothing to do for long; whoever is free does."""
        if self._closed:
            return
        live = [host for host in self._hosts.values() if not host.leaving]
        now = time.monotonic()
        idle = not self._out and any(now - host.idle_since > IDLE for host in live if host.link is not None)
        if len(live) - self._quits > (0 if idle else max(1, self._width)) and self._send(QUIT):
            self._quits += 1

    def _ahead(self, limit: int) -> int:
        if self._took is None or self._took > AHEAD:
            return 0
        return min(AHEAD_MOST, int(limit * AHEAD / max(self._took, 1e-5)))

    def _start_host(self) -> bool:
        host = Host(next(self._numbers))
        self._hosts[host.number] = host
        try:
            words = [os.path.join(self._folder, "s"), str(host.number)]
            host.child = self._start(["serve", *words], self._log, lambda child: self._host_ended(host))
        except SupervisorLost:
            del self._hosts[host.number]
            for call in self._backlog:
                self._settle(call, None)
            self._backlog.clear()
            return False
        return True

    def _recall(self) -> None:
        """Take back what no host has taken: it is as if it had not been sent."""
        found = []
        while True:
            try:
                found.append(self._shared.recv(1 << 17, socket.MSG_DONTWAIT))
            except BlockingIOError:
                break
        by_request = {call.request: call for call in self._out.values()}
        for message in reversed(found):
            if message == QUIT:
                self._quits -= 1
            else:
                self._take_back(by_request[message])

    def _take_back(self, call: Call) -> None:
        self._out.pop(call.number, None)
        call.sent, call.host = False, None
        if call.grace is None:
            self._backlog.appendleft(call)
        else:
            self._settle(call, Answered(-signal.SIGTERM, 0.0, 0.0, 0.0, False, True))

    def _end_host(self, host: Host, grace: float) -> None:
        host.leaving = True
        host.child.kill(grace)

    def _settle(self, call: Call, result: Finished | None) -> None:
        self._out.pop(call.number, None)
        if call.file and os.path.exists(call.file):
            os.unlink(call.file)
        call.settle(result)
        self._over.append(call)

    # --- listening: one thread ---------------------------------------------------------------------------------------

    def _host_ended(self, host: Host) -> None:
        with self._lock:
            self._gone.append(host)
        self._notify()

    def _notify(self) -> None:
        try:
            self._waker.send(b"x")
        except (BlockingIOError, OSError):
            pass  # it has news already, or has left

    def _serve(self) -> None:
        try:
            self._listen()
        except Exception:  # a fault of ours: nobody may wait for ever for it
            log.exception("the processes of functions are given up")
            with self._lock:
                self.broken = self._closed = True
                left = [*self._out.values(), *self._backlog]
                for host in self._hosts.values():
                    host.child.kill(0)
            for call in left:
                call.settle(None)
                call.tell()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ, self._accept)
            selector.register(self._wake, selectors.EVENT_READ, lambda selector: self._wake.recv(4096))
            while not (self._closed and not self._hosts):
                for key, _ in selector.select(self._patience()):
                    with self._lock:
                        key.data(selector)
                with self._lock:
                    while self._gone:
                        self._bury(self._gone.popleft(), selector)
                    self._look_at_clocks()
                    self._pump()
                    self._trim()
                    over, self._over = self._over, []
                    more = len(self._out) > len(self._hosts)
                for call in over:
                    call.tell()
                if more:
                    time.sleep(BREATH)

    def _patience(self) -> float | None:
        with self._lock:
            now = time.monotonic()
            calls = [host.call for host in self._hosts.values() if host.call is not None]
            ends = [call.took + call.timeout for call in calls if call.timeout is not None and call.grace is None]
            if not self._out and not self._quits:
                ends += [host.idle_since + IDLE + 1 for host in self._hosts.values() if host.link and not host.leaving]
            if self._limbo:
                ends.append(self._limbo)
            return max(0.0, min(ends) - now) if ends else None

    def _look_at_clocks(self) -> None:
        now = time.monotonic()
        for host in self._hosts.values():
            call = host.call
            if call is None or call.timeout is None or call.grace is not None:
                continue
            if now >= call.took + call.timeout:
                call.timed_out, call.grace = True, self._grace
                self._end_host(host, call.grace)
        if self._limbo and now >= self._limbo:
            self._limbo = 0.0
            self._recall()
            for call in [call for call in self._out.values() if call.host is None]:
                self._take_back(call)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        link, _ = self._listener.accept()
        try:  # it may have been killed meanwhile
            with link.makefile("rb", buffering=0) as file:
                host = self._hosts[json.loads(file.readline())["host"]]
            socket.send_fds(link, [self._hello], [self._shared.fileno()])
        except (OSError, ValueError, LookupError):
            link.close()
            return
        host.link = link
        self._false_starts = 0
        selector.register(link, selectors.EVENT_READ, lambda selector: self._hear(host, selector))

    def _hear(self, host: Host, selector: selectors.BaseSelector) -> None:
        assert host.link is not None, "only of those that are connected"
        try:
            data = host.link.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            selector.unregister(host.link)
            host.link.close()
            host.link = None
            host.leaving = True
            return
        *lines, host.rest = (host.rest + data).split(b"\n")
        for line in lines:
            self._learn(host, json.loads(line))

    def _learn(self, host: Host, news: Mapping[str, Any]) -> None:
        if "quit" in news:
            host.leaving = True
            self._quits -= 1
            return
        if "took" in news:
            if news["took"] not in self._out:  # it was given up as lost
                self._end_host(host, 0)
                return
            call = self._out[news["took"]]
            host.call, call.host, call.took, call.began = call, host, time.monotonic(), time.time()
            if call.grace is not None:
                self._end_host(host, call.grace)
            return
        if host.call is None:
            return
        call = host.call
        host.call, host.idle_since = None, time.monotonic()
        host.leaving = host.leaving or bool(news.get("leave"))
        seconds = news["seconds"]
        self._took = seconds if self._took is None else 0.9 * self._took + 0.1 * seconds
        code = news.get("exit_code", 0)
        self._settle(
            call, Answered(code, news["cpu"], news["rss"], seconds, False, False, began=call.began, answer=news)
        )

    def _bury(self, host: Host, selector: selectors.BaseSelector) -> None:
        """A host is gone with all that it had started: its call ended with it, or goes to another one."""
        while host.link is not None:
            self._hear(host, selector)
        del self._hosts[host.number]
        call, host.call = host.call, None
        try:
            finished: Finished | None = host.child.result()
        except SupervisorLost:
            finished = None
        if call is None:
            # It may have taken a call and died before it could say so; those that live say so at once.
            self._limbo = time.monotonic() + LIMBO if self._out else 0.0
            self._check_start(host, finished)
        elif finished is None:
            self._settle(call, None)
        elif call.grace is None and finished.killed:  # it was in the way of a kill that was meant for another
            self._take_back(call)
        else:
            seconds = time.monotonic() - call.took
            cpu, rss = finished.cpu_seconds, finished.max_rss_mb
            code, killed = finished.returncode, call.grace is not None
            self._settle(call, Answered(code, cpu, rss, seconds, call.timed_out, killed, began=call.began))

    def _check_start(self, host: Host, finished: Finished | None) -> None:
        """Give up where no host can be started: all that waits would wait for ever."""
        if host.leaving or (finished is not None and finished.killed):
            return
        self._false_starts += 1
        if self._false_starts < FALSE_STARTS:
            return
        self._false_starts = 0
        code = finished.returncode if finished is not None else 126
        said = finished.error if finished is not None and finished.error else end_of(self._log)
        self._recall()
        # One that was killed from outside says nothing of the calls: they run again, uncounted.
        why = (
            Answered(code or 1, 0.0, 0.0, 0.0, False, False, f"no process can be started: {said}")
            if code >= 0
            else None
        )
        for call in self._backlog:
            self._settle(call, why)
        self._backlog.clear()
