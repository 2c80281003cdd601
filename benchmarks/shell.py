"""Shell tokens that run `true` on one machine: tokenpool on SQLite beside its peers, in turn, in one run."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import Options, Table, Used, used

PEERS = Path(__file__).resolve().parent / "peers"
#: Module, name, whether it lives in the peers' own environment; tokenpool and the floor first.
TOOLS = (
    ("own", "tokenpool on SQLite", False),
    ("xargs", "xargs -P (floor: keeps nothing)", False),
    ("hq", "HyperQueue", True),
    ("huey_sqlite", "Huey on SQLite", True),
    ("fq", "python-task-queue, fq://", True),
    ("gnu_parallel", "GNU parallel --joblog --results", False),
)


@dataclass(frozen=True)
class Taken:
    """One run of one tool."""

    told: Mapping[str, Any]
    cost: Used


def run(module: str, python: str, tokens: int, slots: int, folder: str) -> Taken:
    """Run one tool in a process and a folder of its own; `told` has "missing" where it is not there."""
    own = tempfile.mkdtemp(prefix=module, dir=folder)
    command = [python, str(PEERS / "run.py"), module, str(tokens), str(slots), own]
    with used() as cost:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return Taken({"missing": f"it failed: {done.stderr.strip().splitlines()[-1:]}"}, cost)
    return Taken(json.loads(done.stdout.splitlines()[-1]), cost)


def measure(options: Options, table: Table) -> None:
    table.section(
        f"Shell tokens `true`, {options.tokens} of them, {options.slots} slots; "
        f"from the first submission to the last result, workers' start included"
    )
    # Removed at the very end: see run.py.
    with tempfile.TemporaryDirectory() as folder:
        show(options, table, take(options, table, folder))


def take(options: Options, table: Table, folder: str) -> dict[str, list[Taken]]:
    """Run every tool in every round; those that are missing are skipped by name."""
    taken: dict[str, list[Taken]] = {module: [] for module, _, _ in TOOLS}
    for _ in range(options.rounds):
        for module, name, foreign in TOOLS:
            if foreign and options.peers_python is None:
                if not taken[module]:
                    table.skip(name, "make peers installs it")
                    taken[module].append(Taken({"missing": ""}, Used()))
                continue
            python = str(options.peers_python) if foreign else sys.executable
            taken[module].append(run(module, python, options.tokens, options.slots, folder))
            if "missing" in taken[module][-1].told and len(taken[module]) == 1:
                table.skip(name, taken[module][-1].told["missing"])
    return {module: runs for module, runs in taken.items() if "missing" not in runs[0].told}


def show(options: Options, table: Table, taken: Mapping[str, list[Taken]]) -> None:
    def rate(module: str) -> float:
        return options.tokens / statistics.median(each.told["seconds"] for each in taken[module])

    aims = {"xargs": "tokenpool >= 0.6 of it"}
    for module, name, _ in TOOLS:
        if module not in taken:
            continue
        runs = taken[module]
        told = runs[-1].told
        cpu = 1000 * statistics.median(each.cost.cpu for each in runs) / options.tokens
        ratio = "" if module == "own" else f"tokenpool is {rate('own') / rate(module):.2f} times"
        counted = f"{told['exit_codes']} exit codes, {told['logs']} logs: {told['kept']}"
        if module != "xargs" and (told["exit_codes"], told["logs"]) != (options.tokens, 2 * options.tokens):
            counted = f"NOT ALL RECORDED: {counted}"
        aim = aims.get(module, "" if module == "own" else "tokenpool ahead")
        figure = f"{rate(module):,.0f}/s {cpu:.2f} ms CPU"
        foreign = max(each.cost.foreign for each in runs)
        table.row(name, figure, ratio, f"{told['version']}; {counted}", aim, foreign)
