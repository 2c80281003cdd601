"""HTCondor's own personal pool for the tests: in a root of its own, as a user who is not root, on loopback only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from condor_root import UID, USER, ensure_root
from couch_server import REAL_ENVIRONMENT
from namespaces import end_namespace, first_process
from slurm_server import PATIENCE, free_ports, until

COMMANDS = ("condor_submit", "condor_q", "condor_rm", "condor_history", "condor_status", "condor_hold")
PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
#: Whoever becomes another user forgets that it is to die with its parent, so it is told again.
_MASTER = ("setpriv", "--pdeathsig", "KILL", "condor_master", "-f")
CONFIGURATION = """
RELEASE_DIR = /usr
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
LOCAL_DIR = {folder}/local
LOG = $(LOCAL_DIR)/log
SPOOL = $(LOCAL_DIR)/spool
EXECUTE = $(LOCAL_DIR)/execute
LOCK = $(LOCAL_DIR)/lock
RUN = $(LOCAL_DIR)/run
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:{port}
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = false
ENABLE_IPV6 = false
USE_SHARED_PORT = true
SHARED_PORT_PORT = {port}
DAEMON_LIST = MASTER COLLECTOR NEGOTIATOR SCHEDD STARTD SHARED_PORT
UID_DOMAIN = test
FILESYSTEM_DOMAIN = test
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
SEC_DEFAULT_AUTHENTICATION = OPTIONAL
SEC_DEFAULT_ENCRYPTION = OPTIONAL
SEC_DEFAULT_INTEGRITY = OPTIONAL
ALLOW_READ = *
ALLOW_WRITE = *
ALLOW_DAEMON = *
ALLOW_ADMINISTRATOR = *
ALLOW_NEGOTIATOR = *
ALLOW_CLIENT = *
ALLOW_ADVERTISE_MASTER = *
ALLOW_ADVERTISE_STARTD = *
ALLOW_ADVERTISE_SCHEDD = *
START = TRUE
SUSPEND = FALSE
PREEMPT = FALSE
KILL = FALSE
NUM_CPUS = {cpus}
MEMORY = 4000
NUM_SLOTS = 1
NUM_SLOTS_TYPE_1 = 1
SLOT_TYPE_1 = 100%
SLOT_TYPE_1_PARTITIONABLE = true
# As quick as it can be told to be.
NEGOTIATOR_INTERVAL = 2
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 2
UPDATE_INTERVAL = 2
JOB_START_DELAY = 0
PERIODIC_EXPR_INTERVAL = 2
USE_PROCD = false
RUNBENCHMARKS = 0
"""


class Condor:
    """The pool; a context manager. `desk` is a folder that its jobs see as well; `path` goes before PATH."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.root = ensure_root()
        self.folder, self.desk, self.path = folder, folder / "desk", folder / "bin"
        for name in ("desk", "bin", *(f"local/{each}" for each in ("log", "spool", "execute", "lock", "run"))):
            (folder / name).mkdir(parents=True)
        for each in (folder.parent, folder):
            each.chmod(0o755)
        (port,) = free_ports(1)
        (folder / "condor_config").write_text(CONFIGURATION.format(folder=folder, port=port, cpus=cpus))
        for each in (self.desk, folder / "local", *(folder / "local").iterdir()):
            shutil.chown(each, UID, UID)
        self._inside = ["chroot", f"--userspec={USER}", str(self.root)]
        self._inside += ["/usr/bin/env", f"PATH={PATH}", f"CONDOR_CONFIG={folder}/condor_config", f"HOME={self.desk}"]
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Condor:
        # Processes and mounts are its own: when it is killed, nothing of it stays.
        there = shlex.quote(f"{self.root}{self.folder}")
        root, here = shlex.quote(str(self.root)), shlex.quote(str(self.folder))
        mounts = [
            f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            f"mkdir -p {there}",
            f"mount --bind {here} {there}",
            f"mount -t proc proc {root}/proc",
            f"mount --rbind /dev {root}/dev",
        ]
        script = " && ".join([*mounts, f"exec {shlex.join([*self._inside, *_MASTER])}"])
        alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
        with (self.folder / "said").open("ab") as said:
            self._daemon = subprocess.Popen(
                [*alone, "sh", "-c", script], env=dict(REAL_ENVIRONMENT), stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        try:
            until("HTCondor's first process", lambda: self._lives() and self._first())
            self._install()
            until("a slot of HTCondor", lambda: self._lives() and "slot1" in self.run("condor_status", "-af", "Name"))
            until("its queue", lambda: "error" not in self.run("condor_q", "-totals").lower())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemon is not None:
            end_namespace(self._daemon)

    def _lives(self) -> bool:
        assert self._daemon is not None
        assert self._daemon.poll() is None, f"condor_master ended:\n{self.words()}"
        return True

    def _first(self) -> str:
        assert self._daemon is not None
        return first_process(self._daemon)

    def _install(self) -> None:
        """Make the commands that enter the root, and go to where they were called."""
        enter = shlex.join(["nsenter", "--target", self._first(), "--mount", *self._inside])
        for name in COMMANDS:
            inside = f'cd "$1" 2>/dev/null || cd {shlex.quote(str(self.desk))}; shift; exec {name} "$@"'
            script = f'#!/bin/sh\nexec {enter} sh -c {shlex.quote(inside)} sh "$PWD" "$@"\n'
            (self.path / name).write_text(script)
            (self.path / name).chmod(0o755)

    def run(self, *words: str) -> str:
        """Run one of HTCondor's commands; return what it prints."""
        environment = {**os.environ, "PATH": f"{self.path}:{os.environ['PATH']}"}
        done = subprocess.run(
            words, env=environment, cwd=self.desk, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.stdout

    def exit_codes(self, cluster: str) -> list[str]:
        """Return the exit code of each process of a job that has ended."""
        return self.run("condor_history", cluster, "-af", "ExitCode").split()

    def clear(self) -> None:
        """End all jobs, and wait until the queue is empty."""
        self.run("condor_rm", "-all")
        until("an empty queue", lambda: not self.run("condor_q", "-af", "ClusterId").strip())

    def words(self) -> str:
        """Return what its daemons have said, for a failure."""
        files = [self.folder / "said", *(self.folder / "local" / "log").glob("*Log"), *self.desk.rglob("*.err")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)
