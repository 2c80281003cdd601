"""Reads the runs out of a token: one for each attempt, with plain numbers, whoever ran it and whatever stands there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..fit import GROWS_AFTER
from ..selectors import parse_time
from ..transitions import FINAL, LOCKED, attempts_of, holder_of, means_success, state_of

#: How a run ended: well; badly; it was given back, lost or overtaken; or it goes on.
DONE, FAILED, RETURNED, RUNNING = KINDS = ("done", "failed", "returned", "running")
#: Times before the year 2000 or after tomorrow are no times: picas writes 99 where a token failed.
EARLIEST, TOMORROW = 946_684_800.0, 86_400.0
#: Failures that end a token although its retries are not counted down for them.
_FINAL_CLASSES = frozenset({"invalid", "dependency", "cancelled"})


@dataclass(frozen=True)
class Run:
    """One attempt of a token; times in seconds since 1970, None where nobody wrote them down."""

    token: str
    kind: str
    worker: str = ""
    host: str = ""
    start: float | None = None
    end: float | None = None
    exit_code: int | None = None
    #: The class of its failure, "" where it has none.
    failure: str = ""
    #: What is known of the failure beside its exit code.
    message: str = ""
    #: The attachment that holds its standard error.
    log: str = ""
    cpu: float | None = None
    rss_mb: float | None = None
    #: What it was allowed; None: nobody asked for any.
    cores: float | None = None
    ram_gb: float | None = None
    #: It decided the token: nothing came after it.
    last: bool = False

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return None if self.start is None or self.end is None else max(0.0, self.end - self.start)

    @property
    def ended(self) -> bool:
        """It is over."""
        return self.kind != RUNNING


def runs_of(doc: Mapping[str, Any], now: float) -> list[Run]:
    """Return the runs of a token in their order; one that picas ran has a single one, from `lock` to `done`."""
    state, attempts = state_of(doc), attempts_of(doc)
    runs = [
        _of_attempt(doc, attempts, place, now, state in FINAL and place == len(attempts) - 1)
        for place in range(len(attempts))
    ]
    if state == LOCKED:
        runs.append(_going_on(doc, attempts, now))
    elif state in FINAL and not runs:
        runs.append(_of_locks(doc, now))
    return runs


def born(doc: Mapping[str, Any], now: float) -> float | None:
    """Return when a token was pushed, if it tells."""
    return _moment(parse_time(doc.get("creation_time")), now)


def _of_attempt(doc: Mapping[str, Any], attempts: list[dict[str, Any]], place: int, now: float, last: bool) -> Run:
    told = attempts[place]
    start, end = (_moment(parse_time(told.get(name)), now) for name in ("start_time", "end_time"))
    kind = _kind(told)
    return Run(
        token=str(doc.get("_id") or ""),
        kind=kind,
        worker=str(told.get("worker") or ""),
        host=str(told.get("hostname") or ""),
        start=start,
        end=end,
        exit_code=_whole(told.get("exit_code")),
        failure=str(told.get("failure_class") or "") if kind != DONE else "",
        message="" if kind == DONE else _message(doc, start, end, last),
        log=str(told.get("stderr") or ""),
        cpu=_number(told.get("cpu_seconds")),
        rss_mb=_number(told.get("max_rss_mb")) or None,  # 0: it was not measured
        cores=_asked(doc, "cpu_cores", attempts[:place]),
        ram_gb=_asked(doc, "ram_gb", attempts[:place]),
        last=last,
    )


def _kind(told: Mapping[str, Any]) -> str:
    failure = told.get("failure_class")
    if told.get("superseded"):
        return RETURNED
    if told.get("counted", True) or failure in _FINAL_CLASSES:
        return FAILED if failure or not means_success(told.get("exit_code", 0)) else DONE
    return RETURNED


def _going_on(doc: Mapping[str, Any], attempts: list[dict[str, Any]], now: float) -> Run:
    return Run(
        token=str(doc.get("_id") or ""),
        kind=RUNNING,
        worker=holder_of(doc),
        host=str(doc.get("hostname") or ""),
        start=_moment(_number(doc.get("lock")), now),
        end=now,
        cores=_asked(doc, "cpu_cores", attempts),
        ram_gb=_asked(doc, "ram_gb", attempts),
    )


def _of_locks(doc: Mapping[str, Any], now: float) -> Run:
    """Return the run of a token that has no history: picas' workers, and scripts, write only `lock` and `done`."""
    well = means_success(doc.get("exit_code"))
    start, end = (_moment(_number(doc.get(name)), now) for name in ("lock", "done"))
    if end is None:
        end = max((time for time, _ in _errors(doc, now)), default=None)
    return Run(
        token=str(doc.get("_id") or ""),
        kind=DONE if well else FAILED,
        host=str(doc.get("hostname") or ""),
        start=start,
        end=end,
        exit_code=_whole(doc.get("exit_code")),
        message="" if well else _message(doc, start, end, True),
        log=f"logs_{doc.get('_id')}.err",
        cores=_asked(doc, "cpu_cores", []),
        ram_gb=_asked(doc, "ram_gb", []),
        last=True,
    )


# --- what went wrong -----------------------------------------------------------------------------------------------


def _message(doc: Mapping[str, Any], start: float | None, end: float | None, last: bool) -> str:
    """Return what the token says of a failure: what was written during this run, or at the very end."""
    errors = _errors(doc, math.inf)
    within = [text for time, text in errors if text and end is not None and (start or end) - 1 <= time <= end + 2]
    if within:
        return within[-1]
    return errors[-1][1] if last and errors and end is None else ""


def _errors(doc: Mapping[str, Any], now: float) -> list[tuple[float, str]]:
    """Return times and texts of a token's `error`; of a traceback only its last line, which says what it was."""
    found = doc.get("error")
    entries = found if isinstance(found, list) else [found] if found else []
    told = []
    for entry in entries:
        if isinstance(entry, Mapping):
            lines = str(entry.get("message") or entry.get("exception") or "").strip().splitlines()
            time = _moment(_number(entry.get("time")), now)
            told.append((time or 0.0, lines[-1].strip() if lines else ""))
        elif isinstance(entry, str):
            told.append((0.0, entry))
    return told


# --- plain numbers -------------------------------------------------------------------------------------------------


def _moment(value: float | None, now: float) -> float | None:
    return value if value is not None and EARLIEST <= value <= now + TOMORROW else None


def _number(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
    return float(value) if good else None


def _whole(value: Any) -> int | None:
    try:
        return int(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _asked(doc: Mapping[str, Any], name: str, before: list[dict[str, Any]]) -> float | None:
    """Return the amount that a run was given: a list moves on with each attempt that ran out of it."""
    resources = doc.get("resources")
    value = resources.get(name) if isinstance(resources, Mapping) else None
    if isinstance(value, list) and value:
        step = sum(attempt.get("failure_class") in GROWS_AFTER for attempt in before)
        value = value[min(step, len(value) - 1)]
    return _number(value) or None
