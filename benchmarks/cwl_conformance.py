"""The CWL conformance tests through the pool (push, a resident worker, the result), beside cwltool's own score here.

    python benchmarks/cwl_conformance.py SUITE_DIR [--limit N] [--tests 1,5-9] [--tags a,b] [--jobs N]
                                         [--cwl-runner "cwltool --no-container"]

SUITE_DIR is a checkout of common-workflow-language/cwl-v1.2, or any folder with a conformance_tests.yaml.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITE = ("conformance_tests.yaml", "conformance_tests.yml", "conformance_test_v1.2.yaml")
#: A test may take so many seconds.
PATIENCE = 300


@dataclass(frozen=True)
class Score:
    """What became of each test: passed, failed or unsupported."""

    outcomes: dict[str, str]
    seconds: float

    def line(self, name: str) -> str:
        """Return the score as a line of the table."""
        counts = Counter(self.outcomes.values())
        told = [f"{counts[each]:>7}" for each in ("passed", "failed", "unsupported")]
        return f"{name:<24}{''.join(told)}{self.seconds:>9.0f}"


def main() -> int:
    """Run both, print both; return 0 where every test came out alike."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("suite", type=Path, metavar="SUITE_DIR")
    words.add_argument("--limit", type=int, metavar="N", help="only the first N tests")
    words.add_argument("--tests", metavar="LIST", help="only these: 1,5-9")
    words.add_argument("--tags", help="only tests with one of these tags")
    words.add_argument("--cwl-runner", default="cwltool", metavar="CMD", help="what runs a workflow, on both sides")
    words.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="tests at a time")
    given = words.parse_args()
    suite = next((given.suite / name for name in SUITE if (given.suite / name).is_file()), None)
    if suite is None:
        print(f"{given.suite} has no {SUITE[0]}", file=sys.stderr)
        return 2
    chosen = ["--tags", given.tags] if given.tags else []
    limit = given.limit and min(given.limit, size(suite))
    chosen += ["-n", given.tests or f"1-{limit}"] if given.tests or limit else []
    with tempfile.TemporaryDirectory(prefix="conformance-") as name, a_pool(Path(name), given) as tool:
        through = score(suite, tool, chosen, given.jobs, Path(name))
        alone = score(suite, runner(Path(name), given.cwl_runner), chosen, given.jobs, Path(name))
    print(f"{'':<24} passed failed unsupp. seconds")
    print(through.line("through the pool"))
    print(alone.line("cwltool alone"))
    differing = sorted(test for test in alone.outcomes if alone.outcomes[test] != through.outcomes.get(test))
    for test in differing:
        print(f"  {test}: {through.outcomes.get(test, 'missing')} through the pool, {alone.outcomes[test]} alone")
    print("equal" if not differing and alone.outcomes else "NOT equal")
    return 1 if differing or not alone.outcomes else 0


@contextmanager
def a_pool(folder: Path, given: argparse.Namespace) -> Iterator[str]:
    """Start one worker on an empty pool; give the program that runs a workflow there."""
    url = f"sqlite:///{folder}/pool.db"
    words = shlex.join([sys.executable, str(HERE / "cwl_through_pool.py")])
    program = script(folder / "through-pool", f"TOKENPOOL_POOL={shlex.quote(url)} exec {words}")
    own = [sys.executable, "-m", "tokenpool"]
    subprocess.run([*own, "init", "-p", url], check=True, capture_output=True)
    options = ["--slots", str(given.jobs), "--poll", "0.2", "--attach-limit", "1GB"]
    options += ["--workdir", str(folder / "work"), "--cwl-runner", given.cwl_runner]
    with open(folder / "worker.log", "wb") as log:
        worker = subprocess.Popen([*own, "work", "-p", url, *options], cwd=folder, stdout=log, stderr=log)
        try:
            yield program
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait()


def runner(folder: Path, line: str) -> str:
    """Return a program that is the CWL runner with its options."""
    program, *options = shlex.split(line)
    return script(folder / "alone", f"exec {shlex.join([beside(program), *options])}")


def script(path: Path, line: str) -> str:
    """Make a program of one shell line, which is given all words."""
    path.write_text(f'#!/bin/sh\n{line} "$@"\n')
    path.chmod(0o755)
    return str(path)


def score(suite: Path, tool: str, chosen: list[str], jobs: int, folder: Path) -> Score:
    """Run cwltest with a tool; return what it found."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    words = ["--test", suite.name, "--tool", tool, "-j", str(jobs), "--timeout", str(PATIENCE)]
    began = time.monotonic()
    done = subprocess.run(
        [beside("cwltest"), *words, "--junit-xml", str(report), *chosen],
        cwd=suite.parent,
        capture_output=True,
        text=True,
    )
    seconds = time.monotonic() - began
    if not report.is_file():
        sys.exit(f"cwltest made no report:\n{done.stderr[-2000:]}")
    return Score(dict(outcomes(report)), seconds)


def size(suite: Path) -> int:
    """Return how many tests a suite has: cwltest does not take a number above that."""
    listed = subprocess.run(
        [beside("cwltest"), "--test", suite.name, "-l"], cwd=suite.parent, capture_output=True, text=True, check=True
    )
    return sum(line.startswith("[") for line in listed.stdout.splitlines())


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Yield each test of a JUnit report and what became of it."""
    for number, case in enumerate(xml.parse(report).iter("testcase"), 1):
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        yield f"{number} {case.get('name')}", "failed" if failed else "unsupported" if skipped else "passed"


def beside(program: str) -> str:
    """Return a program of this Python's environment."""
    own = Path(sys.executable).parent / program
    return str(own) if own.exists() else program


if __name__ == "__main__":
    sys.exit(main())
