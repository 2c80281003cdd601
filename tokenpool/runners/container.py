"""Runs a token in containers: asks a Docker or Podman engine for them, or calls apptainer where that is what there is."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .. import transitions
from ..engines import apptainer, jobs, records
from ..engines.base import EngineTrouble, Job, Mount
from ..engines.finding import Found, find
from ..engines.folders import make_folders
from ..engines.options import options_of
from ..vault import secrets_of
from . import equivalent
from .base import Context, Places, Result, Runner
from .command import timeout_of
from .container_cli import run_steps
from .helper import ROOT, run_helper

log = logging.getLogger(__name__)

CLIENT = "tokenpool.engines.start"
#: Seconds between two looks for containers that nobody looks after, and how long removing them may take.
PAUSE, LONGEST = 60.0, 120.0
_SWEEP = "import sys; sys.path.append(sys.argv[1]); from tokenpool.engines.client import sweep; sweep(*sys.argv[2:])"


class ContainerRunner(Runner):
    """The token's `image` and `command`, or its `executors` one after the other."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def begin(self, context: Context) -> None:
        threading.Thread(target=self._look_after_orphans, name="tokenpool-containers", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        timeout = timeout_of(token)
        try:
            found = find(context.policy.engine, os.environ)
            job = _job(token, places, context, found)
            make_folders(places.work, not job.user, (folder for _, folder in places.volumes))
            if found.program:
                result = run_steps(found.program, job, places, context, timeout)
            else:
                result = self._ask_engine(job, places, context, timeout)
            return result if token.get("executors") else replace(result, executors=())
        except EngineTrouble as error:
            return Result(transitions.PICAS_ERROR, error.failure_class, f"{error}; {error.hint}")

    def _ask_engine(self, job: Job, places: Places, context: Context, timeout: float | None) -> Result:
        finished, answer = run_helper(CLIENT, job.as_json(), places, context, timeout)
        if answer is None and records.held_for(job.records, job.claim):
            sweep(job.records, job.claim)  # it was killed before it could
        if answer is None:
            code = finished.returncode
            told = "the process that asks the container engine ended without an answer"
            failure, message, code = "system", told, 128 - code if code < 0 else code or transitions.PICAS_ERROR
        else:
            code, failure, message = answer["exit_code"], answer["failure_class"], answer["message"]
        if finished.timed_out:
            code = code or 128 + signal.SIGTERM
            failure, message = "timeout", f"stopped: it ran longer than its timeout of {timeout:g} s"
        # What the client itself used says nothing of the token.
        used = answer or {}
        cpu, rss = used.get("cpu_seconds", 0.0), used.get("max_rss_mb", 0.0)
        return Result(code, failure, message, cpu, rss, executors=tuple(used.get("executors", ())))

    def _look_after_orphans(self) -> None:
        """Remove what dead workers of this machine left, once no attempt of the same token has taken it over."""
        folder = records.folder_of(os.environ)
        while True:
            try:
                if any(records.age(path) > records.ADOPTABLE for path in records.paths(folder)):
                    sweep(folder)
            except OSError as error:
                log.warning("containers that were left behind could not be looked for: %s", error)
            if self._closed.wait(PAUSE):
                return


def sweep(folder: str, claim: str = "") -> None:
    """Have containers removed that no living client looks after: those of a claim, or all that are old."""
    argv = [sys.executable, "-c", _SWEEP, ROOT, folder, claim]
    try:
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=LONGEST, check=False, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("a container may have been left behind: %s", error)


def _job(token: Mapping[str, Any], places: Places, context: Context, found: Found) -> Job:
    policy = context.policy
    given = token.get("container_options") or []
    gpus = jobs.gpus_of(token, places.own)
    memory, cpus = jobs.limits_of(token)
    rules = (policy.network, policy.image_user, policy.mounts, policy.engine)
    env = jobs.environment_of(places.own, gpus)
    volumes = [(seen, os.path.relpath(folder, places.work)) for seen, folder in places.volumes]
    return Job(
        token=token["_id"],
        claim=places.own["TOKENPOOL_CLAIM"],
        spec=jobs.spec_of(token, rules),
        folder=places.work,
        steps=jobs.steps_of(token, None if token.get("executors") else equivalent.command_of(token), env, volumes),
        mounts=[*(Mount(folder, seen, True) for seen, folder in places.volumes), *jobs.mounts_of(policy.mounts)],
        user="" if policy.image_user else f"{os.getuid()}:{os.getgid()}",
        network=policy.network,
        memory=memory,
        cpus=cpus,
        gpus=gpus,
        options=apptainer.options_of(given, policy.container_options)
        if found.program
        else options_of(given, policy.container_options),
        login=_login(token, places, context),
        grace=float(getattr(context, "grace", Job.grace)),
        engine=found.address,
        records=records.folder_of(os.environ),
        prune=policy.prune_images,
    )


def _login(token: Mapping[str, Any], places: Places, context: Context) -> dict[str, str]:
    """Return user and password of the registry, from the secret that the token names; both are hidden in its logs."""
    name = token.get("registry_secret")
    if not name:
        return {}
    secret = secrets_of({"secrets": [name]}, context.policy.secrets, os.environ)[name]
    login = jobs.login_of(secret)
    places.secrets = {**places.secrets, f"{name} of the registry": secret, f"{name} of its user": login["password"]}
    return login
