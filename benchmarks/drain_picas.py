"""One picas worker of the benchmark: waits for the starting signal, then runs `true` for every token, logs attached."""

import sys
import time
from pathlib import Path

from picas.actors import RunActor
from picas.clients import CouchDB
from picas.executers import execute
from picas.modifiers import BasicTokenModifier


class Actor(RunActor):
    """Does what picas' own local example does with a token, without its prints."""

    def __init__(self, db):
        super().__init__(db, view="todo")
        self.modifier = BasicTokenModifier()

    def process_task(self, token):
        out = execute(["/bin/sh", "-c", token["input"]])
        token["exit_code"] = out[1]
        token = self.modifier.close(token)
        token.put_attachment(f"logs_{token['_id']}.out", out[2])
        token.put_attachment(f"logs_{token['_id']}.err", out[3])


def main() -> None:
    server, database, user, password, go = sys.argv[1:6]
    actor = Actor(CouchDB(server, database, user or None, password))
    print("ready", flush=True)
    while not Path(go).exists():
        time.sleep(0.005)
    try:
        actor.run()
    finally:
        print(f"end {time.time()} {actor.tasks_processed}", flush=True)


main()
