"""`tokenpool service` with the real systemd: units that it accepts, that run tokens, and that let them end."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shlex
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_tools import ROOT, call, ok, states, use
from couch_server import CouchServer, Unavailable
from service_tools import Manager, need

from tokenpool.cli.session import without_password
from tokenpool.launchers.systemd import Service, unit_text

HERE = ("--env", f"PYTHONPATH={ROOT}")


def until(what: str, found: Callable[[], object], patience: float = 60.0) -> None:
    """Wait until `found()` is true."""
    end = time.monotonic() + patience
    while not found():
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)


def need_web() -> None:
    """Skip, or fail where all is to be there, without the libraries of the server."""
    missing = [name for name in ("fastapi", "uvicorn", "jinja2") if importlib.util.find_spec(name) is None]
    need(not missing, f"the server's libraries are not installed: {missing}")


def answers(address: str) -> bool:
    """Tell whether a server says there that it lives."""
    try:
        with urllib.request.urlopen(f"{address}healthz", timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def unit(*words: object) -> str:
    """Return a unit as it is printed."""
    return ok("service", "install", *words[:1], "--print", *words[1:]).out


@pytest.fixture
def guarded() -> Iterator[CouchServer]:
    """A CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("ann", "only in its file"))
    except Unavailable as error:
        need(False, f"no CouchDB server: {error}")
    with server:
        yield server


# ── a real systemd ───────────────────────────────────────────────────────────────────────────────────────────────────


def restart_at_once(manager: Manager, name: str) -> Path:
    """Let systemd not wait some seconds before it starts this unit again; return the folder of its settings."""
    drop_in = Path.home() / f".config/systemd/user/{name}.d"
    drop_in.mkdir(parents=True)
    (drop_in / "quick.conf").write_text("[Service]\nRestartSec=0.1\n")
    manager.ask("daemon-reload")
    return drop_in


def killed(manager: Manager, name: str) -> None:
    """Kill what a unit runs, and wait until there is another one."""
    first = manager.told(name, "MainPID")
    os.kill(int(first), 9)
    until(f"another process of {name}", lambda: manager.told(name, "MainPID") not in ("0", first))


def test_a_worker_is_installed_drains_and_is_removed(sqlite_url: str, manager: Manager) -> None:
    # Given a pool, and a worker that systemd runs
    use(sqlite_url)
    answer = ok("service", "install", "worker", *HERE, "--", "--slots", "2", "--poll", "0.2s")
    assert f"wrote {Path.home()}/.config/systemd/user/tokenpool-worker.service" in answer.err
    assert manager.told("tokenpool-worker.service", "UnitFileState") == "enabled"
    # When tokens come; then it runs them, with the rights that containers need
    ok("push", "--", "grep", "NoNewPrivs", "/proc/self/status")
    until("the end of the first token", lambda: states() == {"done": 1})
    assert ok("logs", *ok("list", "-q").out.split(), "--out").out.split() == ["NoNewPrivs:", "0"]
    (told,) = ok("service", "status", "--json").json["services"]
    assert (told["state"], told["boot"], told["pool"]) == ("active", "enabled", sqlite_url)
    # When it is removed while one runs and one waits
    ok("push", "--", "sleep", "3")
    until("a running token", lambda: states().get("locked"))
    ok("push", "--not-before", "2s", "--", "true")
    ok("service", "remove", "worker")
    # Then the first has ended, the second still waits, and nothing is left
    assert states().get("done") == 2
    assert sum(states().values()) == 3
    assert ok("service", "status", "--json").json["services"] == []
    assert not (Path.home() / ".config/systemd/user/tokenpool-worker.service").exists()
    assert manager.told("tokenpool-worker.service", "LoadState") == "not-found"


def test_what_does_not_end_in_time_is_given_back(sqlite_url: str, manager: Manager) -> None:
    # Given a worker that has a second to drain, and a token that takes longer
    use(sqlite_url)
    ok("service", "install", "worker", *HERE, "--drain", "1s", "--", "--slots", "1")
    ok("push", "--", "sleep", "1000")
    until("a running token", lambda: states() == {"locked": 1})
    # When it is stopped; then the token waits again, and the loss is not counted
    manager.ask("stop", "tokenpool-worker.service")
    assert states() == {"todo": 1}
    token = ok("show", *ok("list", "-q").out.split(), "--json").json
    assert token["attempts"][-1]["failure_class"] == "preempted"
    assert not token["attempts"][-1]["counted"]


def test_a_worker_that_dies_is_started_again_and_one_with_wrong_options_is_not(
    sqlite_url: str, manager: Manager
) -> None:
    use(sqlite_url)
    ok("service", "install", "worker", *HERE, "--", "--slots", "1")
    name = "tokenpool-worker.service"
    # When it is killed; then there is another one
    drop_in = restart_at_once(manager, name)
    killed(manager, name)
    # When its settings make no sense; then it is tried once
    (drop_in / "wrong.conf").write_text("[Service]\nEnvironment=TOKENPOOL_SLOTS=many TOKENPOOL_LEASE=none\n")
    manager.ask("daemon-reload")
    manager.ask("restart", name)
    until("its failure", lambda: manager.told(name, "ActiveState") == "failed")
    assert manager.told(name, "ExecMainStatus") == "2"


def test_scale_leaves_the_workers_that_it_has_started(sqlite_url: str, manager: Manager) -> None:
    # Given scale as a service, and a token that takes its time
    use(sqlite_url)
    ok("service", "install", "scale", *HERE, "--", "--launcher", "local", "--max", "1", "--every", "0.2s")
    ok("push", "--", "sleep", "4")
    until("a running token", lambda: states() == {"locked": 1})
    # When scale is removed; then the token runs to its end, in the same attempt
    ok("service", "remove", "scale")
    until("the end of the token", lambda: states() == {"done": 1})
    assert len(ok("show", *ok("list", "-q").out.split(), "--json").json["attempts"]) == 1
    until(
        "the end of the worker",
        lambda: ok("launch", "cancel", "all").code == 0 and not ok("launch", "list", "--json").json["jobs"],
    )


def test_a_server_is_installed_comes_back_and_stops(sqlite_url: str, manager: Manager) -> None:
    need_web()
    use(sqlite_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    name, address = "tokenpool-server.service", f"http://127.0.0.1:{port}/"
    # Given a server that systemd runs
    ok("service", "install", "server", *HERE, "--", "--port", port)
    until("its answer", lambda: answers(address))
    (told,) = ok("service", "status", "--json").json["services"]
    assert (told["state"], told["boot"], told["pool"]) == ("active", "enabled", sqlite_url)
    # When it dies; then there is another one
    restart_at_once(manager, name)
    killed(manager, name)
    until("its answer", lambda: answers(address))
    # When it is stopped, by SIGTERM as systemd does; then that is no failure, and its sessions are kept
    manager.ask("stop", name)
    assert (manager.told(name, "ExecMainCode"), manager.told(name, "ExecMainStatus")) == ("1", "0")
    assert manager.told(name, "ActiveState") == "inactive"
    assert not answers(address)
    (kept,) = Path.home().glob(f".local/state/tokenpool/serve/*/sessions-{port}.json")
    assert kept.stat().st_mode & 0o077 == 0
    # And nothing is left when it is removed
    ok("service", "remove", "server")
    assert ok("service", "status", "--json").json["services"] == []


# ── units as text ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["worker", "scale", "server"])
@pytest.mark.parametrize("system", [False, True])
def test_systemd_finds_nothing_wrong_with_a_unit(kind: str, system: bool, tmp_path: Path) -> None:
    import shutil

    need(shutil.which("systemd-analyze"), "systemd is not installed")
    # Given a unit of each kind, with words that systemd could misread
    service = Service(
        kind, ("/bin/echo", "-m", "tokenpool"), "couchdb+https://me@host:6984/a%20b", "night", ("--batch", 'a $x "b" 50%'),
        password_file="/etc/hostname", user="daemon" if system else "", env=(("A", "b c"),),
    )  # fmt: skip
    path = tmp_path / service.unit
    path.write_text(unit_text(service))
    # When systemd reads it
    words = ["systemd-analyze", "--system" if system else "--user", "--man=no", "verify", str(path)]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    # Then it says nothing about it
    assert [line for line in done.stderr.splitlines() if "tokenpool" in line] == []
    assert done.returncode == 0, done.stderr


def test_the_line_of_a_unit_runs_as_it_stands(
    guarded: CouchServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given a pool with a password, which is in a file, and a unit of the machine
    password, url = guarded.password, without_password(guarded.create_database("unit"))
    Path("password").write_text(password)
    monkeypatch.setenv("TOKENPOOL_PASSWORD_FILE", "password")
    use(url)
    ok("push", "--", "sh", "-c", "echo a b")
    text = unit("worker", "--system", "--as", "daemon", *HERE, "--", "--quit", "--slots", "1")
    # Then the password is nowhere in it
    assert password not in text
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and "Environment" not in line)
    assert lines["LoadCredential"] == f"password:{tmp_path}/password"
    # When its line is run as systemd would, with the credential handed over; then the token is done
    handed = tmp_path / "handed"
    handed.mkdir()
    (tmp_path / "password").rename(handed / "password")
    line = lines["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(handed)).replace("$$", "$").replace("%%", "%")
    variables = dict(
        shlex.split(each.split("=", 1)[1])[0].split("=", 1)
        for each in text.splitlines()
        if each.startswith("Environment=")
    )
    subprocess.run(shlex.split(line), env={**variables, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}, check=True)
    monkeypatch.setenv("TOKENPOOL_PASSWORD_FILE", str(handed / "password"))
    assert states() == {"done": 1}


def test_a_server_of_the_machine_is_told_whose_the_people_have_to_be(sqlite_url: str, tmp_path: Path) -> None:
    need_web()
    use(sqlite_url)
    # Given a file of people that belongs to who installs
    people = tmp_path / "people.json"
    people.write_text('{"schema": 1, "users": {}}')
    words = ("--", "--host", "0.0.0.0", "--users", people, "--root-path", "/pool")
    # When a server of another account is to read it
    answer = ok("service", "install", "server", "--system", "--as", "daemon", "--print", *words)
    # Then that is said, and the unit runs `serve` with what was given
    assert f"chown daemon {people}" in answer.err
    line = next(each for each in answer.out.splitlines() if each.startswith("ExecStart="))
    assert line.endswith(f" serve --host 0.0.0.0 --users {people} --root-path /pool")
    assert "User=daemon" in answer.out.splitlines()
    # And its own is found without being named, not that of who installs
    refused = call("service", "install", "server", "--system", "--as", "daemon", "--print", "--", "--host", "0.0.0.0")
    assert "nobody would have to log in" in refused.error


def test_people_stay_those_of_the_service_when_root_adds_one(tmp_path: Path) -> None:
    need_web()
    need(os.geteuid() == 0, "only root may give a file to somebody else")
    # Given a file of people that belongs to the account of a service
    people, secret = tmp_path / "people.json", tmp_path / "secret"
    people.write_text('{"schema": 1, "users": {}}')
    account = pwd.getpwnam("daemon")
    os.chown(people, account.pw_uid, account.pw_gid)
    secret.write_text("correct horse\n")
    # When root adds somebody; then the service can still read it, and nobody else
    ok("access", "add", "ann", "--users", people, "--password-file", secret)
    assert "ann" in people.read_text()
    assert (people.stat().st_uid, people.stat().st_mode & 0o777) == (account.pw_uid, 0o600)


# ── without systemd, and what is refused ─────────────────────────────────────────────────────────────────────────────


def test_without_systemd_the_unit_is_written_and_the_rest_is_told(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(sqlite_url)
    monkeypatch.setenv("PATH", "/nonexistent")
    # When there is no systemctl
    answer = ok("service", "install", "worker", "--name", "night")
    # Then the unit is there, and two lines say what to do
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "tokenpool-worker-night.service"
    told = answer.err.splitlines()
    assert told[-2:] == [
        "warning: systemctl is not on PATH: nothing was started or stopped",
        "hint: where systemd runs: systemctl --user daemon-reload && systemctl --user enable --now tokenpool-worker-night.service",
    ]
    assert ok("service", "show", "worker", "--name", "night").out == path.read_text()
    assert ok("service", "status", "--json").json["services"][0]["state"] == "?"
    # And it can be written again, and removed
    assert "wrote again" in ok("service", "install", "worker", "--name", "night").err
    ok("service", "remove", "worker", "--name", "night")
    assert not path.exists()


def test_a_dry_run_and_print_change_nothing(sqlite_url: str) -> None:
    use(sqlite_url)
    answer = ok("service", "install", "worker", "--dry-run")
    assert answer.err.splitlines()[1:] == [
        "would call systemctl --user daemon-reload",
        "would call systemctl --user enable --now tokenpool-worker.service",
    ]
    assert json.loads(ok("service", "install", "worker", "--dry-run", "--json").out)["text"] == unit("worker")
    assert not (Path.home() / ".config" / "systemd").exists()


REFUSED = {
    "a wrong option of its verb": (("worker", "--", "--slots", "x"), "tokenpool work: Invalid value for '--slots'"),
    "an unknown option": (("scale", "--", "--slotz", "1"), "tokenpool scale: No such option"),
    "the pool in the wrong place": (("worker", "--", "-p", "sqlite:///a"), "-p says nothing behind --"),
    "a server that lets everybody in": (("server", "--", "--host", "0.0.0.0"), "nobody would have to log in"),
    "people in another folder": (("server", "--", "--users", "p.json"), "a service starts in another folder"),
    "a browser without a screen": (("server", "--", "--open"), "a service has no browser"),
    "root by accident": (("worker", "--system"), "tokens would run as root"),
    "an unknown account": (("worker", "--system", "--as", "nobody-here"), "there is no account 'nobody-here'"),
    "an account for oneself": (("worker", "--as", "nobody"), "--as goes with --system"),
    "an odd name": (("worker", "--name", "a/b"), "'a/b' is no name of a service"),
    "a program that is not there": (("worker", "--program", "tokenpoool"), "there is no program 'tokenpoool'"),
    "two lines in one": (("worker", "--env", "A=b\nUser=root"), "has a line break or the like in it"),
}


@pytest.mark.parametrize(("words", "told"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_two_lines(words: tuple[str, ...], told: str, sqlite_url: str) -> None:
    if words[0] == "server":
        need_web()
    use(sqlite_url)
    answer = call("service", "install", *words)
    assert answer.code == 2
    assert told in answer.error
    assert not (Path.home() / ".config" / "systemd").exists()


def test_a_password_never_gets_into_a_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, variable in (("couchdb+http://a:secret@host/db", ""), ("couchdb+http://a@host/db", "secret")):
        if variable:
            monkeypatch.setenv("TOKENPOOL_PASSWORD", variable)
        answer = call("-p", url, "service", "install", "worker", "--print")
        assert answer.error == "error: the password would have to stand in the unit, which everybody can read"
        assert "secret" not in answer.out + answer.err


def test_units_of_others_are_left_alone(sqlite_url: str) -> None:
    use(sqlite_url)
    path = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "tokenpool-worker.service"
    path.parent.mkdir(parents=True)
    path.write_text("[Service]\nExecStart=/bin/true\n")
    assert call("service", "install", "worker").error == f"error: {path} is not ours"
    assert call("service", "remove", "worker").code == 4
    assert path.read_text() == "[Service]\nExecStart=/bin/true\n"
