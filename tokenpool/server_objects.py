"""What a server tells, as PYTQ names it: tasks, attempts, workers, batches; times are datetimes, in UTC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

Json = dict[str, Any]

#: Our states in PYTQ's words.
STATUS = {"todo": "pending", "held": "waiting", "locked": "running", "done": "succeeded", "error": "failed"}


def moment(value: Any) -> Any:
    """Return a time as a datetime: seconds since 1970, or RFC 3339; what is neither stays as it is.

    >>> moment("2026-01-31T08:00:00Z").year, moment(99), moment("soon")
    (2026, None, 'soon')
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, timezone.utc) if value > 99 else None
    try:
        found = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return value
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class Record(Mapping[str, Any]):
    """Fields as attributes and as items. One that is lazy is fetched when something else than its id is asked for."""

    #: PYTQ's names, with what they are called here.
    NAMES: Mapping[str, str] = {}
    #: The fields that are times.
    TIMES: frozenset[str] = frozenset()

    def __init__(self, doc: Json, fetch: Callable[[], Json] | None = None) -> None:
        self._doc, self._fetch = doc, fetch

    def refresh(self) -> Record:
        """Fetch it anew; only of one that `task_create` returned."""
        if self._refetch is not None:
            self._fetch = self._refetch
        return self

    _refetch: Callable[[], Json] | None = None

    def __getitem__(self, name: str) -> Any:
        name = self.NAMES.get(name, name)
        if self._fetch is not None and name not in self._doc:
            fetch, self._fetch = self._fetch, None
            self._refetch = fetch
            self._doc = fetch()
        found = self._more(name)
        value = self._doc[name] if found is None else found
        return moment(value) if name in self.TIMES else value

    def _more(self, name: str) -> Any:
        """Return a field that is made of others, None for one that is not."""
        return None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__.lower()} has no {name!r}") from None

    def __iter__(self) -> Iterator[str]:
        if self._fetch is not None:
            self["_rev"]
        return iter(dict.fromkeys([*self.NAMES, *self._doc]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._doc!r})"

    def __hash__(self) -> int:
        return id(self)

    def as_dict(self) -> Json:
        """Return all fields as a dictionary, under both names."""
        return {name: self[name] for name in self if self.NAMES.get(name, name) in self._doc or self._more(name)}


class Task(Record):
    """A task: a token, with PYTQ's names beside its own."""

    NAMES = {
        "task_id": "_id", "id": "_id", "creation_date": "creation_time", "container": "image", "retry": "max_retries",
        "requirements": "depends_on",
    }  # fmt: skip
    TIMES = frozenset({"creation_time", "lock", "done", "not_before"})

    def _more(self, name: str) -> Any:
        if name == "status":
            return STATUS.get(self._doc.get("state", ""), self._doc.get("state", ""))
        if name == "modification_date":
            done, lock = moment(self._doc.get("done")), moment(self._doc.get("lock"))
            return done or lock or moment(self._doc.get("creation_time"))
        return None


class Execution(Record):
    """One attempt of a task."""

    NAMES = {"execution_id": "claim", "return_code": "exit_code", "creation_date": "start_time"}
    TIMES = frozenset({"start_time", "end_time"})


class Worker(Record):
    """A worker."""

    NAMES = {"worker_id": "id", "name": "hostname", "concurrency": "slots", "status": "state"}
    TIMES = frozenset({"renewed", "started"})


class Batch(Record):
    """A batch: its rule, and its tasks by state."""

    NAMES = {"batch": "name"}
