"""Every example runs by itself, on SQLite and on CouchDB, under today's and yesterday's name, and is shorter than picas' own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from couch_server import raw_couch

import tokenpool
from tokenpool.pool import Pool

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
#: The lines of picas' own examples, at sara-nl/picasclient 1.1.2.
PICAS_LINES = {
    "create_views.py": 147,
    "push_tokens.py": 81,
    "local_example.py": 133,
    "resetTokens.py": 68,
    "deleteTokens.py": 40,
    "create_tokens.py": 39,
    "create_tokens.sh": 67,
    "process_task.sh": 49,
}
#: Other spellings that picas had or has, and what they lead to.
SPELLINGS = {
    "createViews.py": "create_views.py",
    "pushTokens.py": "push_tokens.py",
    "local-example.py": "local_example.py",
    "createTokens": "create_tokens.sh",
    "createTokens.sh": "create_tokens.sh",
    "reset_tokens.py": "resetTokens.py",
    "delete_tokens.py": "deleteTokens.py",
}
DASHES = "-" * 23


@dataclass
class Desk:
    """A user's copy of the examples, configured for one pool."""

    folder: Path
    url: str
    environment: dict[str, str]

    def run(self, *command: str, code: int = 0) -> str:
        """Run an example to its end; return what it printed."""
        python = [sys.executable] if command[0].endswith(".py") else []
        words = [*python, str(self.folder / command[0]), *command[1:]]
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        self.talk = done.stderr
        return done.stdout

    def pool(self) -> Pool:
        """Open the pool that the examples use."""
        return tokenpool.connect(self.url)


def desk_at(tmp_path: Path, url: str, **environment: str) -> Desk:
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("__pycache__", "*.db*", "output_*", "fractals"))
    keep = {name: value for name, value in os.environ.items() if not name.startswith("PICAS_")}
    return Desk(folder, url, {**keep, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **environment})


@pytest.fixture
def desk(pool_url: str, tmp_path: Path) -> Desk:
    """The examples, told by the environment where the pool is; CouchDB has an empty database."""
    if pool_url.startswith("sqlite"):
        return desk_at(tmp_path, pool_url, PICAS_HOST_URL=pool_url)
    server, name = raw_couch(pool_url)
    parts = urlsplit(server)
    return desk_at(
        tmp_path,
        pool_url,
        PICAS_HOST_URL=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
        PICAS_DATABASE=name,
        PICAS_USERNAME=unquote(parts.username or ""),
        PICAS_PASSWORD=unquote(parts.password or ""),
    )


@pytest.fixture
def fractals() -> Path:
    """The README's compiler line."""
    if shutil.which("cc") is None:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail("there is no C compiler: install gcc", pytrace=False)
        pytest.skip("there is no C compiler")
    return EXAMPLES / "src" / "fractals.c"


def compile_in(folder: Path) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    subprocess.run(["cc", "src/fractals.c", "-o", "bin/fractals", "-lm"], cwd=folder, check=True)


def blocks(printed: str) -> dict[str, list[str]]:
    """Return the printed lines of each token, and insist on the form of picas' README."""
    found = re.findall(rf"^{DASHES}\nWorking on token: (\S+)\n(.*?)^{DASHES}\n", printed, re.DOTALL | re.MULTILINE)
    assert "".join(f"{DASHES}\nWorking on token: {token}\n{lines}{DASHES}\n" for token, lines in found) == printed
    return {token: lines.splitlines() for token, lines in found}


# ── picas' README, from top to bottom ────────────────────────────────────────────────────────────────────────────────


def test_the_picas_readme_works(desk: Desk) -> None:
    # Given views and the three quick tokens
    desk.run("createViews.py")
    assert "3 of 3" in desk.run("pushTokens.py", "quickExample.txt")
    # When the local example has run
    shown = blocks(desk.run("local-example.py"))
    # Then it has printed each token as picas' README shows it
    assert set(shown) == {"token_0", "token_1", "token_2"}
    lines = shown["token_0"]
    assert lines[0] == "_id token_0"
    assert re.match(r"_rev \d+-\w+$", lines[1])
    assert lines[2] == "type token"
    assert re.match(r"lock \d{10}$", lines[3])
    assert lines[4] == "done 0"
    assert re.match(r"hostname \S+$", lines[5])
    assert lines[6:9] == ["scrub_count 0", 'input echo "bash-echo"', "exit_code 0"]
    # And the tokens are done, with their logs
    with desk.pool() as pool:
        assert pool.counts()["done"] == 3
        assert pool.attachment("token_0", "logs_token_0.out") == b"bash-echo\n"
        assert pool.attachment("token_0", "logs_token_0.err") == b""


def test_without_any_configuration_the_pool_is_a_file(tmp_path: Path) -> None:
    # Given nothing but the examples; when only the pusher and the worker run
    desk = desk_at(tmp_path, f"sqlite:///{tmp_path}/examples/tokenpool.db")
    desk.run("push_tokens.py")
    desk.run("local_example.py", "-v")
    # Then the tokens are done all the same
    with desk.pool() as pool:
        assert pool.counts()["done"] == 3


def test_picas_own_configuration_is_read(tmp_path: Path) -> None:
    # Given ~/.config/picas/conf.yml as picas-cli init writes it
    from tokenpool.crypto import encrypt_password, generate_and_save_key
    from tokenpool.picas_config import DEFAULT_CONFIG_PATH, PicasConfig

    # The key's place is a constant of the process, which began in another home; so it is named here.
    key = Path(DEFAULT_CONFIG_PATH).expanduser().with_name("key.dat")
    generate_and_save_key(str(key))
    PicasConfig(load=False).write_config(
        {
            "host_url": "https://picas.example:6984",
            "database": "theirs",
            "username": "ann",
            "encrypted_password": encrypt_password("geheim", key.read_bytes()).decode(),
        }
    )
    assert Path(DEFAULT_CONFIG_PATH).expanduser().is_relative_to(tmp_path.parent)
    desk = desk_at(tmp_path, "")
    # When picasconfig is imported; then it has the four values
    show = "from picasconfig import *; print(PICAS_HOST_URL, PICAS_DATABASE, PICAS_USERNAME, PICAS_PASSWORD)"
    (desk.folder / "show.py").write_text(show)
    assert desk.run("show.py").split() == ["https://picas.example:6984", "theirs", "ann", "geheim"]
    # And the stored password never goes to a server that the environment names
    desk.environment["PICAS_HOST_URL"] = "https://other.example:6984"
    assert desk.run("show.py").split() == ["https://other.example:6984", "mypicasdb", "None"]


# ── push ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_new_ids_never_meet_present_ones(desk: Desk) -> None:
    # Given tokens 0 to 2, of which the first is deleted: now a count would collide
    desk.run("create_views.py")
    desk.run("push_tokens.py", "quick")
    with desk.pool() as pool:
        pool.rm("token_0")
        # When more are pushed; then every one is saved
        assert "3 of 3" in desk.run("push_tokens.py", "quick")
        assert {token.id for token in pool.tokens()} == {f"token_{n}" for n in range(1, 6)}


@pytest.mark.parametrize(("what", "number"), [("quick", 3), ("fractals", 24), ("autopilot", 3)])
def test_the_named_sets(what: str, number: int, sqlite_url: str, tmp_path: Path) -> None:
    desk = desk_at(tmp_path, sqlite_url, PICAS_HOST_URL=sqlite_url, TMPDIR=str(tmp_path))
    assert f"{number} of {number}" in desk.run("push_tokens.py", what)


def test_autopilot_views_choose_by_cores(desk: Desk) -> None:
    # Given the autopilot's views and tokens of 1, 1 and 4 cores
    desk.run("createViews.py", "autopilot")
    desk.run("push_tokens.py", "autopilot")
    # When a worker with many cores runs; then it takes the one that is for it
    assert set(blocks(desk.run("local_example.py", "--design_doc", "MultiCore", "--view", "todo"))) == {"token_2"}


# ── failures, reset, delete ──────────────────────────────────────────────────────────────────────────────────────────


# pouchdb-server takes no stub of an attachment that has no digest, which CouchDB does not ask for.
@pytest.mark.parametrize("pool_url", ["sqlite", pytest.param("couchdb", marks=pytest.mark.real_couchdb)], indirect=True)
def test_a_failing_command_keeps_its_exit_code(desk: Desk) -> None:
    # Given a token whose command exits with 7, and one that is no command at all
    desk.run("create_views.py")
    (desk.folder / "mine.txt").write_text("echo oops >&2; exit 7\n\nno-such-command\n")
    desk.run("push_tokens.py", "mine.txt")
    # When the example has tried as often as it does
    desk.run("local_example.py")
    # Then the real codes are in the tokens
    with desk.pool() as pool:
        token = pool.get("token_0")
        assert (token.state, token["exit_code"], token["scrub_count"]) == ("error", 7, 2)
        assert pool.attachment("token_0", "logs_token_0.err") == b"oops\n"
        assert pool.get("token_1")["exit_code"] == 127
    # And the view of errors can be deleted
    assert desk.run("deleteTokens.py", "Monitor/error") == "deleted 2 of 2 tokens\n"
    with desk.pool() as pool:
        assert sum(pool.counts().values()) == 0
    assert desk.run("deleteTokens.py", "Monitor/error") == "deleted 0 of 0 tokens\n"


def test_reset_puts_locked_tokens_back(desk: Desk) -> None:
    # Given a token that a worker holds since three hours, and one that it holds since now
    desk.run("create_views.py")
    desk.run("push_tokens.py", "quick")
    with desk.pool() as pool:
        old, new = (token.doc for token in pool.claim(2))
        old["lock"] -= 3 * 3600
        pool.backend.put_many([old])
        # When those older than two hours are reset; then only the old one is todo again
        assert desk.run("resetTokens.py", "Monitor/locked", "2") == "reset 1 of 1 tokens\n"
        assert pool.get(old["_id"]).state == "todo"
        assert pool.get(old["_id"])["scrub_count"] == 1
        assert pool.get(new["_id"]).state == "locked"
        # And without hours all are
        assert desk.run("resetTokens.py", "Monitor/locked") == "reset 1 of 1 tokens\n"
        assert pool.counts()["todo"] == 3


def test_reset_forgets_results(desk: Desk) -> None:
    desk.run("create_views.py")
    desk.run("push_tokens.py", "quick")
    desk.run("local_example.py")
    assert desk.run("reset_tokens.py", "Monitor/done") == "reset 3 of 3 tokens\n"
    with desk.pool() as pool:
        token = pool.get("token_0")
        assert (token["lock"], token["done"], token["hostname"], token["exit_code"]) == (0, 0, "", "")
        assert "_attachments" not in token


@pytest.mark.parametrize("script", ["resetTokens.py", "deleteTokens.py"])
def test_a_view_must_be_named(script: str, sqlite_url: str, tmp_path: Path) -> None:
    desk = desk_at(tmp_path, sqlite_url, PICAS_HOST_URL=sqlite_url)
    desk.run(script, code=1)
    assert f"{script} Monitor/" in desk.talk


# ── fractals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_create_tokens_writes_24_parameter_lines(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "", TMPDIR=str(tmp_path))
    lines = Path(desk.run("createTokens").strip()).read_text().splitlines()
    assert len(set(lines)) == 24
    assert [line for line in lines if not re.fullmatch(r"-q 0\.\d{3} -d \d+ -m \d+", line)] == []


def test_fractals_run_as_tokens(fractals: Path, desk: Desk) -> None:
    # Given the program, compiled as the README says, and two small fractals
    compile_in(desk.folder)
    desk.run("create_views.py")
    (desk.folder / "small.txt").write_text("-q 0.382 -d 50 -m 1\n-q 0.253 -d 50 -m 1\n")
    desk.run("push_tokens.py", "small.txt")
    # When they run; then both leave an image, and not the same
    desk.run("local_example.py", "-t", "fractals")
    images = [(desk.folder / f"output_token_{n}").read_bytes() for n in range(2)]
    assert all(image.startswith(b"P6\n160 160\n255\n") and len(image) == 15 + 160 * 160 * 3 for image in images)
    assert images[0] != images[1]


def test_fractals_refuse_nonsense(fractals: Path, tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "")
    compile_in(desk.folder)
    desk.run("bin/fractals", "-x", code=2)
    desk.run("bin/fractals", "-m", "0", code=2)
    desk.run("bin/fractals", "-m", "1", "-o", "/no/such/folder/a.ppm", code=1)


def test_the_demo_draws_its_sheet(fractals: Path, tmp_path: Path) -> None:
    # Given two small fractals
    from PIL import Image

    desk = desk_at(tmp_path, f"sqlite:///{tmp_path}/out/tokenpool.db")
    compile_in(desk.folder)
    (desk.folder / "small.txt").write_text("-q 0.382 -d 50 -m 1\n-q 0.253 -d 50 -m 1\n")
    # When the demo runs, twice: it starts afresh each time
    for _ in range(2):
        printed = desk.run("demo.py", "--folder", str(tmp_path / "out"), "--slots", "2", "small.txt")
    # Then each token has its image, and the sheet is there
    assert "2/2" in printed
    with desk.pool() as pool:
        assert pool.counts()["done"] == 2
        assert all(pool.attachment(token.id, "fractal.png").startswith(b"\x89PNG") for token in pool.tokens())
    with Image.open(tmp_path / "out" / "contact-sheet.png") as sheet:
        assert sheet.width >= 720


def test_the_demo_tells_of_failures(fractals: Path, tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "")
    compile_in(desk.folder)
    (desk.folder / "wrong.txt").write_text("-m 0\n")
    assert "error" in desk.run("demo.py", "--folder", "out", "wrong.txt", code=3)


# ── the others ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_quickstart(sqlite_url: str, tmp_path: Path) -> None:
    printed = desk_at(tmp_path, sqlite_url).run("quickstart.py", sqlite_url)
    assert "'done': 10" in printed
    assert " done 81\n" in printed


def test_create_tokens_in_python(tmp_path: Path) -> None:
    desk = desk_at(tmp_path, "")
    code = "from create_tokens import create_tokens as c; print([(t.id, t['a']) for t in c({'a': [1, 2]}, offset=3)])"
    (desk.folder / "show.py").write_text(code)
    assert desk.run("show.py") == "[('token_3', 1), ('token_4', 2)]\n"


def test_the_grid_sandbox_starts_work_where_it_was_unpacked(sqlite_url: str, tmp_path: Path) -> None:
    # Given a sandbox as a worker node gets it: flat, an archive in it, every mode lost
    desk = desk_at(tmp_path, sqlite_url, PICAS_HOST_URL=sqlite_url, PYTHON=sys.executable)
    desk.run("push_tokens.py", "quick")
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    for file in (*(ROOT / "grid-sandbox").glob("*.sh"), EXAMPLES / "local_example.py", EXAMPLES / "picasconfig.py"):
        shutil.copy(file, sandbox)
    (sandbox / "process_task.sh").chmod(0o644)
    subprocess.run(
        ["tar", "-cf", sandbox / "sandbox.tar", "-C", ROOT, "--exclude=__pycache__", "tokenpool", "views"], check=True
    )
    desk.environment["PYTHONPATH"] = ""
    # When the pilot starts, from anywhere; then it works with the tokenpool of the sandbox
    desk.folder = sandbox
    desk.run("startpilot.sh")
    assert (sandbox / "tokenpool").is_dir()
    with desk.pool() as pool:
        assert pool.counts()["done"] == 3


def test_both_process_task_scripts_are_one() -> None:
    assert (ROOT / "grid-sandbox" / "process_task.sh").read_bytes() == (EXAMPLES / "process_task.sh").read_bytes()


@pytest.mark.parametrize(("name", "lines"), PICAS_LINES.items())
def test_each_example_is_shorter_than_picas_own(name: str, lines: int) -> None:
    assert len((EXAMPLES / name).read_text("utf-8").splitlines()) < lines


@pytest.mark.parametrize(("spelling", "name"), SPELLINGS.items())
def test_every_spelling_leads_to_the_same(spelling: str, name: str) -> None:
    assert (EXAMPLES / spelling).resolve() == EXAMPLES / name
