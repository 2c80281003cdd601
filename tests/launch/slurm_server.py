"""A real Slurm of one node for the tests: munge, slurmctld and slurmd on loopback, in a folder of their own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import slurm_accounting
from couch_server import REAL_ENVIRONMENT, Unavailable

PACKAGES = "slurm-wlm munge slurmdbd mariadb-server-core"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
#: Debian keeps the daemons out of the usual PATH.
PATH = f"{REAL_ENVIRONMENT.get('PATH', os.defpath)}:/usr/sbin:/sbin"
#: Seconds for a daemon to come up, or for jobs to get where a test wants them.
PATIENCE = 60.0
CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/ended
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
ReturnToService=2
EnforcePartLimits=ALL
MpiDefault=none
SwitchType=switch/none
KillWait=5
SlurmdTimeout=10
MinJobAge=300
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=6000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL MaxTime=10 State=UP
"""


def until(what: str, found: object, patience: float = PATIENCE) -> None:
    """Wait until `found()` is true; raises AssertionError with what was waited for."""
    assert callable(found)
    end = time.monotonic() + patience
    while not found():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            with closing(each):
                pass


class Slurm:
    """The cluster; a context manager. `cpus` are what it gives to jobs, whatever the machine has."""

    def __init__(self, folder: Path, cpus: int = 4, accounting: bool = False) -> None:
        self.accounting = accounting
        missing = slurm_accounting.missing(PATH) if accounting else []
        missing += [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
        if missing:
            raise Unavailable(f"no {', '.join(missing)} here (Debian: apt install {PACKAGES})")
        if os.getuid() != 0:
            raise Unavailable("slurmd starts jobs as root only")
        self.folder = folder
        self.environment = {**REAL_ENVIRONMENT, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen[bytes]] = []
        for name in ("munge", "state", "spool"):
            (folder / name).mkdir(parents=True)
        for each in (folder.parent, folder):  # munge wants that everybody can reach its socket
            each.chmod(0o755)
        (folder / "munge").chmod(0o700)
        controller, node, dbd, self._sql = free_ports(4)
        # More than the machine has is allowed: jobs here mostly sleep.
        text = CONFIGURATION.format(folder=folder, user="root", controller=controller, node=node, cpus=cpus)
        text += "SlurmdParameters=config_overrides\n"
        text += slurm_accounting.configure(folder, dbd, self._sql) if accounting else ""
        (folder / "slurm.conf").write_text(text)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)

    # --- coming and going --------------------------------------------------------------------------------------------

    def __enter__(self) -> Slurm:
        try:
            munge = self.folder / "munge"
            words = [f"--key-file={munge}/key", f"--socket={self.folder}/munge.sock", f"--pid-file={munge}/pid"]
            self._start("munged", "--foreground", *words, f"--log-file={munge}/log", f"--seed-file={munge}/seed")
            until("munge's socket", lambda: self._all_live() and (self.folder / "munge.sock").exists())
            if self.accounting:
                self._start(*slurm_accounting.database(self.folder, self._sql))
                self._start("slurmdbd", "-D")
                slurm_accounting.register(self.run, until)
            self._start("slurmctld", "-D")
            self.start_node()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if len(self._daemons) > 1:
            self.run("scancel", "--user=root", check=False)
        for daemon in reversed(self._daemons):
            if daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def _start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.said").open("ab") as said:
            daemon = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", program, *words], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        self._daemons.append(daemon)
        return daemon

    def start_node(self) -> None:
        """Start the node and wait until jobs can run on it; what it ran before may be there again."""
        self._start("slurmd", "-D", "-N", "localhost")
        up = ("idle", "mixed", "allocated")
        until("a node that is up", lambda: self._all_live() and self.node_state() in up)

    def node_state(self) -> str:
        """Return what the controller says of the node."""
        return self.run("sinfo", "-h", "-p", "debug", "-o", "%T", check=False).strip()

    def is_idle(self) -> bool:
        """Tell whether the node is up and has nothing to do."""
        return self.node_state() == "idle"

    def _all_live(self) -> bool:
        for daemon in self._daemons:
            assert daemon.poll() is None, f"{daemon.args} ended with {daemon.poll()}:\n{self.words(self.folder)}"
        return True

    def kill_node(self) -> set[int]:
        """SIGKILL the node: slurmd, what it started, and all below; returns the processes that died."""
        node = self._daemons.pop()
        victims = self.processes() | {node.pid}
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        node.wait()
        return victims

    # --- looking -----------------------------------------------------------------------------------------------------

    def processes(self) -> set[int]:
        """Return all processes of jobs: those with this cluster in their environment, but its daemons."""
        mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        found = set()
        for each in Path("/proc").iterdir():
            try:
                if each.name.isdigit() and mark in (each / "environ").read_bytes().split(b"\0"):
                    found.add(int(each.name))
            except OSError:
                continue
        daemons = {daemon.pid for daemon in self._daemons}
        return {pid for pid in found - daemons if _parent(pid) not in daemons}  # the controller has a helper

    def run(self, *words: str, check: bool = True, **more: object) -> str:
        """Run one of Slurm's commands; return what it prints."""
        options = {"env": self.environment, **more}
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False, **options)  # type: ignore[call-overload]
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    def states(self, job: str) -> list[str]:
        """Return the state of every task of a job that Slurm remembers."""
        lines = self.run("scontrol", "show", "job", job, "-o", check=False).splitlines()
        return [_field(line, "JobState") for line in lines if line.startswith("JobId=")]

    def exit_codes(self, job: str) -> list[str]:
        """Return ``exit:signal`` of every task."""
        lines = self.run("scontrol", "show", "job", job, "-o", check=False).splitlines()
        return [_field(line, "ExitCode") for line in lines if line.startswith("JobId=")]

    def ended(self, job: str) -> bool:
        """Tell whether no task of a job waits or runs any more."""
        left = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING"}
        return not left & set(self.states(job))

    def clear(self) -> None:
        """End all jobs, and wait until the node is idle: the next test finds an empty cluster."""
        self.run("scancel", "--user=root", check=False)
        until("an empty queue", lambda: not self.run("squeue", "-h", check=False).strip())
        until("an idle node", self.is_idle)

    def words(self, log: Path) -> str:
        """Return what daemons and jobs have said, for a failure."""
        files: Sequence[Path] = [*self.folder.glob("*.said"), *self.folder.glob("*.log"), *log.glob("*.log")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2000:]}" for file in files)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _field(line: str, name: str) -> str:
    values: Mapping[str, str] = dict(word.partition("=")[::2] for word in line.split())
    return values.get(name, "")
