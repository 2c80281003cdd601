"""Chooses tokens by words a person types: an id, ``state:error``, ``batch:x``, ``tag:k=v``, ``host:n1``, ``age>2h``, ``all``."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from .errors import BadInput
from .transitions import STATES, state_of

_AGE = re.compile(r"age\s*([<>])=?\s*(.*)$")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400, "w": 604800}
_HINT = "write an id, state:error, batch:NAME, tag:KEY=VALUE, host:NAME, 'age>2h', or all"


@dataclass(frozen=True)
class Selector:
    """Which tokens: some ids, or all that meet every condition given."""

    ids: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    older_than: float | None = None
    younger_than: float | None = None

    def matches(self, doc: Mapping[str, Any]) -> bool:
        """Tell whether this token is chosen."""
        if self.ids:
            return doc.get("_id") in self.ids
        tags = doc.get("tags")
        return (
            (not self.states or state_of(doc) in self.states)
            and (not self.batches or str(doc.get("batch") or "") in self.batches)
            and (not self.hosts or doc.get("hostname") in self.hosts)
            and all(isinstance(tags, Mapping) and str(tags.get(k)) == v for k, v in self.tags.items())
            and self._age_fits(doc)
        )

    def _age_fits(self, doc: Mapping[str, Any]) -> bool:
        if self.older_than is None and self.younger_than is None:
            return True
        born = last_change(doc)
        if born is None:
            return False
        age = time.time() - born
        return (self.older_than is None or age > self.older_than) and (
            self.younger_than is None or age < self.younger_than
        )


def last_change(doc: Mapping[str, Any]) -> float | None:
    """Return when the token last changed its state, in seconds since 1970, as far as it tells."""
    for name in ("done", "lock"):
        value = doc.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 99:
            return float(value)
    attempts = doc.get("attempts")
    if isinstance(attempts, list) and attempts and isinstance(attempts[-1], Mapping):
        ended = parse_time(attempts[-1].get("end_time"))
        if ended is not None:
            return ended
    return parse_time(doc.get("creation_time"))


def parse_time(value: Any) -> float | None:
    """Return an RFC 3339 time in seconds since 1970, None where it is none."""
    try:
        return datetime.fromisoformat(str(value).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def parse_duration(text: str) -> float:
    """Return a duration in seconds: ``90``, ``90s``, ``5m``, ``1h 30m``, ``2d``.

    >>> parse_duration("1h 30m")
    5400.0
    """
    rest, total = text.strip().lower(), 0.0
    if not rest:
        raise BadInput("a duration is empty", "write 90s, 5m, 1h 30m or 2d")
    while rest:
        found = _DURATION.match(rest)
        unit = found.group(2) if found else "?"
        if found is None or (unit.rstrip("s") not in _UNITS and unit not in _UNITS):
            raise BadInput(f"{text!r} is not a duration", "write 90s, 5m, 1h 30m or 2d")
        total += float(found.group(1)) * _UNITS.get(unit, _UNITS.get(unit.rstrip("s"), 1))
        rest = rest[found.end() :].strip()
    return total


def parse(words: Iterable[str]) -> Selector:
    """Return the selector that these words make; ids add up, conditions narrow.

    >>> parse(["state:error", "batch:x"]).states
    ('error',)
    """
    found: dict[str, Any] = {"ids": [], "states": [], "batches": [], "hosts": [], "tags": {}}
    everything = False
    for word in words:
        everything = _add(found, word.strip()) or everything
    conditions = any(found[name] for name in ("states", "batches", "hosts", "tags")) or len(found) > 5
    if not (found["ids"] or conditions or everything):
        raise BadInput("no tokens were chosen", _HINT)
    if found["ids"] and (conditions or everything):
        raise BadInput("ids and conditions cannot be mixed", "name the ids alone, or conditions alone")
    chosen: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return Selector(**chosen)


def _add(found: dict[str, Any], word: str) -> bool:
    """Put one word where it belongs; return True for ``all``."""
    name, colon, value = word.partition(":")
    age = _AGE.match(word)
    if word == "all":
        return True
    if age:
        found["older_than" if age.group(1) == ">" else "younger_than"] = parse_duration(age.group(2))
    elif colon and name == "state":
        if value not in STATES:
            raise BadInput(f"there is no state {value!r}", f"states: {', '.join(STATES)}")
        found["states"].append(value)
    elif colon and name in ("batch", "host"):
        found["batches" if name == "batch" else "hosts"].append(value)
    elif colon and name == "tag":
        key, equals, wanted = value.partition("=")
        if not equals:
            raise BadInput(f"{word!r} has no value", "write tag:KEY=VALUE")
        found["tags"][key] = wanted
    elif not word:
        raise BadInput("an empty word chooses no tokens", _HINT)
    else:
        close = get_close_matches(name, ("state", "batch", "host", "tag"), 1) if colon else []
        if close:
            raise BadInput(f"there is no condition {name!r}", f"did you mean {close[0]}:{value}?")
        found["ids"].append(word)
    return False
