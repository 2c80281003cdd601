"""Gathers the facts of a campaign in one pass over its tokens; memory stays the same however many they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..storage.urls import scheme_of
from ..transitions import DONE, FINAL, STATES, state_of
from .bins import Amounts, Clock, Groups, Series, Shares, Top
from .failures import Failures
from .lanes import Lanes
from .runs import FAILED, KINDS, RUNNING, Run, born, runs_of

#: Batches, hosts and places that are told apart; tokens in the list of the slowest.
MOST_BATCHES, MOST_HOSTS, MOST_PLACES, SLOWEST = 2000, 2000, 100, 20
#: Memory is counted in powers of two, as the kernel does.
MB_IN_GB = 1024
#: Runs shorter than this, in seconds, tell nothing of the CPU they use.
TOO_SHORT = 0.5


@dataclass
class Sum:
    """What some runs used together: those of a batch, or of a host."""

    states: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    seconds: Amounts = field(default_factory=Amounts)
    used: float = 0.0
    #: CPU seconds, and those that the same runs could have had.
    cpu: float = 0.0
    cpu_offered: float = 0.0
    peak_mb: float = 0.0
    files: int = 0
    bytes: int = 0
    first: float = float("inf")
    last: float = 0.0

    def add(self, run: Run) -> None:
        """Count a run."""
        self.runs[run.kind] += 1
        self.peak_mb = max(self.peak_mb, run.rss_mb or 0.0)
        seconds = run.seconds
        if seconds is None or run.start is None or run.end is None:
            return
        self.used += seconds
        self.first, self.last = min(self.first, run.start), max(self.last, run.end)
        if run.ended:
            self.seconds.add(seconds)
        if run.cpu is not None:
            self.cpu += run.cpu
            self.cpu_offered += seconds * (run.cores or 1.0)

    @property
    def efficiency(self) -> float | None:
        """The share of their CPUs that the runs used; None where nobody measured it."""
        return self.cpu / self.cpu_offered if self.cpu_offered else None

    @property
    def failed_share(self) -> float:
        """The share of the runs that failed, of those that ended by themselves."""
        ended = self.runs["done"] + self.runs[FAILED]
        return self.runs[FAILED] / ended if ended else 0.0


@dataclass(frozen=True)
class Slow:
    """One of the longest runs."""

    run: Run
    batch: str
    what: str


@dataclass
class Facts:
    """All that a report tells; made empty, then `add` is called with each token."""

    now: float
    all: Sum = field(default_factory=Sum)
    batches: Groups[Sum] = field(default_factory=lambda: Groups(Sum, MOST_BATCHES))
    hosts: Groups[Sum] = field(default_factory=lambda: Groups(Sum, MOST_HOSTS))
    places: Groups[Sum] = field(default_factory=lambda: Groups(Sum, MOST_PLACES))
    submitters: Groups[Sum] = field(default_factory=lambda: Groups(Sum, MOST_PLACES))
    failures: Failures = field(default_factory=Failures)
    slowest: Top[Slow] = field(default_factory=lambda: Top(SLOWEST))
    #: Seconds that runs of each kind took.
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    #: Durations by how the run ended.
    durations: dict[str, Amounts] = field(default_factory=lambda: {kind: Amounts() for kind in KINDS})
    waits: Amounts = field(default_factory=Amounts)
    memory: Amounts = field(default_factory=Amounts)
    memory_asked: Amounts = field(default_factory=Amounts)
    memory_shares: Shares = field(default_factory=Shares)
    cpu_shares: Shares = field(default_factory=Shares)
    #: Tokens by their number of runs, the last for more.
    tries: Counter[int] = field(default_factory=Counter)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.ended: dict[str, Series] = {kind: self.clock.series() for kind in KINDS}
        self.busy = self.clock.series()
        self.lanes = Lanes(self.clock)

    def add(self, doc: Mapping[str, Any]) -> None:
        """Count one token."""
        state, batch = state_of(doc), _name(doc.get("batch"))
        sums = (self.all, self.batches[batch], self.submitters[_name(doc.get("submitter"))])
        for each in sums:
            each.states[state] += 1
        runs = runs_of(doc, self.now)
        ran = [run for run in runs if run.start is not None]
        if ran:
            self.tries[min(5, len(ran))] += 1
            self._wait(doc, ran[0])
        for run in runs:
            self._run(doc, run, batch, sums)
        self._files(doc, sums[:2])

    def _wait(self, doc: Mapping[str, Any], run: Run) -> None:
        pushed = born(doc, self.now)
        if pushed is not None and run.start is not None and not doc.get("depends_on") and not doc.get("not_before"):
            self.waits.add(max(0.0, run.start - pushed))

    def _run(self, doc: Mapping[str, Any], run: Run, batch: str, sums: tuple[Sum, ...]) -> None:
        self.failures.add(run)
        if run.end is not None and run.ended:
            self.clock.add(self.ended[run.kind], run.end)
        if run.start is None and not run.last:
            return  # somebody noted that it was lost, or that it would never run
        for each in (*sums, self.hosts[run.host]) if run.host else sums:
            each.add(run)
        seconds = run.seconds
        if seconds is None or run.start is None or run.end is None:
            return
        self.spent[run.kind] += seconds
        self.clock.spread(self.busy, run.start, run.end)
        self.lanes.add(run, batch)
        if run.ended:
            self.durations[run.kind].add(seconds)
            if self.slowest.takes(seconds):
                self.slowest.add(seconds, Slow(run, batch, what_of(doc)))
        self._use(run, seconds)

    def _use(self, run: Run, seconds: float) -> None:
        if run.cpu is not None and seconds >= TOO_SHORT:
            self.cpu_shares.add(run.cpu / (seconds * (run.cores or 1.0)))
        if run.rss_mb is not None:
            self.memory.add(run.rss_mb)
            if run.ram_gb is not None:
                asked = run.ram_gb * MB_IN_GB
                self.memory_asked.add(asked)
                self.memory_shares.add(run.rss_mb / asked)

    def _files(self, doc: Mapping[str, Any], sums: tuple[Sum, ...]) -> None:
        output = doc.get("output")
        files = output.get("files") if isinstance(output, Mapping) else None
        for file in files if isinstance(files, list) else ():
            if isinstance(file, Mapping):
                size = file.get("size")
                for each in (*sums, self.places[place_of(str(file.get("url") or ""))]):
                    each.files += 1
                    each.bytes += size if isinstance(size, int) and size > 0 else 0

    # --- what follows from it --------------------------------------------------------------------------------------

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return sum(self.all.states[state] for state in STATES)

    @property
    def finished(self) -> int:
        """How many will not change by themselves any more."""
        return sum(self.all.states[state] for state in FINAL)

    @property
    def success(self) -> float | None:
        """The share of the finished tokens that are done."""
        return self.all.states[DONE] / self.finished if self.finished else None

    @property
    def wall(self) -> float:
        """Seconds from the first start to the last end."""
        return max(0.0, self.all.last - self.all.first) if self.all.last else 0.0

    @property
    def wasted(self) -> float | None:
        """The share of the time of all runs that brought nothing: of failed and returned ones."""
        total = sum(seconds for kind, seconds in self.spent.items() if kind != RUNNING)
        return (total - self.spent["done"]) / total if total else None

    def as_json(self) -> dict[str, Any]:
        """Return the figures in the stable form of ``report --json``."""
        return {
            "schema": 1,
            "states": {state: self.all.states[state] for state in STATES},
            "runs": {kind: self.all.runs[kind] for kind in KINDS},
            "run_seconds": {kind: round(seconds, 3) for kind, seconds in self.spent.items()},
            "first_start": self.all.first if self.all.last else None,
            "last_end": self.all.last or None,
            "wall_seconds": round(self.wall, 3),
            "cpu_seconds": round(self.all.cpu, 3),
            "cpu_efficiency": _rounded(self.all.efficiency),
            "wasted_share": _rounded(self.wasted),
            "wait_seconds": _spread(self.waits),
            "duration_seconds": _spread(self.durations["done"]),
            "memory_mb": _spread(self.memory),
            "failure_classes": dict(self.failures.classes.most_common()),
            "given_back": dict(self.failures.given_back.most_common()),
            "failures": [
                {
                    "class": each.failure, "message": each.message, "runs": each.runs, "tokens": each.tokens,
                    "examples": each.examples,
                }
                for each in self.failures.largest
            ],
            "slowest": [
                {"id": each.run.token, "seconds": each.run.seconds, "host": each.run.host} for each in self.slowest
            ],
            "batches": {name: _told(each) for name, each in self.batches},
            "hosts": {name: _told(each) for name, each in self.hosts},
            "output_files": self.all.files,
            "output_bytes": self.all.bytes,
        }  # fmt: skip


def what_of(doc: Mapping[str, Any]) -> str:
    """Return what a token runs, in a few words."""
    name, image, command = doc.get("name"), doc.get("image"), doc.get("command", doc.get("input"))
    function, workflow = doc.get("function"), doc.get("workflow")
    if isinstance(name, str) and name:
        told: Any = name
    elif isinstance(function, Mapping):
        told = f"function {function.get('name')}"
    elif isinstance(workflow, Mapping):
        told = f"workflow {workflow.get('url') or workflow.get('repo')}"
    elif isinstance(command, list):
        told = " ".join(map(str, command))
    else:
        told = command if isinstance(command, str) else f"image {image}" if image else ""
    return " ".join(str(told).split())[:160]


def place_of(url: str) -> str:
    """Return where a file went, without its own name: scheme and host or bucket.

    >>> place_of("s3://bucket/a/b.txt"), place_of("file:///data/x"), place_of("attachment:x")
    ('s3://bucket', 'file', 'attached to the token')
    """
    if url.startswith("attachment:"):
        return "attached to the token"
    scheme = scheme_of(url)
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return f"{scheme}://{host}" if host else scheme


def _name(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)[:200]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _spread(amounts: Amounts) -> dict[str, float | int]:
    told = {"p50": amounts.quantile(0.5), "p95": amounts.quantile(0.95), "max": amounts.most, "mean": amounts.mean}
    return {"count": amounts.count, **{name: round(value, 3) for name, value in told.items()}}


def _told(each: Sum) -> dict[str, Any]:
    return {
        "states": {state: each.states[state] for state in STATES if each.states[state]},
        "runs": {kind: each.runs[kind] for kind in KINDS if each.runs[kind]},
        "run_seconds": round(each.used, 3),
        "cpu_seconds": round(each.cpu, 3),
        "cpu_efficiency": _rounded(each.efficiency),
        "peak_mb": each.peak_mb or None,
        "output_files": each.files,
        "output_bytes": each.bytes,
    }
