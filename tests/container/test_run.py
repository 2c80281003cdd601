"""Tokens that run in real containers: what they see, what they may, how they end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok
from container_tools import failure, kept, message, out
from engines import IMAGE, EngineServer

from tokenpool.engines.base import Job, Step
from tokenpool.engines.docker_api import DockerEngine
from tokenpool.engines.folders import make_folders

Run = Callable[..., dict[str, Any]]
FOLDERS = ("input", "output", "resource", "tmp")


def test_what_a_container_prints_and_its_exit_code_are_the_tokens(run: Run) -> None:
    token = run(command="echo good; echo bad >&2; exit 3")
    assert failure(token) == (3, "executor")
    assert out() == "good\n"
    assert ok("logs", "t", "--err").out == "bad\n"


@pytest.mark.parametrize("command", [["echo", "a  b", "$HOME"], "echo 'a  b' '$HOME'"])
def test_a_list_is_executed_and_a_text_is_a_shell_line(run: Run, command: object) -> None:
    assert failure(run(command=command)) == (0, None)
    assert out() == "a  b $HOME\n"


def test_without_a_command_the_image_says_what_runs(engine: EngineServer, run: Run) -> None:
    client = engine.client()
    name = "localhost/tokenpool-test:default"
    client.images.build(
        fileobj=_dockerfile(f'FROM {IMAGE}\nENTRYPOINT ["echo", "own"]\nCMD ["words"]\n'),
        tag=name,
        rm=True,
        forcerm=True,
    )
    try:
        token = run(image=name)
        assert failure(token) == (0, None), token
        assert out() == "own words\n"
    finally:
        client.images.remove(name)
        client.close()


def _dockerfile(text: str) -> Any:
    import io

    return io.BytesIO(text.encode())


def test_input_alone_is_a_shell_line(run: Run) -> None:
    run(input="echo $((40 + 2))")
    assert out() == "42\n"


def test_a_container_sees_its_folders_and_the_tokens_variables(run: Run) -> None:
    run(command='pwd; echo "$COLOUR $INPUT $OUTPUT $RESOURCE $TEMP $TOKENPOOL_TOKEN_ID"', env={"COLOUR": "red"})
    assert out() == "/work\nred /input /output /resource /tmp t\n"


def test_all_folders_can_be_written_but_for_the_resources(run: Run) -> None:
    tries = "; ".join(f"touch {each}/x 2>/dev/null && echo {each}" for each in ("/work", "/work/resource", *_inner()))
    token = run(command=f"{tries}; exit 1")
    assert out().split() == ["/work", "/input", "/output", "/tmp"]
    assert kept("output", "x").exists()
    assert kept("x").exists()
    assert token["exit_code"] == 1


def _inner() -> list[str]:
    return [f"/{name}" for name in FOLDERS]


def test_files_belong_to_the_user_of_the_worker(run: Run) -> None:
    run(command="id -u; touch /output/x; exit 1")
    assert out() == f"{os.getuid()}\n"
    assert kept("output", "x").stat().st_uid == os.getuid()


def test_the_user_of_the_image_runs_only_where_the_worker_allows_it(engine: EngineServer, run: Run) -> None:
    client = engine.client()
    name = "localhost/tokenpool-test:guest"
    client.images.build(fileobj=_dockerfile(f"FROM {IMAGE}\nUSER 4242\n"), tag=name, rm=True, forcerm=True)
    try:
        run("--image-user", image=name, command="id -u; mkdir /output/a && touch /output/a/x; exit 1")
        assert out() == "4242\n"
        assert kept("output", "a", "x").stat().st_uid == os.getuid()
    finally:
        client.images.remove(name)
        client.close()


def test_a_container_is_its_workers_user_whoever_that_is(engine: EngineServer, tmp_path: Path) -> None:
    # Given what a worker of user 4242 asks for
    folder = tmp_path / "folder"
    make_folders(str(folder), for_anybody=False)
    for place in (folder, *folder.iterdir()):
        os.chown(place, 4242, 4242)
    step = Step(IMAGE, ["-c", "echo x > /output/x; id -u > /work/user"], ["/bin/sh"])
    job = Job("t", "c", "s", str(folder), [step], [], user="4242:4242")
    asked = DockerEngine(engine.url)
    try:
        # When it runs
        container = asked.create(job, step, IMAGE, {})
        asked.start(container, step)
        end = asked.wait(container)
        assert asked.remove(container)
    finally:
        asked.close()
    # Then all that it wrote is that user's
    assert end.code == 0
    assert (folder / "user").read_text() == "4242\n"
    assert (folder / "output" / "x").stat().st_uid == 4242


def test_there_are_no_new_privileges(run: Run) -> None:
    run(command="grep NoNewPrivs /proc/self/status")
    assert out().split() == ["NoNewPrivs:", "1"]


def test_the_network_is_off_where_the_worker_says_so(run: Run) -> None:
    run("--no-network", command="ls /sys/class/net")
    assert out().split() == ["lo"]


def test_limits_are_what_the_token_asked_for(run: Run) -> None:
    memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max"
    cpu = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu.max"
    run(command=f"{memory}; {cpu}; echo $CPU", resources={"ram_gb": 0.125, "cpu_cores": 1})
    size, quota, *_, cpus = out().split()
    assert (int(size), int(quota), cpus) == (1 << 27, 100_000, "1")


def test_too_much_memory_is_oom_and_the_next_attempt_gets_more(run: Run) -> None:
    token = run(command="x=$(yes | head -c 30000000); echo $?", resources={"ram_gb": [0.02, 0.25]}, max_retries=1)
    assert [each["failure_class"] for each in token["attempts"]] == ["oom", None]
    assert token["exit_code"] == 0


def test_what_it_used_is_in_its_history(run: Run) -> None:
    (attempt,) = run(command="n=0; while [ $n -lt 300000 ]; do n=$((n+1)); done; sleep 1")["attempts"]
    assert attempt["cpu_seconds"] > 0
    assert attempt["max_rss_mb"] > 0


def test_who_kills_itself_did_not_run_out_of_memory(run: Run) -> None:
    token = run(command="sh -c 'kill -9 $$'; exit 137", resources={"ram_gb": 0.1})
    assert failure(token) == (137, "executor")


def test_a_timeout_ends_the_container(run: Run) -> None:
    token = run(command="echo begun; sleep 1000", timeout=3)
    assert token["attempts"][-1]["failure_class"] == "timeout"
    assert "longer than its timeout of 3 s" in message(token)


def test_mounts_of_the_worker_are_seen_and_written_as_it_says(run: Run, tmp_path: Path) -> None:
    for name in ("seen", "written"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"{name}\n")
    mounts = ("--mount", f"{tmp_path}/seen:/data", "--mount", f"{tmp_path}/written:rw")
    run(*mounts, command=f"cat /data/file; touch /data/x 2>/dev/null || echo no; touch {tmp_path}/written/x")
    assert out() == "seen\nno\n"
    assert (tmp_path / "written" / "x").exists()
    assert not (tmp_path / "seen" / "x").exists()


# ── several containers ───────────────────────────────────────────────────────────────────────────────────────────────


def _executor(*command: str, **more: object) -> dict[str, object]:
    return {"image": IMAGE, "command": [*command], **more}


def test_executors_run_in_order_and_hand_on_files(run: Run) -> None:
    token = run(
        executors=[
            _executor("sh", "-c", "echo $WORD; echo odd >&2", env={"WORD": "abc"}, stdout="words", workdir="/output"),
            _executor("tr", "a", "x", stdin="/output/words", stdout="/tmp/new/words", stderr="/output/none"),
            _executor("cat", "/tmp/new/words"),
        ]
    )
    assert failure(token) == (0, None)
    assert out() == "abc\nxbc\nxbc\n"


def test_the_first_executor_that_fails_is_the_last_unless_errors_are_ignored(run: Run) -> None:
    token = run(
        executors=[
            _executor("sh", "-c", "echo 1; exit 4", ignore_error=True),
            _executor("sh", "-c", "echo 2; exit 5"),
            _executor("echo", "3"),
        ]
    )
    assert failure(token) == (5, "executor")
    assert message(token) == "executor 2 of 3 failed"
    assert out() == "1\n2\n"


def test_an_executor_cannot_write_through_a_link_that_leads_out(run: Run, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    run(
        executors=[
            _executor("ln", "-s", str(victim), "/output/link"),
            _executor("echo", "broken", stdout="/output/link"),
        ]
    )
    assert victim.read_text() == "whole"


# ── options ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_option_that_the_worker_does_not_allow_is_refused(run: Run) -> None:
    token = run(command="true", container_options=["--shm-size=1m"])
    assert failure(token)[1] == "invalid"
    assert "--shm-size is not allowed on this worker; start it with --allow-option shm-size" in message(token)


def test_options_that_the_worker_allows_reach_the_engine(run: Run) -> None:
    # With limits given, Podman sets its own for the others, which not every machine lets it do.
    given = [
        "--shm-size=3m",
        "--ulimit=nofile=77:88",
        "--ulimit=nproc=1000",
        "--hostname=box",
        "--tmpfs=/scratch:size=1m",
    ]
    allowed = [word for name in ("shm-size", "ulimit", "hostname", "tmpfs") for word in ("--allow-option", name)]
    command = "df -k /dev/shm | tail -1 | awk '{print $2}'; ulimit -n; hostname; touch /scratch/x && echo made"
    token = run(*allowed, command=command, container_options=given)
    assert failure(token) == (0, None), token
    assert out().split() == ["3072", "77", "box", "made"]


def test_an_option_that_makes_no_sense_is_refused(run: Run) -> None:
    token = run("--allow-option", "ulimit", command="true", container_options=["--ulimit=many"])
    assert failure(token)[1] == "invalid"
    assert "--ulimit=many makes no sense" in message(token)


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_reaches_the_container_and_no_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOOL_SECRET_DOOR", "opensesame")
    run(command='[ "$DOOR" = opensesame ] && echo "it is $DOOR"', secrets=["DOOR"])
    assert out() == "it is **********\n"


# ── what cannot be run ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_that_the_image_does_not_have(run: Run) -> None:
    token = run(command=["/bin/nonesuch"])
    assert failure(token) == (127, "executor")
    assert "is it in the image?" in message(token)


def test_an_image_that_nobody_has(run: Run) -> None:
    token = run(image="127.0.0.1:9/nobody/has:1", command="true")
    assert failure(token)[1] == "staging"
    assert "image 127.0.0.1:9/nobody/has:1 is not here and cannot be pulled" in message(token)


def test_an_image_with_another_digest(run: Run) -> None:
    name = f"{IMAGE}@sha256:{'0' * 64}".replace("localhost", "127.0.0.1:9")
    token = run(image=name, command="true")
    assert failure(token)[1] == "staging"
    assert "digest" in message(token)


def test_a_mount_that_is_not_there_is_the_workers_fault(run: Run) -> None:
    token = run("--mount", "/nonexistent/data", command="true")
    assert failure(token)[1] == "system"
    assert "the folder /nonexistent/data that this worker mounts is not there" in message(token)


def test_the_worker_goes_on_after_tokens_that_cannot_be_run(engine: EngineServer) -> None:
    tokens = [{"_id": "bad", "image": "127.0.0.1:9/no:1"}, {"_id": "good", "image": IMAGE, "command": "echo here"}]
    import json

    ok("push", "-", "--format", "jsonl", stdin="\n".join(map(json.dumps, tokens)))
    assert call("work", "--quit", "--slots", 1, "--workdir", "scratch", "--cleanup", "always").code == 0
    assert out("good") == "here\n"


def test_many_containers_at_a_time(engine: EngineServer) -> None:
    import json

    tokens = [{"_id": f"n{n}", "image": IMAGE, "command": f"echo {n}; exit {n % 2}"} for n in range(8)]
    ok("push", "-", "--format", "jsonl", stdin="\n".join(map(json.dumps, tokens)))
    began = time.monotonic()
    ok("work", "--quit", "--slots", 4, "--workdir", "scratch", "--cleanup", "always")
    assert [out(each["_id"]) for each in tokens] == [f"{n}\n" for n in range(8)]
    assert time.monotonic() > began
