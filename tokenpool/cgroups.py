"""The kernel's control groups, version 1 and 2: where this process stands, what limits it, and groups below its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .processes import birth, family

ROOT = Path("/")
#: Names the group below which tokens' groups are to be made.
VARIABLE = "TOKENPOOL_CGROUP"
PREFIX = "tokenpool-"
#: Where a worker moves itself: in version 2 a group with groups below it holds no processes.
LEAF = PREFIX + "worker"


@dataclass(frozen=True)
class Group:
    """One control group: its folder, the highest folder that can be seen from here, and which version it is of."""

    path: Path
    top: Path
    version: int

    def lineage(self) -> Iterator[Path]:
        """Give this group's folder and those above it, up to the highest: the limits of all of them count."""
        yield self.path
        if self.path != self.top:
            for folder in self.path.parents:
                yield folder
                if folder == self.top:
                    break


def own(controller: str, root: Path = ROOT) -> Group | None:
    """Return the group of this process that has a say on `controller` ("memory", "cpu"); None without any.

    `root` is the folder in which /proc and /sys are looked for.
    """
    places = _places(root)
    version2 = None
    for line in read(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        kind, mounted = right.split()[:1], left.split()[3:5]
        if kind == ["cgroup"] and controller in right.split()[-1].split(",") and controller in places:
            return _group(root, mounted, places[controller], 1)
        if kind == ["cgroup2"] and "" in places:
            version2 = _group(root, mounted, places[""], 2)
    if version2 and controller in read(version2.path / "cgroup.controllers").split():
        return version2
    # The root group lists what there is, and a group without this controller is limited by those above it.
    if version2 and any(controller in read(folder / "cgroup.controllers").split() for folder in version2.lineage()):
        return version2
    return None


def _places(root: Path) -> dict[str, str]:
    """Return the path of this process's group by controller; "" is version 2."""
    found = {}
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def _group(root: Path, mounted: list[str], place: str, version: int) -> Group:
    """Return the group at `place`, where a container may have mounted only a part of the whole."""
    part, mount_point = mounted
    top = root / mount_point.lstrip("/")
    inside = place[len(part) :] if part != "/" and (place + "/").startswith(part + "/") else place
    path = top / inside.strip("/")
    return Group(path if ".." not in path.parts and path.is_dir() else top, top, version)


def read(path: Path) -> str:
    """Return the text of a small file, "" where it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("ascii", "replace").strip()
    except OSError:
        return ""


def number(path: Path, key: str = "") -> int | None:
    """Return the number in a file, or the one on the line ``key number``; None where there is none ("max")."""
    words = read(path).split()
    if key:
        words = words[words.index(key) + 1 :] if key in words else []
    try:
        return int(words[0])
    except (IndexError, ValueError):
        return None


# --- groups of our own ---------------------------------------------------------------------------------------------


def home(environ: Mapping[str, str], root: Path = ROOT) -> Group | None:
    """Return the group below which groups with memory limits can be made; None where there is none that is ours.

    In version 2, this process and its children may be moved into a group of their own for that.
    """
    named, group = environ.get(VARIABLE), own("memory", root)
    if named:
        group = Group(Path(named), Path(named), 1 if (Path(named) / "memory.limit_in_bytes").exists() else 2)
    elif group and group.path.name == LEAF and group.path != group.top:
        group = Group(group.path.parent, group.top, group.version)
    if group is None or not (named or _is_ours(group)):
        return None
    try:
        return group if _prepare(group) and _try_out(group) else None
    except OSError:
        return None


def _is_ours(group: Group) -> bool:
    """Tell whether a group was left to us; that the superuser may write to all of them says nothing."""
    if not os.access(group.path, os.W_OK) or not os.access(group.path / "cgroup.procs", os.W_OK):
        return False
    return os.geteuid() != 0 or group.path == group.top or _handed_over(group.path)


def _handed_over(folder: Path) -> bool:
    """Tell whether systemd has marked a group as delegated."""
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(folder, name) == b"1":
                return True
        except (AttributeError, OSError):
            pass
    return False


def _prepare(group: Group) -> bool:
    """Have the groups below `group` get memory limits of their own; tell whether they do. Raises OSError."""
    folder = group.path
    if group.version == 1:
        hierarchical = number(folder / "memory.use_hierarchy") != 0  # else what is below would escape our own limits
        return hierarchical and number(folder / "memory.oom_control", "oom_kill") is not None
    if "memory" in read(folder / "cgroup.subtree_control").split():
        return True
    if "memory" not in read(folder / "cgroup.controllers").split():
        return False
    try:
        (folder / "cgroup.subtree_control").write_text("+memory")
        return True
    except OSError:  # it holds processes, and is not the highest of all
        pass
    for _ in range(10):  # others may be forked meanwhile
        inside = {int(pid) for pid in read(folder / "cgroup.procs").split()}
        if not inside:
            (folder / "cgroup.subtree_control").write_text("+memory")
            return True
        if not inside <= set(family(os.getpid())):
            return False
        (folder / LEAF).mkdir(exist_ok=True)
        for pid in inside:
            _move(pid, folder / LEAF)
    return False


def _move(pid: int, folder: Path) -> None:
    try:
        (folder / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        pass


def _try_out(group: Group) -> bool:
    """Tell whether a process can be moved into a group below `group`, which takes more rights than to make one."""
    folder = group.path / name_for("trial")
    folder.mkdir()
    try:
        enter = ["/bin/sh", "-c", 'echo $$ > "$0"', str(folder / "cgroup.procs")]
        return subprocess.run(enter, stderr=subprocess.DEVNULL, check=False).returncode == 0
    finally:
        remove(folder)


def name_for(what: str) -> str:
    """Return the name of a group that this process makes, from which others see when it is dead."""
    return f"{PREFIX}{os.getpid()}-{birth(os.getpid())}-{what}"


def set_memory(folder: Path, size: int, version: int) -> None:
    """Limit the memory of a new group to so many bytes, with no swap on top. Raises OSError."""
    if version == 1:
        (folder / "memory.limit_in_bytes").write_text(str(size))
        _set_if_there(folder / "memory.memsw.limit_in_bytes", str(size))
        _set_if_there(folder / "memory.oom_control", "0")  # a parent may have said that processes wait instead
    else:
        (folder / "memory.max").write_text(str(size))
        _set_if_there(folder / "memory.swap.max", "0")
        _set_if_there(folder / "memory.oom.group", "1")  # all of it dies, not the largest process only


def _set_if_there(path: Path, text: str) -> None:
    try:
        if path.exists():
            path.write_text(text)
    except OSError:
        pass  # not every kernel has it switched on


def oom_counter(folder: Path) -> Path:
    """Return the file in which the kernel counts the processes of a group that it killed for want of memory."""
    names = ("memory.events.local", "memory.events", "memory.oom_control")
    return next((folder / name for name in names if (folder / name).exists()), folder / names[0])


def oom_kills(counter: Path) -> int:
    """Return how many processes the kernel has killed, as such a file says."""
    return number(counter, "oom_kill") or 0


def remove(folder: Path) -> bool:
    """Remove a group, and those below it; tell whether it is gone. One that holds processes stays."""
    for place, _, _ in os.walk(folder, topdown=False):
        try:
            os.rmdir(place)
        except OSError:
            break
    return not folder.exists()


def sweep(folder: Path) -> None:
    """Remove the groups that workers left which are dead."""
    for path in folder.glob(PREFIX + "*-*-*"):
        pid, born = path.name[len(PREFIX) :].split("-")[:2]
        if pid.isdigit() and str(birth(int(pid))) != born:
            remove(path)
