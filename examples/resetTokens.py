#!/usr/bin/env python3
"""Puts the tokens of a view back to todo, their results forgotten: resetTokens.py Monitor/locked [hours]."""

import sys

import picasconfig

from tokenpool.clients import CouchDB
from tokenpool.selectors import Selector

if len(sys.argv) not in (2, 3) or "/" not in sys.argv[1]:
    sys.exit(f"{__doc__}\nWith hours, only tokens that were locked longer ago than that.")
client = CouchDB(
    picasconfig.PICAS_HOST_URL, picasconfig.PICAS_DATABASE, picasconfig.PICAS_USERNAME, picasconfig.PICAS_PASSWORD
)
design, view = sys.argv[1].split("/")
ids = tuple(row.id for row in client.view(view, design_doc=design))
if len(sys.argv) == 3:
    too_old = Selector(older_than=float(sys.argv[2]) * 3600)
    ids = tuple(token.id for token in client.pool.tokens(ids) if too_old.matches(token))
elif sys.stdin.isatty():
    input(f"{len(ids)} tokens of {sys.argv[1]} will be reset, running ones too; Enter goes on, Ctrl-C does not ")
changed = client.pool.reset(ids) if ids else None
print(f"reset {changed.changed if changed else 0} of {len(ids)} tokens")
sys.exit(changed is not None and bool(changed.failed))
