"""What somebody is about to submit: tokens made of a form, the command line that does the same, kept until it is sent."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..backends.base import Json
from ..checks import check, moment
from ..errors import BadInput, NotFound
from ..selectors import parse_duration
from ..storage.spelling import inputs_of, outputs_of

#: Drafts that are kept, bytes of all of them, and seconds.
KEPT, BYTES, HOLDS = 64, 256 << 20, 3600.0
RESOURCES = ("cpu_cores", "ram_gb", "disk_gb", "gpus")


@dataclass(frozen=True)
class Draft:
    """One token, or a line each of many, with the fields that all of them have."""

    fields: Json
    command_line: str
    lines: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    by: str = ""
    made: float = field(default_factory=time.monotonic)

    @property
    def count(self) -> int:
        """Tokens that it makes."""
        return len(self.lines) or 1

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        attached = self.fields.get("_attachments") or {}
        return sum(len(line) + 60 for line in self.lines) + sum(len(each["data"]) for each in attached.values()) + 1000

    def items(self) -> Iterator[Json]:
        """Yield the tokens' fields."""
        if not self.lines:
            yield self.fields
        for line in self.lines:
            yield {**self.fields, "input": line}

    def shown(self) -> Json:
        """Return the first token as people are shown it: of what is attached, the sizes."""
        first = dict(next(self.items()))
        attached = first.pop("_attachments", None)
        if attached:
            first["_attachments"] = {name: f"{len(each['data']) * 3 // 4:,} bytes" for name, each in attached.items()}
        return first


class Drafts:
    """The drafts of all who submit, each for a while."""

    def __init__(self) -> None:
        self._kept: dict[str, Draft] = {}
        self._lock = threading.Lock()

    def keep(self, draft: Draft) -> str:
        """Keep a draft; return its id. The oldest go where there are too many."""
        draft_id = secrets.token_urlsafe(12)
        with self._lock:
            self._kept[draft_id] = draft
            while len(self._kept) > 1 and (
                len(self._kept) > KEPT or sum(each.size for each in self._kept.values()) > BYTES
            ):
                self._kept.pop(next(iter(self._kept)))
        return draft_id

    def take(self, draft_id: str, by: str) -> Draft:
        """Return a draft of this person, which is not kept any longer; raises NotFound."""
        with self._lock:
            draft = self._kept.get(draft_id)
            if draft is None or draft.by != by or time.monotonic() - draft.made > HOLDS:
                raise NotFound(
                    "what you were about to send is not known any more",
                    "fill in the form again; or it was sent already",
                )
            return self._kept.pop(draft_id)


# --- from a form -----------------------------------------------------------------------------------------------------


def common_fields(given: Mapping[str, str]) -> Json:
    """Return the fields that every kind of token may have; raises BadInput for one that makes no sense."""
    fields: Json = {
        name: given[name].strip() for name in ("name", "batch", "description") if given.get(name, "").strip()
    }
    for name, what in (("priority", "priority"), ("max_retries", "retries")):
        value = _number(given.get(name, ""), what)
        if value is not None:
            fields[name] = value
    for name in ("tags", "env"):
        pairs = _pairs(given.get(name, ""), name)
        if pairs:
            fields[name] = pairs
    resources = {name: _number(given.get(name, ""), name) for name in RESOURCES}
    resources = {name: value for name, value in resources.items() if value is not None}
    if resources:
        fields["resources"] = resources
    if given.get("timeout", "").strip():
        fields["timeout"] = _whole(parse_duration(given["timeout"]))
    if given.get("not_before", "").strip():
        fields["not_before"] = moment(given["not_before"].strip())
    after = given.get("depends_on", "").split()
    if after:
        fields["depends_on"] = after
    inputs = [each for line in _lines(given.get("inputs", "")) for each in inputs_of(line)]
    outputs = [each for line in _lines(given.get("outputs", "")) for each in outputs_of(line)]
    fields.update({name: value for name, value in (("inputs", inputs), ("outputs", outputs)) if value})
    check(fields)
    return fields


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def command_lines(text: str) -> tuple[str, ...]:
    """Return the commands of a file of lines; empty ones and remarks are none. Raises BadInput where it has none."""
    found = tuple(line for line in _lines(text) if not line.startswith("#"))
    if not found:
        raise BadInput("there is no command in these lines", "write one shell command a line")
    return found


def _number(text: str, what: str) -> float | int | None:
    word = text.strip()
    if not word:
        return None
    try:
        return _whole(float(word))
    except (ValueError, OverflowError):
        raise BadInput(f"{what} {word[:40]!r} is not a number", "for example 2") from None


def _whole(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _pairs(text: str, what: str) -> dict[str, str]:
    pairs = {}
    for line in _lines(text):
        name, equals, value = line.partition("=")
        if not equals or not name.strip():
            raise BadInput(f"{line[:60]!r} is none of the {what}", "write NAME=VALUE, one a line")
        pairs[name.strip()] = value.strip()
    return pairs


# --- the same at the command line --------------------------------------------------------------------------------------

_OPTIONS = {
    "batch": "--batch", "name": "--name", "description": "--description", "image": "--image", "priority": "--priority",
    "max_retries": "--max-retries", "timeout": "--timeout",
}  # fmt: skip


def command_line(pool_url: str, fields: Mapping[str, Any], what: str, given: Mapping[str, str]) -> str:
    """Return the line that does the same; `what` is its end: a command, a file, a workflow."""
    words = ["tokenpool", "push", "--pool", pool_url]
    for name, option in _OPTIONS.items():
        if name in fields:
            value = fields[name]
            words += [
                option,
                f"{value:g}s" if name == "timeout" else f"{value:g}" if isinstance(value, float) else str(value),
            ]
    for name, option in (("tags", "--tag"), ("env", "--env")):
        for key, value in (fields.get(name) or {}).items():
            words += [option, f"{key}={value}"]
    for name, value in (fields.get("resources") or {}).items():
        words += [f"--{name.replace('_', '-')}", f"{value:g}"]
    words += ["--not-before", given["not_before"].strip()] if "not_before" in fields else []
    for each in fields.get("depends_on") or ():
        words += ["--after", each]
    for name, option in (("inputs", "--input"), ("outputs", "--output")):
        for line in _lines(given.get(name, "")) if name in fields else ():
            words += [option, line]
    return f"{shlex.join(words)} {what}"


def cwl_words(word: str, params: Mapping[str, Any]) -> str:
    """Return the end of the line that pushes a workflow."""
    return shlex.join(
        [
            "--cwl",
            word,
            *(part for name, value in params.items() for part in ("--param", f"{name}={json.dumps(value)}")),
        ]
    )
