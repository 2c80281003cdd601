#!/usr/bin/env python3
"""Pushes tokens: pushTokens.py FILE (one command or parameter line a token), or quick, fractals, autopilot."""

import subprocess
import sys
from pathlib import Path

import picasconfig

from tokenpool.backends.base import ALL_DOCS
from tokenpool.clients import CouchDB

HERE = Path(__file__).resolve().parent


def lines_of(file):
    """Return the lines of a file that hold something."""
    return [line for line in Path(file).read_text("utf-8").splitlines() if line.strip()]


def tokens_for(what):
    """Return the fields of the tokens that the argument asks for."""
    if what == "autopilot":
        return [{"input": "echo $SLURM_CPUS_PER_TASK", "cores": cores} for cores in (1, 1, 4)]
    if what == "fractals":
        created = subprocess.run([HERE / "createTokens"], stdout=subprocess.PIPE, text=True, check=True)
        what = created.stdout.strip()
    return [{"input": line} for line in lines_of(HERE / "quickExample.txt" if what == "quick" else what)]


def next_number(client):
    """Return the first n from which on no token_<n> is there; counting documents would collide after a deletion."""
    rows = client.pool.backend.view(ALL_DOCS, "", {"startkey": "token_", "endkey": "token_\ufff0"}).rows
    return max((int(row.id[6:]) + 1 for row in rows if row.id[6:].isdecimal()), default=0)


a_file = picasconfig.PICAS_HOST_URL.startswith("sqlite:")
client = CouchDB(
    picasconfig.PICAS_HOST_URL,
    picasconfig.PICAS_DATABASE,
    picasconfig.PICAS_USERNAME,
    picasconfig.PICAS_PASSWORD,
    create=a_file,
)
if a_file:  # it needs no admin, so whoever pushes first makes it, with its views
    client.pool.init()
tokens = tokens_for(sys.argv[1] if len(sys.argv) > 1 else "quick")
first = next_number(client)
pushed = list(client.pool.push_stream({"_id": f"token_{first + i}", **fields} for i, fields in enumerate(tokens)))
refused = [token for token in pushed if token.reason]
for token in refused:
    print(f"{token.id} was not saved: {token.reason}", file=sys.stderr)
print(f"pushed {len(pushed) - len(refused)} of {len(pushed)} tokens")
sys.exit(bool(refused))
