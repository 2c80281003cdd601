"""The documents of a pool: a dictionary with attachments, and the picas classes on top of it."""

from __future__ import annotations

import base64
import copy
import json
import mimetypes
import os
import socket
import traceback
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from . import transitions
from .util import seconds

#: The picas core of a token; a task made by `Task()` starts with exactly this.
TASK_DEFAULTS: dict[str, Any] = {
    "type": "task",
    "lock": 0,
    "done": 0,
    "hostname": "",
    "scrub_count": 0,
    "input": {},
    "exit_code": "",
    "output": {},
    "uploads": {},
    "error": [],
}


def new_id() -> str:
    """Return a fresh token id, spelled as picas spells it."""
    # A random UUID without its version bits: a million of them are made in one push.
    return f"task_{os.urandom(16).hex()}"


def new_token(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole token document of these fields; what is not given takes picas' default.

    >>> token = new_token({"_id": "t1", "input": "echo hi"})
    >>> token["type"], token["lock"], token["input"]
    ('token', 0, 'echo hi')
    """
    token = {**TASK_DEFAULTS, "output": {}, "uploads": {}, "error": [], "type": "token", **fields}
    if "_id" not in token:
        token["_id"] = new_id()
    return token


def guess_type(name: str) -> str:
    """Return the content type of an attachment by its name; a log is plain text."""
    return mimetypes.guess_type(name)[0] or "text/plain"


class Document(MutableMapping[str, Any]):
    """A dictionary in the pool; `doc` (also `value`) is the plain dict.

    Without a `_rev`, `data` is copied over a deep copy of `base`; with one it is taken as it is, shared and unfilled.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | Document | None = None,
        base: Mapping[str, Any] | None = None,
    ) -> None:
        plain: Any = {} if data is None else data.doc if isinstance(data, Document) else data
        if "_rev" in plain:
            self.doc: dict[str, Any] = plain
        else:
            self.doc = copy.deepcopy(dict(base or {}))
            self.doc.update(plain)

    def __getitem__(self, key: str) -> Any:
        return self.doc[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.doc[key] = value

    def __delitem__(self, key: str) -> None:
        del self.doc[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.doc)

    def __len__(self) -> int:
        return len(self.doc)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.doc!r})"

    @property
    def id(self) -> str:
        """The id; AttributeError where there is none yet."""
        return str(self._field("_id"))

    @id.setter
    def id(self, value: str) -> None:
        self.doc["_id"] = value

    @property
    def rev(self) -> str:
        """The revision; AttributeError where it was never saved."""
        return str(self._field("_rev"))

    def _field(self, name: str) -> Any:
        try:
            return self.doc[name]
        except KeyError:
            raise AttributeError(f"the document has no {name}") from None

    @property
    def value(self) -> dict[str, Any]:
        """The plain dict."""
        return self.doc

    def put_attachment(self, name: str, data: bytes | str, mimetype: str | None = None) -> None:
        """Attach `data` under `name`; it travels with the next save."""
        raw = data.encode("utf-8") if isinstance(data, str) else data
        self.doc.setdefault("_attachments", {})[name] = {
            "content_type": mimetype or guess_type(name),
            "data": base64.b64encode(raw).decode("ascii"),
        }

    def get_attachment(self, name: str, retrieve_from_database: Any = None) -> dict[str, Any]:
        """Return the attachment's stub with its `data` as bytes, read through a client where it is not here.

        Raises KeyError where there is no such attachment.
        """
        attachment = dict(self.doc["_attachments"][name])
        if "data" in attachment:
            attachment["data"] = base64.b64decode(attachment["data"])
        elif retrieve_from_database is not None:
            attachment["data"] = retrieve_from_database.read_attachment(self.id, name)
        return attachment

    def remove_attachment(self, name: str) -> Document:
        """Take an attachment out; it is gone with the next save."""
        self.doc.get("_attachments", {}).pop(name, None)
        return self

    def _update_hostname(self) -> Document:
        self.doc["hostname"] = socket.gethostname()
        return self


class User(Document):
    """A user of a CouchDB server, as `_users` stores it."""

    def __init__(self, username: str, password: str, roles: list[str] | None = None, data: Any = None) -> None:
        super().__init__(
            data,
            {
                "_id": f"org.couchdb.user:{username}",
                "name": username,
                "type": "user",
                "password": password,
                "roles": list(roles or []),
            },
        )


class Task(Document):
    """A unit of work; its methods change the document only, never the pool."""

    def __init__(self, task: Mapping[str, Any] | Document | None = None) -> None:
        super().__init__(task, TASK_DEFAULTS)
        if "_id" not in self.doc:
            self.doc["_id"] = new_id()

    @property
    def state(self) -> str:
        """Where it stands: todo, held, locked, done, error or invalid."""
        return transitions.state_of(self.doc)

    def lock(self) -> Task:
        """Mark it taken by this host, now."""
        transitions.lock(self.doc)
        return self

    def done(self) -> Task:
        """Mark it finished, now."""
        transitions.close(self.doc)
        return self

    def scrub(self) -> Task:
        """Put it back to todo, counted."""
        transitions.scrub(self.doc)
        return self

    def error(self, msg: Any = None, exception: BaseException | None = None) -> Task:
        """Mark it failed and note why."""
        trace = traceback.format_exc() if exception is not None else ""
        transitions.fail(self.doc, "" if msg is None else str(msg), trace)
        return self

    def has_error(self) -> bool:
        """Tell whether it carries picas' error mark."""
        return bool(self.doc["lock"] == transitions.PICAS_ERROR)

    def get_errors(self) -> list[dict[str, Any]]:
        """Return what went wrong so far, oldest first."""
        return list(self.doc.get("error") or [])

    def is_done(self) -> bool:
        """Tell whether it was ever closed."""
        return bool(self.doc["done"] != 0)

    @property
    def input(self) -> Any:
        """What it works on: a shell command, or any JSON."""
        return self.doc["input"]

    @input.setter
    def input(self, value: Any) -> None:
        self.doc["input"] = value

    @property
    def output(self) -> Any:
        """What it gave."""
        return self.doc["output"]

    @output.setter
    def output(self, value: Any) -> None:
        self.doc["output"] = value

    @property
    def uploads(self) -> Any:
        """What it sent elsewhere."""
        return self.doc["uploads"]

    @uploads.setter
    def uploads(self, value: Any) -> None:
        self.doc["uploads"] = value


class Token(Task):
    """A `Task` that every view sees: its default type is ``token``."""

    def __init__(self, task: Mapping[str, Any] | Document | None = None) -> None:
        super().__init__(task)
        if "_rev" not in self.doc and (task is None or "type" not in task):
            self.doc["type"] = "token"


class Job(Document):
    """A long job followed by hand (SIM-CITY's use of picas); not a token."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        if "_id" not in job:
            raise ValueError("a job needs an _id")
        defaults = {
            "type": "job", "hostname": "", "start": 0, "done": 0, "queue": 0, "method": "", "archive": 0,
        }  # fmt: skip
        super().__init__(job, defaults)

    def queue(self, method: str, host: str | None = None) -> Job:
        """Note that it was handed to a batch system."""
        self.doc["method"] = method
        if host is not None:
            self.doc["hostname"] = host
        self.doc["queue"] = seconds()
        return self

    def start(self) -> Job:
        """Note that it runs here, now."""
        self.doc["start"] = seconds()
        self.doc["done"] = 0
        self.doc["archive"] = 0
        self._update_hostname()
        return self

    def finish(self) -> Job:
        """Note that it ended, now."""
        self.doc["done"] = seconds()
        return self

    def archive(self) -> Job:
        """Give it an archive id, as a new document."""
        if self.doc.get("done", 0) <= 0:
            self.doc["done"] = -1
        self.doc["archive"] = seconds()
        self.doc["_id"] = f"archived-{self.doc['_id']}-{self.doc['archive']}"
        self.doc.pop("_rev", None)
        return self

    def is_done(self) -> bool:
        """Tell whether it ended."""
        return bool(self.doc["done"] != 0)


# --- what can be saved ------------------------------------------------------------------------------------------


def drop_unsavable(task: Task) -> str:
    """Take out of the document what is no JSON, so that the rest can be saved; return the names of these fields."""
    dropped = []
    for name, value in list(task.doc.items()):
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            dropped.append(name)
            del task.doc[name]
    return ", ".join(dropped)


def stubs_of(doc: dict[str, Any]) -> dict[str, Any]:
    """Return the attachments as stubs: the next save must not send their bytes again."""
    return {
        name: {key: value for key, value in {**attachment, "stub": True}.items() if key != "data"}
        for name, attachment in (doc.get("_attachments") or {}).items()
    }
