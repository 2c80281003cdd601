#!/usr/bin/env python3
"""Works tokens on this machine, one after another, until none waits: each is given to process_task.sh."""

import argparse
import logging
from pathlib import Path

import picasconfig

from tokenpool.actors import RunActor
from tokenpool.clients import CouchDB
from tokenpool.executers import execute
from tokenpool.modifiers import BasicTokenModifier

PROCESS_TASK = str(Path(__file__).resolve().with_name("process_task.sh"))
LINE = "-" * 23


class ExampleActor(RunActor):
    """Runs the input of each token and attaches what it printed."""

    def __init__(self, client, task_type, **view):
        super().__init__(client, **view)
        self.modifier = BasicTokenModifier()
        self.task_type = task_type

    def process_task(self, token):
        print(f"{LINE}\nWorking on token: {token.id}", flush=True)
        command = [PROCESS_TASK, token["input"], token.id, self.task_type]
        self.subprocess, token["exit_code"], out, err = execute(command)
        for key, value in {"_id": token.id, "_rev": token.rev, **token.doc}.items():
            print(key, value)
        print(LINE, flush=True)
        token.put_attachment(f"logs_{token.id}.out", out)
        token.put_attachment(f"logs_{token.id}.err", err)
        self.modifier.close(token)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("-t", "--task-type", default="quick", help="how process_task.sh reads the input: quick, fractals")
parser.add_argument("--design_doc", default="Monitor", help="the design document of the view")
parser.add_argument("--view", default="todo", help="the view that lists the tokens to work on")
parser.add_argument("-v", "--verbose", action="store_true", help="tell what is going on")
options = parser.parse_args()
logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING)

client = CouchDB(
    picasconfig.PICAS_HOST_URL, picasconfig.PICAS_DATABASE, picasconfig.PICAS_USERNAME, picasconfig.PICAS_PASSWORD
)
actor = ExampleActor(client, options.task_type, view=options.view, design_doc=options.design_doc)
actor.run(max_token_time=1800, max_total_time=3600, max_scrub=2)
