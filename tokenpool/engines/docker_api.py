"""Asks a Docker or Podman engine, over its socket, for images and containers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.types import Mount as BindMount
from requests.exceptions import RequestException

from .base import EngineTrouble, Job, Json, Step, all_mounts

#: Labels of our containers: their names after this.
FRONT = "tokenpool."
#: What a container that runs as root cannot do here; the rest is what engines leave it, for installing packages and such.
DROPPED = ["MKNOD", "NET_RAW", "AUDIT_WRITE", "SYS_CHROOT", "SETFCAP"]
#: The least memory that engines accept.
LEAST_MEMORY = 6 << 20
#: Seconds for which an engine may be away while a container runs.
PATIENCE = 60.0
AWAY = (RequestException, OSError)


@dataclass(frozen=True)
class End:
    """How a container ended."""

    code: int
    oom: bool = False


@dataclass(frozen=True)
class Left:
    """A container of ours that is there: its id, state and labels."""

    id: str
    state: str
    labels: Mapping[str, str]

    def label(self, name: str) -> str:
        """Return one of its labels."""
        return self.labels.get(FRONT + name, "")


class DockerEngine:
    """One engine, for one thread and those that follow logs."""

    def __init__(self, address: str) -> None:
        self.address = address
        try:
            self._client = docker.from_env(environment={**os.environ, "DOCKER_HOST": address}, timeout=120)
            self._client.ping()
        except (DockerException, *AWAY) as error:
            raise EngineTrouble(
                f"the container engine at {address} cannot be used: {_reason(error)}", "is it well?"
            ) from None
        self._api = self._client.api
        options = self._client.info().get("SecurityOptions") or []
        #: The engine's root is our own user: so is root inside.
        self.rootless = any("rootless" in str(each) for each in options)

    # --- images ----------------------------------------------------------------------------------------------------------

    def ensure(self, image: str, login: Mapping[str, str], tell: Callable[[str], None]) -> str:
        """Return the id of an image, fetched if it is not here; raises EngineTrouble where it cannot be."""
        try:
            return str(self._client.images.get(image).id)
        except NotFound:
            pass
        except APIError as error:
            raise _no_image(image, error) from None
        try:
            self._pull(image, login, tell)
            return str(self._client.images.get(image).id)
        except (APIError, *AWAY) as error:
            raise _no_image(image, error) from None

    def _pull(self, image: str, login: Mapping[str, str], tell: Callable[[str], None]) -> None:
        name, tag = docker.utils.parse_repository_tag(image)
        progress = Progress(image, tell)
        for news in self._api.pull(name, tag or "latest", stream=True, decode=True, auth_config=dict(login) or None):
            if news.get("error"):
                raise APIError(str(news["error"]))
            progress.hear(news)
        tell(f"pulled {image}")

    def remove_image(self, image: str) -> bool:
        """Remove an image that no container uses; tell whether it is gone."""
        try:
            found = self._client.images.get(image)
            # Podman knows no name with a digest where it is to remove one.
            self._client.images.remove(found.id if "@" in image and not found.tags else image)
        except NotFound:
            return True
        except APIError:
            return False
        return True

    def free(self) -> float:
        """Return which part of the disk of its images is free; 1 where that cannot be seen."""
        try:
            disk = os.statvfs(self._client.info().get("DockerRootDir") or "/")
        except OSError:
            return 1.0
        return disk.f_bavail / max(1, disk.f_blocks)

    # --- containers ------------------------------------------------------------------------------------------------------

    def create(self, job: Job, step: Step, image: str, labels: Mapping[str, str]) -> str:
        """Make the container of a step, not started yet; return its id. Raises EngineTrouble."""
        wanted = arguments(job, step, labels, self.rootless)
        try:
            return str(self._client.containers.create(image, step.command, **wanted).id)
        except APIError as error:
            raise _not_started(step, error) from None
        except AWAY as error:
            raise _no_answer(error) from None

    def start(self, container: str, step: Step) -> None:
        """Start a container; raises EngineTrouble where its command cannot be."""
        try:
            self._api.start(container)
        except APIError as error:
            raise _not_started(step, error) from None
        except AWAY as error:
            raise _no_answer(error) from None

    def feed(self, container: str) -> socket.socket:
        """Return the socket that is the standard input of a container which was not started yet."""
        stream = self._api.attach_socket(container, params={"stdin": 1, "stream": 1})
        found = getattr(stream, "_sock", stream)
        # Whoever drops the stream closes the socket.
        found_again: socket.socket = found.dup() if hasattr(found, "dup") else found
        return found_again

    def follow(self, container: str, stderr: bool) -> Iterator[bytes]:
        """Give what a container prints, from its beginning, as it comes, until it ends."""
        yield from self._api.logs(container, stdout=not stderr, stderr=stderr, stream=True, follow=True)

    def wait(self, container: str) -> End:
        """Return how a container ended; an engine that is away for a short time is waited for."""
        away_since = 0.0
        while True:
            try:
                self._api.wait(container, timeout=None)
                state = self._state(container)
                if state.get("Running"):
                    continue
                return End(int(state.get("ExitCode", 0)), bool(state.get("OOMKilled")))
            except NotFound:
                raise EngineTrouble(
                    "the container was removed by somebody while it ran", "run the token again"
                ) from None
            except (APIError, *AWAY) as error:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE:
                    raise EngineTrouble(f"the container engine went away: {_reason(error)}", "is it well?") from None
                time.sleep(0.5)

    def stop(self, container: str, grace: float) -> None:
        """End a container: SIGTERM to its processes, SIGKILL when the grace is over. Returns when it has ended."""
        try:
            state = self._state(container)
            if not state.get("Running"):
                return
            main = int(state.get("Pid") or 0)
            self._terminate(container, main)
            end = time.monotonic() + (grace if heeds_sigterm(main) else min(grace, 1.0))
            while self._state(container).get("Running"):
                if time.monotonic() >= end:
                    self._api.kill(container, "SIGKILL")
                    self._api.wait(container, timeout=30)
                    return
                time.sleep(0.05)
        except (APIError, *AWAY):
            pass  # it is removed by force

    def _terminate(self, container: str, main: int) -> None:
        """Send SIGTERM to all processes, as tokens without a container get it: the first may be a shell without ears."""
        try:
            table = self._api.top(container)
            at = table["Titles"].index("PID")
            others = {int(row[at]) for row in table["Processes"]} - {main}
        except (APIError, KeyError, ValueError, TypeError):
            others = set()
        self._api.kill(container, "SIGTERM")
        for pid in others:
            try:
                os.kill(pid, 15)
            except OSError:
                pass  # another user's, or another machine's

    def remove(self, container: str) -> bool:
        """Remove a container, running or not; tell whether it is gone."""
        try:
            self._api.kill(container, "SIGKILL")  # else Podman would wait for it to end by itself
        except (APIError, *AWAY):
            pass
        try:
            self._api.remove_container(container, v=True, force=True)
        except NotFound:
            return True
        except (APIError, *AWAY):
            return False
        return True

    def find(self, **labels: str) -> list[Left]:
        """Return our containers with these labels, whatever their state."""
        filters = {"label": [f"{FRONT}{name}={value}" for name, value in labels.items()]}
        try:
            found = self._api.containers(all=True, filters=filters)
        except (APIError, *AWAY) as error:
            raise _no_answer(error) from None
        return [Left(each["Id"], str(each.get("State", "")), each.get("Labels") or {}) for each in found]

    def pid(self, container: str) -> int:
        """Return the pid of a container's first process, 0 where it has none."""
        return int(self._state(container).get("Pid") or 0)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _state(self, container: str) -> Json:
        return dict(self._api.inspect_container(container).get("State") or {})


def arguments(job: Job, step: Step, labels: Mapping[str, str], rootless: bool) -> Json:
    """Return what a container is made with, as the engine's library names it."""
    user = ("0:0" if rootless else job.user) if job.user else None
    options = dict(job.options)
    security = ["no-new-privileges", *options.pop("security_opt", [])]
    if Path("/sys/fs/selinux/enforce").exists():  # else it could not read its mounts
        security.append("label=disable")
    made: Json = {
        "entrypoint": step.entrypoint,
        "working_dir": step.workdir or None,
        "environment": step.env,
        "labels": {FRONT + name: value for name, value in labels.items()},
        "mounts": [BindMount(m.target, m.source, type="bind", read_only=not m.writable) for m in all_mounts(job)],
        "user": user,
        "security_opt": security,
        "cap_drop": DROPPED,
        "log_config": {"Type": "json-file"},  # another might not be readable
        "stdin_open": bool(step.stdin),
    }
    if not job.network:
        made["network_mode"] = "none"
    if job.memory:
        made["mem_limit"] = made["memswap_limit"] = max(job.memory, LEAST_MEMORY)
    if job.cpus:
        made["nano_cpus"] = int(min(job.cpus, os.cpu_count() or job.cpus) * 1e9)
    if job.gpus:
        made["device_requests"] = [{"device_ids": job.gpus, "capabilities": [["gpu"]]}]
    if step.entrypoint is not None:
        options.pop("entrypoint", None)
    added = options.get("cap_add", [])
    made["cap_drop"] = [name for name in DROPPED if name not in added] + options.pop("cap_drop", [])
    requests = [
        docker.types.DeviceRequest(**each) for each in options.pop("device_requests", made.pop("device_requests", []))
    ]
    return {**made, **options, **({"device_requests": requests} if requests else {})}


def heeds_sigterm(pid: int) -> bool:
    """Tell whether the first process of a container has a handler for SIGTERM; without, the kernel drops the signal."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        caught = int(text.partition("SigCgt:")[2].split()[0], 16)
    except (OSError, ValueError, IndexError):
        return True
    return bool(caught & 1 << 14)


class Progress:
    """Tells how far a pull is: a line now and then."""

    def __init__(self, image: str, tell: Callable[[str], None], pause: float = 2.0) -> None:
        self._image, self._tell, self._pause = image, tell, pause
        self._layers: dict[str, tuple[float, float, bool]] = {}
        self._told = time.monotonic() - pause

    def hear(self, news: Json) -> None:
        """Take in one piece of news."""
        layer, detail, status = news.get("id"), news.get("progressDetail") or {}, str(news.get("status", ""))
        if layer and (detail or "complete" in status or "exists" in status):
            now, total, _ = self._layers.get(layer, (0.0, 0.0, False))
            if status == "Downloading":
                now, total = float(detail.get("current") or 0), float(detail.get("total") or 0)
            self._layers[layer] = (now, total, status in ("Pull complete", "Already exists"))
        if time.monotonic() - self._told >= self._pause:
            self._told = time.monotonic()
            self._tell(self.line())

    def line(self) -> str:
        """Return it in words."""
        layers = self._layers.values()
        done, total = sum(each[0] for each in layers) / 1e6, sum(each[1] for each in layers) / 1e6
        if not layers:
            return f"pulling {self._image}"
        ready = sum(each[2] for each in layers)
        return f"pulling {self._image}: {ready} of {len(layers)} layers, {done:.0f} of {total:.0f} MB"


def _no_image(image: str, error: Exception) -> EngineTrouble:
    return EngineTrouble(
        f"image {image} is not here and cannot be pulled: {_reason(error)}",
        "look at its name, tag and digest; for a private registry, name a secret in registry_secret",
        "staging",
    )


def _not_started(step: Step, error: APIError) -> EngineTrouble:
    reason = _reason(error)
    small = reason.lower()
    command = " ".join([*(step.entrypoint or ()), *(step.command or ())]) or "its own command"
    if "permission denied" in small and "exec" in small:
        return EngineTrouble(f"{step.image} cannot execute {command}: {reason}", "look at its mode", "executor", 126)
    if any(
        each in small for each in ("executable file", "no such file or directory", "not found in $path", "no command")
    ):
        return EngineTrouble(f"{step.image} cannot execute {command}: {reason}", "is it in the image?", "executor", 127)
    return EngineTrouble(f"the engine refused a container of {step.image}: {reason}", "look at the token's options")


def _no_answer(error: Exception) -> EngineTrouble:
    return EngineTrouble(f"the container engine gives no answer: {_reason(error)}", "is it well?")


def _reason(error: Exception) -> str:
    text = str(getattr(error, "explanation", None) or error)
    return " ".join(text.split())[:500]
