"""Reads the settings once: flag > environment > ./tokenpool.toml > user file > picas' conf.yml > default."""

from __future__ import annotations

import netrc
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from .errors import BadInput, NotPermitted

#: Every setting with its default; the name in capitals after TOKENPOOL_ is its environment variable.
DEFAULTS: dict[str, Any] = {
    "pool": "sqlite:///tokenpool.db",
    "slots": 0,  # 0: one for each CPU this process may use
    "poll": 5.0,
    "idle_timeout": 0.0,  # 0: a worker waits for ever
    "grace": 10.0,
    "lease": 120.0,
    "prefetch": 0,
    "transfers": 8,
    "cache": "",  # empty: below XDG_CACHE_HOME
    "cache_limit": "20%",
    "scratch_limit": 95.0,
    "spool": "",  # empty: below XDG_STATE_HOME
    "log_limit": 1_000_000,
    "cleanup": "success",
    "scratch": "",
    "engine": "auto",
    "modules": "",  # names with commas between them
    "cwl_runner": "cwltool",
    "github": "https://github.com",  # what user/repo is seen from
    "secrets": "~/.config/tokenpool/secrets",
    "password_file": "",
}
#: Settings that name a file or a folder.
_PLACES = ("cache", "spool", "scratch", "secrets", "password_file")
CLEANUPS = ("success", "always", "never")
#: The tables that say how storages are reached: ``[storage."s3://bucket/"]``.
STORAGE = "storage"


@dataclass(frozen=True)
class Setting:
    """One value and where it came from, as `config list --origin` shows it."""

    value: Any
    origin: str


@dataclass(frozen=True)
class Settings:
    """All settings of this process, frozen."""

    entries: Mapping[str, Setting]
    environ: Mapping[str, str]
    #: The options of storages, a table for each beginning of URLs.
    places: Mapping[str, Setting] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.entries[name].value

    @property
    def pool(self) -> str:
        """The URL of the pool."""
        return str(self["pool"])

    @property
    def storage(self) -> dict[str, Mapping[str, Any]]:
        """The options of storages by the beginning of their URLs."""
        return {front: setting.value for front, setting in self.places.items()}

    def password(self) -> str | None:
        """Return the password for the pool: environment, file, netrc, picas' file; None where none is needed."""
        if self.pool.startswith("sqlite:"):
            return None
        if "TOKENPOOL_PASSWORD" in self.environ:
            return self.environ["TOKENPOOL_PASSWORD"]
        if self["password_file"]:
            return _read_password(Path(str(self["password_file"])).expanduser())
        parts = urlsplit(self.pool.partition("+")[2])
        return _from_netrc(parts.hostname or "", parts.username) or _from_picas(self.environ, self.pool)


def load(environ: Mapping[str, str] | None = None, cwd: Path | None = None, **flags: Any) -> Settings:
    """Return the settings; `flags` that are None count as not given. Raises BadInput, naming where a value is from."""
    env = os.environ if environ is None else environ
    entries = {name: Setting(value, "default") for name, value in DEFAULTS.items()}
    sources = [
        _without_home(env),
        _picas(env),
        _file(user_file(env)),
        _file((cwd or Path.cwd()) / "tokenpool.toml"),
        _environment(env),
        {name: Setting(value, "option") for name, value in flags.items() if value is not None},
    ]
    places: dict[str, Setting] = {}
    for source in sources:
        tables = source.pop(STORAGE, None)
        if tables is not None:
            places.update(_places(tables))
        for name, setting in source.items():
            entries[name] = Setting(_checked(name, setting), setting.origin)
    if not _has_home(env):  # nobody who reads these later could tell what their ~ means
        entries |= {name: replace(entries[name], value=_rooted(str(entries[name].value), env)) for name in _PLACES}
    return Settings(entries, env, places)


def home(environ: Mapping[str, str]) -> Path:
    """Return the user's home; the folder we work in where nobody knows one, as on many a Grid node."""
    return Path(environ.get("HOME") or "~").expanduser() if _has_home(environ) else Path.cwd()


def _has_home(environ: Mapping[str, str]) -> bool:
    try:
        Path(environ.get("HOME") or "~").expanduser()
    except RuntimeError:
        return False
    return True


def _without_home(environ: Mapping[str, str]) -> dict[str, Setting]:
    """Return where things are kept for a user without a home, as far as no XDG variable says it."""
    if _has_home(environ):
        return {}
    below = {"cache": ("XDG_CACHE_HOME", ".cache", ""), "spool": ("XDG_STATE_HOME", ".local/state", "spool")}
    return {
        name: Setting(str(home(environ) / folder / "tokenpool" / last), "there is no home")
        for name, (variable, folder, last) in below.items()
        if not environ.get(variable)
    }


def _rooted(path: str, environ: Mapping[str, str]) -> str:
    """Return a path with a folder in place of its ``~``."""
    return str(home(environ) / path[2:]) if path == "~" or path.startswith("~/") else path


def user_file(environ: Mapping[str, str]) -> Path:
    """Return the path of the user's own settings."""
    base = environ.get("XDG_CONFIG_HOME") or str(home(environ) / ".config")
    return Path(base) / "tokenpool" / "config.toml"


def _environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    found = {}
    if environ.get("MAKEITSO_SERVER"):
        found["pool"] = Setting(environ["MAKEITSO_SERVER"], "MAKEITSO_SERVER")
    for name in DEFAULTS:
        variable = f"TOKENPOOL_{name.upper()}"
        if environ.get(variable):
            found[name] = Setting(environ[variable], variable)
    return found


def _file(path: Path) -> dict[str, Setting]:
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: {error}", 'write for example: pool = "sqlite:///tokenpool.db"') from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read", "check its permissions: ls -l") from None
    strange = sorted(set(values) - {*DEFAULTS, STORAGE})
    if strange:
        raise BadInput(f"{path}: unknown setting {strange[0]!r}", f"known: {', '.join(DEFAULTS)}")
    return {name: Setting(value, str(path)) for name, value in values.items()}


def _checked(name: str, setting: Setting) -> Any:
    """Return the value in the type of its default."""
    default, value = DEFAULTS.get(name), setting.value
    try:
        if isinstance(default, (int, float)) and not isinstance(value, bool):
            value = type(default)(value)
            if value < 0:
                raise ValueError
        elif isinstance(default, str):
            value = str(value)
    except (TypeError, ValueError):
        raise BadInput(
            f"{name} = {setting.value!r} (from {setting.origin}) is not a number of 0 or more", f"for example {default}"
        ) from None
    if name == "lease" and value < 1:
        raise BadInput(f"a lease of {value:g} s (from {setting.origin}) is too short", "1 s or more, for example 2m")
    if name == "cleanup" and value not in CLEANUPS:
        raise BadInput(f"cleanup = {value!r} (from {setting.origin}) is unknown", f"one of {', '.join(CLEANUPS)}")
    if name == "transfers" and value < 1:
        raise BadInput(f"transfers = {value} (from {setting.origin}) moves nothing", "1 or more, for example 8")
    if name == "scratch_limit" and not 0 < value <= 100:
        raise BadInput(f"scratch_limit = {value:g} (from {setting.origin}) is no percentage", "for example 95")
    if name == "cache_limit":
        _checked_limit(value, setting.origin)
    return value


def _checked_limit(value: str, origin: str) -> None:
    try:
        bytes_of(value, 100)
    except ValueError:
        raise BadInput(
            f"cache_limit = {value!r} (from {origin}) is no size", "bytes, 50GB, or a part of its disk: 20%"
        ) from None


def bytes_of(text: str, whole: float) -> int:
    """Return the bytes that a size names, a percentage being of the `whole`; raises ValueError.

    >>> bytes_of("50GB", 0), bytes_of("20%", 1000), bytes_of("1.5k", 0)
    (50000000000, 200, 1500)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt]?)b?|(%))", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(text)
    number, unit, percent = found.groups()
    if percent:
        if float(number) > 100:
            raise ValueError(text)
        return int(float(number) / 100 * whole)
    return int(float(number) * 1000 ** " kmgt".index((unit or " ").lower()))


def _places(setting: Setting) -> dict[str, Setting]:
    """Return the tables of storages, each by the beginning of its URLs; raises BadInput."""
    example = '[storage."s3://bucket/"] and below it: endpoint_url = "https://host", key = "secret:NAME"'
    if not isinstance(setting.value, dict):
        raise BadInput(f"{setting.origin}: storage = {setting.value!r} is no table", f"write {example}")
    for front, options in setting.value.items():
        if "://" not in front and not front.startswith("/"):
            raise BadInput(f"{setting.origin}: storage {front!r} is no beginning of URLs", f"write {example}")
        if not isinstance(options, dict):
            raise BadInput(f"{setting.origin}: storage {front!r} is no table of options", f"write {example}")
    return {front: Setting(options, setting.origin) for front, options in setting.value.items()}


# --- passwords and picas' file -------------------------------------------------------------------------------------------


def _read_password(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise NotPermitted(
            f"the password file {path} cannot be read: {error.strerror}", "check password_file"
        ) from None


def _from_netrc(host: str, user: str | None) -> str | None:
    try:
        found = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found and (user is None or found[0] == user) else None


def _picas_file(environ: Mapping[str, str]) -> dict[str, Any]:
    path = home(environ) / ".config" / "picas" / "conf.yml"
    if not path.is_file():
        return {}
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _picas(environ: Mapping[str, str]) -> dict[str, Setting]:
    found = _picas_file(environ)
    if not {"host_url", "database", "username"} <= set(found):
        return {}
    scheme, _, rest = str(found["host_url"]).rstrip("/").partition("://")
    url = f"couchdb+{scheme}://{quote(str(found['username']), safe='')}@{rest}/{found['database']}"
    return {"pool": Setting(url, "~/.config/picas/conf.yml")}


def _from_picas(environ: Mapping[str, str], pool: str) -> str | None:
    found = _picas_file(environ)
    if "encrypted_password" not in found or _picas(environ).get("pool") is None:
        return None
    if urlsplit(_picas(environ)["pool"].value.partition("+")[2]).netloc != urlsplit(pool.partition("+")[2]).netloc:
        return None
    from .crypto import decrypt_password

    return decrypt_password(str(found["encrypted_password"]).encode()).decode()
