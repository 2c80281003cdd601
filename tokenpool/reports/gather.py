"""Reads the tokens of a pool into facts, and what the failed ones said last."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

from .. import changes
from ..backends.base import Backend
from ..errors import TokenpoolError
from ..selectors import Selector
from .facts import Facts

log = logging.getLogger(__name__)

#: A longer standard error is not read to its end; of a shorter one so many bytes and lines are shown.
LONGEST_LOG, SHOWN_BYTES, SHOWN_LINES = 2_000_000, 2000, 12
#: Kinds of failures of which the standard error of one token is shown.
MOST_LOGS = 10


def gather(backend: Backend, selector: Selector, now: float, progress: Callable[[int], None] = lambda n: None) -> Facts:
    """Return the facts of the chosen tokens; `progress` is called with each one read."""
    facts = Facts(now)
    for doc in changes.select(backend, selector):
        facts.add(doc)
        progress(1)
    for failure in facts.failures.largest[:MOST_LOGS]:
        if failure.examples and failure.log:
            failure.said = last_words(backend, failure.examples[0], failure.log)
    return facts


def last_words(backend: Backend, token: str, name: str) -> str:
    """Return the end of a log; "" where there is none, or where it is too long to be read for this."""
    doc = backend.get_many([token])[0] or {}
    stub = (doc.get("_attachments") or {}).get(name)
    length = stub.get("length") if isinstance(stub, dict) else None
    if not isinstance(length, int) or not 0 < length <= LONGEST_LOG:
        return ""
    end: deque[bytes] = deque(maxlen=2)
    try:
        for piece in backend.get_attachment(token, name):
            end.append(piece)
    except TokenpoolError as error:
        log.info("the log %s of token %s could not be read: %s", name, token, error)
        return ""
    shown = b"".join(end)[-SHOWN_BYTES:].decode("utf-8", "replace")
    return "\n".join(shown.strip("\n").splitlines()[-SHOWN_LINES:])
