#!/usr/bin/env python3
"""The commands of PBS and of HTCondor, as far as they can be had without either: jobs are processes of this machine.

Called by the name of a command (qsub, qstat, qselect, qdel, condor_submit, condor_q, condor_rm); FAKE_BATCH is the folder of
its records. What is printed, and the exit codes, are those of OpenPBS 23 and HTCondor 23.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SERVER = "pbs01"
COMMANDS = ("qsub", "qstat", "qselect", "qdel", "condor_submit", "condor_q", "condor_rm")
FOLDER = Path(os.environ.get("FAKE_BATCH", "."))


def install(folder: Path) -> Path:
    """Make a folder of commands to put on PATH."""
    folder.mkdir()
    for name in COMMANDS:
        (folder / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {__file__} {name} "$@"\n')
        (folder / name).chmod(0o755)
    return folder


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def new_number() -> int:
    """Return the number of a new job."""
    return 100 + len(list(FOLDER.glob("*.json")))


def save(number: int, name: str, pids: list[int], waits: bool = False) -> None:
    """Note a job."""
    told = {"number": number, "name": name, "pids": pids, "waits": waits}
    (FOLDER / f"{number}.json").write_text(json.dumps(told))


def jobs() -> list[dict[str, Any]]:
    """Return all jobs, each process with whether it lives."""
    found = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    for job in found:
        job["alive"] = [alive(pid) for pid in job["pids"]]
    return found


def alive(pid: int) -> bool:
    """Tell whether a job's process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def start(argv: list[str], environment: dict[str, str], log: str, folder: str) -> int:
    """Start one process of a job, away from this one."""
    with open(log, "ab") as said:
        process = subprocess.Popen(
            argv,
            env=environment,
            cwd=folder,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    return process.pid


def fail(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


# ── PBS ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def qsub(words: list[str]) -> int:
    script = sys.stdin.read()
    given: list[str] = []
    for line in script.splitlines():
        if line.startswith("#PBS "):
            given += shlex.split(line[5:])
    given += words
    options: dict[str, str] = {}
    resources = []
    for flag, value in zip(given, given[1:]):
        if flag == "-l":
            resources.append(value)
        elif re.fullmatch(r"-[A-Za-z]", flag):
            options[flag] = value
    if options.get("-q", "batch") not in ("batch", "short"):
        return fail("qsub: Unknown queue", 170)
    if len(list(FOLDER.glob("*.json"))) >= int(os.environ.get("FAKE_LIMIT", "99")):
        return fail("qsub: would exceed complex's per-user limit of jobs in 'Q' state", 190)
    if os.environ.get("FAKE_QUEUES"):
        number = new_number()
        save(number, options["-N"], [], waits=True)
        print(f"{number}.{SERVER}")
        return 0
    array = re.fullmatch(r"1-(\d+)", options.get("-J", ""))
    if "-J" in options and (array is None or int(array.group(1)) < 2):
        return fail("qsub: illegal -J value", 2)
    number = new_number()
    file = FOLDER / f"{number}.SC"
    file.write_text(script)
    indices = range(1, int(array.group(1)) + 1) if array else [0]
    pids = []
    for index in indices:
        name = f"{number}[{index}].{SERVER}" if array else f"{number}.{SERVER}"
        # PBS gives its jobs little of the environment of who submits.
        environment = {
            "HOME": os.environ["HOME"],
            "PATH": "/usr/bin:/bin",
            "PBS_JOBID": name,
            "PBS_O_WORKDIR": os.getcwd(),
        }
        environment |= {"PBS_ARRAY_INDEX": str(index)} if array else {}
        place = Path(options.get("-o", "."))
        log = place / f"{name}.OU" if place.is_dir() else place
        pids.append(start([options.get("-S", "/bin/sh"), str(file)], environment, str(log), os.environ["HOME"]))
    save(number, options["-N"], pids)
    (FOLDER / f"{number}.resources").write_text("\n".join(resources))
    print(f"{number}[].{SERVER}" if array else f"{number}.{SERVER}")
    return 0


def qstat(words: list[str]) -> int:
    code, lines = 0, []
    for word in (word for word in words if not word.startswith("-")):
        job = next((job for job in jobs() if word.split("[")[0].split(".")[0] == str(job["number"])), None)
        if job is None:
            code = fail(f"qstat: Unknown Job Id {word}", 153)
        elif job["waits"]:
            lines.append(row(word, job["name"], "Q"))
        elif not any(job["alive"]):
            code = fail(f"qstat: {word} Job has finished, use -x or -H to obtain historical job information", 35)
        elif "[]" in word:
            lines.append(row(f"{job['number']}[].{SERVER}", job["name"], "B"))
            lines += [
                row(f"{job['number']}[{n}].{SERVER}", job["name"], "R" if up else "X")
                for n, up in enumerate(job["alive"], 1)
            ]
        else:
            lines.append(row(word, job["name"], "R"))
    if lines:
        print("Job id            Name             User              Time Use S Queue")
        print("----------------  ---------------- ----------------  -------- - -----")
        print("\n".join(lines))
    return code


def row(job: str, name: str, state: str) -> str:
    return f"{job:<16.16}  {name:<16} {'me':<16}  {'00:00:00':>8} {state} batch"


def qselect(words: list[str]) -> int:
    for job in jobs():
        if job["name"] == words[words.index("-N") + 1] and any(job["alive"]):
            print(f"{job['number']}[].{SERVER}" if len(job["pids"]) > 1 else f"{job['number']}.{SERVER}")
    return 0


def qdel(words: list[str]) -> int:
    code = 0
    for word in words:
        job = next((job for job in jobs() if word.split("[")[0].split(".")[0] == str(job["number"])), None)
        if job is None:
            code = fail(f"qdel: Unknown Job Id {word}", 153)
        else:
            save(job["number"], job["name"], job["pids"])
            end(job)
    return code


def end(job: dict[str, Any]) -> None:
    for pid, up in zip(job["pids"], job["alive"]):
        if up:
            os.killpg(pid, signal.SIGTERM)


# ── HTCondor ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def condor_submit(words: list[str]) -> int:
    said: dict[str, str] = {}
    count = 0
    for line in sys.stdin.read().splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line.split()[0] == "queue":
            count = int((line.split() + ["1"])[1])
            continue
        name, equals, value = line.partition("=")
        if not equals:
            return fail(f"ERROR: on Line 1 of submit file: \nERROR: Failed to parse command file: {line}", 1)
        said[name.strip().lower()] = value.strip()
    if said.get("requirements", "").count("(") != said.get("requirements", "").count(")"):
        return fail(f"ERROR: Parse error in expression: \n\tRequirements = {said['requirements']}", 1)
    number = new_number()
    variables = dict(each.partition("=")[::2] for each in split(said["environment"]))
    pids = []
    for process in range(count):
        environment = {"_CONDOR_SLOT": f"slot{process}", **variables}
        log = said["output"].replace("$(Process)", str(process))
        pids.append(start([said["executable"], *split(said["arguments"])], environment, log, os.getcwd()))
    save(number, words[words.index("-batch-name") + 1], pids)
    (FOLDER / f"{number}.resources").write_text(json.dumps(said))
    print(f"{number}.0 - {number}.{count - 1}")
    return 0


def split(text: str) -> list[str]:
    """Return the words of an argument string in HTCondor's own quotes."""
    assert text[0] == text[-1] == '"', text
    words, word, quoted, begun, at = [], "", False, False, 0
    inner = text[1:-1].replace('""', '"')
    while at < len(inner):
        letter = inner[at]
        if letter == "'" and quoted and inner[at + 1 : at + 2] == "'":
            word, at = word + "'", at + 1
        elif letter == "'":
            quoted, begun = not quoted, True
        elif letter == " " and not quoted:
            if begun:
                words.append(word)
            word, begun = "", False
        else:
            word, begun = word + letter, True
        at += 1
    return [*words, word] if begun else words


def condor_q(words: list[str]) -> int:
    wanted = re.search(r'JobBatchName == "(.*)"', " ".join(words))
    numbers = words[: words.index("-af")]
    for job in jobs():
        if (wanted and wanted.group(1) == job["name"]) or str(job["number"]) in numbers:
            for up in job["alive"]:
                if up:
                    print(f"{job['number']} 2 undefined")
    return 0


def condor_rm(words: list[str]) -> int:
    code = 0
    for word in words:
        job = next((job for job in jobs() if str(job["number"]) == word and any(job["alive"])), None)
        if job is None:
            code = fail(f"Couldn't find/remove all jobs in cluster {word}", 1)
        else:
            end(job)
            print(f"All jobs in cluster {word} have been marked for removal")
    return code


if __name__ == "__main__":
    if os.environ.get("FAKE_HANGS") == sys.argv[1]:
        time.sleep(600)
    sys.exit(globals()[sys.argv[1]](sys.argv[2:]))
