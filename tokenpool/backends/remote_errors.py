"""How errors travel between a server and its clients: a code, what happened, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import (
    AnswerLost,
    BadInput,
    Conflict,
    NotFound,
    NotPermitted,
    OutOfSpace,
    ServerAway,
    TokenpoolError,
)

#: Each error with its code and its HTTP status; the first that fits is the one.
KINDS: tuple[tuple[type[TokenpoolError], str, int], ...] = (
    (AnswerLost, "answer_lost", 503),
    (ServerAway, "pool_away", 503),
    (BadInput, "bad_input", 400),
    (NotFound, "not_found", 404),
    (Conflict, "conflict", 409),
    (NotPermitted, "not_permitted", 403),
    (OutOfSpace, "out_of_space", 507),
    (TokenpoolError, "failed", 422),
)
_BY_CODE = {code: kind for kind, code, _ in KINDS}
_BY_STATUS = {
    400: BadInput,
    401: NotPermitted,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    429: NotPermitted,
    507: OutOfSpace,
}


def status_of(error: TokenpoolError) -> int:
    """Return the HTTP status that an error is answered with."""
    return next(status for kind, _, status in KINDS if isinstance(error, kind))


def told(error: TokenpoolError) -> dict[str, Any]:
    """Return an error as it is sent.

    >>> told(BadInput("no", "yes"))
    {'error': {'code': 'bad_input', 'message': 'no', 'hint': 'yes'}}
    """
    code = next(code for kind, code, _ in KINDS if isinstance(error, kind))
    return {"error": {"code": code, "message": error.message, "hint": error.hint}}


def error_of(answer: Any, status: int = 0) -> TokenpoolError | None:
    """Return the error that an answer tells of, None where it is no error of ours.

    >>> error_of({"error": {"code": "conflict", "message": "it changed"}})
    Conflict('it changed')
    """
    entry = answer.get("error") if isinstance(answer, Mapping) else None
    if not isinstance(entry, Mapping) or not isinstance(entry.get("message"), str):
        return None
    kind = _BY_CODE.get(str(entry.get("code"))) or _BY_STATUS.get(status, TokenpoolError)
    return kind(str(entry["message"]), str(entry.get("hint") or ""))
