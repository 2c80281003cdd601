"""Builds what a worker node gets: tokenpool and its libraries in one file, and the scripts that start it there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from . import designs
from .errors import BadInput, NotFound

#: The oldest Python of a worker node.
FLOOR = "3.9"
PROGRAM = "tokenpool.pyz"
SETTINGS, PASSWORD = "tokenpool.toml", "password"
#: What is copied beside the single file.
SCRIPTS = ("startpilot.sh", "process_task.sh", "picasconfig.py")
#: Distributions that the program needs on a node, with the folder of each. What only pure Python can do without is left out.
LIBRARIES = {"click": "click", "urllib3": "urllib3", "couchdb": "couchdb", "pyyaml": "yaml", "rich": "rich"}
#: Parts that no node runs, and what there is no use for in an archive.
_LEFT_OUT = ("tokenpool/testing/", "tokenpool/web/", "tokenpool/reports/", "couchdb/tests/", "couchdb/tools/")
#: Of those, what `watch` draws with.
_KEPT = tuple(f"tokenpool/reports/{name}.py" for name in ("__init__", "bins", "failures", "runs"))
#: What no worker imports when it starts: compiling it would only make the file larger.
_NOT_COMPILED = (
    "tokenpool/_sandbox/",
    "tokenpool/cwl/",
    "tokenpool/functions/",
    "tokenpool/launchers/",
    "rich/",
    "yaml/",
)
_NO_SOURCES = (".so", ".pyd", ".pyc", ".pyo", ".pyi", ".c", ".h")
#: Seconds that pip, and a Python that compiles, may take.
_PATIENCE = 120
#: A Python that reads sources as JSON and answers with them compiled, in the form that `__main__.py` reads.
_COMPILE = """
import json, marshal, sys
from _frozen_importlib_external import MAGIC_NUMBER
found = {}
for path, text in json.load(sys.stdin).items():
    try:
        found[path] = marshal.dumps(compile(text, path, "exec", dont_inherit=True))
    except SyntaxError:
        pass
sys.stdout.buffer.write(MAGIC_NUMBER + marshal.dumps(found))
"""
#: Kept in all entries, so that the same sources make the same file.
_LONG_AGO = (1980, 1, 1, 0, 0, 0)

Files = dict[str, bytes]


class Built(NamedTuple):
    """What was built: the folder, its files, and the Pythons for which the program is compiled."""

    folder: Path
    files: list[str]
    pythons: list[str]


class Credentials(NamedTuple):
    """The pool of the workers, and its password, which lies in a file of its own that only its owner can read."""

    pool: str
    password: str | None = None


def build(
    folder: Path, pythons: Sequence[str] = (), credentials: Credentials | None = None, floor: str = FLOOR
) -> Built:
    """Write the sandbox into a folder, which is made; files of other names there stay. Raises BadInput, NotFound.

    `pythons` are interpreters to compile for, besides those that are found: with them it starts twice as fast there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    own = _own_archive()
    compiled: list[str] = []
    if own is not None:
        _write(folder / PROGRAM, own.read_bytes(), 0o755)
    else:
        files = sources(floor)
        blobs = dict(_compiled(files, pythons))
        _write(folder / PROGRAM, _archive(files, blobs), 0o755)
        compiled = sorted(blobs)
    for name, text in scripts().items():
        _write(folder / name, text, 0o755 if name.endswith(".sh") else 0o644)
    names = [PROGRAM, *scripts()]
    if credentials is not None:
        names += write_credentials(folder, credentials)
    return Built(folder, names, compiled)


def write_credentials(folder: Path, credentials: Credentials) -> list[str]:
    """Write the settings and the password of a sandbox; returns the names of the files."""
    lines = [f"pool = {json.dumps(credentials.pool)}"]
    names = [SETTINGS]
    if credentials.password is None:
        (folder / PASSWORD).unlink(missing_ok=True)
    else:
        lines.append(f"password_file = {json.dumps(PASSWORD)}")
        _write(folder / PASSWORD, f"{credentials.password}\n".encode(), 0o600)
        names.append(PASSWORD)
    _write(folder / SETTINGS, ("\n".join(lines) + "\n").encode(), 0o600)
    return names


def scripts() -> Files:
    """Return the scripts of a sandbox by name; they may lie in an archive."""
    return {name: (_scripts_folder() / name).read_bytes() for name in SCRIPTS}


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; nobody else can ever read more of it than its mode allows."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    part.chmod(mode)
    os.replace(part, path)


# --- what goes in --------------------------------------------------------------------------------------------------------


def _own_archive() -> Path | None:
    """Return the single file that we run from, None where we are installed."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    return Path(archive) if archive else None


def _scripts_folder() -> designs.Folder:
    return designs.shipped_folder("_sandbox", "grid-sandbox")


def sources(floor: str = FLOOR) -> Files:
    """Return all files of the program by their path: our own, those of the libraries, and what finds them."""
    here = Path(__file__).resolve().parent
    found = dict(_tree(here, "tokenpool"))
    for inside, beside in (("_views", "views"), ("_sandbox", "grid-sandbox")):
        found.update(_tree(Path(str(designs.shipped_folder(inside, beside))), f"tokenpool/{inside}"))
    with tempfile.TemporaryDirectory(prefix="tokenpool-sandbox-") as scratch:
        for root, package in _libraries(Path(scratch), floor):
            found.update(_tree(root, package))
    try:
        found["tokenpool.dist-info/METADATA"] = str(metadata.metadata("tokenpool")).encode()
    except metadata.PackageNotFoundError:
        pass  # a checkout that is not installed: the version stands in the program
    return found


def _tree(root: Path, package: str) -> Iterator[tuple[str, bytes]]:
    """Yield the sources below a folder, under a package's name."""
    for path in sorted(root.rglob("*")):
        name = f"{package}/{path.relative_to(root).as_posix()}"
        if "__pycache__" in path.parts or path.suffix in _NO_SOURCES:
            continue
        if path.is_file() and (name in _KEPT or not name.startswith(_LEFT_OUT)):
            yield name, path.read_bytes()


def _libraries(scratch: Path, floor: str) -> Iterator[tuple[Path, str]]:
    """Yield the folder of each library and its package's name: those of this environment, or, if too new, older ones."""
    too_new = []
    for distribution, package in LIBRARIES.items():
        found = _installed(distribution, package)
        if found is None or not _allows(metadata.metadata(distribution)["Requires-Python"] or "", floor):
            too_new.append(distribution)
        else:
            yield found, package
    toml, name = _toml()
    if toml is None:
        too_new.append("tomli")
    else:
        yield toml, name
    if too_new:
        _fetch(too_new, scratch, floor)
        for distribution in too_new:
            package = LIBRARIES.get(distribution, distribution)
            yield scratch / package, package


def _installed(distribution: str, package: str) -> Path | None:
    """Return the folder of an installed library."""
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(package)))
    except metadata.PackageNotFoundError:
        return None
    return found if found.is_dir() else None


def _toml() -> tuple[Path | None, str]:
    """Return the reader of TOML for Pythons that have none: from Python 3.11 on it is in the standard library."""
    if sys.version_info >= (3, 11):
        import tomllib

        return Path(tomllib.__file__).parent, "tomli"
    return _installed("tomli", "tomli"), "tomli"


def _allows(requires: str, floor: str) -> bool:
    """Tell whether a library runs with a Python; an upper limit is none of ours.

    >>> _allows(">=3.8", "3.9"), _allows("!=3.9.0,>=3.10", "3.9"), _allows("", "3.9")
    (True, False, True)
    """
    lowest = [part.strip()[2:].strip() for part in requires.split(",") if part.strip().startswith(">=")]
    return all(_numbers(each) <= _numbers(floor) for each in lowest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _fetch(distributions: Sequence[str], scratch: Path, floor: str) -> None:
    """Have pip fetch the newest of each that still runs with the oldest Python; raises NotFound."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    argv += ["--only-binary=:all:", f"--python-version={floor}", f"--dest={scratch}"]
    try:
        done = subprocess.run(
            [*argv, *distributions], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE
        )
        why = done.stderr.strip().splitlines()[-1] if done.returncode and done.stderr.strip() else ""
        failed = done.returncode != 0
    except subprocess.TimeoutExpired:
        failed, why = True, f"pip took more than {_PATIENCE} s"
    if failed:
        names = ", ".join(distributions)
        raise NotFound(
            f"{names}: what is installed here does not run with Python {floor}, and pip gets no older one: {why}",
            "where pip has its index, try again; or give up the old Pythons: --oldest-python 3.11",
        )
    for wheel in scratch.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)


# --- the single file -----------------------------------------------------------------------------------------------------


def _archive(files: Mapping[str, bytes], blobs: Mapping[str, bytes]) -> bytes:
    """Return the program: a line for the shell, then a zip archive."""
    with tempfile.TemporaryFile() as made:
        made.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            _put(archive, "__main__.py", files["tokenpool/_sandbox/__main__.py"])
            for name in sorted(files):
                _put(archive, name, files[name])
            for version in sorted(blobs):
                magic, blob = blobs[version][:4], blobs[version][4:]
                _put(archive, f"compiled/{magic.hex()}", blob)
        made.seek(0)
        return made.read()


def _put(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    entry = zipfile.ZipInfo(name, _LONG_AGO)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(entry, content)


def _compiled(files: Mapping[str, bytes], pythons: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield version and compiled modules for each Python that was named or is found; raises BadInput for a wrong one."""
    texts = json.dumps({name: text.decode("utf-8") for name, text in files.items() if _is_module(name)}).encode()
    seen = set()
    for python in [*pythons, sys.executable, *_present()]:
        version = _said([python, "-I", "-S", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        name = version.decode("ascii", "replace").strip() if version else ""
        if python in pythons and _numbers(name) < _numbers(FLOOR):
            raise BadInput(f"{python} is no Python {FLOOR} or newer", "give the path of an interpreter")
        if not name or name in seen or _numbers(name) < _numbers(FLOOR):
            continue
        seen.add(name)
        blob = _said([python, "-I", "-S", "-c", _COMPILE], texts)
        if blob:
            yield name, blob


def _is_module(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(_NOT_COMPILED)


def _present() -> Iterable[str]:
    """Return the Pythons on PATH."""
    found = (shutil.which(f"python3.{minor}") for minor in range(9, 20))
    return [path for path in found if path]


def _said(argv: Sequence[str], stdin: bytes = b"") -> bytes:
    """Return what a command prints, nothing if it fails."""
    try:
        done = subprocess.run(argv, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""
