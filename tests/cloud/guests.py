"""Plays the hypervisor that nova only pretends to have: boots each new machine here, and powers it off when it asks."""

from __future__ import annotations

import base64
import shutil
import threading
from pathlib import Path

from new_machine import NewMachine
from openstack_server import OpenStack


class Guests:
    """All machines of a cloud; a context manager. `sandbox` is what their image has in /opt/tokenpool."""

    def __init__(self, cloud: OpenStack, folder: Path, sandbox: Path) -> None:
        self.cloud, self.folder, self.sandbox = cloud, folder, sandbox
        self.machines: dict[str, NewMachine] = {}
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._look, name="hypervisor")
        self._running: list[threading.Thread] = []

    def __enter__(self) -> Guests:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watch.join()
        for machine in self.machines.values():
            machine.kill()
        for thread in self._running:
            thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.3):
            there = {each["id"]: each for each in self.cloud.machines()}
            for name, machine in self.machines.items():
                if name not in there:
                    machine.kill()
            for each in there.values():
                if each["status"] == "ACTIVE" and each["id"] not in self.machines:
                    machine = NewMachine(self.folder / each["id"], each["name"])
                    shutil.copytree(self.sandbox, machine.folder / "image" / "opt" / "tokenpool")
                    self.machines[each["id"]] = machine
                    self._running.append(threading.Thread(target=self._live, args=(each, machine)))
                    self._running[-1].start()

    def _live(self, told: dict[str, str], machine: NewMachine) -> None:
        with machine:
            machine.boot(user_data(told))
        if "poweroff" in [line.strip() for line in machine.noted()]:
            self.cloud.power_off(told["id"])


def user_data(machine: dict[str, str]) -> bytes:
    """Return what a machine was given, as nova tells it."""
    return base64.b64decode(machine["OS-EXT-SRV-ATTR:user_data"])
