"""What control groups say of this process, and which of them are ours to use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from control_groups import machine, version_1, version_2
from processes import LINUX

from tokenpool import cgroups
from tokenpool.cgroups import VARIABLE, Group, home, oom_counter, oom_kills, own, remove, set_memory

CGROUPS = "sys/fs/cgroup"


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that only look like control groups cannot be entered, nor removed with the files in them."""
    monkeypatch.setattr(cgroups, "_try_out", lambda group: True)


def nobody_special(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def superuser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


# ── where this process stands ────────────────────────────────────────────────────────────────────────────────────────


def test_each_controller_has_its_place_in_version_1(tmp_path: Path) -> None:
    root = version_1(tmp_path, "/a/b", memory__limit_in_bytes="1", cpu__cfs_quota_us="1")
    top = tmp_path / CGROUPS / "memory"
    found = own("memory", root)
    assert found == Group(top / "a/b", top, 1)
    assert list(found.lineage()) == [top / "a/b", top / "a", top]
    assert own("cpu", root) == Group(tmp_path / CGROUPS / "cpu,cpuacct/a/b", tmp_path / CGROUPS / "cpu,cpuacct", 1)
    assert own("io", root) is None


def test_all_have_one_place_in_version_2(tmp_path: Path) -> None:
    root = version_2(tmp_path, "/a", memory__max="max")
    assert own("memory", root) == own("cpu", root) == Group(tmp_path / CGROUPS / "a", tmp_path / CGROUPS, 2)
    assert own("hugetlb", root) is None


def test_in_a_container_that_sees_its_part_only_the_part_is_the_top(tmp_path: Path) -> None:
    # Given version 1, where the container's own group is mounted as if it were all
    root = version_1(tmp_path)
    mounts = "35 31 0:32 /docker/1f2e /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    machine(root, {"proc/self/mountinfo": mounts, "proc/self/cgroup": "4:memory:/docker/1f2e/job\n"})
    places = (f"{CGROUPS}/memory/job", f"{CGROUPS}/memory/2", "sys/fs/elsewhere")
    machine(root, {f"{place}/memory.limit_in_bytes": "1" for place in places})
    top = tmp_path / CGROUPS / "memory"
    assert own("memory", root) == Group(top / "job", top, 1)
    # And a place that cannot be seen from here is taken for the top
    for place in ("/docker/1f2e/gone", "/docker/1f2e2", "/../../elsewhere"):
        machine(root, {"proc/self/cgroup": f"4:memory:{place}\n"})
        found = own("memory", root)
        assert found == Group(top, top, 1)
        assert list(found.lineage()) == [top]


def test_without_control_groups_there_is_none(tmp_path: Path) -> None:
    assert own("memory", tmp_path) is None
    assert home({}, tmp_path) is None


# ── which are ours ───────────────────────────────────────────────────────────────────────────────────────────────────


def slurm_like(root: Path, **files: str) -> Path:
    """A group of version 1 some way below the top."""
    about = {"memory__oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "memory__use_hierarchy": "1"}
    machine(version_1(root, "/job", **{**about, **files}), {f"{CGROUPS}/memory/job/cgroup.procs": ""})
    return root


def test_a_group_that_this_user_owns_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_special(monkeypatch)
    assert home({}, slurm_like(tmp_path)) == Group(tmp_path / CGROUPS / "memory/job", tmp_path / CGROUPS / "memory", 1)


def test_a_group_that_the_superuser_could_write_to_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    superuser(monkeypatch)
    assert home({}, slurm_like(tmp_path)) is None
    # Unless it is handed over, or named
    path = str(tmp_path / CGROUPS / "memory/job")
    machine(tmp_path, {f"{path}/memory.limit_in_bytes": "1"})
    assert home({VARIABLE: path}, tmp_path) == Group(Path(path), Path(path), 1)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"0")
    assert home({}, tmp_path) is None
    for mark in ("user.delegate", "trusted.delegate"):
        marks = {mark: b"1"}
        monkeypatch.setattr(os, "getxattr", lambda path, name, marks=marks: marks.get(name, b"0"))
        assert home({}, tmp_path)


def test_a_superuser_who_stands_at_the_top_owns_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    superuser(monkeypatch)
    root = version_1(tmp_path, "/", memory__oom_control="oom_kill 0")
    assert home({}, root) == Group(tmp_path / CGROUPS / "memory", tmp_path / CGROUPS / "memory", 1)


@pytest.mark.parametrize("missing", ["folder", "procs"])
def test_a_group_that_cannot_be_written_to_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    nobody_special(monkeypatch)
    refused = tmp_path / CGROUPS / "memory/job" / ("." if missing == "folder" else "cgroup.procs")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != refused)
    assert home({}, slurm_like(tmp_path)) is None


@pytest.mark.parametrize("files", [{"memory__use_hierarchy": "0"}, {"memory__oom_control": "under_oom 0"}])
def test_groups_that_would_not_keep_our_own_limits_or_not_tell_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    nobody_special(monkeypatch)
    assert home({}, slurm_like(tmp_path, **files)) is None


def delegated(root: Path, procs: str, **files: str) -> Path:
    about = {"cgroup__controllers": "memory pids", "cgroup__subtree_control": "", "cgroup__procs": procs}
    return version_2(root, "/user/app", **{**about, **files})


def test_a_group_of_version_2_that_has_limits_below_it_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_special(monkeypatch)
    root = delegated(tmp_path, "1\n", cgroup__subtree_control="memory pids\n")
    kernel = Kernel(tmp_path / CGROUPS / "user/app", monkeypatch)
    assert home({}, root) == Group(tmp_path / CGROUPS / "user/app", tmp_path / CGROUPS, 2)
    assert kernel.moved == []


def test_one_without_the_memory_controller_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_special(monkeypatch)
    assert home({}, delegated(tmp_path, "", cgroup__controllers="pids")) is None


class Kernel:
    """Lets the processes of a folder that looks like a group move, and refuses limits below a group with processes."""

    def __init__(self, group: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.group, self.moved = group, []
        real = Path.write_text

        def write(path: Path, text: str, *args: object) -> int:
            procs = group / "cgroup.procs"
            if path == group / "cgroup.subtree_control" and cgroups.read(procs):
                raise OSError(16, "Device or resource busy")
            if path.name == "cgroup.procs" and path.parent.parent == group:
                self.moved.append((int(text), path.parent.name))
                real(procs, "".join(f"{pid}\n" for pid in cgroups.read(procs).split() if pid != text))
            return real(path, text)

        monkeypatch.setattr(Path, "write_text", write)


def test_a_worker_that_is_alone_in_its_group_makes_room_for_groups_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_special(monkeypatch)
    root = delegated(tmp_path, f"{os.getpid()}\n")
    group = tmp_path / CGROUPS / "user/app"
    kernel = Kernel(group, monkeypatch)
    assert home({}, root) == Group(group, tmp_path / CGROUPS, 2)
    assert kernel.moved == [(os.getpid(), cgroups.LEAF)]
    assert cgroups.read(group / "cgroup.subtree_control") == "+memory"
    # And when it looks again from where it is now, the place is the same
    machine(root, {"proc/self/cgroup": f"0::/user/app/{cgroups.LEAF}\n"})
    (group / "cgroup.subtree_control").write_text("memory")
    assert home({}, root) == Group(group, tmp_path / CGROUPS, 2)


def test_a_group_with_strangers_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody_special(monkeypatch)
    root = delegated(tmp_path, f"{os.getpid()}\n1\n")
    kernel = Kernel(tmp_path / CGROUPS / "user/app", monkeypatch)
    assert home({}, root) is None
    assert kernel.moved == []


# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_limit_leaves_no_way_out_through_swap(tmp_path: Path) -> None:
    first = machine(tmp_path / "1", {"memory.memsw.limit_in_bytes": "", "memory.oom_control": ""})
    set_memory(first, 1000, 1)
    assert {path.name: path.read_text() for path in first.iterdir()} == {
        "memory.limit_in_bytes": "1000", "memory.memsw.limit_in_bytes": "1000", "memory.oom_control": "0"
    }  # fmt: skip
    second = machine(tmp_path / "2", {"memory.swap.max": "", "memory.oom.group": ""})
    set_memory(second, 1000, 2)
    assert {path.name: path.read_text() for path in second.iterdir()} == {
        "memory.max": "1000", "memory.swap.max": "0", "memory.oom.group": "1"
    }  # fmt: skip
    # And a kernel that does not count swap has no such files
    third = machine(tmp_path / "3", {"empty": ""})
    set_memory(third, 1000, 2)
    assert sorted(path.name for path in third.iterdir()) == ["empty", "memory.max"]


@pytest.mark.parametrize(
    ("files", "kills"),
    [
        ({}, 0),
        ({"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"}, 2),
        ({"memory.events": "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\n"}, 2),
        ({"memory.events": "oom_kill 5\n", "memory.events.local": "oom_kill 1\noom_group_kill 1\n"}, 1),
    ],
)
def test_the_kernels_kills_are_counted(tmp_path: Path, files: dict[str, str], kills: int) -> None:
    assert oom_kills(oom_counter(machine(tmp_path, files))) == kills


@LINUX
def test_a_group_goes_with_those_below_it_but_not_with_anything_in_it(tmp_path: Path) -> None:
    (tmp_path / "group/below/it").mkdir(parents=True)
    assert remove(tmp_path / "group")
    assert remove(tmp_path / "group")
    machine(tmp_path, {"busy/file": ""})
    assert not remove(tmp_path / "busy")
