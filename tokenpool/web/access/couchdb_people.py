"""People of the CouchDB that has the pool: its passwords, and roles made of its roles and the database's members."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from ...backends.base import Backend, Json
from ...backends.couchdb import CouchDBBackend, parse_url
from ...backends.transport import Transport
from ...errors import BadInput, ServerAway
from ..later import LaterBackend
from .keepers import Keeper
from .people import Known, Role

#: Seconds after which it is asked again what somebody may do.
ASKED_AGAIN = 60.0
#: Roles that a CouchDB admin may give to a user, beside what being a member of the database gives.
GIVEN = {f"tokenpool-{role.word}": role for role in Role}


class CouchKeeper(Keeper):
    """Asks the server of the pool."""

    quick = False

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.monotonic) -> None:
        server, self._database, options = _place_of(backend)
        # Without the pool's own password: who logs in is asked about with theirs.
        self._transport = Transport(server, replace(options, username="", password=""))
        self._pool = Transport(server, options)
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: dict[tuple[str, str], tuple[float, str | None]] = {}

    def check(self, name: str, password: str) -> Known | None:
        if not name or not password:
            return None
        body = json.dumps({"name": name, "password": password}).encode()
        answer = self._transport.request("POST", "/_session", body, {"Content-Type": "application/json"}, reads=True)
        cookie = answer.headers.get("Set-Cookie", "").partition(";")[0]
        if answer.status != 200 or "AuthSession=" not in cookie:
            return None
        told = self._transport.request("GET", "/_session", headers={"Cookie": cookie}).json().get("userCtx", {})
        if told.get("name") != name:
            return None
        seen = self._transport.request(
            "GET", f"/{quote(self._database, safe='')}/_security", headers={"Cookie": cookie}
        )
        role = role_of_user(name, told.get("roles", ()), seen.json() if seen.status == 200 else None)
        return None if role is None else Known(role.word, self._stamp(self._user(name)))

    def role(self, name: str, known: Known) -> str | None:
        if not known.stamp:
            return known.role
        with self._lock:
            when, word = self._asked.get((name, known.stamp), (-ASKED_AGAIN, None))
        if self._clock() - when < ASKED_AGAIN:
            return word
        try:
            word = self._role_now(name, known)
        except ServerAway:
            return known.role
        with self._lock:
            if len(self._asked) > 1000:
                self._asked.clear()
            self._asked[name, known.stamp] = self._clock(), word
        return word

    def _role_now(self, name: str, known: Known) -> str | None:
        """Ask with the pool's own password; a session ends with its user, and with the password it began with."""
        user = self._user(name)
        if user is None or self._stamp(user) != known.stamp:
            return None
        seen = self._pool.request("GET", f"/{quote(self._database, safe='')}/_security")
        role = role_of_user(name, user.get("roles", ()), seen.json() if seen.status == 200 else None)
        return None if role is None else role.word

    def _user(self, name: str) -> Json | None:
        """Return what the server keeps of somebody, where the pool's own user may read it."""
        answer = self._pool.request("GET", f"/_users/{quote(f'org.couchdb.user:{name}', safe='')}")
        found: Json | None = answer.json() if answer.status == 200 else None
        return found

    def _stamp(self, user: Mapping[str, Any] | None) -> str:
        """Return what changes with the password; empty where it cannot be seen, or an admin of the server has none."""
        if user is None:
            return ""
        return hashlib.sha256(f"{user.get('salt')} {user.get('derived_key')}".encode()).hexdigest()[:16]


def role_of_user(name: str, roles: Iterable[str], security: Mapping[str, Any] | None) -> Role | None:
    """Return what a user of CouchDB may do with the pool; None: nothing. `security` is None where it may not be read.

    >>> role_of_user("ann", ["_admin"], {})
    <Role.OPERATOR: 4>
    >>> role_of_user("bob", [], {"members": {"names": ["bob"]}})
    <Role.SUBMITTER: 2>
    >>> role_of_user("eve", [], {"members": {"names": ["bob"]}}) is None
    True
    """
    own = set(roles)
    if "_admin" in own:
        return Role.OPERATOR
    if security is None:
        return None
    if _named(name, own, security.get("admins")):
        return Role.OPERATOR
    members = security.get("members") or {}
    everybody = not members.get("names") and not members.get("roles")
    given = [role for word, role in GIVEN.items() if word in own]
    if given:
        return max(given)
    return Role.SUBMITTER if everybody or _named(name, own, members) else None


def _named(name: str, roles: set[str], some: Mapping[str, Any] | None) -> bool:
    some = some or {}
    return name in (some.get("names") or ()) or bool(roles & set(some.get("roles") or ()))


def _place_of(backend: Backend) -> tuple[str, str, Any]:
    """Return server, database and options of the connection; raises BadInput for a pool that is no CouchDB."""
    if isinstance(backend, LaterBackend) and backend.place.startswith("couchdb+"):
        return parse_url(backend.place, backend.password)
    if not isinstance(backend, CouchDBBackend):
        raise BadInput(f"{backend.url} has no users of its own", "name a file of them: --users FILE")
    return backend.transport.url, backend.database, backend.transport.options
