"""Data in and out: one large file, and many small ones, from and to S3 and folders, side by side with other programs.

Each figure is a process of its own, in turns, from and to the same server. The others are measured from start to end. A
worker is up for days, so ours counts from the first byte: its start, and the loading of its libraries, stand beside it. The
peak of the memory is the kernel's, of the whole process. Ours computes the SHA-256 of all that it moves.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEY, SECRET = "benchmark", "benchmark-secret"
#: Not a peer but the floor: it checks nothing, and shows files that are not whole yet.
FLOOR = "cp"
MB = 1_000_000


@dataclass(frozen=True)
class Place:
    """A server that speaks S3, and the folder that the files of this machine are in."""

    endpoint: str
    environ: dict[str, str]
    folder: Path


@dataclass(frozen=True)
class Figure:
    """What one run took: seconds, those before the first byte that do not count, and MB of memory at its peak."""

    seconds: float
    memory: float
    start: float = 0.0


# --- what is compared --------------------------------------------------------------------------------------------------


def commands(place: Place, peers: Path | None, what: str, source: str, target: str) -> dict[str, list[str]]:
    """Return the command line of each program that is here and can do it: `what` is one, or many (files)."""
    found = {"tokenpool": [sys.executable, __file__, "--move", source, target, "--endpoint", place.endpoint]}
    tree = what == "many"
    for name, make in (("rclone", _rclone), ("aws", _aws), ("s5cmd", _s5cmd), ("cp", _cp)):
        program = shutil.which(name, path=f"{peers}:{os.environ['PATH']}" if peers else None)
        line = make(program, place, source, target, tree) if program else None
        if line:
            found[name] = line
    return found


def _rclone(program: str, place: Place, source: str, target: str, tree: bool) -> list[str]:
    def spelled(url: str) -> str:
        return f":s3:{url[5:]}" if url.startswith("s3://") else url

    options = ["--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", place.endpoint, "--s3-force-path-style"]
    more = ["--transfers", "8", "--checkers", "8", "--config", os.devnull, "--s3-no-check-bucket", "--retries", "1"]
    return [program, "copy" if tree else "copyto", spelled(source), spelled(target), *options, *more]


def _aws(program: str, place: Place, source: str, target: str, tree: bool) -> list[str] | None:
    if not (source.startswith("s3://") or target.startswith("s3://")):
        return None
    more = ["--recursive"] if tree else []
    return [program, "--endpoint-url", place.endpoint, "s3", "cp", "--only-show-errors", source, target, *more]


def _s5cmd(program: str, place: Place, source: str, target: str, tree: bool) -> list[str] | None:
    if not (source.startswith("s3://") or target.startswith("s3://")):
        return None
    if tree:
        source, target = (
            (f"{source.rstrip('/')}/*" if source.startswith("s3://") else f"{source.rstrip('/')}/"),
            f"{target.rstrip('/')}/",
        )
    return [program, "--endpoint-url", place.endpoint, "--log", "error", "cp", source, target]


def _cp(program: str, place: Place, source: str, target: str, tree: bool) -> list[str] | None:
    if source.startswith("s3://") or target.startswith("s3://"):
        return None
    return [program, "--reflink=never", *(["-r", f"{source.rstrip('/')}/."] if tree else [source]), target]


def move(source: str, target: str, endpoint: str) -> None:
    """Move a file, or a folder, as a worker does for a token: checked, and never seen half."""
    from tokenpool.errors import NotFound
    from tokenpool.staging.transfers import Download, Transfers, Upload
    from tokenpool.storage import Storages
    from tokenpool.storage.urls import below

    storages = Storages({"s3://": {"endpoint_url": endpoint}})
    transfers = Transfers(storages)
    with contextlib.suppress(NotFound):
        for url in (source, target):
            storages.of(url).stat(below(url, "nothing-is-here"))
    began = time.perf_counter()
    if source.startswith("s3://"):
        if source.endswith("/"):
            entries = storages.of(source).list(source)
            those = [Download(each.url, os.path.join(target, each.url[len(source) :]), entry=each) for each in entries]
        else:
            those = [Download(source, target)]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        moved = transfers.run(those)
    elif os.path.isdir(source):
        names = [os.path.relpath(each, source) for each in Path(source).rglob("*") if each.is_file()]
        moved = transfers.run([Upload(os.path.join(source, name), below(target, name)) for name in names])
    else:
        moved = transfers.run([Upload(source, target)])
    assert all(each.sha256 for each in moved)
    print(time.perf_counter() - began, flush=True)
    transfers.close()


# --- measuring ---------------------------------------------------------------------------------------------------------


def run(line: Sequence[str], environ: dict[str, str]) -> Figure:
    """Run a command and return what it took."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(line, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{line[0]}: {log.read().decode(errors='replace')[-800:]}")
        log.seek(0)
        moving = float(log.read()) if "--move" in line else seconds
    return Figure(moving, usage.ru_maxrss / 1024, seconds - moving)


def compare(
    title: str, place: Place, peers: Path | None, what: str, pair: tuple[str, str], amount: float, rounds: int
) -> float:
    """Print a row for each program; return our share of the best of the others."""
    found: dict[str, list[Figure]] = {}
    lines = commands(place, peers, what, *pair)
    for _ in range(rounds):
        for name, line in lines.items():
            _clear(pair[1], place)
            with contextlib.suppress(KeyError):
                if found.get(name, [Figure(0, 0)])[-1].seconds == float("inf"):
                    continue
                try:
                    found.setdefault(name, []).append(run(line, place.environ))
                except RuntimeError as error:
                    print(f"  {name} could not: {str(error).splitlines()[-1][:110]}")
                    found[name] = [Figure(float("inf"), 0)]
                else:
                    _check(pair[1], place, what, amount)
    unit = "MB/s" if what == "one" else "files/s"
    medians = {name: statistics.median(each.seconds for each in figures) for name, figures in found.items()}
    best = min(seconds for name, seconds in medians.items() if name not in ("tokenpool", FLOOR))
    print(title)
    for name, figures in found.items():
        seconds = medians[name]
        if seconds < float("inf"):
            memory = max(each.memory for each in figures)
            print(
                f"  {name:<10} {amount / seconds:>9,.0f} {unit:<8} {seconds:>7.2f} s {memory:>7.0f} MB memory{_start(figures)}"
            )
    share = best / medians["tokenpool"]
    floor = f", {medians[FLOOR] / medians['tokenpool']:.2f} of {FLOOR}" if FLOOR in medians else ""
    print(f"  {'':<10} {share:.2f} of the best of the others{floor}")
    return share


def _start(figures: Sequence[Figure]) -> str:
    start = statistics.median(each.start for each in figures)
    return f", {start:.2f} s to start" if start else ""


def _clear(target: str, place: Place) -> None:
    if not target.startswith("s3://"):
        if os.path.isdir(target):
            shutil.rmtree(target)
        Path(target).unlink(missing_ok=True)
        (os.makedirs(target) if target.endswith("/") else os.makedirs(os.path.dirname(target), exist_ok=True))


def _check(target: str, place: Place, what: str, amount: float) -> None:
    """Make sure that all of it came: a program that did nothing must not win."""
    if target.startswith("s3://"):
        return
    files = [each for each in Path(target).rglob("*") if each.is_file()] if what == "many" else [Path(target)]
    came = len(files) if what == "many" else files[0].stat().st_size / MB
    assert came == amount, f"{came} came, not {amount}"


# --- the server --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(kind: str, folder: Path, peers: Path | None) -> Iterator[Place]:
    """Start a server that speaks S3 with a bucket `pail` on loopback."""
    if kind == "rclone":
        with _rclone_server(folder, peers) as place:
            yield place
        return
    sys.path.insert(0, str(ROOT / "tests" / "data"))
    import data_servers

    with {"moto": data_servers.s3_moto, "swift": data_servers.s3_swift}[kind](folder) as found:
        yield Place(found.environ["AWS_ENDPOINT_URL"], {**os.environ, **found.environ}, folder)


@contextlib.contextmanager
def _rclone_server(folder: Path, peers: Path | None) -> Iterator[Place]:
    program = shutil.which("rclone", path=f"{peers}:{os.environ['PATH']}" if peers else None)
    if program is None:
        raise SystemExit("there is no rclone to serve S3: --server moto, or --server swift")
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "served" / "pail").mkdir(parents=True)
    line = [
        program,
        "serve",
        "s3",
        "--auth-key",
        f"{KEY},{SECRET}",
        "--addr",
        f"127.0.0.1:{port}",
        "--config",
        os.devnull,
    ]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen([*line, "--vfs-cache-mode", "off", str(folder / "served")], stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        names = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
        # Newer clients send a checksum behind the data, which not every server takes.
        more = {
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        yield Place(f"http://127.0.0.1:{port}", {**os.environ, **names, **more}, folder)
    finally:
        process.terminate()
        process.wait()


def measure(place: Place, peers: Path | None, megabytes: int, files: int, rounds: int) -> list[float]:
    """Measure all that is measured; return our shares of the best."""
    large, small = str(place.folder / "large.bin"), f"{place.folder / 'small'}/"
    with open(large, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MB))
    for number in range(files):
        path = Path(small, f"{number % 10}", f"{number}.dat")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    back = f"{place.folder / 'back'}/"
    one, many = f"{megabytes} MB", f"{files:,} files of 4 kB"
    return [
        compare(f"S3, out, {one}", place, peers, "one", (large, "s3://pail/large.bin"), megabytes, rounds),
        compare(f"S3, in, {one}", place, peers, "one", ("s3://pail/large.bin", f"{back}large.bin"), megabytes, rounds),
        compare(f"S3, out, {many}", place, peers, "many", (small, "s3://pail/small/"), files, rounds),
        compare(f"S3, in, {many}", place, peers, "many", ("s3://pail/small/", f"{back}small/"), files, rounds),
        compare(f"folder, {one}", place, peers, "one", (large, f"{back}copy.bin"), megabytes, rounds),
        compare(f"folder, {many}", place, peers, "many", (small, f"{back}copies/"), files, rounds),
    ]


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", choices=("rclone", "moto", "swift"), default="rclone", help="what speaks S3")
    parser.add_argument("--peers", type=Path, help="a folder of programs that goes before PATH")
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="make the files below it, on the disk that is measured")
    parser.add_argument("--move", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.move:
        move(*given.move, given.endpoint)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="tokenpool-staging-", dir=given.folder))
    try:
        with server(given.server, folder, given.peers) as place:
            print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; the server is {given.server}")
            shares = measure(place, given.peers, given.megabytes, given.files, given.rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"shares": [round(each, 2) for each in shares]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
