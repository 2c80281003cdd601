"""What a picas user's script is made of: a client on a pool of the tests, tokens in it, an actor that notes its calls."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from couch_server import raw_couch

import tokenpool
from tokenpool.actors import RunActor
from tokenpool.clients import CouchDB
from tokenpool.documents import Task
from tokenpool.modifiers import BasicTokenModifier


def child_environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that is to import this tokenpool."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(tokenpool.__file__).resolve().parents[1]),
        "PYTHONWARNINGS": "ignore",
        **more,
    }


def client_of(pool_url: str, views: bool = True) -> CouchDB:
    """Open a pool as a picas script does, with picas' views in it."""
    if pool_url.startswith("sqlite:"):
        client = CouchDB(pool_url, create=True)
    else:
        server, name = raw_couch(pool_url)
        parts = urlsplit(server)
        client = CouchDB(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", name,
            username=unquote(parts.username) if parts.username else None, password=unquote(parts.password or ""),
        )  # fmt: skip
    if views:
        client.pool.init()
    return client


def push(client: CouchDB, *tokens: dict[str, Any] | str) -> list[str]:
    """Save tokens as picas' example does; a string is an id."""
    docs = [Task({"type": "token", **({"_id": token} if isinstance(token, str) else token)}) for token in tokens]
    assert client.save_documents(docs) == [True] * len(docs)
    return [doc.id for doc in docs]


def stored(client: CouchDB, token_id: str) -> dict[str, Any]:
    """Return a token as the pool has it now."""
    return dict(client.pool.backend.get(token_id))


def state(client: CouchDB, token_id: str) -> str:
    """Return where a token stands now."""
    return Task(stored(client, token_id)).state


def finish(token: Task, exit_code: Any = 0) -> None:
    """End a token as picas' example does."""
    token["exit_code"] = exit_code
    BasicTokenModifier().close(token)


class Script(RunActor):
    """An actor that notes which hooks were called; `work` is its process_task."""

    def __init__(self, db: Any, work: Callable[[Task], Any] = finish, **options: Any) -> None:
        super().__init__(db, **options)
        self.work = work
        self.calls: list[str] = []

    def prepare_env(self) -> None:
        self.calls.append("prepare_env")

    def prepare_run(self) -> None:
        self.calls.append("prepare_run")

    def process_task(self, token: Task) -> None:
        self.calls.append(f"process_task {token.id}")
        self.work(token)

    def cleanup_run(self) -> None:
        self.calls.append("cleanup_run")

    def cleanup_env(self) -> None:
        self.calls.append("cleanup_env")
