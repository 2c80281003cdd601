"""Runs a job in a copy of a process that has Snakemake loaded already: that is most of what a small job costs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence


def run(folder: str, words: Sequence[str]) -> None:
    """Run Snakemake with these arguments in a folder, if any; leaves with its exit code where that is not 0."""
    import snakemake.cli  # stays loaded; the copies below have it from the beginning

    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _be(folder, words, snakemake.cli.main)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise SystemExit(status if status > 0 else 128 - status)


def _be(folder: str, words: Sequence[str], main: object) -> None:
    """Be the copy: run, and end without what the process around us would do at its end."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.chdir(folder or ".")
        sys.argv = ["snakemake", *words]
        main(list(words))  # type: ignore[operator]
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
