"""lando's configuration becomes a command line; with --per-token, a worker is there for one token each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_tools import ROOT, call, command, environment, ok, states, use

from tokenpool.launchers.cloud_plan import Plan, parse

CONFIG = ROOT / "examples" / "lando" / "landoconfig.yml"
MACHINES = "vm_settings: {worker_image_name: lando_worker, ssh_key_name: me, network_name: net, default_favor_name: m1.small}\n"


def config(text: str) -> str:
    """Write a configuration; return its name."""
    Path("landoconfig.yml").write_text(text)
    return "landoconfig.yml"


def test_a_configuration_becomes_a_script_that_makes_the_same_machines() -> None:
    # Given lando's configuration; when it is read with its password left to the environment
    script = ok("import", "lando", "--config", CONFIG, "--secret", "OS_PASSWORD").out
    # Then the script has the cloud in its environment, and no password anywhere
    assert "password" not in script.replace("OS_PASSWORD", "").lower()
    lines = script.splitlines()
    assert "export OS_AUTH_URL=http://10.109.252.9:5000/v3" in lines
    assert ': "${OS_PASSWORD:?is not set}"' in lines
    assert lines[-1].startswith('exec tokenpool scale --launcher cloud --per-token "$@" -- --')
    # And its words mean the machines that lando made
    words = ok("import", "lando", "--config", CONFIG, "--secret", "OS_PASSWORD", "--json").json["words"]
    assert parse(words[words.index("--") + 1 :]) == Plan(
        flavor="m1.small", image="lando_worker", key="jpb67", networks=("selfservice",), floating_ip_pool="ext-net"
    )
    # And without its password it does not begin
    Path("server.sh").write_text(script)
    bare = {name: value for name, value in os.environ.items() if name != "OS_PASSWORD"}
    done = subprocess.run(["sh", "server.sh"], env=bare, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "OS_PASSWORD" in done.stderr


def test_volumes_addresses_and_machines_that_stay() -> None:
    # Given what later versions of lando have; then it is in the words too
    text = MACHINES.replace("}", ", volume_size: 100, volume_mounts: {/dev/vdb1: /work}, cleanup_vm: false, "
                                 "floating_ip_pool_name: ext, allocate_floating_ips: false, cwl_base_command: [cwltool]}")  # fmt: skip
    words = ok("import", "lando", "--config", config(text), "--json").json["words"]
    plan = parse(words[words.index("--") + 1 :])
    assert (plan.volume_gb, plan.mounts, plan.floating_ip_pool) == (100, ("/dev/vdb1:/work",), "")
    assert tuple(words[-2:]) == ("--on-idle", "keep")


def test_a_server_without_a_cloud_runs_each_token_in_a_worker_of_its_own(sqlite_url: str) -> None:
    # Given lando's configuration for tests, which makes no machines, and three tokens
    use(sqlite_url)
    for _ in range(3):
        ok("push", "--", "true")
    script = ok("import", "lando", "--config", config(MACHINES + "fake_cloud_service: true\n")).out
    Path("server.sh").write_text(script)
    Path("tokenpool").write_text(f'#!/bin/sh\nexec {sys.executable} -m tokenpool "$@"\n')
    Path("tokenpool").chmod(0o755)
    path = {**environment(), "PATH": f"{Path.cwd()}:{os.environ['PATH']}"}
    # When its script runs one round
    subprocess.run(["sh", "server.sh", "--once", "--max", "5"], env=path, check=True, timeout=60)
    ok("wait", "all", "--timeout", "60s")
    # Then three workers were there, each for one token, and none is left
    assert states() == {"done": 3}
    attempts = [ok("show", each, "--json").json["attempts"] for each in ok("list", "-q").out.split()]
    assert len({each["worker"] for (each,) in attempts}) == 3
    _until_nobody_is_left()


def test_with_a_ceiling_later_tokens_wait_for_a_worker_of_their_own(sqlite_url: str, tmp_path: Path) -> None:
    # Given five tokens, one of which fails and is tried again
    use(sqlite_url)
    for _ in range(4):
        ok("push", "--", "true")
    again = f"test -e {tmp_path}/twice || {{ touch {tmp_path}/twice; exit 1; }}"
    ok("push", "--max-retries", "1", "--retry-delay", "0s", "--", "sh", "-c", again)
    # When a server may have two workers at a time
    words = command("scale", "--launcher", "local", "--per-token", "--max", "2", "--every", "0.2s", "-v")
    with subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        ok("wait", "all", "--timeout", "120s")
        server.terminate()
        told = server.stderr.read()
    # Then each attempt had a worker of its own, and there were never more than two
    attempts = [each for name in ok("list", "-q").out.split() for each in ok("show", name, "--json").json["attempts"]]
    assert len({each["worker"] for each in attempts}) == len(attempts) == 6
    assert states() == {"done": 5}
    assert max(int(line.split()[1]) for line in told.splitlines() if line.startswith("start ")) <= 2
    _until_nobody_is_left()


def _until_nobody_is_left() -> None:
    end = time.monotonic() + 60
    while ok("launch", "list", "--json").json["jobs"]:
        assert time.monotonic() < end
        time.sleep(0.1)


REFUSED = {
    "a password": (MACHINES + "cloud_settings: {password: hunter2}\n", "cloud_settings holds a password"),
    "no machines": ("work_queue: {}\n", "has no vm_settings"),
    "a strange part": (MACHINES + "vms: {}\n", "a part 'vms' that lando has not"),
    "a strange setting": ("vm_settings: {flavour: a}\n", "vm_settings has no 'flavour'"),
    "a list for a name": ("vm_settings: {ssh_key_name: [a]}\n", "is no name"),
    "mounts that are none": ("vm_settings: {volume_mounts: /work}\n", "is no table"),
    "a strange cloud": (MACHINES + "cloud_settings: {pass: a}\n", "cloud_settings has no 'pass'"),
    "a text for a table": (MACHINES + "cloud_settings: me\n", "is no table"),
    "no YAML": ("vm_settings: {\n", "landoconfig.yml:"),
}


@pytest.mark.parametrize(("text", "what"), REFUSED.values(), ids=REFUSED)
def test_configurations_that_make_no_sense_are_refused(text: str, what: str) -> None:
    answer = call("import", "lando", "--config", config(text))
    assert what in answer.error
    assert "hunter2" not in answer.err
    assert answer.out == ""


def test_a_configuration_goes_with_lando_only() -> None:
    config(MACHINES)
    assert "says nothing about" in call("import", "pytq", "--config", "landoconfig.yml").error
    assert "says nothing about" in call("import", "ptq", "a.jsonl", "--config", "landoconfig.yml").error
    assert "there is no file" in call("import", "lando", "--config", "nothing.yml").error
    assert (
        "needs no OS_PASSWORD"
        in call("import", "lando", "--config", "landoconfig.yml", "--secret", "OS_PASSWORD").error
    )
