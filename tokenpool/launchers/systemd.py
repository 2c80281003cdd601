"""Writes systemd units for the parts of a pool that run for ever: workers, `scale`, the server. Pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadInput
from .rendering import fill, shipped

#: What can be a service, and the verb that it runs.
VERBS: Mapping[str, str] = {"worker": "work", "scale": "scale", "server": "serve"}
#: The first line of a unit begins so: others are not ours to change.
MARK = "# Written by: tokenpool service install "
PREFIX = "tokenpool-"
#: Where systemd puts a credential, and what it is called there.
_CREDENTIAL = "password"
#: Older systemds know the variable, and not yet its specifier.
_HANDED_OVER = f'/usr/bin/env "TOKENPOOL_PASSWORD_FILE=${{CREDENTIALS_DIRECTORY}}/{_CREDENTIAL}" '
_NAME = re.compile(r"[A-Za-z0-9_-]{1,60}")
_BROKEN = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Service:
    """One service: what it runs, for whom, and on which pool; no secrets."""

    kind: str
    #: The words that start tokenpool, the first with its whole path.
    program: tuple[str, ...]
    pool: str
    #: Tells several services of one kind apart.
    name: str = ""
    #: The words behind the verb.
    words: tuple[str, ...] = ()
    #: A file that holds the pool's password; the password itself is in no unit.
    password_file: str = ""
    #: The account of a service of the whole machine; "": a service of the user who installs it.
    user: str = ""
    env: tuple[tuple[str, str], ...] = ()
    #: Seconds that running tokens get to end when the service is stopped.
    drain: float = 300.0

    @property
    def unit(self) -> str:
        """The name of its unit.

        >>> Service("worker", ("tokenpool",), "sqlite:///a.db", name="night").unit
        'tokenpool-worker-night.service'
        """
        return f"{PREFIX}{self.kind}{'-' if self.name else ''}{self.name}.service"


def unit_text(service: Service) -> str:
    """Return the unit of a service; raises BadInput for one that makes no sense."""
    if service.name and not _NAME.fullmatch(service.name):
        raise BadInput(f"{service.name!r} is no name of a service", "letters, digits, - and _")
    system = bool(service.user)
    # A user's own file is read as it is; the file of a machine's service is root's, who hands it over.
    handed_over = system and bool(service.password_file)
    fields = {
        "mark": f"{MARK}{service.kind}",
        "pool": escaped(service.pool),
        "command": _HANDED_OVER * handed_over + command_line((*service.program, VERBS[service.kind], *service.words)),
        "environment": "\n".join(f"Environment={quoted(f'{name}={value}')}" for name, value in _environment(service)),
        "credential": escaped(f"{_CREDENTIAL}:{service.password_file}") if handed_over else "",
        "user": escaped(service.user),
        "network": "network-online.target" if system else "",
        "state": "%N" if system else "",
        "kept": "XDG_STATE_HOME=%S/%N XDG_CACHE_HOME=%C/%N" if system else "",
        "folder": "%S/%N" if system else "",
        "system": "full" if system else "",
        "yes": "yes" if system else "",
        "drain": f"{service.drain:g}",
        "target": "multi-user.target" if system else "default.target",
    }
    return fill(shipped(f"systemd-{service.kind}.service"), fields)


def _environment(service: Service) -> list[tuple[str, str]]:
    found = [*service.env, ("TOKENPOOL_POOL", service.pool)]
    if service.password_file and not service.user:
        found.append(("TOKENPOOL_PASSWORD_FILE", service.password_file))
    return found


def command_line(words: Iterable[str]) -> str:
    """Return words as a line of ``ExecStart=``, where systemd puts nothing in place of anything.

    >>> command_line(["/bin/echo", "a b", "$HOME", "50%", ""])
    '/bin/echo "a b" "$$HOME" "50%%" ""'
    """
    return " ".join(quoted(word).replace("$", "$$") for word in words)


def quoted(word: str) -> str:
    """Return one word as systemd reads it; raises BadInput for one that no line can hold.

    >>> quoted('say "hi"')
    '"say \\\\"hi\\\\""'
    """
    word = escaped(word)
    if re.fullmatch(r"[\w@+=:,./-]+", word, re.ASCII):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def escaped(text: str) -> str:
    """Return a text in which systemd sees no specifier; raises BadInput for one that no line can hold."""
    if _BROKEN.search(text):
        raise BadInput(f"{text!r} has a line break or the like in it", "a unit takes one line of it")
    return text.replace("%", "%%")


def folder_of(system: bool, environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of the units that a user, or the machine, has of their own."""
    if system:
        return Path("/etc/systemd/system")
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "systemd" / "user"


def is_ours(path: Path) -> bool:
    """Tell whether a unit was written by us."""
    try:
        return path.read_text("utf-8").startswith(MARK)
    except (OSError, UnicodeDecodeError):
        return False
