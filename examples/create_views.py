#!/usr/bin/env python3
"""Makes the pool if it is not there, and its views: createViews.py [autopilot]."""

import sys

import picasconfig

from tokenpool.clients import CouchDB
from tokenpool.designs import AUTOPILOT_DESIGNS, DEFAULT_DESIGNS

client = CouchDB(
    picasconfig.PICAS_HOST_URL,
    picasconfig.PICAS_DATABASE,
    picasconfig.PICAS_USERNAME,
    picasconfig.PICAS_PASSWORD,
    # A file is made here; whether a server has the database is for its admin to say.
    create=picasconfig.PICAS_HOST_URL.startswith("sqlite:"),
)
designs = AUTOPILOT_DESIGNS if sys.argv[1:] == ["autopilot"] else DEFAULT_DESIGNS
client.pool.init(designs)
print(f"{client.pool.url} has the views of {', '.join(designs)}")
