"""Read, check and write picas' configuration: where the database is, and as whom to use it."""

from __future__ import annotations

import argparse
import base64
import getpass
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from . import crypto
from .crypto import MissingFile, decrypt_password, encrypt_password, generate_and_save_key, write_private
from .errors import BadInput, Conflict, NotFound, NotPermitted, ServerAway, TokenpoolError

if TYPE_CHECKING:
    from urllib3 import PoolManager

DEFAULT_CONFIG_PATH = "~/.config/picas/conf.yml"
DEFAULT_HOST_URL = "http://localhost:5984"
DEFAULT_DATABASE = "mypicasdb"

#: The file as a JSON Schema, for whoever validates elsewhere; `PicasConfig.validate_config` asks the same by hand.
PICAS_CONFIG_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host_url": {"type": "string", "default": DEFAULT_HOST_URL, "description": "where CouchDB listens"},
        "database": {"type": "string", "default": DEFAULT_DATABASE, "description": "the database of the tokens"},
        "username": {"type": "string", "default": None, "description": "the CouchDB account"},
        "encrypted_password": {
            "type": "string",
            "default": None,
            "description": "its password, as a Fernet token made with the key in key.dat",
        },
    },
    "required": ["host_url", "database", "username", "encrypted_password"],
    "additionalProperties": False,
}

#: Each field can come from the environment, which wins over the file.
ENVIRONMENT = {field: f"PICAS_{field.upper()}" for field in PICAS_CONFIG_SCHEMA["required"]}

_CONNECT_TIMEOUT, _READ_TIMEOUT = 10.0, 60.0
_AWAY_HINT = "look at host_url; if the new password works already, store it with: picas-cli init"


class PicasConfigSchemaError(BadInput):
    """The configuration lacks a field, has one too many, or one that is no text."""

    def __init__(self, message: str, hint: str = "`picas-cli init` writes a new one") -> None:
        super().__init__(message, hint)


class PasswordRefused(NotPermitted, ValueError):
    """The server does not let this account change its password."""


class UserUnknown(NotFound, ValueError):
    """The server keeps no document of this user."""


class UserChanged(Conflict, ValueError):
    """Somebody else changed the user at the same moment."""


class PasswordServerAway(ServerAway, ValueError):
    """The server that keeps the password gave no answer that makes sense."""


class PicasConfig:
    """One configuration: `config` holds `host_url`, `database`, `username` and `encrypted_password`."""

    def __init__(self, config_path: str | os.PathLike[str] | None = None, load: bool = True) -> None:
        self.config_path = config_path or DEFAULT_CONFIG_PATH
        self.config: dict[str, Any] = {}
        if load:
            self.load_config()

    def __str__(self) -> str:
        if not self.config:
            return "PicasConfig: not loaded"
        shown = {**self.config}
        if "encrypted_password" in shown:
            shown["encrypted_password"] = "***"
        if isinstance(shown.get("host_url"), str):
            shown["host_url"] = hide_login(shown["host_url"])
        return f"PicasConfig:\n{_to_yaml(shown)}"

    def validate_config(self, config: Mapping[str, Any] | None = None) -> None:
        """Raise PicasConfigSchemaError unless `config`, or our own, is what the schema says."""
        _check(self.config if config is None else config)
        _say("the picas configuration is valid")

    def load_config(self) -> None:
        """Read the file, put the environment over it, and check the result."""
        _say(f"reading the picas configuration {self.config_path}")
        overrides = _overrides()
        # A worker node may get everything from its environment: then it needs no file.
        complete = len(overrides) == len(ENVIRONMENT)
        stored = {} if complete and not os.path.exists(_expand(self.config_path)) else _read(self.config_path)
        self.config = {**stored, **overrides}
        self.validate_config()

    def save_config(self, args: argparse.Namespace) -> None:
        """Write the configuration that `args` describe; ask for the password if they hold none."""
        if not args.username:
            raise BadInput("no user name", "say which CouchDB account it is: picas-cli init --username NAME")
        prompt = f"password of {args.username} at {args.host_url}: "
        password = _password(args.password, prompt)
        generate_and_save_key(crypto.CRYPTO_KEY_PATH)
        self.write_config(
            {
                "host_url": args.host_url,
                "database": args.database,
                "username": args.username,
                "encrypted_password": encrypt_password(password).decode(),
            }
        )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Check `config`, keep it, and write it to the file, for its owner only."""
        _check(config)
        self.config = dict(config)
        _say(f"writing the picas configuration {self.config_path}")
        write_private(os.fspath(self.config_path), _to_yaml(self.config).encode())

    def change_couchdb_password(
        self, uri: str, username: str, old_password: bytes | str, new_password: bytes | str
    ) -> None:
        """Give the account a new password on the server; the rest of its document, its roles too, stays."""
        old, new = _text(old_password), _text(new_password)
        url = f"{uri.rstrip('/')}/_users/{quote(f'org.couchdb.user:{username}', safe='')}"
        with _http(uri) as http:
            user = _send(http, "GET", url, (username, old))
            try:
                _send(http, "PUT", url, (username, old), {**user, "password": new})
            except PasswordServerAway:
                # The answer was lost, perhaps not the change: only the new password can tell.
                if not _opens(http, url, (username, new)):
                    raise
        _say(f"{uri} knows the new password of {username}")

    def change_password(self, args: argparse.Namespace) -> None:
        """Change the password on the server, then in the file; ask for the new one if `args` hold none."""
        if "encrypted_password" not in self.config:
            raise BadInput("the configuration holds no password", "load one, or write one with: picas-cli init")
        username, uri = self.config["username"], self.config["host_url"]
        new = _password(args.new_password, f"new password of {username} at {uri}: ")
        old = decrypt_password(self.config["encrypted_password"])
        # First, so that a missing key is found out while nothing has changed.
        encrypted = encrypt_password(new).decode()
        self.change_couchdb_password(uri, username, old, new)
        self._store_password(encrypted)

    def _store_password(self, encrypted: str) -> None:
        """Keep a password that the server has taken: in the file if it is this account's, else tell it."""
        overrides = _overrides()
        stored = _read(self.config_path) if os.path.exists(_expand(self.config_path)) else {}
        ours = {**self.config, "encrypted_password": encrypted}
        if stored:
            in_file = all(stored.get(field) == ours[field] for field in ("host_url", "username"))
        else:
            in_file = not overrides
        if in_file:
            self.write_config({**ours, **stored, "encrypted_password": encrypted})
        self.config = ours
        if "encrypted_password" in overrides or not in_file:
            _say("the environment chose this account; the next line is what it must hold from now on")
            print(f"{ENVIRONMENT['encrypted_password']}={encrypted}")


def hide_login(url: str) -> str:
    """Return an address with the password in it, if any, masked.

    >>> hide_login("https://ann:secret@picas.example:6984")
    'https://ann:***@picas.example:6984'
    """
    return re.sub(r"(//[^/@:]*):[^/]*@", r"\1:***@", url)


def _check(config: Any) -> None:
    """Raise PicasConfigSchemaError with all that is wrong."""
    problems = list(_problems(config))
    if problems:
        raise PicasConfigSchemaError(f"the picas configuration is not valid: {'; '.join(problems)}")


def _problems(config: Any) -> Iterator[str]:
    """Yield what is wrong with a configuration."""
    if not isinstance(config, Mapping):
        yield "it is not a table of fields"
        return
    for field in PICAS_CONFIG_SCHEMA["required"]:
        if field not in config:
            yield f"{field} is missing"
        elif not isinstance(config[field], str):
            yield f"{field} is not a text (put it in quotes)"
    for field in config:
        if field not in PICAS_CONFIG_SCHEMA["properties"]:
            yield f"{field} is not a field of it"


def _overrides() -> dict[str, str]:
    """Return the fields that the environment sets; an empty variable sets nothing."""
    return {field: os.environ[name] for field, name in ENVIRONMENT.items() if os.environ.get(name)}


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields in the file."""
    import yaml

    try:
        with open(_expand(path), encoding="utf-8") as file:
            fields = yaml.safe_load(file)
    except FileNotFoundError as absent:
        raise MissingFile(f"no picas configuration at {path}", "write one with: picas-cli init") from absent
    except (yaml.YAMLError, UnicodeDecodeError) as wrong:
        raise PicasConfigSchemaError(f"{path} is not YAML: {' '.join(str(wrong).split())}") from wrong
    if fields is None:
        return {}
    if not isinstance(fields, dict):
        raise PicasConfigSchemaError(f"{path} is not a table of fields")
    return fields


def _to_yaml(fields: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(fields), default_flow_style=False))


def _expand(path: str | os.PathLike[str]) -> str:
    return os.path.expanduser(os.fspath(path))


def _password(given: bytes | str | None, prompt: str) -> str:
    """Return the password that was given, or else typed without an echo."""
    if given is None:
        try:
            given = getpass.getpass(prompt)
        except EOFError as nobody:
            raise BadInput("no password was typed", "run it on a terminal") from nobody
    if not given:
        raise BadInput("the password is empty", "CouchDB lets nobody in without one")
    return _text(given)


def _text(text: bytes | str) -> str:
    return text.decode() if isinstance(text, bytes) else text


def _say(line: str) -> None:
    """Tell the user; standard output is for data (a dumped configuration, a script's own results)."""
    print(line, file=sys.stderr)


def _http(uri: str) -> PoolManager:
    """Return connections to the server, through the proxy that the environment names for it."""
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise BadInput(f"{uri!r} is not the address of a server", f"host_url looks like {DEFAULT_HOST_URL}")
    proxy = getproxies().get(address.scheme)
    if not proxy or proxy_bypass(address.hostname):
        return urllib3.PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = urllib3.util.parse_url(proxy).auth
    return urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=login) if login else None)


def _send(
    http: PoolManager, method: str, url: str, login: tuple[str, str], body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the JSON object that the server answers; raise what its status means."""
    import urllib3

    # urllib3's own helper speaks latin-1, CouchDB UTF-8.
    secret = base64.b64encode(":".join(login).encode()).decode()
    headers = {"Authorization": f"Basic {secret}", "Accept": "application/json", "Content-Type": "application/json"}
    try:
        # No retry (a write must not be sent twice) and no redirect (the password would follow it).
        response = http.request(
            method,
            url,
            body=json.dumps(body).encode() if body else None,
            headers=headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT, read=_READ_TIMEOUT),
        )
    except urllib3.exceptions.HTTPError as wrong:
        raise PasswordServerAway(f"{_origin(url)} gave no answer: {wrong}", _AWAY_HINT) from wrong
    try:
        answer = json.loads(response.data)
    except ValueError:
        answer = None
    if response.status >= 300:
        raise _refusal(response.status, answer if isinstance(answer, dict) else {}, url)
    if not isinstance(answer, dict):
        raise PasswordServerAway(f"{_origin(url)} does not answer as CouchDB does", _AWAY_HINT)
    return answer


def _refusal(status: int, answer: Mapping[str, Any], url: str) -> TokenpoolError:
    """Return the error that a status of CouchDB means."""
    reason = f"{_origin(url)} answered {status}: {answer.get('reason') or answer.get('error') or 'no reason given'}"
    if status in (401, 403):
        return PasswordRefused(reason, "the stored password may be old: store the right one with picas-cli init")
    if status == 404:
        return UserUnknown(reason, "server administrators have no such document: the server's keeper changes theirs")
    if status in (409, 412):
        return UserChanged(reason, "the password was changed elsewhere at the same moment: look, then try again")
    return PasswordServerAway(reason, _AWAY_HINT)


def _opens(http: PoolManager, url: str, login: tuple[str, str]) -> bool:
    """Tell whether this login may read its own user document."""
    try:
        _send(http, "GET", url, login)
    except TokenpoolError:
        return False
    return True


def _origin(url: str) -> str:
    """Return the server's address without path or login."""
    address = urlsplit(url)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}"
