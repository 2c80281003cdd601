"""A person, or a machine, and what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ...errors import BadInput


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    #: Look at everything.
    VIEWER = 1
    #: Push tokens; retry, edit and cancel their own.
    SUBMITTER = 2
    #: A machine that works: reads and writes documents as a backend does.
    WORKER = 3
    #: Everything: change and delete all tokens, steer workers and batches.
    OPERATOR = 4

    @property
    def word(self) -> str:
        """The role as it is written in files and options."""
        return self.name.lower()


#: All roles as they are written.
ROLES = tuple(role.word for role in Role)


def role_of(word: str) -> Role:
    """Return the role that a word names; raises BadInput."""
    try:
        return Role[word.upper()]
    except KeyError:
        raise BadInput(f"there is no role {word!r}", f"one of {', '.join(ROLES)}") from None


@dataclass(frozen=True)
class Person:
    """Who sent a request."""

    name: str
    role: Role
    #: They came with an API token or a password in each request, not with a cookie: nothing can be forged for them.
    direct: bool = False

    def may(self, role: Role) -> bool:
        """Tell whether this person may do what `role` may."""
        return self.role >= role

    def may_change(self, doc: Mapping[str, Any]) -> bool:
        """Tell whether this person may change a token: operators every one, submitters their own."""
        own = self.may(Role.SUBMITTER) and doc.get("submitter") == self.name
        return own or self.may(Role.OPERATOR)


@dataclass(frozen=True)
class Known:
    """What a right password tells of somebody: their role, and a mark that changes when they should log in anew."""

    role: str
    stamp: str


#: Who reaches a server that asks nobody to log in.
LOCAL = Person("local", Role.OPERATOR)
