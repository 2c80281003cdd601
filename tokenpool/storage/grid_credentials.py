"""Finds the proxy certificate and the bearer token of this machine's user, and says what is wrong with them."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_RENEW = "make a new proxy where the worker runs: voms-proxy-init, or arcproxy; X509_USER_PROXY names its file"


@dataclass(frozen=True)
class Credentials:
    """What this machine shows Grid storage: the file of an X.509 proxy, a bearer token; "" where there is none."""

    proxy: str
    token: str
    #: The folder of the authorities that are believed; "": the system's own.
    authorities: str
    #: Where the proxy was looked for.
    place: str = ""

    def complaint(self) -> tuple[str, str] | None:
        """Return what is wrong with them and what to do; None: nothing that can be seen from here."""
        if not self.proxy and not self.token:
            return f"there is no proxy certificate ({self.place}) and no bearer token here", _RENEW
        return self.expired()

    def expired(self) -> tuple[str, str] | None:
        """Return which of them ran out and when; None: none did."""
        end = proxy_end(self.proxy) if self.proxy else None
        if end is not None and end <= time.time():
            return f"the proxy certificate {self.proxy} expired at {_shown(end)}", _RENEW
        end = token_end(self.token) if self.token else None
        if end is not None and end <= time.time():
            return (
                f"the bearer token expired at {_shown(end)}",
                "get a new one: oidc-token, htgettoken; BEARER_TOKEN_FILE",
            )
        return None


def credentials_of(options: Mapping[str, Any], environ: Mapping[str, str]) -> Credentials:
    """Return the credentials for a place: its owner's options first, then where the Grid's programs look."""
    place = str(options.get("x509_proxy") or environ.get("X509_USER_PROXY") or f"/tmp/x509up_u{os.getuid()}")
    authorities = str(options.get("x509_cert_dir") or environ.get("X509_CERT_DIR") or "")
    default = "/etc/grid-security/certificates"
    if not authorities and os.path.isdir(default):
        authorities = default
    proxy = place if os.path.isfile(place) else ""
    return Credentials(proxy, str(options.get("bearer_token") or _token(environ)), authorities, place)


def proxy_end(path: str) -> float | None:
    """Return when the first certificate of a proxy's chain ends; None: nobody can tell."""
    try:
        from cryptography import x509

        with open(path, "rb") as file:
            chain = x509.load_pem_x509_certificates(file.read())
    except (ImportError, OSError, ValueError):
        return None
    ends = [getattr(each, "not_valid_after_utc", None) or _utc(each.not_valid_after) for each in chain]
    return float(min(end.timestamp() for end in ends))


def token_end(token: str) -> float | None:
    """Return when a JSON web token ends; None: it does not say, or is none."""
    try:
        body = token.split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]
        return float(end)
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _token(environ: Mapping[str, str]) -> str:
    if environ.get("BEARER_TOKEN"):
        return environ["BEARER_TOKEN"].strip()
    name = f"bt_u{os.getuid()}"
    for path in (environ.get("BEARER_TOKEN_FILE"), os.path.join(environ.get("XDG_RUNTIME_DIR") or "/tmp", name)):
        try:
            if path:
                with open(path, encoding="ascii") as file:
                    return file.read().strip()
        except (OSError, ValueError):
            continue
    return ""


def _utc(moment: Any) -> Any:
    from datetime import timezone

    return moment.replace(tzinfo=timezone.utc)


def _shown(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
