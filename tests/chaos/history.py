"""Knows when tokens really ran, and judges what a pool says about it: the invariants of the engine's promise.

Tokens write down their own starts and ends, one small append each, so what happened is known independently of the pool.
They also hold a lock of the kernel's while anything of them lives: a second run beside a first one is seen for certain.
"""

from __future__ import annotations

import hashlib
import shlex
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from figures import Figures

from tokenpool.backends.base import ALL_DOCS, Json
from tokenpool.pool import Pool
from tokenpool.transitions import FINAL, STATES, attempts_of, means_success, state_of

#: Lines of a log that is too large for a closing write, about 450 kB.
LONG = 9000
#: The claim of a run by picas, which has no such thing.
PICAS = "picas"
#: Attempts that ended without an outcome of the token's own.
GIVEN_BACK = ("lost", "preempted")
#: The attempts whose logs a pool keeps at least.
LOGS_KEPT = 5

#: ``S`` starts, ``O`` starts while another run of the same token lives, ``E`` ends; with dash or bash, each line is one
#: write. Arguments: id, seconds, lines of output, exit code, gate and the first attempt that waits at it. A worker is the parent of its tokens' supervisor.
SCRIPT = r"""
id=$1 seconds=$2 lines=$3 code=$4 gate=$5 gated=$6
claim=${TOKENPOOL_CLAIM:-picas} attempt=${TOKENPOOL_ATTEMPT:-0} supervisor=$PPID
exec 9>>"FOLDER/locks/$id"
word=S
flock -n 9 || word=O
say() {
    read -r up rest </proc/uptime
    printf '%s %s %s %s %s %s %s\n' "$1" "$id" "$claim" "$attempt" $$ "$up" "$2" >>"FOLDER/history"
}
worker=0
read -r a b c worker rest 2>/dev/null </proc/$supervisor/stat
say "$word" "$worker"
n=0
while [ "$n" -lt "$lines" ]; do
    echo "out $id $claim $n"
    echo "err $id $claim $n" >&2
    n=$((n + 1))
done
sleep "$seconds"
while [ -n "$gate" ] && [ "$attempt" -ge "$gated" ] && [ ! -e "$gate" ]; do sleep 0.1; done
say E "$code"
exit "$code"
"""


def uptime() -> float:
    """Return the seconds since boot by the clock that tokens write down, which no change of the date moves."""
    return float(Path("/proc/uptime").read_text().split()[0])


@dataclass
class Run:
    """One start of a token; `end` is None where it never came to its end. Times in seconds since boot."""

    token: str
    claim: str
    attempt: int
    pid: int
    start: float
    worker: int
    overlaps: bool = False
    end: float | None = None
    exit_code: int | None = None


@dataclass(frozen=True)
class Harm:
    """What was done to one worker process and when; `lets_overlap` where its tokens may run twice at a time by right."""

    kind: str
    pid: int
    at: float
    lets_overlap: bool = False


class History:
    """The record of one test's tokens, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "locks").mkdir(parents=True)
        self._file = folder / "history"
        self._file.touch()
        (folder / "token.sh").write_text(SCRIPT.replace("FOLDER", str(folder)))
        self._lines: dict[str, int] = {}

    def command(
        self, token: str, seconds: float = 0.05, lines: int = 1, code: int = 0, gate: str = "", gated: int = 0
    ) -> str:
        """Return a shell command that runs for so long and writes so many lines to both of its logs.

        With a `gate`, attempts from number `gated` on end only after `open_gate`; those of picas have the number 0.
        """
        self._lines[token] = lines
        words = [str(self.folder / "token.sh"), token, f"{seconds:g}", str(lines), str(code)]
        words += [str(self.folder / gate), str(gated)] if gate else []
        return "exec sh " + shlex.join(words)

    def tokens(self, count: int, name: str = "t", long_each: int = 25, **options: Any) -> list[dict[str, Any]]:
        """Return tokens to push, `options` as for `command`; each n-th (0: none) writes logs that travel on their own."""
        lines = [LONG if long_each and n % long_each == 0 else 1 for n in range(count)]
        ids = [f"{name}{n:04}" for n in range(count)]
        return [{"_id": each, "input": self.command(each, lines=n, **options)} for each, n in zip(ids, lines)]

    def open_gate(self, gate: str) -> None:
        """Let the tokens behind this gate go on."""
        (self.folder / gate).touch()

    def runs(self) -> list[Run]:
        """Return all runs so far, in the order of their starts."""
        found: list[Run] = []
        for line in self._file.read_text().splitlines():
            word, token, claim, attempt, pid, at, last = line.split(" ")
            if word == "E":
                run = next(r for r in reversed(found) if (r.token, r.claim, r.pid) == (token, claim, int(pid)))
                run.end, run.exit_code = float(at), int(last)
            else:
                found.append(Run(token, claim, int(attempt), int(pid), float(at), int(last), word == "O"))
        return found

    def ended(self) -> int:
        """Return the number of runs that came to their end."""
        return sum(run.end is not None for run in self.runs())

    def of(self, token: str) -> list[Run]:
        """Return the runs of one token."""
        return [run for run in self.runs() if run.token == token]

    def log(self, token: str, claim: str, kind: str) -> bytes:
        """Return what a whole run under this claim has written to ``out`` or ``err``."""
        return "".join(f"{kind} {token} {claim} {n}\n" for n in range(self._lines[token])).encode()


@dataclass
class Check:
    """One judgement: what is known from outside, what the pool says, and what is wrong with it."""

    history: History
    pool: Pool
    #: Every stored state of each token, oldest first, where the pool could be made to remember them.
    past: Mapping[str, Sequence[Json]]
    harms: Sequence[Harm] = ()
    #: Runs of these claims may have been for nothing: their workers were harmed in a way that no pid shows.
    excused: Collection[str] = ()
    may_overlap: bool = False
    problems: list[str] = field(default_factory=list)

    def run(self, ids: Collection[str], name: str = "") -> Figures:
        """Check every invariant; raises AssertionError with all that is wrong. Returns the figures to print."""
        docs = dict(zip(ids, self.pool.backend.get_many(list(ids), conflicts=True)))
        runs = self.history.runs()
        by_token: dict[str, list[Run]] = {each: [] for each in ids}
        for run in runs:
            by_token.setdefault(run.token, []).append(run)
        lost = [each for each, doc in docs.items() if doc is None or state_of(doc) not in FINAL]
        self._must(not lost, f"I2: tokens that never ended: {lost[:5]} ({len(lost)})")
        present = {each: doc for each, doc in docs.items() if doc is not None}
        # What picas ran it may run and close again: it looks at no lock.
        ours = {each: doc for each, doc in present.items() if not any(run.claim == PICAS for run in by_token[each])}
        twice = sum(self._recorded_twice(each, doc) for each, doc in ours.items())
        for each, doc in present.items():
            self._check_token(each, doc, by_token[each], each in ours)
        self._check_counts()
        figures = self._figures(name, by_token, present, len(lost), twice)
        if self.problems:
            told = [f"{len(self.problems)} problems; {figures}", *self.problems[:20]]
            blamed = [each for each in ids if any(each in problem for problem in self.problems[:20])]
            raise AssertionError("\n".join([*told, *(self._story(each, by_token[each]) for each in blamed[:5])]))
        return figures

    def _must(self, holds: bool, problem: str) -> None:
        if not holds:
            self.problems.append(problem)

    def _story(self, token: str, runs: Sequence[Run]) -> str:
        """Return all that is known of a token, for a person who looks for the fault."""
        lines = [f"--- {token}"]
        for doc in self.past.get(token, ()):
            lease = doc.get("lease") or {}
            tried = [
                f"{str(a.get('claim'))[:6]}:{a.get('failure_class') or a.get('exit_code')}" for a in attempts_of(doc)
            ]
            names = f"worker {str(lease.get('worker'))[7:13]} claim {str(lease.get('claim'))[:6]}" if lease else ""
            lines.append(f"  {doc['_rev'][:8]} {state_of(doc)} lock {doc.get('lock')} {names} attempts {tried}")
        lines += [f"  run {run.claim[:6]} of {run.worker} from {run.start} to {run.end}" for run in runs]
        return "\n".join(lines)

    # --- one token ---------------------------------------------------------------------------------------------------

    def _recorded_twice(self, token: str, doc: Json) -> int:
        """I1: count outcomes beyond the first: claims that stand twice in its history, ends after its end."""
        claims = Counter(
            str(a.get("claim")) for a in attempts_of(doc) if a.get("claim") not in ("dependency", "invalid")
        )
        again = [claim for claim, times in claims.items() if times > 1]
        self._must(not again, f"I1: {token} has several entries of one claim in its history: {again}")
        closed = [doc for before, doc in _steps(self.past.get(token, ())) if _ends(before, doc)]
        self._must(
            len(closed) <= 1, f"I1: {token} was closed {len(closed)} times: {[d['attempts'][-1] for d in closed]}"
        )
        return len(again) + max(0, len(closed) - 1)

    def _check_token(self, token: str, doc: Json, runs: list[Run], is_ours: bool) -> None:
        self._must("_conflicts" not in doc, f"{token} still has conflicting revisions")
        claims = Counter(run.claim for run in runs if run.claim != PICAS)
        self._must(not any(n > 1 for n in claims.values()), f"{token}: one claim was run more than once")
        if state_of(doc) not in FINAL:
            return
        if is_ours:  # picas keeps no history, and leaves what it does not know
            self._must("lease" not in doc, f"{token} is closed and has a lease still")
            self._check_accepted(token, doc, runs)
            self._check_closer(token)
        self._check_logs(token, doc, is_ours)
        self._check_policy(token, doc)

    def _check_accepted(self, token: str, doc: Json, runs: list[Run]) -> None:
        """I1, I3: the outcome is that of a run that came to its end, and there is one only."""
        accepted = [a for a in attempts_of(doc) if not a.get("superseded") and a.get("failure_class") not in GIVEN_BACK]
        good = [a for a in accepted if not a.get("failure_class") and means_success(a.get("exit_code"))]
        if state_of(doc) == "done":
            self._must(len(good) == 1, f"I1: {token} is done by {len(good)} finishes: {attempts_of(doc)}")
        else:
            self._must(not good, f"I1: {token} is in error, and has a success in its history")
        if not accepted:
            self._must(bool(doc.get("error")), f"I3: {token} ended without an attempt, and without a reason")
            return
        last = accepted[-1]
        run = next((run for run in runs if run.claim == last.get("claim")), None)
        if last.get("failure_class") in (None, "executor"):
            ended = run is not None and run.end is not None and run.exit_code == last.get("exit_code")
            self._must(ended, f"I3: {token} has the outcome of a run that did not end so: {last}, ran: {run}")

    def _check_closer(self, token: str) -> None:
        """I3: who closes a token holds it, or takes it from todo in the same write. Nobody writes after its end."""
        for before, doc in _steps(self.past.get(token, ())):
            if before is None:
                continue
            if state_of(before) in FINAL:
                names = ("lock", "done", "exit_code", "output")
                changed = [name for name in names if before.get(name) != doc.get(name)]
                self._must(not changed, f"I1: {token} was changed after its end: {changed}")
            elif _ends(before, doc) and state_of(before) == "locked" and _is_leased(before):
                holder = before["lease"]["claim"]
                last = attempts_of(doc)[-1] if attempts_of(doc) else {}
                self._must(last.get("claim") == holder, f"I3: {token} was closed by {last}, held by {before['lease']}")

    def _check_logs(self, token: str, doc: Json, is_ours: bool) -> None:
        """I6: what is stored is what the run has written; of a run that was ended, the beginning of it."""
        names = doc.get("_attachments") or {}
        stored = [a for a in attempts_of(doc) if a.get("stdout") or a.get("stderr")]
        for attempt in stored:
            whole = attempt.get("failure_class") in (None, "executor")
            for field_name, kind in (("stdout", "out"), ("stderr", "err")):
                name = attempt.get(field_name)
                if name not in names:
                    recent = attempt in stored[-LOGS_KEPT:] and whole
                    self._must(not recent, f"I6: {token} names a log that is not there: {name}")
                    continue
                found = self.pool.attachment(token, str(name))
                # picas takes what has ended as well, where it saw it in time, and puts its own logs in place of ours.
                if is_ours or found != self.history.log(token, PICAS, kind):
                    self._check_log(token, attempt, kind, found, whole)

    def _check_log(self, token: str, attempt: Json, kind: str, found: bytes, whole: bool) -> None:
        meant = self.history.log(token, str(attempt["claim"]), kind)
        right = _sha(found) == _sha(meant) if whole else meant.startswith(found)
        self._must(right, f"I6: the {kind} of {token} is not what it wrote: {found[:80]!r}, meant {meant[:80]!r}")

    def _check_policy(self, token: str, doc: Json) -> None:
        """I7: no more counted attempts than allowed; a token that ran well was not lost five times in a row before."""
        counted = sum(bool(a.get("counted", True)) for a in attempts_of(doc))
        self._must(counted <= int(doc.get("max_retries") or 0) + 1, f"I7: {token} has {counted} counted attempts")
        bad = [a for a in attempts_of(doc) if a.get("failure_class") in GIVEN_BACK and a.get("counted", True)]
        self._must(not bad, f"I7: {token} has lost attempts that are counted: {bad}")

    # --- all together --------------------------------------------------------------------------------------------------

    def _check_counts(self) -> None:
        """I5: what the index says is what a walk through all documents finds."""
        rows = self.pool.backend.view(ALL_DOCS, "", {"include_docs": True}).rows
        docs = [row.doc for row in rows if row.doc is not None and row.doc.get("type") == "token"]
        walked = Counter(state_of(doc) for doc in docs)
        counted = self.pool.counts()
        self._must(counted == {s: walked.get(s, 0) for s in STATES}, f"I5: counted {counted}, there are {dict(walked)}")

    def _figures(
        self, name: str, by_token: Mapping[str, list[Run]], docs: Mapping[str, Json], lost: int, twice: int
    ) -> Figures:
        """I4 and the costs: a run for nothing is a harmed worker's, and only where it is right they overlap."""
        harmed = {harm.pid: harm for harm in self.harms}
        recovery: list[float] = []
        wasted = in_flight = overlaps = 0
        for token, runs in by_token.items():
            accepted = {a.get("claim") for a in attempts_of(docs.get(token, {})) if not a.get("superseded")}
            lost_claims = {
                a.get("claim") for a in attempts_of(docs.get(token, {})) if a.get("failure_class") in GIVEN_BACK
            }
            for number, run in enumerate(runs):
                if run.overlaps:
                    overlaps += 1
                    self._check_overlap(token, runs[: number + 1], harmed)
                used = (run.claim in accepted and run.claim not in lost_claims) or run.claim == PICAS
                if used:
                    continue
                wasted += 1
                if any(other.claim == PICAS for other in runs):
                    continue
                harm = harmed.get(run.worker)
                # A worker that died while the token was being started is not to be seen any more: init is.
                known = harm is not None or run.claim in self.excused or (run.worker <= 1 and bool(self.harms))
                self._must(known, f"I4: {token} was run for nothing by a worker that nobody harmed: {run}")
                in_flight += known
                if harm is not None and number + 1 < len(runs):
                    recovery.append(_back(docs[token], run.claim, harm.at, runs[number + 1].start) - harm.at)
        return Figures(
            name, tokens=len(docs), kills=len(self.harms), lost=lost, twice=twice, reruns=wasted, in_flight=in_flight,
            overlaps=overlaps, recovery=sorted(recovery),
        )  # fmt: skip

    def _check_overlap(self, token: str, runs: Sequence[Run], harmed: Mapping[int, Harm]) -> None:
        right = any(run.claim == PICAS or (run.worker in harmed and harmed[run.worker].lets_overlap) for run in runs)
        self._must(self.may_overlap or right, f"I4: {token} ran twice at the same time: {runs}")


def _steps(past: Sequence[Json]) -> Iterator[tuple[Json | None, Json]]:
    """Yield each stored state with the one before."""
    before = None
    for doc in past:
        yield before, doc
        before = doc


def _ends(before: Json | None, doc: Json) -> bool:
    """Tell whether this write ended the token."""
    return state_of(doc) in FINAL and (before is None or state_of(before) not in FINAL)


def _back(doc: Json, claim: str, harmed: float, again: float) -> float:
    """Return when a lost token could be claimed again: as its history tells, or when it started again at the latest."""
    offset = time.time() - uptime()
    for attempt in attempts_of(doc):
        if attempt.get("claim") == claim and attempt.get("failure_class") in GIVEN_BACK:
            noted = datetime.fromisoformat(attempt["end_time"].replace("Z", "+00:00")).timestamp() - offset
            return noted if harmed <= noted <= again else again
    return again


def _is_leased(doc: Json) -> bool:
    lease = doc.get("lease")
    return isinstance(lease, dict) and all(lease.get(name) == doc.get(name) for name in ("lock", "hostname"))


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
