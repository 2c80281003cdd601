"""Takes one token's data through its attempt: in before the command, out after it, and not twice what was done once."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ..backends.base import Backend, Json
from ..errors import BadInput, TokenpoolError
from ..runners.base import Places, Result
from ..vault import hide
from . import plan, reuse
from .cache import Cache
from .failures import class_of
from .inputs import Found, Inputs
from .leftovers import Leftover, Leftovers
from .outputs import Delivered, Leaving, deliver, leaving
from .transfers import Download, Progress, Stopped, Transfers

log = logging.getLogger(__name__)

FAILED = 99
ATTACHED = "attachment:"


class Watch(Protocol):
    """Who is told how far a token is, and says whether it is to go on."""

    def stopped(self) -> bool:
        """Tell whether the token is to end."""

    def phase(self, name: str, progress: Progress | None = None) -> None:
        """Hear what the token does now."""


@dataclass(frozen=True)
class Attempt:
    """One attempt of a token that has data."""

    doc: Json
    places: Places
    layout: plan.Layout
    watch: Watch

    @property
    def claim(self) -> str:
        """The claim that it runs under."""
        return str(self.doc["lease"]["claim"])


class Stager:
    """Moves the data of one worker's tokens; made once, used by all its slots at once."""

    def __init__(self, transfers: Transfers, cache: Cache, backend: Backend, scratch: str, attach_limit: int) -> None:
        """`scratch` is the folder in which the workers of this machine have theirs."""
        self.transfers, self.backend, self.attach_limit = transfers, backend, attach_limit
        self.inputs = Inputs(transfers, cache)
        self.leftovers = Leftovers(Path(scratch) / "leftovers", backend.url)
        self._held: dict[str, Leftover] = {}

    # --- before ------------------------------------------------------------------------------------------------------

    def prepare(self, doc: Json, work: str) -> tuple[tuple[str, str], ...]:
        """Make the folders of an attempt that has data; return its volumes, as `Places` has them."""
        layout = _layout(doc, work)
        for _, folder in (*layout.places, *layout.volumes):
            os.makedirs(folder, exist_ok=True)
        return layout.volumes

    def fetch(self, doc: Json, places: Places, watch: Watch) -> list[Found]:
        """Bring the inputs of a token; raises BadInput for a token that makes no sense, else as Inputs does."""
        layout = plan.layout_of(doc, places.work)
        wanted, _ = plan.inputs_of(doc, layout), plan.outputs_of(doc, layout)
        progress = Progress()
        watch.phase("stage_in", progress)
        found = self.inputs.find(wanted, progress, watch.stopped)
        self.inputs.bring(found, places.work, progress, watch.stopped)
        return found

    # --- the whole -----------------------------------------------------------------------------------------------------

    def around(
        self,
        doc: Json,
        places: Places,
        watch: Watch,
        run: Callable[[], Result],
        ahead: Callable[[], list[Found]] | None = None,
    ) -> Result:
        """Run a token between its inputs and its outputs; `ahead` waits for inputs that somebody fetches already.

        Raises BadInput for a token that makes no sense; whatever hinders its data is a Result.
        """
        attempt = Attempt(doc, places, plan.layout_of(doc, places.work), watch)
        plan.inputs_of(doc, attempt.layout)
        outputs = plan.outputs_of(doc, attempt.layout)
        try:
            if (left := self.leftovers.take(doc)) is not None:
                return self._send_left(attempt, left)
            key, taken = self._reused(attempt) if doc.get("reuse") else ("", None)
            if taken is not None:
                return taken
            (ahead or (lambda: self.fetch(doc, places, watch)))()
            if watch.stopped():
                return Result(FAILED)
        except TokenpoolError as error:
            return self._failed(doc, error, "its inputs could not be brought")
        watch.phase("run")
        result = run()
        return self._send(attempt, outputs, result, key)

    def _send(self, attempt: Attempt, outputs: list[plan.Sent], result: Result, key: str = "") -> Result:
        """Send what a run made; what cannot be sent is kept for the next attempt."""
        succeeded = not result.failure_class and result.exit_code == 0
        watch, going = attempt.watch, list[Leaving]()
        progress = Progress()
        try:
            going = leaving(outputs, attempt.places.work, succeeded)
            if not (going or key):
                return result
            watch.phase("stage_out", progress)
            sent = deliver(going, self.transfers, self.attach_limit, progress, watch.stopped)
        except TokenpoolError as error:
            if not succeeded:  # the command's own failure is what counts
                log.warning("outputs of %s could not be sent: %s", attempt.doc["_id"], error)
                return result
            if going:
                self._keep(attempt, result, going)
            failed = self._failed(attempt.doc, error, "its outputs could not be sent", leaving=True)
            return replace(failed, cpu_seconds=result.cpu_seconds, max_rss_mb=result.max_rss_mb)
        return _with(result, sent, key)

    def _keep(self, attempt: Attempt, result: Result, going: list[Leaving]) -> None:
        told = {"cpu_seconds": result.cpu_seconds, "max_rss_mb": result.max_rss_mb, "output": result.output}
        try:
            self.leftovers.keep(attempt.doc, attempt.claim, told, going, result.files)
        except OSError as error:
            log.warning("the outputs of %s could not be kept for its next attempt: %s", attempt.doc["_id"], error)

    def _send_left(self, attempt: Attempt, left: Leftover) -> Result:
        """Send what the attempt before made; its command is not run again."""
        progress = Progress()
        attempt.watch.phase("stage_out", progress)
        log.info("token %s ran before: only its outputs are sent", attempt.doc["_id"])
        try:
            sent = deliver(left.leaving, self.transfers, self.attach_limit, progress, attempt.watch.stopped)
        except BaseException:
            left.held.close()
            raise
        self._held[attempt.claim] = left
        return _with(Result(0, output=left.result.get("output"), files=left.attached), sent)

    def settled(self, claim: str) -> None:
        """The outcome of an attempt is recorded: what was kept for it is not needed any more."""
        left = self._held.pop(claim, None)
        if left is not None:
            self.leftovers.done(left)

    def _failed(self, doc: Json, error: TokenpoolError, what: str, leaving: bool = False) -> Result:
        if isinstance(error, Stopped):
            return Result(FAILED, "staging", f"stopped: {what}")
        names = {each.get("credentials") for part in ("inputs", "outputs") for each in doc.get(part) or ()}
        hidden = [value for name in names if name for value in self._hidden(str(name))]
        told = f"{what}: {error}; {error.hint}" if error.hint else f"{what}: {error}"
        return Result(FAILED, class_of(error, leaving), hide(told.encode(), hidden).decode())

    def _hidden(self, name: str) -> list[str]:
        try:
            return self.transfers.storages.hidden(name)
        except BadInput:
            return []

    # --- what was done before -----------------------------------------------------------------------------------------

    def _reused(self, attempt: Attempt) -> tuple[str, Result | None]:
        """Return the key of a token's work, and the results of an earlier one that did the same."""
        doc, watch, progress = attempt.doc, attempt.watch, Progress()
        watch.phase("stage_in", progress)
        wanted = plan.inputs_of(doc, attempt.layout)
        key = reuse.key_of(doc, self.inputs.find(wanted, progress, watch.stopped), attempt.places.work)
        try:
            before = reuse.earlier(doc, key, self.backend, self.transfers, progress, watch.stopped)
        except Stopped:
            raise
        except TokenpoolError as error:
            log.warning("earlier results for %s cannot be looked at: %s", doc["_id"], error)
            before = None
        if before is None:
            return key, None
        files, attached = reuse.recorded(before), dict[str, str]()
        output = {**before["output"], "reused": before["_id"]}
        names = [
            str(each.get("url", ""))[len(ATTACHED) :] for each in files if str(each.get("url")).startswith(ATTACHED)
        ]
        front = [name for name in before.get("_attachments") or {} if name.startswith("output/")]
        for name in dict.fromkeys([*names, *front]):
            attached[name] = self._copy(
                before["_id"], name, os.path.join(attempt.places.work, ".reused"), len(attached)
            )
        if reuse.is_same_place(doc, before):
            return key, Result(0, output=output, files=attached, reuse_key=key)
        result = Result(0, output=output, files=attached)
        for each in files:
            self._restore(each, attempt, attached)
        return key, self._send(attempt, plan.outputs_of(doc, attempt.layout), result, key)

    def _copy(self, doc_id: str, name: str, folder: str, number: int) -> str:
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, str(number))
        with open(path, "wb") as file:
            for piece in self.backend.get_attachment(doc_id, name):
                file.write(piece)
        return path

    def _restore(self, each: Mapping[str, Any], attempt: Attempt, attached: Mapping[str, str]) -> None:
        """Put a file that an earlier token sent to where its command made it: it goes elsewhere this time."""
        name = str(each.get("path", ""))
        target = os.path.normpath(os.path.join(attempt.places.work, "output", name))
        if not target.startswith(os.path.join(attempt.places.work, "")) or str(each.get("url")).startswith(ATTACHED):
            return
        self.transfers.run([Download(str(each["url"]), target, "", str(each.get("sha256") or ""))],
                           Progress(), attempt.watch.stopped)  # fmt: skip

    # --- coming and going -----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look, in a thread, for what earlier workers left and nobody will come for."""
        if self.leftovers.root.is_dir():
            threading.Thread(target=self._sweep, name="tokenpool-leftovers", daemon=True).start()

    def _sweep(self) -> None:
        try:
            self.leftovers.sweep(self.backend)
        except TokenpoolError as error:
            log.debug("leftovers were not looked through: %s", error)

    def close(self) -> None:
        """Let go of threads."""
        self.transfers.close()
        self.leftovers.close()


def _layout(doc: Json, work: str) -> plan.Layout:
    """Return the folders to be made; what makes no sense is told later, when the token is run."""
    try:
        return plan.layout_of(doc, work)
    except (BadInput, AttributeError, TypeError):
        return plan.layout_of({}, work)


def _with(result: Result, sent: Delivered, key: str = "") -> Result:
    """Return a result that tells of what was sent."""
    output = {**(result.output or {}), **({"files": sent.files} if sent.files else {})}
    files = {**result.files, **sent.attached}
    return replace(result, output=output or result.output, files=files, reuse_key=key)
