"""Runs in DIRAC's own Python: reads a JDL as the server does, and runs its first job as the client's local mode does."""

from __future__ import annotations

import json
import sys
from urllib.parse import unquote

import DIRAC

DIRAC.initialize(require_auth=False)

from DIRAC.Core.Utilities.ClassAd.ClassAdLight import ClassAd  # noqa: E402
from DIRAC.Interfaces.API.Dirac import Dirac  # noqa: E402
from DIRAC.Interfaces.API.Job import Job  # noqa: E402
from DIRAC.WorkloadManagementSystem.Utilities.ParametricJob import generateParametricJobs  # noqa: E402

TEXTS = ("JobName", "Executable", "Arguments", "StdOutput", "StdError", "CPUTime", "NumberOfProcessors")
LISTS = ("InputSandbox", "OutputSandbox", "ExecutionEnvironment")


def expand(path: str) -> list[dict[str, object]]:
    """Return the jobs of a JDL."""
    with open(path, encoding="utf-8") as file:
        jobs = generateParametricJobs(ClassAd(f"[{file.read()}]"))
    assert jobs["OK"], jobs
    ads = [ClassAd(text) for text in jobs["Value"]]
    return [
        {
            **{name: ad.getAttributeString(name) for name in TEXTS},
            **{name: ad.getListFromExpression(name) for name in LISTS},
        }
        for ad in ads
    ]


def run(path: str) -> dict[str, object]:
    """Run the first job of a JDL here; return what DIRAC says of it."""
    wanted = expand(path)[0]
    job = Job(stdout=wanted["StdOutput"], stderr=wanted["StdError"])
    job.setInputSandbox(wanted["InputSandbox"])
    # Local mode starts the script itself, not by a shell.
    script, _, words = str(wanted["Arguments"]).partition(" ")
    job.setExecutable(script, arguments=words)
    pairs = (each.partition("=") for each in wanted["ExecutionEnvironment"])
    job.setExecutionEnv({name: unquote(value) for name, _, value in pairs})
    return dict(Dirac().submitJob(job, mode="local"))


if __name__ == "__main__":
    verb, path, answer = sys.argv[1:]
    told = {"expand": expand, "run": run}[verb](path)
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(told, file, default=str)
