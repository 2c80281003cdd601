"""The file of a server's people: passwords as hashes, roles, and API tokens; changed by `tokenpool access`."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ...errors import BadInput, NotFound, NotPermitted
from .passwords import hash_password, verify, waste_time
from .people import role_of
from .private_files import locked, write_private

SCHEMA = 1
#: What every API token begins with, so that a leaked one is found by those who search for such.
PREFIX = "tp_"


@dataclass(frozen=True)
class User:
    """Somebody who logs in with a password."""

    name: str
    role: str
    password: str

    @property
    def stamp(self) -> str:
        """Changes with the password: sessions that began with another one are over."""
        return hashlib.sha256(self.password.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ApiToken:
    """A machine's, or a script's, way in; only the hash of its secret is kept."""

    id: str
    name: str
    role: str
    secret: str
    created: float
    #: Seconds since 1970; None: it holds until it is revoked.
    expires: float | None = None

    def expired(self, now: float) -> bool:
        """Tell whether it holds no more."""
        return self.expires is not None and now >= self.expires


@dataclass(frozen=True)
class People:
    """All that the file says."""

    users: Mapping[str, User] = field(default_factory=dict)
    tokens: Mapping[str, ApiToken] = field(default_factory=dict)


class Roster:
    """The file, read again whenever it changed, so that a running server obeys at once."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path, self._clock = path, clock
        self._lock = threading.Lock()
        self._mark: tuple[int, int, int] | None = None
        self._people = People()

    # --- look ------------------------------------------------------------------------------------------------------

    def people(self) -> People:
        """Return all that is known now; raises BadInput for a file that cannot be read."""
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return People()
        mark = (there.st_ino, there.st_mtime_ns, there.st_size)
        with self._lock:
            if mark != self._mark:
                self._people, self._mark = _read(self.path), mark
            return self._people

    def check(self, name: str, password: str) -> User | None:
        """Return who has this name and password; takes the same time whether the name is known or not."""
        user = self.people().users.get(name)
        if user is None:
            waste_time(password)
            return None
        return user if verify(password, user.password) else None

    def bearer(self, text: str) -> ApiToken | None:
        """Return the API token that a text spells, unless it is unknown, revoked, or expired."""
        identity, _, secret = text.removeprefix(PREFIX).partition("_") if text.startswith(PREFIX) else ("", "", "")
        known = self.people().tokens.get(identity)
        if not hmac.compare_digest(known.secret if known else _digest(""), _digest(secret)):
            return None
        return None if known is None or known.expired(self._clock()) else known

    # --- change ----------------------------------------------------------------------------------------------------

    def add(self, name: str, role: str, password: str) -> None:
        """Add somebody; raises BadInput where the name is taken or no name."""
        if not name or len(name) > 100 or any(c in name for c in ":\n\r\t\0"):
            raise BadInput(f"{name!r} is no name", "letters, digits, and the likes of - . @")
        user = User(name, role_of(role).word, hash_password(_sound(password)))

        def added(people: People) -> People:
            if name in people.users:
                raise BadInput(f"{name!r} is there already", f"tokenpool access passwd {name}, or access role {name}")
            return replace(people, users={**people.users, name: user})

        self._change(added)

    def set_password(self, name: str, password: str) -> None:
        """Give somebody another password; their sessions end."""
        kept = hash_password(_sound(password))
        self._change(lambda people: _with_user(people, replace(_user(people, name), password=kept)))

    def set_role(self, name: str, role: str) -> None:
        """Let somebody do more, or less; at once."""
        word = role_of(role).word
        self._change(lambda people: _with_user(people, replace(_user(people, name), role=word)))

    def remove(self, name: str) -> None:
        """Forget somebody, and what they are logged in with."""

        def removed(people: People) -> People:
            _user(people, name)
            return replace(people, users={other: user for other, user in people.users.items() if other != name})

        self._change(removed)

    def new_token(self, name: str, role: str, lasts: float | None = None) -> str:
        """Make an API token and return it: it can be read now and never again."""
        identity, secret, now = secrets.token_hex(4), secrets.token_urlsafe(32), self._clock()
        ends = None if lasts is None else now + lasts
        token = ApiToken(identity, name, role_of(role).word, _digest(secret), now, ends)
        self._change(lambda people: replace(people, tokens={**people.tokens, identity: token}))
        return f"{PREFIX}{identity}_{secret}"

    def revoke(self, identity: str) -> ApiToken:
        """Let an API token hold no more; raises NotFound."""
        gone: list[ApiToken] = []

        def revoked(people: People) -> People:
            if identity not in people.tokens:
                raise NotFound(f"there is no API token {identity!r}", "tokenpool access list")
            gone.append(people.tokens[identity])
            return replace(people, tokens={key: token for key, token in people.tokens.items() if key != identity})

        self._change(revoked)
        return gone[0]

    def _change(self, change: Callable[[People], People]) -> None:
        with locked(self.path):
            people = change(self.people())
            write_private(self.path, _text(people))


def _user(people: People, name: str) -> User:
    if name not in people.users:
        raise NotFound(f"nobody has the name {name!r}", "tokenpool access list")
    return people.users[name]


def _with_user(people: People, user: User) -> People:
    return replace(people, users={**people.users, user.name: user})


def _sound(password: str) -> str:
    if not 8 <= len(password) <= 1024:
        raise BadInput("the password is too short or too long", "8 letters or more, 1024 at most")
    return password


def _digest(secret: str) -> str:
    # A fast hash is enough: the secret is random, nobody can guess it however fast they try.
    return hashlib.sha256(secret.encode()).hexdigest()


# --- the file ----------------------------------------------------------------------------------------------------------


def _text(people: People) -> str:
    users = {name: {"role": user.role, "password": user.password} for name, user in sorted(people.users.items())}
    tokens = {key: {k: v for k, v in asdict(token).items() if k != "id"} for key, token in people.tokens.items()}
    return json.dumps({"schema": SCHEMA, "users": users, "tokens": tokens}, indent=1, ensure_ascii=False) + "\n"


def _read(path: Path) -> People:
    try:
        kept: Any = json.loads(path.read_text("utf-8"))
        users = {name: User(name=name, **fields) for name, fields in kept["users"].items()}
        tokens = {key: ApiToken(id=key, **fields) for key, fields in kept.get("tokens", {}).items()}
        for word in (*(user.role for user in users.values()), *(token.role for token in tokens.values())):
            role_of(word)
    except PermissionError as error:
        raise NotPermitted(f"{path} may not be read", "check its permissions: ls -l") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{path} is no file of people: {error}", "make one: tokenpool access add NAME") from error
    return People(users, tokens)
