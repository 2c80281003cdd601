"""The start-up script of cloud machines, with metadata services that answer as those of three clouds do."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cli_tools import ROOT, ok, states, use
from couch_server import CouchServer, Unavailable
from service_tools import PYTHON, need

from tokenpool.cli.session import without_password

SCRIPT = ROOT / "examples" / "cloud" / "startup.sh"
PASSWORD = "only in the cloud"


@dataclass
class Cloud:
    """The services that machines of one cloud see, on loopback."""

    kind: str
    values: dict[str, str]
    secrets: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def answer(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        """Return what it says, None for nothing."""
        self.asked.append(path)
        return getattr(self, f"_{self.kind}")(method, path, headers)  # type: ignore[no-any-return]

    def _openstack(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        return json.dumps({"uuid": "1", "meta": self.values}) if path == "/openstack/latest/meta_data.json" else None

    def _google(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        if path.startswith("/v1/projects/p1/secrets/") and headers.get("Authorization") == "Bearer abc":
            value = self.secrets.get(path.split("/")[5])
            return (
                None if value is None else json.dumps({"payload": {"data": base64.b64encode(value.encode()).decode()}})
            )
        front = "/computeMetadata/v1/"
        if headers.get("Metadata-Flavor") != "Google" or not path.startswith(front):
            return None
        fixed = {"instance/id": "1", "project/project-id": "p1",
                 "instance/service-accounts/default/token": '{"access_token": "abc"}'}  # fmt: skip
        name = path[len(front) :]
        return fixed.get(name) or self.values.get(name.removeprefix("project/attributes/"))

    def _ec2(self, method: str, path: str, headers: dict[str, str]) -> str | None:
        if (method, path) == ("PUT", "/latest/api/token"):
            return "s3ssion" if "X-aws-ec2-metadata-token-ttl-seconds" in headers else None
        if headers.get("X-aws-ec2-metadata-token") != "s3ssion":
            return None
        return self.values.get(path.removeprefix("/latest/meta-data/tags/instance/"))


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """A cloud of the kind that the test names, or of each kind."""
    cloud = Cloud(getattr(request, "param", "openstack"), {})

    class Handler(BaseHTTPRequestHandler):
        def _say(self) -> None:
            # As real ones do: names of headers are the same in any case.
            told = cloud.answer(
                self.command, self.path, {k.title() if k.islower() else k: v for k, v in self.headers.items()}
            )
            body = (told or "").encode()
            self.send_response(200 if told is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = _say

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cloud.url = f"http://127.0.0.1:{server.server_port}"
        yield cloud
        server.shutdown()


@pytest.fixture(scope="module")
def guarded() -> Iterator[CouchServer]:
    """A CouchDB that asks for a password."""
    try:
        server = CouchServer(admin=("me", PASSWORD))
    except Unavailable as error:
        need(False, f"no CouchDB server: {error}")
    with server:
        yield server


@pytest.fixture
def pool(request: pytest.FixtureRequest, guarded: CouchServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """A pool with a password; its URL has none."""
    monkeypatch.setenv("TOKENPOOL_PASSWORD", PASSWORD)
    return use(without_password(guarded.create_database(request.node.name)))


def environment(cloud: Cloud, tmp_path: Path, **more: str) -> dict[str, str]:
    """Return what a machine of this cloud has, and no password."""
    need(shutil.which("curl"), "there is no curl")
    keep = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
    own = {"METADATA": cloud.url, "GOOGLE_METADATA": cloud.url, "GOOGLE_SECRETS": cloud.url, "TRIES": "2",
           "TOKENPOOL_STARTED": "1", "RUN_FOLDER": str(tmp_path / "run"), "PYTHONPATH": str(ROOT),
           "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
    return {**keep, **own, **more}


def me() -> str:
    """Return who runs the tests."""
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@pytest.mark.parametrize("cloud", ["openstack", "google", "ec2"], indirect=True)
def test_a_machine_finds_out_what_to_do_and_does_it(cloud: Cloud, pool: str, tmp_path: Path) -> None:
    # Given tokens, and metadata as its owner has set them
    ok("push", "-b", "night", "--", "sh", "-c", 'tr "\\0" "\\n" </proc/$PPID/environ; ps -A -ww -o args')
    ok("push", "-b", "day", "--", "true")
    cache = tmp_path / "machine" / "cache"
    cloud.values.update({
        "tokenpool-pool": pool, "tokenpool-password": PASSWORD, "tokenpool-cache": str(cache), "tokenpool-poll": "0.2",
        "tokenpool-idle-timeout": "1", "tokenpool-slots": "3", "tokenpool-batch": "night", "tokenpool-user": me(),
        "tokenpool-at-end": f"touch {tmp_path}/off",
    })  # fmt: skip
    # When the machine starts
    done = subprocess.run(["sh", SCRIPT], env=environment(cloud, tmp_path), capture_output=True, text=True, timeout=120)
    # Then the tokens of its batch are done, with its settings, and it is turned off
    assert done.returncode == 0, done.stderr
    assert "with 3 slots" in done.stderr
    assert states() == {"done": 1, "todo": 1}
    assert cache.is_dir()
    assert (tmp_path / "off").exists()
    # And the password is in one file that is the worker's own, and in no command line
    secret = tmp_path / "run" / "password"
    assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == (PASSWORD + "\n", 0o600)
    (night,) = ok("list", "batch:night", "-q").out.split()
    seen = (ok("logs", night, "--out").out + done.stderr).splitlines()
    assert [line for line in seen if PASSWORD in line and '{"me": ' not in line] == []  # the server's own line has it


@pytest.mark.parametrize("cloud", ["google"], indirect=True)
def test_the_password_comes_from_the_store_of_secrets(cloud: Cloud, pool: str, tmp_path: Path) -> None:
    # Given metadata that hold only the name of the password
    ok("push", "--", "true")
    cloud.values.update({"tokenpool-pool": pool, "tokenpool-password-secret": "pool-password", "tokenpool-user": me(),
                         "tokenpool-idle-timeout": "1", "tokenpool-poll": "0.2"})  # fmt: skip
    words = ["sh", str(SCRIPT)]
    # When it may not be read; then nothing is started
    refused = subprocess.run(words, env=environment(cloud, tmp_path), capture_output=True, text=True, timeout=120)
    assert refused.returncode == 2
    assert "error: the secret pool-password cannot be read\nhint: " in refused.stderr
    assert states() == {"todo": 1}
    # When it may; then the worker works
    cloud.secrets["pool-password"] = PASSWORD
    done = subprocess.run(words, env=environment(cloud, tmp_path), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert states() == {"done": 1}


def test_a_file_of_the_image_holds_the_password_and_a_signal_gives_tokens_back(
    cloud: Cloud, pool: str, tmp_path: Path
) -> None:
    # Given an image with the password, and a token that takes long
    (tmp_path / "secret").write_text(PASSWORD)
    ok("push", "--", "sleep", "1000")
    cloud.values.update(
        {"tokenpool-pool": pool, "tokenpool-password-file": f"{tmp_path}/secret", "tokenpool-user": me()}
    )
    process = subprocess.Popen(["sh", SCRIPT], env=environment(cloud, tmp_path), stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while states() != {"locked": 1}:
        assert time.monotonic() < end
        time.sleep(0.1)
    # When the machine is shut down; then its token waits again, and no file was made
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert states() == {"todo": 1}
    assert not (tmp_path / "run").exists()


def test_tokens_run_as_the_user_that_the_metadata_name(cloud: Cloud, pool: str, desk: Path, tmp_path: Path) -> None:
    # Given a machine whose tokens are to run as an account that is not root
    ok("push", "--", "sh", "-c", "id -un; echo $HOME")
    cloud.values.update({"tokenpool-pool": pool, "tokenpool-password": PASSWORD, "tokenpool-user": "daemon",
                         "tokenpool-program": f"{PYTHON} {desk}/sandbox/tokenpool.pyz", "tokenpool-poll": "0.2",
                         "tokenpool-idle-timeout": "1", "tokenpool-scratch": f"{desk}/scratch",
                         "tokenpool-spool": f"{desk}/scratch/spool"})  # fmt: skip
    # When it starts
    variables = environment(cloud, tmp_path, RUN_FOLDER=str(desk / "run"))
    bare = {name: value for name, value in variables.items() if not name.startswith("XDG_")}
    done = subprocess.run(["sh", str(SCRIPT)], env=bare, cwd=desk, capture_output=True, text=True, timeout=120)
    # Then they do, and the password is that account's own
    assert done.returncode == 0, done.stderr
    assert ok("logs", *ok("list", "-q").out.split(), "--out").out.split() == ["daemon", "/usr/sbin"]
    assert (desk / "run" / "password").owner() == "daemon"


def test_a_machine_without_a_pool_or_without_a_cloud_says_so_in_two_lines(cloud: Cloud, tmp_path: Path) -> None:
    words = ["sh", str(SCRIPT)]
    told = subprocess.run(words, env=environment(cloud, tmp_path), capture_output=True, text=True, timeout=120)
    assert (told.returncode, told.stderr) == (
        2, "error: the metadata of this machine has no tokenpool-pool\nhint: set it to the pool's URL\n",
    )  # fmt: skip
    nowhere = dict.fromkeys(("METADATA", "GOOGLE_METADATA"), "http://127.0.0.1:9")
    told = subprocess.run(
        words, env=environment(cloud, tmp_path, **nowhere, TRIES="1"), capture_output=True, text=True, timeout=120
    )
    assert (told.returncode, told.stderr.splitlines()[0]) == (
        2,
        "error: no metadata service answers at http://127.0.0.1:9",
    )
