"""Makes values of texts: all that a CSV file and a command line know of numbers, times, lists and switches."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..checks import moment
from ..errors import BadInput
from ..selectors import parse_duration
from ..storage.spelling import inputs_of, outputs_of

Json = dict[str, Any]

#: Below this a number of seconds is a duration from now, above it a time since 1970.
EPOCH = 1e9
_SWITCHES = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def whole(value: float) -> float:
    """Return a number without the fraction that it does not have."""
    return int(value) if float(value).is_integer() else value


def number(text: str) -> float:
    """Return the number that a text is; raises ValueError."""
    return whole(float(text))


def numbers(text: str) -> float | list[float]:
    """Return a number, or the list that commas make of several.

    >>> numbers("4"), numbers("1,2.5")
    (4, [1, 2.5])
    """
    found = [number(part) for part in text.split(",")]
    return found[0] if len(found) == 1 else found


def when(text: str) -> float:
    """Return a time in seconds since 1970: RFC 3339, or a duration from now on.

    >>> when("2030-01-31T08:00:00Z")
    1896076800.0
    """
    if text[:5].count("-") == 1 and text[:4].isdigit():
        return moment(text)
    try:
        seconds = parse_duration(text)
    except BadInput:
        hint = "write a duration from now such as 10m, or date, time and zone: 2030-01-31T08:00:00Z"
        raise BadInput(f"{text!r} is neither a time nor a duration", hint) from None
    return seconds if seconds >= EPOCH else round(time.time() + seconds, 3)


def words(text: str) -> list[str]:
    """Return the words of a list: JSON, or with commas or blanks between them.

    >>> words("t1, t2"), words('["a b"]')
    (['t1', 't2'], ['a b'])
    """
    if text.lstrip().startswith("["):
        try:
            return list(json.loads(text))
        except ValueError:
            pass
    return text.replace(",", " ").split()


def options(text: str) -> list[str]:
    """Return the options of a container engine, with blanks between them, with or without their dashes.

    >>> options("shm-size=1g --init")
    ['--shm-size=1g', '--init']
    """
    found = words(text) if text.lstrip().startswith("[") else shlex.split(text)
    return dashed(found)


def dashed(options: Iterable[str]) -> list[str]:
    """Return options with their dashes."""
    return [f"--{option.lstrip('-')}" for option in options]


def switch(text: str) -> bool:
    """Return what yes and no mean; raises ValueError."""
    try:
        return _SWITCHES[text.strip().lower()]
    except KeyError:
        raise BadInput(f"{text!r} is neither true nor false", "write true or false") from None


def _count(text: str) -> float:
    return int(text)


#: What the text of a field, or of a resource, is made into.
FIELDS: Mapping[str, Callable[[str], Any]] = {
    "priority": number,
    "timeout": lambda text: whole(parse_duration(text)),
    "max_retries": _count,
    "retry_delay": lambda text: whole(parse_duration(text)),
    "retry_backoff": number,
    "not_before": when,
    "depends_on": words,
    "checkpoint": words,
    "secrets": words,
    "container_options": options,
    "accept_failure": switch,
    "paused": switch,
    "inputs": inputs_of,
    "outputs": outputs_of,
    "volumes": words,
    "reuse": switch,
}
#: A column of its own in a CSV file: it becomes a part of `inputs`.
SHARED = "shared_inputs"
RESOURCES = ("cpu_cores", "ram_gb", "disk_gb", "gpus")


def typed(item: Mapping[str, Any]) -> Json:
    """Return the fields of a token with their texts made into what is meant, and resources in their place.

    Raises BadInput where a text cannot be meant so.
    """
    fields = dict(item)
    if "id" in fields and "_id" not in fields:
        fields["_id"] = fields.pop("id")
    for name, convert in FIELDS.items():
        if isinstance(fields.get(name), str):
            fields[name] = _converted(name, fields[name], convert)
    if isinstance(fields.get(SHARED), str):
        more = _converted(SHARED, fields.pop(SHARED), lambda text: inputs_of(text, shared=True))
        own_inputs = fields.get("inputs")
        fields["inputs"] = [*(own_inputs if isinstance(own_inputs, list) else []), *more]
    loose = {name: fields.pop(name) for name in RESOURCES if name in fields}
    if loose:
        amounts = {name: _converted(name, v, numbers) if isinstance(v, str) else v for name, v in loose.items()}
        own = fields.get("resources")
        fields["resources"] = {**amounts, **(own if isinstance(own, dict) else {})}
    return fields


def _converted(name: str, text: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except BadInput as error:
        raise BadInput(f"{name}: {error}", error.hint) from None
    except ValueError:
        raise BadInput(f"{name} {text!r} is not a number", "look at this column") from None
