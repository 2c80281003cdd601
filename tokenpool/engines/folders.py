"""The folders of an attempt that containers write to: made, read safely, moved, given back to their owner."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterable
from pathlib import Path

from ..errors import BadInput
from .base import FOLDERS, READ_ONLY, WORK, Job, Step


def make_folders(folder: str, for_anybody: bool, volumes: Iterable[str] = ()) -> None:
    """Make what is mounted into containers; `for_anybody`: their user may not be ours."""
    places = [folder, *(os.path.join(folder, name) for name in FOLDERS), *volumes]
    for place in places:
        os.makedirs(place, exist_ok=True)
        if for_anybody:
            os.chmod(place, 0o777)


def inside(path: str, workdir: str, volumes: Iterable[tuple[str, str]] = ()) -> tuple[str, str]:
    """Return the folder below the attempt's ("" for itself) and the rest of a path that a container sees.

    `volumes` are pairs of what a container sees and such a folder. Raises BadInput where it is in none of them.

    >>> inside("/output/a/b", "/work"), inside("x", ""), inside("/data/x", "", [("/data", "volumes/0")])
    (('output', 'a/b'), ('', 'x'), ('volumes/0', 'x'))
    """
    whole = posixpath.normpath(posixpath.join(workdir or WORK, path))
    places = [(target, name) for name, target in FOLDERS.items() if name not in READ_ONLY]
    for target, name in [*volumes, *places, (WORK, "")]:
        if whole.startswith(target + "/"):
            return name, whole[len(target) + 1 :]
    raise BadInput(
        f"{path} is in no folder of the token's own", f"use one of {', '.join(target for target, _ in places)}, {WORK}"
    )


def volumes_of(job: Job) -> list[tuple[str, str]]:
    """Return what the containers of a job see of its own folder beside the usual, as `inside` wants it."""
    top = job.folder + "/"
    return [(each.target, each.source[len(top) :]) for each in job.mounts if each.source.startswith(top)]


def open_inside(job: Job, step: Step, path: str, flags: int) -> int:
    """Open a file that a container sees; links are not followed: they could lead to what the container may not touch."""
    name, rest = inside(path, step.workdir, volumes_of(job))
    *folders, last = rest.split("/")
    at = os.open(os.path.join(job.folder, name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            if flags & os.O_CREAT:
                try:
                    os.mkdir(folder, dir_fd=at)
                except FileExistsError:
                    pass
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        return os.open(last, flags | os.O_NOFOLLOW, 0o644, dir_fd=at)
    finally:
        os.close(at)


def move_contents(old: str, new: str) -> None:
    """Put what is in one folder into another, in place of what has its name there."""
    try:
        names = os.listdir(old)
    except FileNotFoundError:
        return
    for name in names:
        target = os.path.join(new, name)
        if os.path.isdir(target) and not os.path.islink(target):
            shutil.rmtree(target)
        elif os.path.lexists(target):
            os.unlink(target)
        shutil.move(os.path.join(old, name), target)


def give_back(job: Job) -> list[str]:
    """Make the user of the worker own all files; where only root could, return an image whose root may do it."""
    if job.user or not any(_foreign(job.folder)):
        return []
    if os.geteuid() != 0:
        return [job.steps[-1].image]
    for path in _foreign(job.folder):
        os.lchown(path, os.getuid(), os.getgid())
    return []


def _foreign(folder: str) -> list[str]:
    own = os.getuid()
    found = []
    for place, folders, files in os.walk(folder):
        paths = [str(Path(place) / name) for name in (*folders, *files)]
        found += [path for path in paths if os.lstat(path).st_uid != own]
    return found
