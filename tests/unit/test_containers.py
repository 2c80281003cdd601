"""The parts of container jobs that need no engine: options, folders, records of who lives, images to be removed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenpool.engines import records
from tokenpool.engines.base import EngineTrouble, Job, Mount, Step, job_of
from tokenpool.engines.finding import find
from tokenpool.engines.folders import inside, move_contents
from tokenpool.engines.images import Images
from tokenpool.engines.jobs import environment_of, login_of, mount_of, spec_of
from tokenpool.engines.options import EXAMPLES, OPTIONS, options_of
from tokenpool.errors import BadInput

# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_every_option_has_an_example_that_works(name: str) -> None:
    assert options_of([EXAMPLES[name]], [name])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--shm-size", "makes no sense"),
        ("--device=sda", "makes no sense"),
        ("--init=maybe", "makes no sense"),
        ("--privileged", "is unknown"),
        ("--gpus=all", "is not allowed"),
    ],
)
def test_what_makes_no_sense_is_refused(option: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        options_of([option], ["shm-size", "device", "init", "privileged"])


def test_options_may_be_repeated() -> None:
    found = options_of(["--ulimit=nofile=1:2", "--ulimit=core=0"], ["ulimit"])
    assert found["ulimits"] == [
        {"name": "nofile", "soft": 1, "hard": 2},
        {"name": "core", "soft": 0, "hard": 0},
    ]


# ── what a job is made of ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_survives_its_journey() -> None:
    job = Job("t", "c", "s", "/f", [Step("i", ["a"], env={"A": "1"})], [Mount("/a", "/b", True)], memory=5)
    assert job_of(job.as_json()) == job


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "/resource/x", "/output/../etc/x", "/work"])
def test_files_outside_the_tokens_folders_are_refused(path: str) -> None:
    with pytest.raises(BadInput, match="is in no folder of the token's own"):
        inside(path, "/work")


def test_mounts_are_read_only_unless_they_say_otherwise(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert mount_of(folder) == Mount(folder, folder)
    assert mount_of(f"{folder}:rw") == Mount(folder, folder, True)
    assert mount_of(f"{folder}:/data:ro") == Mount(folder, "/data")
    with pytest.raises(EngineTrouble, match="makes no sense"):
        mount_of(f"{folder}:data")


def test_a_login_is_user_and_password_or_json() -> None:
    assert login_of('{"username": "ann", "password": "x"}') == {"username": "ann", "password": "x"}
    for odd in ("ann", '{"username": "ann"}', "{"):
        with pytest.raises(EngineTrouble):
            login_of(odd)


def test_gpus_are_counted_anew_inside() -> None:
    assert environment_of({"CUDA_VISIBLE_DEVICES": "2,3"}, ["2", "3"])["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert environment_of({"CUDA_VISIBLE_DEVICES": "GPU-a"}, ["GPU-a"])["CUDA_VISIBLE_DEVICES"] == "GPU-a"


def test_the_mark_of_the_workers_own_processes_stays_outside() -> None:
    assert "TOKENPOOL_CLAIM" not in environment_of({"TOKENPOOL_CLAIM": "c", "A": "1"}, [])


def test_the_same_work_is_known_again_and_another_is_not() -> None:
    token = {"_id": "t", "image": "i", "command": "echo"}
    assert spec_of(token, [1]) == spec_of({**token, "lock": 5, "attempts": [1]}, [1])
    assert len({spec_of(token, [1]), spec_of({**token, "command": "x"}, [1]), spec_of(token, [2])}) == 3


def test_files_are_moved_in_place_of_what_is_there(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "old"), (new, "new")):
        (folder / "output").mkdir(parents=True)
        (folder / "output" / "x").write_text(text)
        (folder / text).write_text(text)
    move_contents(str(old), str(new))
    assert (new / "output" / "x").read_text() == "old"
    assert {each.name for each in new.iterdir()} == {"output", "old", "new"}
    assert list(old.iterdir()) == []


# ── engines ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_engine_that_is_named_is_not_second_guessed() -> None:
    assert find("docker", {"DOCKER_HOST": "tcp://10.0.0.1:2376"}).address == "tcp://10.0.0.1:2376"
    named = {"DOCKER_HOST": "tcp://a:1", "CONTAINER_HOST": "tcp://b:1"}
    assert find("podman", named).address == "tcp://b:1"


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────

HOLDER = """
import sys
from tokenpool.engines import records
record = records.make(sys.argv[1], "c")
record.write(holder="c", folder="/nonexistent/1")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that looks after the containers of claim c."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "records")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_record_is_taken_only_from_the_dead(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    folder = str(tmp_path / "records")
    path = records.held_for(folder, "c")
    assert path
    assert records.take(path) is None
    holder.kill()
    holder.wait()
    record = records.take(path)
    assert record is not None
    assert record.read()["folder"] == "/nonexistent/1"
    assert records.take(path) is None
    record.remove()
    assert list(records.paths(folder)) == []


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    assert records.lives(records.me())
    assert not records.lives(f"{os.getpid()}:1")
    assert not records.lives("")


# ── images ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Shelf:
    """Stands in for an engine's images."""

    def __init__(self, free: float = 0.5, busy: str = "") -> None:
        self.removed: list[str] = []
        self._free, self._busy = free, busy

    def remove_image(self, image: str) -> bool:
        if image != self._busy:
            self.removed.append(image)
        return image != self._busy

    def free(self) -> float:
        return self._free + 0.01 * len(self.removed)


def _known(tmp_path: Path) -> Images:
    images = Images(str(tmp_path / "state"), "unix:///x")
    for name in ("first", "second", "third"):
        images.used(name)
    return images


def test_only_images_that_were_not_used_for_long_go(tmp_path: Path) -> None:
    shelf, images = Shelf(), _known(tmp_path)
    images.prune(shelf, 3600, print)
    assert shelf.removed == []
    images.prune(shelf, 0, print)
    assert shelf.removed == ["first", "second", "third"]
    images.prune(shelf, 0, print)
    assert len(shelf.removed) == 3


def test_one_that_is_used_stays_and_is_tried_again(tmp_path: Path) -> None:
    shelf, images = Shelf(busy="second"), _known(tmp_path)
    images.prune(shelf, 0, print)
    assert shelf.removed == ["first", "third"]


def test_a_full_disk_takes_the_longest_unused_first(tmp_path: Path) -> None:
    shelf = Shelf(free=0.085)
    _known(tmp_path).prune(shelf, 3600, print)
    assert shelf.removed == ["first", "second"]
