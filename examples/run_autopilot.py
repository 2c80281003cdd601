#!/usr/bin/env python3
"""Starts a Slurm job array where tokens wait for it and none is queued yet: made to be called again and again, by scrontab."""

import argparse
import subprocess
import sys
from pathlib import Path

import picasconfig

from tokenpool.clients import CouchDB

SCRIPT = Path(__file__).resolve().with_name("slurm_example.sh")

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--design_doc", default="SingleCore", help="the design document of the view")
parser.add_argument("--view", default="todo", help="the view that lists the tokens to work on")
parser.add_argument("--cores", type=int, default=1, help="CPUs of each job")
parser.add_argument("-v", "--verbose", action="store_true", help="tell what is going on")
options = parser.parse_args()

client = CouchDB(
    picasconfig.PICAS_HOST_URL, picasconfig.PICAS_DATABASE, picasconfig.PICAS_USERNAME, picasconfig.PICAS_PASSWORD
)
name = f"picas-{options.design_doc}-{options.view}"
submit = ["sbatch", f"--job-name={name}", f"--cpus-per-task={options.cores}"]
submit += [f"--export=ALL,VIEW={options.view},DESIGN_DOC={options.design_doc}", str(SCRIPT)]
try:
    if not client.is_view_nonempty(options.view, design_doc=options.design_doc):
        told = "no token waits"
    elif subprocess.run(["squeue", "-h", "--me", f"--name={name}"], stdout=subprocess.PIPE, check=True).stdout.strip():
        told = f"{name} is queued already"
    else:
        told = subprocess.run(submit, stdout=subprocess.PIPE, text=True, check=True, cwd=SCRIPT.parent).stdout.strip()
except FileNotFoundError as missing:
    sys.exit(f"{missing.filename} is not on PATH: call this where Slurm can be reached")
except subprocess.CalledProcessError as failed:
    sys.exit(failed.returncode)
if options.verbose or told.startswith("Submitted"):
    print(told)
