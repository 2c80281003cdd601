"""The sandbox runs on a bare node: one file, any Python, another user, no environment, no home."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clean_room import NOBODY, Room, missing, pythons_at_hand
from cli_tools import ROOT, call, ok
from grid_needs import not_here

from tokenpool.pool import Pool
from tokenpool.sandbox import PROGRAM

PYTHONS = pythons_at_hand()
EXAMPLES = ROOT / "examples"
FRACTALS = [f"-q 0.{100 + n * 17} -d 60 -m 1" for n in range(6)]


@pytest.fixture(scope="session")
def fractals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the examples; a node has no libraries for it."""
    if shutil.which("cc") is None:
        not_here("there is no C compiler: install gcc")
    path = tmp_path_factory.mktemp("bin") / "fractals"
    source = EXAMPLES / "src" / "fractals.c"
    subprocess.run(["cc", "-static", str(source), "-o", str(path), "-lm"], check=True)
    return path


@pytest.fixture(params=PYTHONS)
def room(request: pytest.FixtureRequest, tmp_path: Path) -> Room:
    """A node with one of the Pythons of this machine."""
    if missing():
        not_here(f"no clean room: {missing()}")
    room = Room(tmp_path / "root", PYTHONS[request.param])
    room.make()
    return room


def bring(room: Room, *files: Path) -> None:
    """Put files where a job finds them; as a batch system does it: flat, and without their modes."""
    for file in files:
        shutil.copy(file, room.job / file.name)
        (room.job / file.name).chmod(0o644)
        os.chown(room.job / file.name, NOBODY, NOBODY)


def test_every_python_of_the_promise_is_at_hand() -> None:
    if set(PYTHONS) < {f"3.{minor}" for minor in range(9, 14)}:
        pytest.skip(f"only {', '.join(PYTHONS)} are at hand")
    assert len(PYTHONS) == 5


def test_the_fractals_run_on_a_bare_node(room: Room, sandbox: Path, fractals: Path, grid_pool: Pool) -> None:
    # Given the tokens of picas' example, and the files that examples/fractals.jdl sends
    ids = grid_pool.push([{"input": line} for line in FRACTALS])
    ok("sandbox", "--output", "built", "--credentials", "--python", str(room.python))
    named = (
        "local_example.py",
        "picasconfig.py",
        "process_task.sh",
        "startpilot.sh",
        PROGRAM,
        "tokenpool.toml",
        "password",
    )
    bring(room, *(EXAMPLES / name if name == "local_example.py" else Path("built") / name for name in named), fractals)
    # When the pilot starts there
    done = room.run("sh", "startpilot.sh", "-t", "fractals", PATH="/bin", PYTHON=str(room.python), HOME="/home/user")
    # Then all are drawn, by somebody else than us, and the password is guarded again
    assert done.returncode == 0, done.stderr
    assert grid_pool.counts()["done"] == len(ids), done.stdout + done.stderr
    images = sorted(room.job.glob("output_*"))
    assert len(images) == len(ids)
    assert {image.stat().st_uid for image in images} == {NOBODY}
    assert stat.S_IMODE((room.job / "password").stat().st_mode) == 0o600


def test_the_whole_worker_runs_on_a_bare_node(room: Room, sandbox: Path, grid_pool: Pool) -> None:
    # Given tokens, and nothing but the one file and a password
    grid_pool.push([{"command": f"echo {n}; id -u"} for n in range(10)])
    secret = Path(os.environ["TOKENPOOL_PASSWORD_FILE"])
    bring(room, sandbox / PROGRAM, secret)
    settings = {"TOKENPOOL_POOL": os.environ["TOKENPOOL_POOL"], "TOKENPOOL_PASSWORD_FILE": secret.name, "PATH": "/bin"}
    # When a worker with two slots runs there, with no home at all
    worker = (str(room.python), PROGRAM, "work", "--slots", "2", "--quit", "--spool", "spool", "--workdir", ".")
    done = room.run(*worker, **settings)
    # Then all are done, and their logs are in the pool
    assert done.returncode == 0, done.stderr
    assert grid_pool.counts()["done"] == 10
    assert ok("logs", ok("list", "-q", "state:done").out.split()[0]).out.splitlines()[1] == str(NOBODY)


def test_the_file_starts_fast_and_is_small(room: Room, sandbox: Path) -> None:
    # Given the file on a node; when its command line starts, five times
    bring(room, sandbox / PROGRAM)
    taken = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert room.run(str(room.python), PROGRAM, "work", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # Then it has computed for less than half a second: how long it waited for others is not its fault
    print(f"{room.python!s}: {min(taken):.2f} s, {(sandbox / PROGRAM).stat().st_size / 1e6:.1f} MB")
    assert min(taken) < 0.5
    assert (sandbox / PROGRAM).stat().st_size < 10_000_000


def test_a_python_that_nothing_was_compiled_for_runs_it_too(sandbox: Path, tmp_path: Path) -> None:
    # Given the file without what was compiled
    with zipfile.ZipFile(sandbox / PROGRAM) as full, zipfile.ZipFile(tmp_path / PROGRAM, "w") as bare:
        for name in full.namelist():
            if not name.startswith("compiled/"):
                bare.writestr(name, full.read(name))
    # When it starts; then it says the same
    bodies = [
        subprocess.run([sys.executable, "-I", str(path), "work", "--help"], capture_output=True, text=True, check=True)
        for path in (sandbox / PROGRAM, tmp_path / PROGRAM)
    ]
    assert bodies[0].stdout == bodies[1].stdout
    assert "Claim tokens and run them." in bodies[1].stdout


def test_the_file_makes_pools_and_builds_itself(sandbox: Path, tmp_path: Path) -> None:
    # Given only the file; when it makes a pool, works in it, and builds a sandbox
    program = [sys.executable, "-I", str(sandbox / PROGRAM), "--pool", "sqlite:///own.db"]
    said = [
        subprocess.run([*program, *words], capture_output=True, text=True)
        for words in (["init"], ["push", "--", "echo", "hello"], ["work", "--quit"], ["sandbox", "-o", "again"])
    ]
    assert [each.returncode for each in said] == [0] * 4, said
    # Then the token is done, and the second sandbox is the first
    assert ok("--pool", "sqlite:///own.db", "status", "--json").json["states"]["done"] == 1
    assert Path("again", PROGRAM).read_bytes() == (sandbox / PROGRAM).read_bytes()
    assert {path.name for path in Path("again").iterdir()} == {path.name for path in sandbox.iterdir()}


def test_what_no_node_runs_is_not_in_the_file(sandbox: Path) -> None:
    # Given the file; then the server and the reports are not in it
    with zipfile.ZipFile(sandbox / PROGRAM) as archive:
        names = archive.namelist()
    assert "tokenpool/worker.py" in names
    assert not [name for name in names if name.startswith(("tokenpool/web/", "tokenpool/reports/page"))]
    # When a worker runs from it, and somebody watches; then they do without
    program = [sys.executable, "-I", str(sandbox / PROGRAM), "--pool", "sqlite:///own.db"]
    for words in (["push", "--", "false"], ["work", "--quit"], ["watch", "--once"]):
        done = subprocess.run([*program, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    # And what needs them says so
    done = subprocess.run([*program, "report", "-o", "run.html"], capture_output=True, text=True)
    assert done.returncode == 4
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]
    assert "is not in the file for worker nodes" in done.stderr


def test_a_wheel_builds_the_same_file(tmp_path: Path) -> None:
    # Given an installation from a wheel, and this checkout
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(ROOT),
    ]
    copy = tmp_path / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "build", "dist", ".venv", "*.egg-info", "tests"))
    done = subprocess.run([*wheel[:-1], str(copy)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # Then it has all that the package has: templates, pages, assets with their licences
    files = [path.relative_to(copy) for path in (copy / "tokenpool").rglob("*") if path.is_file()]
    missing = [path for path in files if not (tmp_path / "site" / path).exists() and "__pycache__" not in path.parts]
    assert missing == []
    assert Path("tokenpool/web/static/vendor/htmx/LICENSE") in files
    # When both build a sandbox
    run = "import sys; from tokenpool.cli import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    subprocess.run(
        [sys.executable, "-c", run, "sandbox", "-o", "wheel"], env=environment, check=True, capture_output=True
    )
    ok("sandbox", "--output", "checkout")
    # Then their files have the same modules in them
    names = []
    for folder in ("wheel", "checkout"):
        with zipfile.ZipFile(Path(folder, PROGRAM)) as archive:
            names.append({name for name in archive.namelist() if not name.startswith("compiled/")})
    assert names[0] - {"tokenpool.dist-info/METADATA"} == names[1] - {"tokenpool.dist-info/METADATA"}


def test_credentials_are_for_their_owner_only(grid_pool: Pool) -> None:
    # Given a pool with a password; when a sandbox is built with credentials
    said = ok("sandbox", "--output", "mine", "--credentials")
    # Then the password is in one file, which nobody else may read, and nowhere else
    secret = Path(os.environ["TOKENPOOL_PASSWORD_FILE"]).read_text()
    assert Path("mine/password").read_text().strip() == secret
    assert {stat.S_IMODE(Path("mine", name).stat().st_mode) for name in ("password", "tokenpool.toml")} == {0o600}
    others = [path.read_bytes() for path in Path("mine").iterdir() if path.name != "password"]
    assert not any(secret.encode() in content for content in others)
    assert secret not in said.out + said.err


def test_without_credentials_there_is_no_password(grid_pool: Pool) -> None:
    ok("sandbox", "--output", "plain")
    assert not Path("plain/password").exists()


@pytest.mark.parametrize("path", ["/bin/true", __file__])
def test_what_is_no_python_is_refused(path: str) -> None:
    answer = call("sandbox", "--output", "x", "--python", path)
    assert answer.code == 2
    assert "is no Python 3.9" in answer.error
