"""What a server is told when it starts: one frozen value, read at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: Addresses that only this machine reaches.
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True)
class WebOptions:
    """How a pool is served; sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8080
    #: The path that a reverse proxy serves it under, without a slash at the end.
    root_path: str = ""
    #: Passwords, roles and API tokens; none: who reaches loopback may do everything.
    users: Path | None = None
    #: People are those of the CouchDB that has the pool.
    couchdb_users: bool = False
    #: Where time series, sessions and audit lines are kept; none: in memory only.
    folder: Path | None = None
    #: Cookies are only for HTTPS; a proxy that speaks it says so by X-Forwarded-Proto where it is trusted.
    secure: bool = False
    trusted_proxies: tuple[str, ...] = ()
    #: The largest body of a request.
    upload_limit: int = 64 << 20
    #: The same where a body is passed on as it comes: tokens as lines, attachments of workers.
    stream_limit: int = 16 << 30
    #: After so long without a request somebody has to log in again.
    session: float = 12 * 3600.0
    #: Seconds between two looks at the pool while somebody watches.
    every: float = 1.0

    @property
    def open(self) -> bool:
        """Nobody has to log in."""
        return self.users is None and not self.couchdb_users
