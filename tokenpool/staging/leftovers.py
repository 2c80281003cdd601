"""Keeps what a finished command made when it could not be sent, so that the token's next attempt here only has to send it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import transitions
from ..backends.base import Backend
from ..errors import TokenpoolError
from .locks import Busy, locked
from .outputs import Leaving
from .reuse import work_of

log = logging.getLogger(__name__)

#: Seconds after which nobody is expected to come for it.
AGE = 7 * 86400.0
RECORD = "record.json"


@dataclass
class Leftover:
    """What an attempt left: how it ended, and the files that are to go; it is held for one attempt at a time."""

    folder: Path
    result: dict[str, Any]
    leaving: list[Leaving]
    attached: dict[str, str] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)


class Leftovers:
    """The leftovers of this machine for the tokens of one pool. Safe from several threads."""

    def __init__(self, root: Path, pool_url: str) -> None:
        self.root, self._pool = root, pool_url

    def keep(
        self,
        token: Mapping[str, Any],
        claim: str,
        result: Mapping[str, Any],
        leaving: list[Leaving],
        attached: Mapping[str, str],
    ) -> None:
        """Move the files of an attempt that could not send them to where its next one finds them."""
        folder = self._folder(token["_id"])
        if not (folder / RECORD).exists():
            shutil.rmtree(folder, ignore_errors=True)
        files = folder / "files" / claim
        files.mkdir(parents=True, exist_ok=True, mode=0o700)
        moved: dict[str, str] = {}
        for path in [*(each.path for each in leaving), *attached.values()]:
            if path not in moved:
                moved[path] = str(files / str(len(moved)))
                shutil.move(os.path.realpath(path), moved[path])
        record = {
            "pool": self._pool,
            "token": token["_id"],
            "claims": [claim],
            "work": work_of(token),
            "result": dict(result),
            "leaving": [{**asdict(each), "path": moved[each.path]} for each in leaving],
            "attached": {name: moved[path] for name, path in attached.items()},
        }
        _write(folder / RECORD, record)

    def take(self, token: Mapping[str, Any]) -> Leftover | None:
        """Return what the last attempt of a token left here, if it did and the token is still to do the same."""
        folder = self._folder(token["_id"])
        if not folder.exists():
            return None
        held = ExitStack()
        try:
            held.enter_context(locked(folder / "lock", wait=False))
        except (Busy, OSError):
            return None
        record = _read(folder / RECORD)
        if record is None or not _is_next(token, record):
            held.close()
            return None
        leaving = [Leaving(**each) for each in record["leaving"]]
        there = all(os.path.exists(path) for path in [*(each.path for each in leaving), *record["attached"].values()])
        if record["work"] != work_of(token) or not there:
            held.close()
            return None
        # Whatever becomes of this attempt, also if nobody can tell, the next one may send it.
        _write(folder / RECORD, {**record, "claims": [*record["claims"], token["lease"]["claim"]]})
        return Leftover(folder, record["result"], leaving, record["attached"], held)

    def done(self, left: Leftover) -> None:
        """It was sent, and its token knows."""
        shutil.rmtree(left.folder, ignore_errors=True)
        left.held.close()

    def sweep(self, backend: Backend) -> None:
        """Remove what nobody will come for: its token is done, gone, was run elsewhere, or it is old."""
        for path in self.root.glob(f"*/{RECORD}"):
            record = _read(path)
            if record is None or record.get("pool") != self._pool:
                continue
            try:
                useless = time.time() - path.stat().st_mtime > AGE or self._is_over(backend, record)
                if useless:
                    with locked(path.parent / "lock", wait=False):
                        shutil.rmtree(path.parent, ignore_errors=True)
            except (Busy, OSError, TokenpoolError) as error:
                log.debug("the leftover %s stays: %s", path.parent, error)

    @staticmethod
    def _is_over(backend: Backend, record: Mapping[str, Any]) -> bool:
        (doc,) = backend.get_many([record["token"]])
        if doc is None or transitions.state_of(doc) == transitions.DONE:
            return True
        return not _is_next(doc, record) and transitions.state_of(doc) != transitions.LOCKED

    def close(self) -> None:
        """Remove the folder where nothing is in it."""
        try:
            self.root.rmdir()
        except OSError:
            pass

    def _folder(self, token_id: str) -> Path:
        return self.root / hashlib.sha256(f"{self._pool}\n{token_id}".encode()).hexdigest()[:32]


def _is_next(token: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Tell whether the last attempt of a token is one that left this, or tried to send it."""
    attempts = transitions.attempts_of(token)
    return bool(attempts) and attempts[-1].get("claim") in record.get("claims", ())


def _write(path: Path, value: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
