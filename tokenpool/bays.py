"""The folders and log files in which a worker runs its tokens, used again and again.

Making and removing a folder and two files costs more than the command of a short token, and on ext4 ever more: it
walks past every inode that was freed in the last seconds. So what a token left as it found it goes to the next one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from dataclasses import dataclass

#: The modification time (s) of a folder that nobody touched: whoever makes or removes something in it sets another.
UNTOUCHED = 0

#: Bytes that have to be free on the disk.
LEAST = 64 * 1024


@dataclass(frozen=True)
class Bay:
    """One folder with its two log files, absolute paths; `modes` are the three as they were made."""

    work: str
    stdout: str
    stderr: str


class Bays:
    """Gives each attempt a bay of its own; a bay that comes back is emptied. Safe from several threads."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._free: list[Bay] = []
        self._made = 0
        self._seen: dict[str, tuple[int, ...]] = {}

    @property
    def is_full(self) -> bool:
        """The disk takes next to nothing more: files can still be made there, but what is written is cut."""
        try:
            disk = os.statvfs(self.root)
        except FileNotFoundError:
            return False  # nothing was taken yet, or somebody tidied up: the next bay makes it again
        return disk.f_bavail * disk.f_frsize < LEAST

    def take(self) -> Bay:
        """Return a bay that no attempt is in; raises OSError where the disk takes no more."""
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.root)
        try:
            return self._free.pop()
        except IndexError:
            pass
        self._made += 1
        name = os.path.join(self.root, str(self._made))
        bay = Bay(name, f"{name}.out", f"{name}.err")
        self._make(bay)
        return bay

    def give_back(self, bay: Bay) -> None:
        """Empty a bay for the next attempt; one that cannot be emptied is left where it is."""
        try:
            self._empty_folder(bay)
            for path in (bay.stdout, bay.stderr):
                _empty_file(path)
        except OSError:
            return
        self._free.append(bay)

    def keep(self, bay: Bay, name: str) -> str:
        """Leave what an attempt had under the name of its token, to be looked at; return the folder."""
        kept = os.path.join(self.root, name)
        for old, new in ((bay.work, kept), (bay.stdout, f"{kept}.out"), (bay.stderr, f"{kept}.err")):
            try:
                os.rename(old, new)
            except FileNotFoundError:
                pass  # the token removed it
        self._seen.pop(bay.work, None)
        return kept

    def close(self) -> None:
        """Remove the bays that are free."""
        for bay in self._free:
            for path in (bay.stdout, bay.stderr):
                try:
                    os.unlink(path)
                except OSError:
                    pass
            try:
                os.rmdir(bay.work)
            except OSError:
                pass
        self._free.clear()

    def _make(self, bay: Bay) -> None:
        os.makedirs(bay.work)
        os.utime(bay.work, (UNTOUCHED, UNTOUCHED))
        self._seen[bay.work] = _looks(bay.work)

    def _empty_folder(self, bay: Bay) -> None:
        try:
            if _looks(bay.work) == self._seen[bay.work]:
                return
            _remove(bay.work)
        except FileNotFoundError:
            pass
        self._make(bay)


def _looks(folder: str) -> tuple[int, ...]:
    """Return what changes with the contents, the permissions or the owner of a folder.

    The time of change alone is not enough, as clocks of file systems stand still for milliseconds; nor is the time of
    modification, which archives set.
    """
    now = os.lstat(folder)
    return now.st_mode, now.st_ino, now.st_nlink, now.st_mtime_ns, now.st_ctime_ns


def discard(path: str) -> None:
    """Remove what an attempt left, if it can be and is there."""
    try:
        _remove(path)
    except OSError:
        pass


def _remove(path: str) -> None:
    """Remove a file, a link, or a folder with all that is in it, whatever rights a token left there."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    try:
        shutil.rmtree(path)
    except PermissionError:
        os.chmod(path, 0o700)
        for folder, names, _ in os.walk(path):  # it goes into a folder only after this had its name
            for name in names:
                inner = os.path.join(folder, name)
                if not os.path.islink(inner):
                    os.chmod(inner, 0o700)
        shutil.rmtree(path)


def _empty_file(path: str) -> None:
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return  # the supervisor makes it
    if not stat.S_ISREG(now.st_mode) or now.st_nlink > 1 or now.st_mode & 0o600 != 0o600:
        _remove(path)
    elif now.st_size:
        os.truncate(path, 0)
