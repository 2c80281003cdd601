#!/usr/bin/env python3
"""Pushes a token of picas' kind for each sample: push_tokens.py STORAGE, for example root://se.example.org//data/me."""

import os
import sys

from tokenpool.clients import CouchDB
from tokenpool.documents import Task

storage = sys.argv[1].rstrip("/")
client = CouchDB(os.environ["PICAS_HOST_URL"], os.environ.get("PICAS_DATABASE", "mypicasdb"))
client.save_documents(
    Task(
        {
            "_id": f"token_{n}",
            "type": "token",
            "input": f"{storage}/samples/sample{n}.fastq",
            "output": f"{storage}/counts/sample{n}.txt",
        }
    )
    for n in (1, 2, 3)
)
