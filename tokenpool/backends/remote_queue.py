"""Reads the queue of a pool behind a server: what fits this worker is known here only, so it is asked in turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..errors import ServerAway
from .base import Json, Want, Window
from .remote_errors import error_of

if TYPE_CHECKING:
    from .remote import RemoteBackend

#: Documents looked through at most to find those that fit, and in one turn at first.
SEARCH, LOOK = 5000, 500
#: Seconds that a held question is waited for beyond the time that the server was given.
SPARE = 10.0


def candidates(backend: RemoteBackend, want: Want, limit: int, start: float | None) -> Window:
    """Return up to `limit` documents that could be claimed and fit; see `Queue.candidates`.

    Nearly always the first window fits whole. Else the server shows what stands in the queue, without counting it
    against the room of its batch; then it is told which of it fits, and makes the window of that.
    """
    asked = _asked(want, limit, start)
    window = _window(backend, asked)
    misfits = [doc["_id"] for doc in window.tokens if not want.fits(doc)]
    if not misfits:
        return window
    fitting: list[str] = []
    number = LOOK
    while len(misfits) + len(fitting) < SEARCH:
        told = backend.post("candidates", {**asked, "look": number, "skip": [*misfits, *fitting]})
        before = len(fitting)
        for doc in told["seen"]:
            (fitting if want.fits(doc) else misfits).append(doc["_id"])
        last = not told["more"] or not told["seen"]
        # A batch with little room may keep most of what fits out of the window: then it is looked further.
        if len(fitting) > before and (last or len(fitting) >= limit):
            window = _window(backend, {**asked, "only": fitting})
            if last or len(window.tokens) >= limit:
                return window
        if last:
            break
        number = min(2 * number, SEARCH)
    return _window(backend, {**asked, "only": fitting}) if fitting else Window()


def _asked(want: Want, limit: int, start: float | None) -> Json:
    return {
        "batches": list(want.batches),
        "tags": dict(want.tags),
        "design": want.design,
        "view": want.view,
        "view_params": dict(want.view_params),
        "limit": limit,
        "start": start,
    }


def _window(backend: RemoteBackend, asked: Json) -> Window:
    told = backend.post("candidates", asked)
    return Window(told["tokens"], told["rooms"])


def scan(backend: RemoteBackend, path: str) -> Iterator[Json]:
    """Yield the documents of a scan; raises ServerAway where it broke off."""
    whole = False
    for line in backend.lines(path):
        if isinstance(line, dict):
            yield line
        elif line == ["end"]:
            whole = True  # read on: a connection whose answer was read to its end is used again
        else:
            raise _broken(line)
    if not whole:
        raise ServerAway(f"the scan of {backend.url} broke off", "try again")


def _broken(line: Any) -> Exception:
    error = error_of(line[1]) if isinstance(line, list) and len(line) == 2 else None
    return error or ServerAway("the scan answered something else", "try again")
