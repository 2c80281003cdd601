"""The errors a user can meet: each says what happened and what to do.

::

    TokenpoolError                  exit 1
    ├── BadInput      (ValueError)  exit 2   a file, option, URL or document that makes no sense
    ├── NotFound      (LookupError) exit 4   no such token, database, view, file
    │   └── PoolEmpty (IndexError)           nothing to claim: picas' end of work
    ├── Conflict                             the document changed since it was read
    │   └── ClaimFailed (OSError)            picas' "Unable to claim task."
    ├── NotPermitted  (PermissionError) 77   wrong password, read-only disk, missing role
    ├── OutOfSpace    (OSError)     exit 75  the disk or the quota is full
    ├── ServerAway    (ConnectionError) 69   no answer, or only 5xx, for as long as was allowed
    │   └── AnswerLost                       a write was sent and its answer never came: read back
    └── TokenTimeout  (TimeoutError)         a token ran longer than it may

Errors that meet picas scripts also inherit python-couchdb's exception of the same meaning
(`tokenpool.backends.couch_errors`).
"""

from __future__ import annotations


class TokenpoolError(Exception):
    """Base of all; ``str()`` is the "what", `hint` the "what to do"."""

    exit_code = 1

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class BadInput(TokenpoolError, ValueError):
    """Something the user wrote makes no sense; nothing was changed."""

    exit_code = 2


class NotFound(TokenpoolError, LookupError):
    """The named token, database, view or file is not there."""

    exit_code = 4


class PoolEmpty(NotFound, IndexError):
    """No token waits; ends a picas iterator."""


class Conflict(TokenpoolError):
    """The document was changed by somebody since it was read."""


class ClaimFailed(Conflict, OSError):
    """Tokens wait, yet others were faster every time."""


class NotPermitted(TokenpoolError, PermissionError):
    """Who we are may not do this."""

    exit_code = 77


class OutOfSpace(TokenpoolError, OSError):
    """The disk, or the quota, is full."""

    exit_code = 75


class ServerAway(TokenpoolError, ConnectionError):
    """The pool cannot be reached."""

    exit_code = 69


class AnswerLost(ServerAway):
    """A write may or may not have been applied; the caller must read back before it acts."""


class TokenTimeout(TokenpoolError, TimeoutError):
    """A token ran longer than its limit."""
