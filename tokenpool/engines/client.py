"""Runs the containers of one attempt: asks the engine, passes on what they print, returns how it went."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

from . import records
from .base import EngineTrouble, Job, Json, Step, begun, ended, job_of
from .docker_api import DockerEngine, End, Left
from .folders import give_back, move_contents, open_inside
from .images import Images
from .records import Record
from .usage import Usage

_PIECE = 1 << 16
#: Seconds that logs may take to come after a container has ended.
_LOGS = 10.0
#: Seconds of the grace that are ours, for removing what was stopped.
_OWN = 1.5


class Stopped(BaseException):
    """We were told to end."""


def serve(job: Job) -> Json:
    """Run all containers of a job; return exit_code, failure_class and message."""
    stopped = False

    def on_term(signum: int, frame: Any) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            raise Stopped

    signal.signal(signal.SIGTERM, on_term)
    try:
        engine = DockerEngine(job.engine)
    except EngineTrouble as error:
        return failed(error)
    client = Client(job, engine)
    try:
        return {**client.run(), **client.used}
    except EngineTrouble as error:
        return {**failed(error), **client.used}
    except Stopped:
        return {**_answer(128 + signal.SIGTERM, "executor", "stopped"), **client.used}
    finally:
        stopped = True  # nothing interrupts what tidies up
        client.clean_up()
        engine.close()


class Client:
    """One job on one engine."""

    def __init__(self, job: Job, engine: DockerEngine) -> None:
        self.job, self.engine = job, engine
        self.record: Record | None = None
        self._images = Images(job.records, job.engine)
        self._over = threading.Event()
        self.usage = Usage()
        #: How each executor went.
        self._told: list[Json] = []
        #: The containers that are ours to remove.
        self._ours: set[str] = set()
        #: Where the folder of an adopted container is.
        self._other_folder = ""

    def run(self) -> Json:
        """Run the steps one after the other, the first that fails is the last."""
        adopted = self._find_own()
        first = int(adopted.label("step") or 0) if adopted else 0
        end = End(0)
        for number, step in list(enumerate(self.job.steps))[first:]:
            known = adopted.id if adopted and number == first else ""
            told = begun(number, os.fstat(1).st_size, os.fstat(2).st_size)
            self._told.append(told)
            end = self._run(number, step, known)
            told.update(ended(told, end.code, os.fstat(1).st_size, os.fstat(2).st_size))
            self._settle()
            if end.oom or (end.code and not step.ignore_error):
                return self._judged(end, number)
        return _answer(0)

    @property
    def used(self) -> Json:
        """What all its containers have used, and how each went."""
        used = {"cpu_seconds": self.usage.cpu_seconds, "max_rss_mb": self.usage.max_rss_mb}
        return {**used, "executors": self._told}

    def clean_up(self) -> None:
        """Leave nothing behind: no container, no record, no file of another user."""
        self._over.set()
        gone = [self.engine.remove(each) for each in self._ours]
        try:
            self._settle()
            for image in give_back(self.job):
                self._chown(image)
        except (EngineTrouble, OSError) as error:
            say(f"the folder could not be put in order: {error}")
        if self.record is not None and all(gone):
            self.record.remove()
        if self.job.prune is not None:
            self._images.prune(self.engine, self.job.prune, say)

    # --- one container ---------------------------------------------------------------------------------------------------

    def _run(self, number: int, step: Step, known: str) -> End:
        if known:
            say("found its container, which goes on")
            return self._attend(known, step)
        image = self.engine.ensure(step.image, self.job.login, say)
        self._images.used(step.image)
        self._hold(number)
        feed = None
        with _unstoppable():
            container = self.engine.create(self.job, step, image, self._labels(number))
            self._ours.add(container)
            if step.stdin:
                feed = self.engine.feed(container)
            self.engine.start(container, step)
        if feed is not None:
            threading.Thread(target=_pour, args=(self.job, step, feed), daemon=True).start()
        return self._attend(container, step)

    def _attend(self, container: str, step: Step) -> End:
        """Pass on what a container prints until it ends."""
        self._ours.add(container)
        before = -1 if self._other_folder else oom_kills()
        readers = [threading.Thread(target=self._pass_on, args=(container, step, fd), daemon=True) for fd in (1, 2)]
        for reader in readers:
            reader.start()
        ended = self._measure(container)
        try:
            end = self.engine.wait(container)
        except Stopped:
            say("stopping the container")
            self.engine.stop(container, max(0.5, self.job.grace - _OWN))
            raise
        finally:
            ended.set()
            for reader in readers:
                reader.join(_LOGS)
        if end.code == 137 and self.job.memory and not end.oom:
            # Podman does not say so; the kernel counts them all.
            end = End(end.code, oom_kills() != before or before < 0)
        if self.engine.remove(container):
            self._ours.discard(container)
        return End(end.code, end.oom and end.code != 0)

    def _measure(self, container: str) -> threading.Event:
        """Watch what a container uses until the event is set."""
        ended = threading.Event()

        def watch() -> None:
            try:
                self.usage.watch(self.engine.pid(container), ended)
            except Exception:  # nobody's result depends on it
                return

        threading.Thread(target=watch, daemon=True).start()
        return ended

    def _pass_on(self, container: str, step: Step, fd: int) -> None:
        path = step.stderr if fd == 2 else step.stdout
        copy = open_inside(self.job, step, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if path else -1
        try:
            for piece in self.engine.follow(container, stderr=fd == 2):
                for target in (fd, copy):
                    if target >= 0:
                        _write(target, piece)
        except Exception as error:  # a log that ends early is no reason to lose the result
            say(f"the log could not be read to its end: {error}")
        finally:
            if copy >= 0:
                os.close(copy)

    def _judged(self, end: End, number: int) -> Json:
        if end.oom:
            gigabytes = self.job.memory / (1 << 30)
            limit = f" than the {gigabytes:g} GB that it asked for" if self.job.memory else " than there is"
            return _answer(end.code, "oom", f"stopped: it used more memory{limit}")
        which = f"executor {number + 1} of {len(self.job.steps)} failed" if len(self.job.steps) > 1 else ""
        return _answer(end.code, "executor", which)

    # --- what an earlier client left -------------------------------------------------------------------------------------

    def _find_own(self) -> Left | None:
        """Return the container that a dead client left running for this very work; others of the token are removed."""
        adopted = None
        for left in self.engine.find(token=self.job.token, host=socket.gethostname(), uid=str(os.getuid())):
            record, dead = _look(left)
            if not dead:
                continue
            fits = left.label("spec") == self.job.spec and left.label("boot") == records.boot()
            if record and adopted is None and fits and left.state in ("running", "exited"):
                adopted, self.record, self._other_folder = left, record, left.label("folder")
                self._ours.add(left.id)
                self._replay(record.read())
                record.write(holder=self.job.claim)
                self._beat()
                continue
            if self.engine.remove(left.id):
                records.remove_folder(left.label("folder"))
                if record:
                    record.remove()
            elif record:
                record.close()
        return adopted

    def _replay(self, known: Json) -> None:
        """Repeat what earlier containers of the dead attempt had printed; that of the one that goes on comes again."""
        for fd, ending in ((1, "out"), (2, "err")):
            left = int(known.get(ending) or 0)
            try:
                with open(f"{self._other_folder}.{ending}", "rb") as old:
                    while left > 0 and (piece := old.read(min(left, _PIECE))):
                        _write(fd, piece)
                        left -= len(piece)
            except OSError:
                pass

    def _settle(self) -> None:
        """Bring what an adopted container wrote into this attempt's folder."""
        other, self._other_folder = self._other_folder, ""
        if other and other != self.job.folder:
            move_contents(other, self.job.folder)
            records.remove_folder(other)
        if other and self.record is not None:
            self.record.remove()
            self.record = None

    # --- being known -----------------------------------------------------------------------------------------------------

    def _hold(self, number: int) -> None:
        """Be known as the one who looks after the containers of this claim, before there are any."""
        if self.record is None:
            self.record = records.make(self.job.records, self.job.claim)
            self._beat()
        self.record.write(
            claim=self.job.claim, holder=self.job.claim, engine=self.job.engine, folder=self.job.folder, step=number,
            out=os.fstat(1).st_size, err=os.fstat(2).st_size,
        )  # fmt: skip

    def _labels(self, number: int) -> dict[str, str]:
        job = self.job
        assert self.record is not None
        return {
            "token": job.token, "claim": job.claim, "spec": job.spec, "step": str(number), "folder": job.folder,
            "record": self.record.path, "host": socket.gethostname(), "uid": str(os.getuid()),
            "boot": records.boot(), "client": records.me(),
        }  # fmt: skip

    def _beat(self) -> None:
        record = self.record

        def live() -> None:
            while record is not None and not self._over.wait(records.BEAT):
                try:
                    record.beat()
                except (OSError, TypeError):
                    return

        threading.Thread(target=live, daemon=True).start()

    def _chown(self, image: str) -> None:
        """Have root of a container give the files of the image's user back to ours."""
        step = Step(image, [f"{os.getuid()}:{os.getgid()}", "-R", "/work"], ["chown"])
        job = job_of({**self.job.as_json(), "user": "0:0", "network": False, "options": {}, "mounts": []})
        container = self.engine.create(job, step, image, self._labels(0))
        self._ours.add(container)
        try:
            self.engine.start(container, step)
            self.engine.wait(container)
        finally:
            self.engine.remove(container)


def sweep(folder: str, claim: str = "") -> int:
    """Remove the containers and folders of dead clients: of one claim, or all that nobody took in time; return how many."""
    count = 0
    for path in records.paths(folder):
        if claim and records.held_for(folder, claim) != path:
            continue
        if not claim and records.age(path) < records.ADOPTABLE:
            continue
        try:
            record = records.take(path)
        except FileNotFoundError:
            continue
        if record is None:
            continue
        known = record.read()
        if _swept(known, keep_folder=bool(claim)):
            record.remove()
            count += 1
        else:
            if claim:  # the folder goes to the next token
                record.write(folder="")
            record.close()
    return count


def _swept(known: Json, keep_folder: bool) -> bool:
    try:
        engine = DockerEngine(str(known.get("engine", "")))
    except EngineTrouble:
        return False
    try:
        found = engine.find(claim=str(known.get("claim", "")), host=socket.gethostname())
        removed = [engine.remove(each.id) for each in found]
    finally:
        engine.close()
    if all(removed) and not keep_folder and known.get("folder"):
        records.remove_folder(str(known["folder"]))
    return all(removed)


def _look(left: Left) -> tuple[Record | None, bool]:
    """Return the record of a container, taken, and whether its client is dead."""
    try:
        record = records.take(left.label("record"))
    except FileNotFoundError:
        return None, not records.lives(left.label("client"))
    return record, record is not None


def say(text: str) -> None:
    """Put a line of ours into the token's log."""
    _write(2, f"tokenpool: {text}\n".encode("utf-8", "replace"))


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, on the whole machine; -1 unknown."""
    try:
        return int(Path("/proc/vmstat").read_text().partition("\noom_kill ")[2].split()[0])
    except (OSError, ValueError, IndexError):
        return -1


class _unstoppable:
    """Holds back SIGTERM while a container is made: else it could be there without our knowing its id."""

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def __exit__(self, *exc: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def _pour(job: Job, step: Step, feed: socket.socket) -> None:
    """Write a file into a container's standard input, and end it."""
    try:
        with open(open_inside(job, step, step.stdin, os.O_RDONLY), "rb") as file:
            while piece := file.read(_PIECE):
                feed.sendall(piece)
    except OSError as error:
        say(f"the standard input ended early: {error}")
    try:
        feed.shutdown(socket.SHUT_WR)
        feed.close()
    except OSError:
        pass


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _answer(code: int, failure: str = "", message: str = "") -> Json:
    return {"exit_code": code, "failure_class": failure, "message": message}


def failed(error: EngineTrouble) -> Json:
    """Return the answer that an error is."""
    return _answer(error.code, error.failure_class, f"{error}; {error.hint}")
