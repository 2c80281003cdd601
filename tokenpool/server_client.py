"""A script's view of a tokenpool server, with PYTQ's habits: it waits while the server is away, and times are times."""

from __future__ import annotations

import logging
import math
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

from . import chance
from .backends.couchdb import encode
from .backends.remote_transport import API, ServerTransport, parse_url, query
from .errors import AnswerLost, BadInput, NotFound, ServerAway
from .pushes import make_token
from .pytq import token_of
from .server_objects import Batch, Execution, Record, Task, Worker
from .server_queue import SendQueue

log = logging.getLogger(__name__)

Json = dict[str, Any]

#: Where a server listens, if nobody says otherwise.
PORT = 8080
#: Seconds between two tries to reach a server that is away, at first and at most.
FIRST_PAUSE, LAST_PAUSE = 0.5, 15.0
#: PYTQ's words for states, and ours.
STATES = {"pending": "todo", "paused": "held", "waiting": "held", "running": "locked", "accepted": "locked",
          "assigned": "locked", "succeeded": "done", "failed": "error"}  # fmt: skip
_JSON = {"Content-Type": "application/json"}


class Server:
    """``Server("127.0.0.1")``, ``Server("https://host/prefix")``; a password without a user is an API token.

    Tasks are sent in the background: `task_create` returns at once, and what is asked of a task waits until it is there.
    Nothing fails because the server is away: it is waited for, as long as `get_timeout` says (None: for ever).
    """

    def __init__(
        self,
        url: str = "127.0.0.1",
        password: str | None = None,
        get_timeout: float | None = None,
        put_timeout: float | None = None,
        style: str = "object",
    ) -> None:
        if style not in ("object", "dict"):
            raise BadInput(f"there is no style {style!r}", "object or dict")
        address, options = parse_url(pool_url(url), _password(url) if password is None else password)
        self.url = address
        self._transport = ServerTransport(address + API, options)
        self._get_timeout, self._put_timeout, self._style = get_timeout, put_timeout, style
        self._queue = SendQueue(self._send)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until every task was sent, and let go of the connection. Raises BadInput for the first one refused."""
        try:
            self.flush()
        finally:
            self._queue.close()
            self._transport.close()

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every task was sent; raises BadInput for the first that was refused, TimeoutError."""
        self._queue.flush(timeout)

    # --- tasks -----------------------------------------------------------------------------------------------------

    def task_create(
        self,
        command: str,
        name: str = "",
        batch: str = "",
        input: str | Iterable[str] = (),
        output: str = "",
        resource: str | Iterable[str] = (),
        container: str = "",
        container_options: str = "",
        requirements: Iterable[Any] = (),
        retry: int = 0,
        run_timeout: float | None = None,
        **fields: Any,
    ) -> Any:
        """Create a task and return it at once; `fields` are those of a token, for all that PYTQ has no words for."""
        told = _launched(command, input, output, resource, container, container_options)
        given = {"name": name, "batch": batch, "max_retries": retry, "timeout": run_timeout}
        parents = [each if isinstance(each, str) else str(each["task_id"]) for each in requirements]
        told.update({name: value for name, value in given.items() if value}, **fields)
        if parents:
            told["depends_on"] = parents
        # Checked here, where the mistake was made; the id is ours, so that nothing is created twice.
        doc = make_token(told, {})
        self._queue.put({**told, "_id": doc["_id"]})
        return self._lazy(doc["_id"])

    def tasks(self, status: str = "", batch: str | None = None, **filters: str) -> list[Any]:
        """Return the tasks, of one status (PYTQ's word or ours) and batch if given; `filters`: text, host, tag, prefix."""
        return [self._styled(Task, doc) for doc in self.tokens(status, batch, **filters)]

    def tokens(self, status: str = "", batch: str | None = None, **filters: str) -> Iterator[Json]:
        """Yield the tokens behind the tasks, a page at a time."""
        after: str | None = None
        state = STATES.get(status, status) or None
        while True:
            path = query("/tokens", state=state, batch=batch, limit=500, after=after, **filters)
            page = self.get(path)
            yield from page["tokens"]
            if not page["more"]:
                return
            after = page["next"]

    def task_get(self, task_id: str) -> Any:
        """Return a task as it is now; one that is still being sent is waited for. Raises NotFound."""
        return self._styled(Task, self._token(task_id))

    def task_update(self, task_id: str, **fields: Any) -> Any:
        """Change fields of a task that does not run; None removes one."""
        self._queue.wait_for(task_id)
        return self._styled(Task, self._write("PATCH", f"/tokens/{_quoted(task_id)}", fields))

    def task_cancel(self, task_id: str) -> int:
        """End a task that waits, ask the worker of one that runs to stop it; return whether that made sense (0, 1)."""
        return self._change("cancel", [task_id])

    def task_relaunch(self, task_id: str) -> int:
        """Put a task that failed back into the queue; return whether it had failed (0, 1)."""
        return self._change("retry", [task_id])

    def task_delete(self, task_id: str) -> None:
        """Delete a task that does not run."""
        self._queue.wait_for(task_id)
        try:
            self._write("DELETE", f"/tokens/{_quoted(task_id)}", None)
        except NotFound:
            log.debug("%s is gone already", task_id)

    def task_output(self, task_id: str, attempt: int = 0) -> str:
        """Return what a task wrote to standard output, "" for nothing; in its last attempt, or in attempt N."""
        return self._log(task_id, "out", attempt)

    def task_error(self, task_id: str, attempt: int = 0) -> str:
        """Return what a task wrote to standard error."""
        return self._log(task_id, "err", attempt)

    def executions(self, task_id: str) -> list[Any]:
        """Return the attempts of a task, the oldest first."""
        attempts = self._token(task_id).get("attempts") or []
        return [
            self._styled(Execution, {**each, "task_id": task_id, "attempt": n}) for n, each in enumerate(attempts, 1)
        ]

    def join(
        self,
        tasks: Iterable[Any],
        retry: int = 0,
        timeout: float | None = None,
        progress: Callable[[int], None] = lambda left: None,
    ) -> list[Any]:
        """Wait until all these tasks have ended, those that fail put back up to `retry` times; return them.

        Raises TimeoutError.
        """
        ids = [each if isinstance(each, str) else str(each["task_id"]) for each in tasks]
        self.flush()
        ends = math.inf if timeout is None else time.monotonic() + timeout
        left, tries, pause = set(ids), dict.fromkeys(ids, 0), 0.2
        while True:
            for task_id in [each for each in ids if each in left]:
                state = self._token(task_id)["state"]
                if state == "error" and tries[task_id] < retry:
                    tries[task_id] += self.task_relaunch(task_id)
                elif state in ("done", "error", "invalid"):
                    left.discard(task_id)
            progress(len(left))
            if not left:
                return [self.task_get(task_id) for task_id in ids]
            if time.monotonic() + pause > ends:
                raise TimeoutError(f"{len(left)} tasks still wait or run after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.3, 10.0)

    # --- workers, batches ------------------------------------------------------------------------------------------

    def workers(self) -> list[Any]:
        """Return the workers."""
        return [self._styled(Worker, each) for each in self.get("/workers")["workers"]]

    def worker_update(self, worker_id: str, concurrency: int | None = None, **orders: Any) -> Any:
        """Change how many tasks a worker runs at once; `orders`: prefetch, drain, stop."""
        told = {**orders, **({} if concurrency is None else {"slots": concurrency})}
        return self._styled(Worker, self._write("PATCH", f"/workers/{_quoted(worker_id)}", told))

    def batches(self) -> list[Any]:
        """Return the batches with their rules and counts."""
        return [self._styled(Batch, each) for each in self.get("/batches")["batches"]]

    def batch_stop(self, name: str) -> Any:
        """Start no more tasks of a batch."""
        return self._styled(Batch, self._write("PATCH", f"/batches/{_quoted(name)}", {"paused": True}))

    def batch_go(self, name: str) -> Any:
        """Let the tasks of a batch run."""
        return self._styled(Batch, self._write("PATCH", f"/batches/{_quoted(name)}", {"paused": False}))

    def status(self) -> Json:
        """Return the counts of the pool as `tokenpool status --json` prints them."""
        found: Json = self.get("/status")
        return found

    # --- requests --------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """Ask the JSON API for something, below ``/api/v1``; waits while the server is away."""
        return _patient(lambda: self._transport.expect(self._transport.request("GET", path)), self._get_timeout)

    def _token(self, task_id: str) -> Json:
        self._queue.wait_for(task_id)
        found: Json = self.get(f"/tokens/{_quoted(task_id)}")
        return found

    def _log(self, task_id: str, stream: str, attempt: int) -> str:
        self._queue.wait_for(task_id)
        path = query(f"/tokens/{_quoted(task_id)}/logs/{stream}", attempt=attempt or None)

        def ask() -> str:
            answer = self._transport.request("GET", path)
            if answer.status == 404 and not attempt:
                self._transport.expect(self._transport.request("GET", f"/tokens/{_quoted(task_id)}"))
                return ""
            if answer.status >= 300:
                self._transport.expect(answer)
            return answer.data.decode("utf-8", "replace")

        return str(_patient(ask, self._get_timeout))

    def _change(self, verb: str, ids: list[str]) -> int:
        """Apply a verb to one task. It is sent again where an answer was lost only if it had not been applied."""
        before = self._token(ids[0])
        order = {"verb": verb, "selection": ids}

        def act() -> int:
            try:
                told = self._transport.expect(self._transport.request("POST", "/tokens/change", encode(order), _JSON))
            except AnswerLost:
                if self._token(ids[0])["_rev"] != before["_rev"]:
                    return 1
                raise
            return int(told["changed"])

        return int(_patient(act, self._put_timeout))

    def _write(self, method: str, path: str, body: Json | None) -> Any:
        """Send what does no harm when it is sent twice."""
        data = None if body is None else encode(body)
        return _patient(
            lambda: self._transport.expect(self._transport.request(method, path, data, _JSON)), self._put_timeout
        )

    def _send(self, tokens: list[Json]) -> list[str]:
        """Push tokens, however often it takes; return why each was refused, "" where it was not."""
        body = encode(tokens)
        sent = 0

        def act() -> list[str]:
            nonlocal sent
            sent += 1
            told = self._transport.expect(self._transport.request("POST", "/tokens", body, _JSON))
            reasons = [str(each.get("refused") or "") for each in told["tokens"]]
            # What an earlier try had saved before its answer was lost is there now.
            return ["" if sent > 1 and "is there already" in why else why for why in reasons]

        found: list[str] = _patient(act, None)
        return found

    # --- what is returned ------------------------------------------------------------------------------------------

    def _lazy(self, task_id: str) -> Any:
        def fetch() -> Json:
            return self._token(task_id)

        return Task({"_id": task_id}, fetch)

    def _styled(self, kind: type[Record], doc: Json) -> Any:
        record = kind(doc)
        return record if self._style == "object" else record.as_dict()


def _patient(ask: Callable[[], Any], timeout: float | None) -> Any:
    """Ask until there is an answer; raises ServerAway where the server was away for so long."""
    ends, pause, told = time.monotonic() + (math.inf if timeout is None else timeout), FIRST_PAUSE, False
    while True:
        try:
            return ask()
        except ServerAway as error:
            if time.monotonic() + pause > ends:
                raise
            if not told:
                log.warning("the server is away, trying again: %s", error)
            told = True
            time.sleep(chance.uniform(pause / 2, pause))
            pause = min(2 * pause, LAST_PAUSE)


def _launched(
    command: str,
    input: str | Iterable[str],
    output: str,
    resource: str | Iterable[str],
    container: str,
    container_options: str,
) -> Json:
    """Return the fields of a token for what `pytq-launch` is told by options."""
    words = ["pytq-launch"]
    for option, value in (("-d", container), ("-O", container_options), ("-o", output)):
        words += [option, value] if value else []
    for option, several in (("-i", input), ("-r", resource)):
        for url in [several] if isinstance(several, str) else several:
            words += [option, url] if url else []
    if not container:
        return {**{k: v for k, v in token_of([*words, "true"]).items() if k != "input"}, "input": command}
    return token_of([*words, "--", *shlex.split(command)])


def pool_url(url: str) -> str:
    """Return the URL of a server as a pool's: a bare host listens at port 8080.

    >>> pool_url("127.0.0.1"), pool_url("https://host/lab")
    ('tokenpool+http://127.0.0.1:8080', 'tokenpool+https://host/lab')
    """
    if url.startswith("tokenpool+"):
        return url
    if "://" in url:
        return f"tokenpool+{url}"
    host, slash, rest = url.partition("/")
    name = host.rpartition("@")[2]
    port = "" if ":" in name.rpartition("]")[2] else f":{PORT}"
    return f"tokenpool+http://{host}{port}{slash}{rest}"


def _password(url: str) -> str | None:
    from .config import load

    return load(pool=pool_url(url)).password()


def _quoted(text: str) -> str:
    return quote(text, safe="")
