"""A pool of tokens: push tasks from anywhere, run them anywhere, lose none.

>>> import tokenpool
>>> with tokenpool.connect("sqlite:////tmp/tokenpool-doctest.db", create=True) as pool:
...     ids = pool.push("echo hi")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    VERSION: str

    from .actors import RunActor as RunActor
    from .clients import CouchDB as CouchDB
    from .documents import Document as Document
    from .documents import Job as Job
    from .documents import Task as Task
    from .documents import Token as Token
    from .documents import User as User
    from .functions.registry import task as task
    from .futures import PoolExecutor as PoolExecutor
    from .iterators import EndlessViewIterator as EndlessViewIterator
    from .iterators import PrioritizedViewIterator as PrioritizedViewIterator
    from .iterators import TaskViewIterator as TaskViewIterator
    from .iterators import ViewIterator as ViewIterator
    from .pool import Pool as Pool
    from .pool import connect as connect
    from .server_client import Server as Server
    from .worker import Worker as Worker
    from .worker import WorkerOptions as WorkerOptions

#: The public names and where they live; each is imported when it is first used.
_HOMES = {
    "CouchDB": "clients",
    "Document": "documents",
    "EndlessViewIterator": "iterators",
    "Job": "documents",
    "Pool": "pool",
    "PoolExecutor": "futures",
    "PrioritizedViewIterator": "iterators",
    "RunActor": "actors",
    "Server": "server_client",
    "Task": "documents",
    "TaskViewIterator": "iterators",
    "Token": "documents",
    "User": "documents",
    "ViewIterator": "iterators",
    "Worker": "worker",
    "WorkerOptions": "worker",
    "connect": "pool",
    "task": "functions.registry",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in ("VERSION", "__version__"):
        return importlib.import_module(".metadata", __name__).version
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
