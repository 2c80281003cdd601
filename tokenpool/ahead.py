"""Fetches the inputs of a token that waits for its slot, and tells its worker how far its data is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from .backends.base import Json
from .runners.base import Places
from .staging.values import Progress

if TYPE_CHECKING:  # made when the first token has data
    from .staging.inputs import Found
    from .staging.stager import Stager


class Watching:
    """Tells a token's data whether it is to go on, and the worker how far it is."""

    def __init__(
        self,
        claim: str,
        why_stopped: Callable[[str], str] = lambda claim: "",
        on_phase: Callable[[str, str, Progress | None], None] = lambda claim, name, progress: None,
    ) -> None:
        self._claim, self._why_stopped, self._on_phase = claim, why_stopped, on_phase
        self.over = False

    def stopped(self) -> bool:
        """Tell whether the token is to end."""
        return self.over or bool(self._why_stopped(self._claim))

    def phase(self, name: str, progress: Progress | None = None) -> None:
        """Hear what the token does now."""
        self._on_phase(self._claim, name, progress)


class Ahead:
    """Inputs that are fetched into the folder of an attempt before its turn comes, in a thread."""

    def __init__(self, doc: Json, places: Places, stager: Stager, watching: Watching) -> None:
        self.places, self._watching = places, watching
        self._done = threading.Event()
        self._found: list[Found] = []
        self._error: BaseException | None = None
        task = partial(self._fetch, doc, stager)
        threading.Thread(target=task, name="tokenpool-ahead", daemon=True).start()

    def _fetch(self, doc: Json, stager: Stager) -> None:
        try:
            self._found = stager.fetch(doc, self.places, self._watching)
        except BaseException as error:  # raised where the inputs are needed
            self._error = error
        self._done.set()

    def found(self) -> list[Found]:
        """Return what was fetched once it is here; raises what fetching raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._found

    def end(self) -> None:
        """Return when nothing is fetched any more."""
        self._watching.over = True
        self._done.wait()
