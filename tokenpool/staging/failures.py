"""Says whose fault it is that data could not be moved: the token's, its data's, or this machine's."""

from __future__ import annotations

from ..errors import OutOfSpace, TokenpoolError
from ..storage.base import CredentialsRefused


def class_of(error: TokenpoolError, leaving: bool = False) -> str:
    """Return the failure class of an attempt that ended with such an error; `leaving`: its outputs were on their way.

    >>> class_of(OutOfSpace("the disk is full")), class_of(CredentialsRefused("expired"))
    ('lost', 'system')
    """
    if isinstance(error, OutOfSpace) and not leaving:
        return "lost"  # another machine may have room: it does not count against the token
    if isinstance(error, CredentialsRefused):
        return "system"
    return "staging"
