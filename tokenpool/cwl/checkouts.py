"""Brings a workflow's source into a folder: clones a repository at a ref, unpacks a .zip; git and the network are used here."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from dataclasses import replace
from pathlib import Path

from ..errors import BadInput, NotFound, ServerAway, TokenpoolError
from .sources import ATTACHED, Source, choose

#: Bytes that a .zip may unpack to.
LARGEST = 2_000_000_000
#: Seconds in which a server has to answer.
PATIENCE = 60
#: What git says where asking again does not help.
_WRONG = (
    "not found", "does not exist", "not appear to be a git repository", "couldn't find remote ref", "no such remote ref",
    "could not read Username", "could not read Password", "Authentication failed", "did not match any file",
    "Permission denied", "terminal prompts disabled", "not our ref", "unable to read tree",
)  # fmt: skip


def bring(source: Source, folder: Path) -> Source:
    """Bring a repository or a .zip into a folder; return the source with its path, and its commit, as they were found.

    What is at a plain URL stays there. Raises BadInput, NotFound, and ServerAway where asking again may help.
    """
    if source.repo:
        commit = _clone(source, folder)
        return replace(source, commit=commit, path=choose(folder, source.path, _named(source)))
    if source.archive:
        _unpack(source, folder)
        return replace(source, path=choose(folder, source.path, source.archive))
    return source


def _named(source: Source) -> str:
    return f"{source.repo} at {source.ref}" if source.ref else source.repo


# --- git -------------------------------------------------------------------------------------------------------------


def has_git() -> bool:
    """Tell whether this machine can clone a repository."""
    return shutil.which("git") is not None


def _clone(source: Source, folder: Path) -> str:
    """Check a commit out into a folder; return its full name."""
    if not has_git():
        raise BadInput("this machine has no git, which a repository is cloned with", "install git")
    wanted = source.commit or source.ref or "HEAD"
    if source.repo.startswith("-") or wanted.startswith("-"):
        raise BadInput(
            f"{source.repo} {wanted} is no repository", "https://host/user/repo, and a branch, tag or commit"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _git(folder, "init", "--quiet")
    # One commit, where the server can give just that; else all of them, as from a plain web server.
    small = _git(folder, "fetch", "--quiet", "--depth", "1", "--", source.repo, wanted, may_fail=True)
    if small is not None:
        _git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    else:
        everything = (
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
            "+HEAD:refs/remotes/origin/HEAD",
        )
        _git(folder, "fetch", "--quiet", "--", source.repo, *everything, source=source)
        _git(folder, "checkout", "--quiet", "--detach", _known(folder, wanted, source))
    return (_git(folder, "rev-parse", "HEAD") or "").strip()


def _known(folder: Path, wanted: str, source: Source) -> str:
    for name in (f"refs/remotes/origin/{wanted}", f"refs/tags/{wanted}", wanted):
        found = _git(folder, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}", may_fail=True)
        if found:
            return found.strip()
    there = (_git(folder, "for-each-ref", "--format=%(refname:lstrip=2)") or "").split()
    names = [each.removeprefix("origin/") for each in there]
    shown = ", ".join([each for each in names if each != "HEAD"][:10])
    raise NotFound(f"{source.repo} has no branch, tag or commit {wanted!r}", f"it has {shown}")


def _git(folder: Path, *words: str, may_fail: bool = False, source: Source | None = None) -> str | None:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
    done = subprocess.run(
        ["git", "-c", "advice.detachedHead=false", *words],
        cwd=folder,
        env={**os.environ, **quiet, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return done.stdout
    if may_fail:
        return None
    said = [line for line in done.stderr.strip().splitlines() if line.strip()]
    reason = next((line for line in said if line.startswith(("fatal:", "error:"))), said[0] if said else "git failed")
    what = f"{source.repo if source else 'the repository'} cannot be cloned: {reason.partition(': ')[2] or reason}"
    if any(sign in done.stderr for sign in _WRONG):
        raise NotFound(what, "check user and repository; a private one needs git's credentials on this machine")
    raise ServerAway(what, "try again when it can be reached")


# --- archives --------------------------------------------------------------------------------------------------------


def _unpack(source: Source, folder: Path) -> None:
    path = Path(source.local) if source.local else folder.with_name(f"{folder.name}.zip")
    if not source.local and not source.url.startswith(ATTACHED):
        _download(source.url, path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(each.file_size for each in archive.infolist()) > LARGEST:
                raise BadInput(
                    f"{source.archive} holds more than {LARGEST / 1e9:.0f} GB", "it is too large for a workflow"
                )
            for each in archive.infolist():
                out = archive.extract(each, folder)
                if not each.is_dir() and (each.external_attr >> 16) & 0o100:
                    os.chmod(out, 0o755)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        if isinstance(error, TokenpoolError):
            raise
        raise BadInput(f"{source.archive} cannot be unpacked: {error}", "is it a .zip file?") from None


def _download(url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404, 410):
            raise NotFound(f"{url} cannot be read: {error.code} {error.reason}", "check the URL") from None
        raise ServerAway(f"{url} cannot be read: {error.code} {error.reason}", "try again later") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, FileNotFoundError) or isinstance(error, ValueError):
            raise NotFound(f"{url} cannot be read: {reason}", "check the URL") from None
        raise ServerAway(f"{url} cannot be read: {reason}", "try again when it can be reached") from None
