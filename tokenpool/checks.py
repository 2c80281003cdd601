"""Checks what somebody wrote into a token, field by field: what makes no sense is refused, with the way to write it."""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .data_checks import DATA_CHECKS
from .errors import BadInput
from .run_checks import RUN_CHECKS

#: More CPUs, GB or GPUs than any machine has.
MOST_RESOURCES = 1_000_000
MOST_RETRIES = 1000
#: Seconds: a month, and more than thirty years.
LONGEST_DELAY, LONGEST_TIMEOUT = 30 * 86400, 1_000_000_000
MOST_BACKOFF = 100
LONGEST_BATCH = 200
#: The last second of the year 9999, which RFC 3339 can write; a time in milliseconds lies behind it.
LATEST = 253_402_300_799
#: Beyond this, numbers that differ by one are no longer told apart everywhere.
MOST_PRIORITY = 1_000_000_000_000

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(\.\d+)?([Zz]|[+-]\d\d:\d\d)")

#: Raises BadInput where a value makes no sense in the token whose fields are given too.
Check = Callable[[Any, Mapping[str, Any]], None]


def check(fields: Mapping[str, Any]) -> None:
    """Raise BadInput for the first field that makes no sense; None counts as not given, unknown fields are let pass."""
    for name, value in fields.items():
        test = CHECKS.get(name)
        if test is not None and value is not None:
            test(value, fields)


def problem(doc: Mapping[str, Any]) -> str:
    """Return why a token of the pool cannot be run or kept waiting as it says, "" where it can.

    What only people and queues look at (its tags, its batch, its priority) is left alone, and so is every picas token.
    """
    try:
        for name in NEEDED_TO_RUN:
            value = doc.get(name)
            if value is not None:
                CHECKS[name](value, doc)
    except BadInput as error:
        return error.message
    return ""


def moment(text: str) -> float:
    """Return a time that is written as RFC 3339 has it in seconds since 1970; raises BadInput.

    >>> moment("2030-01-01T08:00:00+01:00"), moment("1970-01-01T00:00:00.25Z")
    (1893481200.0, 0.25)
    """
    found = _MOMENT.fullmatch(text.strip())
    try:
        if found is not None:
            day, time, fraction, zone = found.groups()
            whole = datetime.fromisoformat(f"{day}T{time}{'+00:00' if zone in 'Zz' else zone}")
            return whole.timestamp() + float(fraction or 0)
    except (ValueError, OverflowError):
        pass
    raise BadInput(f"{_shown(text)} is not a time", "write date, time and zone: 2030-01-31T08:00:00Z or ...+01:00")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no whole number of thousands of digits
        text = "of thousands of digits"
    return text if len(text) <= 60 else f"{text[:50]}..."


# --- numbers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Number:
    """A number from `least` to `most`, both included; `above`: `least` itself is not."""

    name: str
    hint: str
    least: float = 0
    most: float = math.inf
    above: bool = False
    whole: bool = False

    def __call__(self, value: Any, fields: Mapping[str, Any]) -> None:
        wrong = self._wrong(value)
        if wrong:
            raise BadInput(f"{self.name} {_shown(value)} is {wrong}", self.hint)

    def _wrong(self, value: Any) -> str:
        # Only NaN differs from itself.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            return "not a number"
        if value < self.least or (self.above and value == self.least):
            return f"{'not above' if self.above else 'below'} {self.least:g}"
        if value > self.most:
            return f"above {self.most:,}"
        if self.whole and value != int(value):
            return "not a whole number"
        return ""


_LIST_HINT = "a number, or a list to go through when attempts run out of it: 4, or [4, 8]"


def _resource(name: str, **limits: Any) -> _Number:
    return _Number(f"resources.{name}", _LIST_HINT, most=MOST_RESOURCES, **limits)


RESOURCES: Mapping[str, _Number] = {
    "cpu_cores": _resource("cpu_cores", above=True),
    "ram_gb": _resource("ram_gb"),
    "disk_gb": _resource("disk_gb"),
    "gpus": _resource("gpus", whole=True),
}


def _resources(value: Any, fields: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"resources {_shown(value)} is no object", 'for example {"cpu_cores": 4, "ram_gb": 8}')
    for name, amount in value.items():
        if name not in RESOURCES:
            close = difflib.get_close_matches(str(name), RESOURCES, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(RESOURCES)}"
            raise BadInput(f"there is no resource {_shown(name)}", hint)
        if amount is None:
            continue
        if isinstance(amount, (list, tuple)) and not amount:
            raise BadInput(f"resources.{name} is an empty list", _LIST_HINT)
        for each in amount if isinstance(amount, (list, tuple)) else [amount]:
            RESOURCES[name](each, fields)


# --- texts, lists, switches ----------------------------------------------------------------------------------------


def _texts(name: str, value: Any, hint: str) -> None:
    """Refuse what is no list of texts that say something."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) and each for each in value):
        raise BadInput(f"{name} {_shown(value)} is no list of texts", hint)


def _depends_on(value: Any, fields: Mapping[str, Any]) -> None:
    _texts("depends_on", value, 'write the ids of the tokens that must be done before: ["t1", "t2"]')
    if fields.get("_id") in value:
        raise BadInput(f"token {fields['_id']} depends on itself", "name the tokens that must be done before it")


def _checkpoint(value: Any, fields: Mapping[str, Any]) -> None:
    _texts("checkpoint", value, 'write patterns of files in the working folder: ["state-*.bin", "out/*.ckpt"]')
    for pattern in value:
        if pattern.startswith("/") or ".." in pattern.split("/") or "\0" in pattern:
            raise BadInput(
                f"checkpoint {_shown(pattern)} leaves the working folder", "write it as seen from there, without .."
            )


def _batch(value: Any, fields: Mapping[str, Any]) -> None:
    if not isinstance(value, str):
        raise BadInput(f"batch {_shown(value)} is no text", "a batch is named by a text, for example night-7")
    if not value.strip():
        raise BadInput("the name of a batch is empty", "give it a name, or leave the batch out")
    if len(value) > LONGEST_BATCH:
        raise BadInput(
            f"a batch name of {len(value)} characters is too long", f"at most {LONGEST_BATCH}; tags hold more"
        )
    if not value.isprintable() and any(unicodedata.category(each) == "Cc" for each in value):
        raise BadInput(f"batch {_shown(value)} holds a control character", "letters, digits, dots and dashes are safe")


def _tags(value: Any, fields: Mapping[str, Any]) -> None:
    if not isinstance(value, Mapping):
        raise BadInput(f"tags {_shown(value)} is no object", 'for example {"project": "amber"}')
    for name, each in value.items():
        scalar = each is None or isinstance(each, (str, bool, int)) or (isinstance(each, float) and math.isfinite(each))
        if not isinstance(name, str) or not scalar:
            raise BadInput(f"tag {_shown(name)} is no text, number or switch", 'for example {"project": "amber"}')


def _switch(name: str) -> Check:
    def test(value: Any, fields: Mapping[str, Any]) -> None:
        if not isinstance(value, bool):
            raise BadInput(f"{name} {_shown(value)} is neither true nor false", f"{name}: true")

    return test


CHECKS: Mapping[str, Check] = {
    "resources": _resources,
    "timeout": _Number(
        "timeout", "write seconds, or 2h; without it there is no limit", most=LONGEST_TIMEOUT, above=True
    ),
    "max_retries": _Number("max_retries", f"a whole number up to {MOST_RETRIES}", most=MOST_RETRIES, whole=True),
    "retry_delay": _Number("retry_delay", "seconds, at most 30 days", most=LONGEST_DELAY),
    "retry_backoff": _Number(
        "retry_backoff", "the pause grows so many times: 2 doubles it", least=1, most=MOST_BACKOFF
    ),
    "priority": _Number("priority", "a number; higher goes first", least=-MOST_PRIORITY, most=MOST_PRIORITY),
    "not_before": _Number("not_before", "seconds (not milliseconds) since 1970, or 2030-01-31T08:00:00Z", most=LATEST),
    "depends_on": _depends_on,
    "checkpoint": _checkpoint,
    "accept_failure": _switch("accept_failure"),
    "paused": _switch("paused"),
    "batch": _batch,
    "tags": _tags,
    **RUN_CHECKS,
    **DATA_CHECKS,
}
#: Without these in order a worker could only fail on the token, or would run it too early.
NEEDED_TO_RUN = (
    "resources", "timeout", "max_retries", "retry_delay", "retry_backoff", "not_before", "depends_on", "checkpoint",
    "accept_failure", *RUN_CHECKS, *DATA_CHECKS,
)  # fmt: skip
