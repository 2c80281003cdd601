"""Lets requests in: finds who sent one, and refuses what their role may not do."""

# Annotations are no texts here: the FastAPI of Python 3.9 cannot read those of an object that is called, as Requirement is.
import asyncio
import base64
import binascii
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Optional

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ...backends.base import Backend
from ...errors import BadInput, NotPermitted, ServerAway, TokenpoolError
from ..errors import Forged, NotKnown, answer, path_of
from ..options import WebOptions
from . import forgery
from .attempts import Attempts
from .audit import Trail, address_of
from .keepers import Keeper, keeper_of
from .people import LOCAL, Known, Person, Role, role_of
from .recent import Recent
from .roster import PREFIX, Roster
from .sessions import Session, Sessions

log = logging.getLogger(__name__)

#: What anybody may see: how to get in, what a page looks like, and that the server lives.
PUBLIC = frozenset({"/login", "/healthz", "/readyz", "/favicon.ico"})
ASSETS = "/static/"
#: Bytes of a form's field; files of a form are not kept in memory.
LONGEST_FIELD = 16 << 20

HINT_LOGIN = "log in, or send an API token: Authorization: Bearer tp_…"


@dataclass(frozen=True)
class Visit:
    """Who sent a request, if known, and by which session."""

    person: Optional[Person] = None
    session: Optional[Session] = None


class Access:
    """Everything about people that a server knows."""

    def __init__(self, options: WebOptions, backend: Backend) -> None:
        self.options = options
        self.roster = Roster(options.users) if options.users else None
        self.keeper: Keeper | None = keeper_of(options, backend, self.roster)
        self.sessions = Sessions(
            options.folder / f"sessions-{options.port}.json" if options.folder else None, options.session
        )
        self.attempts = Attempts()
        self.trail = Trail(options.folder)
        #: What forms bring where nobody logs in.
        self.open_csrf = secrets.token_urlsafe(32)
        self.cookie = f"tokenpool_{options.port}"
        self._recent = Recent()
        self._checking: dict[bytes, asyncio.Task[Known]] = {}

    def close(self) -> None:
        """Keep what should survive a restart."""
        self.sessions.save()

    # --- who sent it -----------------------------------------------------------------------------------------------

    async def visit(self, connection: HTTPConnection) -> Visit:
        """Find who sent a request; raises NotKnown for a wrong password or token, TooOften."""
        if self.options.open:
            return Visit(LOCAL)
        kind, _, given = connection.headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return Visit(self._bearer(given.strip()))
        if kind.lower() == "basic":
            return Visit(await self._basic(given.strip(), address_of(connection)))
        return await self._cookie(connection.cookies.get(self.cookie, ""))

    def _bearer(self, text: str) -> Person:
        token = self.roster.bearer(text) if self.roster else None
        if token is None:
            raise NotKnown("this API token is unknown, revoked or expired", "ask an operator: tokenpool access token")
        return Person(token.name, role_of(token.role), direct=True)

    async def _basic(self, text: str, address: str) -> Person:
        try:
            name, colon, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, UnicodeDecodeError):
            name, colon, password = "", "", ""
        if not colon:
            raise NotKnown("this password cannot be read", "name:password in base64, as curl --user sends it")
        if password.startswith(PREFIX):
            # Clients that only know names and passwords may send an API token as one.
            return self._bearer(password)
        known = self._recent.get(name, password)
        word = await self._role(name, known) if known else None
        if word is None:
            word = (await self._checked_once(name, password, address)).role
        return Person(name, role_of(word), direct=True)

    async def _checked_once(self, name: str, password: str, address: str) -> Known:
        """Check a password once for all requests that bring it at the same moment, and remember that it was right."""
        key = self._recent.key(name, password)
        if key not in self._checking:
            self._checking[key] = asyncio.ensure_future(self.check(name, password, address))
            self._checking[key].add_done_callback(lambda done: done.cancelled() or done.exception())
        checking = self._checking[key]
        try:
            known = await asyncio.shield(checking)
        finally:
            if checking.done():
                self._checking.pop(key, None)
        self._recent.put(name, password, known)
        return known

    async def check(self, name: str, password: str, address: str) -> Known:
        """Return what somebody is, by their password; raises NotKnown, TooOften, ServerAway."""
        self.attempts.begin(name, address)
        assert self.keeper is not None
        try:
            known = await run_in_threadpool(self.keeper.check, name, password)
        except ServerAway:
            self.attempts.take_back(name, address)
            raise
        if known is None:
            self.trail.write({"name": name, "role": "", "address": address, "verb": "login", "what": "refused"})
            raise NotKnown("the name or the password is wrong", "passwords are set by: tokenpool access passwd NAME")
        self.attempts.succeeded(name, address)
        return known

    async def _cookie(self, secret: str) -> Visit:
        session = self.sessions.find(secret) if secret else None
        if session is None:
            return Visit()
        word = await self._role(session.name, Known(session.role, session.stamp))
        if word is None:
            self.sessions.end(secret)
            return Visit()
        return Visit(Person(session.name, role_of(word)), session)

    async def _role(self, name: str, known: Known) -> Optional[str]:
        if self.keeper is None:
            return None
        if self.keeper.quick:
            return self.keeper.role(name, known)
        return await run_in_threadpool(self.keeper.role, name, known)


class Gate:
    """Middleware that every request passes: nobody who is not known gets further than the login."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            await self._admit(connection)
        except BadInput as error:
            # The file of people: strangers need not know where it is, or how it is broken.
            log.error("nobody is let in: %s", error)
            told = TokenpoolError("it cannot be read who may come in", "it is written in the server's log")
            await answer(connection, told)(scope, receive, send)
            return
        except TokenpoolError as error:
            await answer(connection, error)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _admit(self, connection: HTTPConnection) -> None:
        """Note who sent a request; raises what refuses it."""
        path, state = path_of(connection), connection.state
        public = path in PUBLIC or path.startswith(ASSETS)
        if self.access.options.open:
            forgery.check_host(connection)
        visit = Visit() if public and path != "/login" else await self.access.visit(connection)
        state.person, state.session, state.form_must_prove = visit.person, visit.session, False
        state.csrf = self.access.open_csrf if self.access.options.open else getattr(visit.session, "csrf", "")
        if connection.scope["method"] not in forgery.SAFE:
            # Of all: browsers also send passwords by themselves that were once typed into their own window.
            forgery.check_origin(connection)
            if visit.person is not None and not visit.person.direct:
                state.form_must_prove = forgery.check_token(connection, state.csrf, visit.session is not None)
        if visit.person is None and not public:
            raise NotKnown("nobody is logged in", HINT_LOGIN)


def current(connection: HTTPConnection) -> Person:
    """Return who sent a request, as the middleware found it; raises NotKnown (401) where nobody is known."""
    found: Person | None = getattr(connection.state, "person", None)
    if found is None:
        raise NotKnown("nobody is logged in", HINT_LOGIN)
    return found


def csrf_token(connection: HTTPConnection) -> str:
    """Return what the forms of a page must bring: the field ``csrf_token``, or the header ``X-CSRF-Token``."""
    return str(getattr(connection.state, "csrf", ""))


class Requirement:
    """A dependency of a route: gives the person, and refuses (403) those whose role is not enough."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Person:
        """Return who sent a request, if they may do what it asks for."""
        person = current(request)
        if not person.may(self.role):
            raise NotPermitted(
                f"{person.name!r} is a {person.role.word}; this needs the role {self.role.word}", "ask an operator"
            )
        if request.state.form_must_prove:
            form = await request.form(max_part_size=LONGEST_FIELD)
            try:
                forgery.check_field(form.get(forgery.FIELD), csrf_token(request))
            except Forged:
                await form.close()
                raise
        return person


def require(role: Role) -> Callable[[Request], Awaitable[Person]]:
    """Return the dependency that every route has: ``person: Person = Depends(require(Role.VIEWER))``."""
    return Requirement(role)
