"""What one token leaves in its folder or its log files never meets the next one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenpool.bays import Bay, Bays

MESSES: dict[str, Callable[[Path], object]] = {
    "a file": lambda work: (work / "result").write_text("1"),
    "a file that came and went": lambda work: ((work / "x").touch(), (work / "x").unlink()),
    "a tree without rights": lambda work: ((work / "a" / "b").mkdir(parents=True), (work / "a").chmod(0)),
    "other rights": lambda work: work.chmod(0o500),
    "no folder": lambda work: work.rmdir(),
    "a file in place of the folder": lambda work: (work.rmdir(), work.write_text("")),
    "a link in place of the folder": lambda work: (work.rmdir(), work.symlink_to("/")),
    "an archive that brought its folder's time": lambda work: ((work / "old").touch(), os.utime(work, (0, 0))),
}


def used(bays: Bays, tmp_path: Path, mess: Callable[[Path], object]) -> tuple[Bay, Bay]:
    """Let one attempt make a mess; return its bay and the one that the next attempt gets."""
    first = bays.take()
    mess(Path(first.work))
    bays.give_back(first)
    return first, bays.take()


@pytest.mark.parametrize("name", MESSES)
def test_the_next_token_finds_an_empty_folder(tmp_path: Path, name: str) -> None:
    fresh = os.stat(Bays(str(tmp_path / "other")).take().work)
    first, second = used(Bays(str(tmp_path / "root")), tmp_path, MESSES[name])
    assert second == first
    assert not Path(second.work).is_symlink()
    assert os.listdir(second.work) == []
    assert os.stat(second.work).st_mode == fresh.st_mode


def test_a_folder_that_was_not_touched_is_not_made_anew(tmp_path: Path) -> None:
    first, second = used(Bays(str(tmp_path)), tmp_path, lambda work: work.stat())
    assert first == second
    inode = os.stat(first.work).st_ino
    assert os.stat(second.work).st_ino == inode


@pytest.mark.parametrize(
    "mess",
    [
        lambda log: log.write_text("said\n"),
        lambda log: (log.touch(), log.chmod(0o400)),
        lambda log: log.symlink_to("/dev/null"),
        lambda log: os.mkfifo(log),
        lambda log: log.mkdir(),
        lambda log: (log.write_text("kept elsewhere"), os.link(log, f"{log}.copy")),
    ],
)
def test_the_next_token_has_empty_logs(tmp_path: Path, mess: Callable[[Path], object]) -> None:
    bays = Bays(str(tmp_path / "root"))
    first = bays.take()
    mess(Path(first.stdout))
    bays.give_back(first)
    again = bays.take()
    with open(again.stdout, "ab") as log:
        assert log.tell() == 0
    assert Path(again.stdout).is_file()
    assert not Path(again.stdout).is_symlink()
    copy = Path(f"{first.stdout}.copy")
    assert not copy.exists() or copy.read_text() == "kept elsewhere"


def test_what_is_kept_is_found_by_its_name_and_used_no_more(tmp_path: Path) -> None:
    bays = Bays(str(tmp_path))
    bay = bays.take()
    Path(bay.work, "core").touch()
    Path(bay.stderr).write_text("it failed\n")
    kept = bays.keep(bay, "task_1.0a1b2c3d")
    assert kept == str(tmp_path / "task_1.0a1b2c3d")
    assert os.listdir(kept) == ["core"]
    assert Path(f"{kept}.err").read_text() == "it failed\n"
    assert bays.take() != bay


def test_at_the_end_only_what_was_kept_stays(tmp_path: Path) -> None:
    bays = Bays(str(tmp_path))
    kept, free = bays.take(), bays.take()
    bays.keep(kept, "task_1")
    bays.give_back(free)
    bays.close()
    assert os.listdir(tmp_path) == ["task_1"]
    shutil.rmtree(tmp_path / "task_1")


def test_rights_that_a_token_took_away_are_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a folder that cannot be removed as it is; the superuser, as which tests may run, would not notice
    bays = Bays(str(tmp_path))
    bay = bays.take()
    locked = Path(bay.work, "a", "b")
    locked.mkdir(parents=True)
    locked.chmod(0)
    Path(bay.work, "elsewhere").symlink_to(tmp_path)
    before = tmp_path.stat().st_mode
    remove = shutil.rmtree

    def removed(path: str) -> None:
        if os.stat(locked).st_mode & 0o700 != 0o700:
            raise PermissionError(13, "Permission denied", path)
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", removed)
    # When it is given back, then it is emptied, and what a link in it leads to keeps its rights
    bays.give_back(bay)
    assert bays.take() == bay
    assert os.listdir(bay.work) == []
    assert tmp_path.stat().st_mode == before
