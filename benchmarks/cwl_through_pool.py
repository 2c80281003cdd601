"""A CWL runner for cwltest that runs nothing itself: it pushes a token, waits, and fetches what a worker made of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tokenpool.cwl.params import read
from tokenpool.cwl.results import place
from tokenpool.cwl.sources import local_path, parse
from tokenpool.cwl.tokens import Wanted, token_of
from tokenpool.errors import TokenpoolError
from tokenpool.pool import connect

#: Files of one test together: some tests pass large ones.
LIMIT = 500_000_000


def main() -> int:
    """Take cwltest's command line; return the exit code of the CWL runner at the worker."""
    words = argparse.ArgumentParser()
    words.add_argument("--outdir", type=Path, required=True)
    words.add_argument("--quiet", action="store_true")
    words.add_argument("tool")
    words.add_argument("job", nargs="?", default="")
    given = words.parse_args()
    job = here(given.job)
    token = token_of(parse(here(given.tool)), read(job, ()), Path(job).parent, Wanted(LIMIT))
    with connect() as pool:
        [pushed] = pool.push([token])
        pool.wait(pushed, poll=0.1)
        done = pool.get(pushed)
        sys.stderr.write(pool.logs(pushed).err.decode("utf-8", "replace"))
        if done["exit_code"] != 0:
            sys.stderr.write("".join(f"{each['message']}\n" for each in done["error"]))
            return int(done["exit_code"])
        names = done["_attachments"]
        placed = place(done["output"]["result"], names, lambda name: pool.attachment(pushed, name), given.outdir)
        print(json.dumps(placed))
    return 0


def here(word: str) -> str:
    """Return a path for a word that cwltest spelled as a URL; its files are to travel."""
    if not word.startswith("file://"):
        return word
    file, mark, name = word.partition("#")
    return local_path(file) + mark + name


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TokenpoolError as error:
        sys.exit(f"error: {error}\nhint: {error.hint}")
