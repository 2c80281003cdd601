"""Who knows the people of a server: its own file, or the CouchDB that has the pool."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ...backends.base import Backend
from ..options import WebOptions
from .people import Known
from .roster import Roster


class Keeper(ABC):
    """Checks passwords, and says later what somebody may do; both may block."""

    #: `role` answers without asking another computer.
    quick = True

    @abstractmethod
    def check(self, name: str, password: str) -> Known | None:
        """Return what somebody is; None where name or password is wrong. Raises ServerAway."""

    @abstractmethod
    def role(self, name: str, known: Known) -> str | None:
        """Return the role of somebody who was checked before; None where they have to log in again."""


class FileKeeper(Keeper):
    """People of a file."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster

    def check(self, name: str, password: str) -> Known | None:
        user = self._roster.check(name, password)
        return None if user is None else Known(user.role, user.stamp)

    def role(self, name: str, known: Known) -> str | None:
        user = self._roster.people().users.get(name)
        return None if user is None or user.stamp != known.stamp else user.role


def keeper_of(options: WebOptions, backend: Backend, roster: Roster | None) -> Keeper | None:
    """Return who knows the people, None where nobody has to log in; raises BadInput."""
    if options.couchdb_users:
        from .couchdb_people import CouchKeeper

        return CouchKeeper(backend)
    return None if roster is None else FileKeeper(roster)
