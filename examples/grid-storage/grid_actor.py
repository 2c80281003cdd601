#!/usr/bin/env python3
"""Works tokens as a picas script does: fetches the token's file from Grid storage, works on it, puts the result there."""

import os
import tempfile

from tokenpool.actors import RunActor
from tokenpool.clients import CouchDB
from tokenpool.executers import execute
from tokenpool.modifiers import BasicTokenModifier
from tokenpool.staging.transfers import Download, Transfers, Upload
from tokenpool.storage import Storages


class GridActor(RunActor):
    """A token's ``input`` is the URL of a file on Grid storage, its ``output`` is where the result goes."""

    def __init__(self, client, transfers, **view):
        super().__init__(client, **view)
        self.modifier = BasicTokenModifier()
        self.transfers = transfers

    def process_task(self, token):
        """Do what one token says; an error, as of an expired proxy, ends in the token's own error state."""
        with tempfile.TemporaryDirectory() as folder:
            here, there = os.path.join(folder, "reads"), os.path.join(folder, "count")
            # Whole or not at all, with the server's checksum, tried again where that helps.
            self.transfers.run([Download(token["input"], here)])
            self.subprocess, token["exit_code"], _, err = execute(["sh", "-c", f"wc -l < {here} > {there}"])
            (file,) = self.transfers.run([Upload(there, token["output"])])
        token["result"] = {"url": file.url, "size": file.size, "sha256": file.sha256}
        token.put_attachment(f"logs_{token.id}.err", err)
        self.modifier.close(token)


if __name__ == "__main__":
    client = CouchDB(os.environ["PICAS_HOST_URL"], os.environ.get("PICAS_DATABASE", "mypicasdb"))
    transfers = Transfers(Storages())
    GridActor(client, transfers, view="todo", design_doc="Monitor").run(max_token_time=1800, max_scrub=2)
    transfers.close()
