"""Runs small Snakemake rules in three ways on the same cores, and prints jobs per second.

    python benchmarks/snakemake_rules.py                # 200 rules, two cores
    python benchmarks/snakemake_rules.py --rules 50

The ways: `snakemake --executor local`, through a pool with a resident worker, and one `sbatch` for each job
(snakemake-executor-plugin-slurm) on a real Slurm of this machine with accounting, which is started for it. What is
missing is named. It ends with 1 if a rule was not run, or the pool is not five times as fast as one sbatch per job.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SNAKEFILE = """
rule all:
    input: expand("out/{i}", i=range(%d))
rule small:
    output: "out/{i}"
    shell: "echo {wildcards.i} > {output}"
"""
#: How many times the rate of one sbatch per job is to be reached.
GOAL = 5.0


@dataclass(frozen=True)
class Result:
    """How one way went."""

    way: str
    done: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.done / self.seconds


def run(way: str, rules: int, words: list[str], environ: Mapping[str, str], most: float) -> Result:
    """Run the workflow in an empty folder of its own."""
    with tempfile.TemporaryDirectory(prefix="rules-") as folder:
        Path(folder, "Snakefile").write_text(SNAKEFILE % rules)
        settings = {**environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": f"{folder}/cache"}
        command = [sys.executable, "-m", "snakemake", "--latency-wait", "5", *words]
        began = time.perf_counter()
        with Path(folder, "said").open("wb") as said:
            try:
                subprocess.run(command, cwd=folder, env=settings, stdout=said, stderr=said, timeout=most, check=False)
            except subprocess.TimeoutExpired:
                print(f"{way}: not done within {most:g} s", file=sys.stderr)
        seconds = time.perf_counter() - began
        done = sum(1 for _ in Path(folder, "out").glob("*"))
        if done < rules:
            print(Path(folder, "said").read_text(errors="replace")[-3000:], file=sys.stderr)
        return Result(way, done, seconds)


@contextmanager
def slurm(cores: int) -> Iterator[dict[str, str]]:
    """A Slurm with accounting; yields the environment in which its commands, and those in its jobs, find it."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "launch")]
    from slurm_server import Slurm

    with (
        tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as folder,
        Slurm(Path(folder) / "s", cores, True) as up,
    ):
        # Its plugin takes SLURM_CONF from the jobs, in which srun has to find the cluster nevertheless.
        place, environ = Path(folder) / "bin", up.environment
        place.mkdir()
        for name in ("srun", "sbatch", "squeue", "sacct", "scancel"):
            script = place / name
            real = shutil.which(name, path=environ["PATH"])
            script.write_text(f'#!/bin/sh\nSLURM_CONF={environ["SLURM_CONF"]} exec {real} "$@"\n')
            script.chmod(0o755)
        yield {**environ, "PATH": f"{place}:{environ['PATH']}"}


def ways(rules: int, cores: int, most: float) -> Iterator[Result]:
    """Yield how each way went that can be tried here."""
    environ = dict(os.environ)
    yield run("snakemake --executor local", rules, ["--executor", "local", "--cores", str(cores)], environ, most)
    words = ["--executor", "tokenpool", "--tokenpool-pool", "sqlite:///pool.db", "--tokenpool-workers", str(cores)]
    yield run("tokenpool, resident worker", rules, [*words, "-j", str(rules)], environ, most)
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        print("left out: no snakemake-executor-plugin-slurm", file=sys.stderr)
        return
    words = ["--executor", "slurm", "-j", str(rules), "--slurm-no-account", "--slurm-status-command", "sacct"]
    words += ["--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks", "1"]
    words += ["--default-resources", "slurm_partition=debug", "mem_mb=300", "runtime=30"]
    try:
        with slurm(cores) as environ:
            yield run("one sbatch per job", rules, words, environ, most)
    except Exception as error:
        if type(error).__name__ != "Unavailable":
            raise
        print(f"left out: {error}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rules", type=int, default=200)
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--most", type=float, default=1800.0, help="seconds that each way may take")
    given = parser.parse_args()
    results: dict[str, Result] = {}
    for result in ways(given.rules, given.cores, given.most):
        results[result.way] = result
        told = f"{result.done} of {given.rules} done  {result.seconds:7.1f} s  {result.rate:6.2f} jobs/s"
        print(f"{result.way:28}  {told}", flush=True)
    ours, theirs = results["tokenpool, resident worker"], results.get("one sbatch per job")
    if theirs is not None:
        print(
            f"the pool runs {ours.rate / theirs.rate:.1f} times as many jobs/s as one sbatch per job (goal: {GOAL:g})"
        )
    complete = all(result.done == given.rules for result in results.values())
    return 0 if complete and (theirs is None or ours.rate >= GOAL * theirs.rate) else 1


if __name__ == "__main__":
    sys.exit(main())
