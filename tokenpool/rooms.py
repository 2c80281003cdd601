"""Room for tokens on a worker's machine: what each asks for, packed into what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import chance
from .backends.base import Json
from .errors import BadInput
from .fit import Packing, Placement, Resources, gpu_ids, own_cpus, wanted

#: Seconds that a big token waits until smaller ones have to wait for it: somewhere between these.
PATIENCE = (45.0, 75.0)


class Rooms:
    """The CPUs, memory and GPUs of one worker; claimed tokens take and free them."""

    def __init__(self, total: Resources, slots: int) -> None:
        names = (gpu_ids() or tuple(map(str, range(total.gpus))))[: total.gpus]
        self.total = replace(total, gpus=len(names))
        # Not all idle workers should keep room for the same big token at the same time.
        self._packing = Packing(self.total, own_cpus(), names, patience=chance.uniform(*PATIENCE))
        self._slots = slots
        self._placed: dict[str, tuple[str, Placement]] = {}
        #: The claims that are here, and those of them that asked for something.
        self._in_hand: set[str] = set()
        self._asking: set[str] = set()

    @property
    def told(self) -> dict[str, Any]:
        """What the worker's document says of them."""
        return {"cpu_cores": self.total.cpu_cores, "ram_gb": self.total.ram_gb, "gpus": self.total.gpus}

    def resize(self, slots: int) -> None:
        """Share the CPUs among so many slots from now on."""
        self._slots = slots

    def fits(self, doc: Json) -> bool:
        """Tell whether the token could ever run here; one that asks for nonsense may: it ends with the reason."""
        if not doc.get("resources"):
            return True
        try:
            return self._packing.fits_ever(wanted(doc))
        except BadInput:
            return True

    def take(self, doc: Json) -> bool:
        """Take a place for a stamped token; False: none is free now.

        A token that asks for nothing counts as one CPU, or as a slot's share if that is less. Among its like it needs
        no room, as it may wait here for a slot; beside those that ask, it does.
        """
        key, claim = doc["_id"], doc["lease"]["claim"]
        try:
            want = wanted(doc, default_cpus=min(1.0, self.total.cpu_cores / self._slots))
        except BadInput:
            want = Resources()
        asks = bool(doc.get("resources"))
        placement = self._packing.take(key, want, _priority(doc))
        if placement is None and (asks or (self._asking and len(self._in_hand) < self._slots)):
            return False
        self._in_hand.add(claim)
        if asks:
            self._asking.add(claim)
        if placement is not None:
            self._placed[claim] = key, placement
        return True

    def free(self, claim: str) -> None:
        """Give back what a token took."""
        self._in_hand.discard(claim)
        self._asking.discard(claim)
        key, _ = self._placed.pop(claim, ("", None))
        if key:
            self._packing.free(key)

    def placement(self, claim: str) -> Placement:
        """Return what a token was given."""
        placement = self._placed.get(claim, ("", Placement()))[1]
        if claim in self._asking:
            return placement
        # What it counts as here is no news for a token that did not ask.
        hidden = {name: value for name, value in placement.environment.items() if name != "CPU"}
        return replace(placement, environment=hidden)


def _priority(doc: Json) -> float:
    value = doc.get("priority")
    return float(value) if isinstance(value, (int, float)) else 0.0
