"""What a pool should do, as a few lines of plain Python: the model that both backends are compared with.

It knows tokens, workers and claims; no documents, no revisions, no time. A worker's claim is *valid* as long as nobody
ended it: its lease ran out, or a person put the token back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TODO, HELD, LOCKED, DONE, ERROR = "todo", "held", "locked", "done", "error"
MOST_LOSSES = 5


@dataclass
class Attempt:
    """One entry of a token's history."""

    claim: str
    kind: str  # ok, failed, lost, superseded
    counted: bool


@dataclass
class ModelToken:
    """One token; `claim` and `worker` hold it while it is locked."""

    priority: int = 0
    max_retries: int = 0
    state: str = TODO
    claim: str = ""
    worker: str = ""
    cancelled: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    # --- workers -----------------------------------------------------------------------------------------------------

    def claimed(self, claim: str, worker: str) -> None:
        """A worker took it."""
        assert self.is_free
        self.state, self.claim, self.worker = LOCKED, claim, worker

    @property
    def is_free(self) -> bool:
        """Anybody may take it."""
        return self.state == TODO and not self.cancelled

    def finished(self, claim: str, ok: bool) -> None:
        """The run of a claim ended; it may come late."""
        valid = self.state == LOCKED and self.claim == claim
        if not valid and not self.is_free:
            self._note(Attempt(claim, "superseded", False))
            return
        self._note(Attempt(claim, "ok" if ok else "failed", True))
        if ok:
            self._rest(DONE)
        elif self.cancelled or sum(attempt.counted for attempt in self.attempts) > self.max_retries:
            self._rest(ERROR)
        else:
            self._rest(TODO)

    def given_back(self, claim: str) -> None:
        """Its worker does not want it any more."""
        if self.state == LOCKED and self.claim == claim:
            self._rest(ERROR if self.cancelled else TODO)

    def lost(self) -> None:
        """The lease of its worker ran out."""
        self._note(Attempt(self.claim, "lost", False))
        row = 0
        for attempt in reversed(self.attempts):
            if attempt.kind != "lost":
                break
            row += 1
        self._rest(ERROR if self.cancelled or row >= MOST_LOSSES else TODO)

    def _note(self, attempt: Attempt) -> None:
        """Add to the history; a worker knows better than those who noted that it was lost."""
        self.attempts = [each for each in self.attempts if each.claim != attempt.claim]
        self.attempts.append(attempt)

    def _rest(self, state: str) -> None:
        self.state, self.claim, self.worker = state, "", ""

    # --- people ------------------------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """Somebody does not want it to run."""
        if self.state in (DONE, ERROR):
            return False
        self.cancelled = True
        if self.state != LOCKED:
            self._rest(ERROR)
        return True

    def retry(self) -> bool:
        """Somebody wants a failed one to run again."""
        if self.state != ERROR:
            return False
        self.cancelled = False
        self._rest(TODO)
        return True

    def reset(self) -> bool:
        """Somebody wants it to run again, whatever came of it."""
        if self.state == TODO:
            return False
        self.cancelled = False
        self._rest(TODO)
        return True

    def pause(self) -> bool:
        """Somebody wants it to wait."""
        if self.state != TODO:
            return False
        self.state = HELD
        return True

    def resume(self) -> bool:
        """Somebody lets it go on."""
        if self.state != HELD:
            return False
        self.state = TODO
        return True

    def edit(self, priority: int) -> bool:
        """Somebody changes a token that does not run."""
        if self.state == LOCKED:
            return False
        self.priority = priority
        return True
