"""Where data is: one file per kind of storage, chosen by the scheme of a URL."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any

from ..errors import BadInput
from ..plugins import load
from ..vault import secrets_of
from .base import Storage
from .urls import scheme_of, shown

_FSSPEC = "tokenpool.storage.fsspec_storage:FsspecStorage"
_GRID = "tokenpool.storage.grid:GridStorage"
BUILTIN = {
    "file": "tokenpool.storage.local:LocalStorage",
    "run+fastq": "tokenpool.storage.fastq:FastqStorage",
    **dict.fromkeys(
        (
            "gs",
            "gcs",
            "az",
            "abfs",
            "hdfs",
            "memory",
        ),
        _FSSPEC,
    ),
    **dict.fromkeys(("s3", "s3a"), "tokenpool.storage.s3:S3Storage"),
    **dict.fromkeys(("http", "https"), "tokenpool.storage.web:WebStorage"),
    **dict.fromkeys(("ftp", "ftps"), "tokenpool.storage.ftp:FtpStorage"),
    "sftp": "tokenpool.storage.sftp:SftpStorage",
    **dict.fromkeys(("webdav", "webdavs", "dav"), "tokenpool.storage.webdav:WebdavStorage"),
    **dict.fromkeys(("root", "xroot", "roots", "srm", "davs", "gsiftp"), _GRID),
}


class Storages:
    """The storages of one process, each made when the first URL of its kind and place comes. Safe from several threads.

    `places` are the owner's options by the beginning of URLs: ``{"s3://bucket/": {"endpoint_url": "..."}}``; the longest
    that fits counts. A value ``secret:NAME`` stands for a secret of this machine, in the folder `secrets` or its environment.
    """

    def __init__(
        self,
        places: Mapping[str, Mapping[str, Any]] | None = None,
        secrets: str = "",
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._places, self._secrets, self._environ = places or {}, secrets, environ
        self._made: dict[tuple[str, str], Storage] = {}
        self._lock = threading.Lock()

    def of(self, url: str, credentials: str = "") -> Storage:
        """Return the storage of a URL; `credentials` names a secret that holds more options as a JSON object.

        Raises BadInput for a scheme that nobody knows, and where what it needs is not installed here.
        """
        scheme = scheme_of(url)
        options = {**self._of_place(url), **(self._named(credentials) if credentials else {})}
        key = scheme, json.dumps(options, sort_keys=True, default=str)
        with self._lock:
            if key not in self._made:
                self._made[key] = load("storage", scheme, BUILTIN)(options, self._environ)
            return self._made[key]

    def hidden(self, credentials: str = "") -> list[str]:
        """Return the values that no log may show: those of secrets that the options name."""
        return [str(value) for value in self._named(credentials).values()] if credentials else []

    def _of_place(self, url: str) -> dict[str, Any]:
        fitting = [front for front in self._places if url.startswith(front)]
        options = dict(self._places[max(fitting, key=len)]) if fitting else {}
        return {name: self._resolved(value) for name, value in options.items()}

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("secret:"):
            return self._secret(value[len("secret:") :])
        return value

    def _named(self, name: str) -> dict[str, Any]:
        text = self._secret(name)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            hint = 'for example {"key": "...", "secret": "..."} for s3, {"username": "...", "password": "..."} for sftp'
            raise BadInput(f"the secret {name} is no JSON object of a storage's options", hint)
        return found

    def _secret(self, name: str) -> str:
        return secrets_of({"secrets": [name]}, self._secrets, self._environ)[name]


__all__ = ["BUILTIN", "Storages", "shown"]
