#!/usr/bin/env python3
"""Deletes every token of a view, with its logs, for good: deleteTokens.py Monitor/error."""

import sys

import picasconfig

from tokenpool.clients import CouchDB

if len(sys.argv) != 2 or "/" not in sys.argv[1]:
    sys.exit(__doc__)
client = CouchDB(
    picasconfig.PICAS_HOST_URL, picasconfig.PICAS_DATABASE, picasconfig.PICAS_USERNAME, picasconfig.PICAS_PASSWORD
)
design, view = sys.argv[1].split("/")
ids = [row.id for row in client.view(view, design_doc=design)]
# A view of running tokens was named on purpose, so they go too.
changed = client.pool.rm(ids, running=True) if ids else None
print(f"deleted {changed.changed if changed else 0} of {len(ids)} tokens")
sys.exit(changed is not None and bool(changed.failed))
