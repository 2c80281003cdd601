"""Tasks of TES really run: a worker takes them from the server's pool, in containers of a real engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "acceptance"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "container"))

from cli_tools import ok
from engines import IMAGE, EngineServer, Missing
from server_parts import Server
from tes import Executor, HTTPClient, Input, Output, Task

Run = Callable[..., Task]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    """Podman, or Docker where there is no Podman."""
    reasons = []
    for name in ("podman", "docker"):
        engine = EngineServer(name, tmp_path_factory.mktemp(name[0]))
        try:
            engine.__enter__()
        except Missing as error:
            reasons.append(str(error))
            continue
        yield engine
        engine.__exit__()
        return
    why = "; ".join(reasons)
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture
def run(server: Server, pool_url: str, engine: EngineServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Make a task, let a worker work until nothing waits, and return what became of it."""
    monkeypatch.setenv("DOCKER_HOST", engine.url)
    tes = HTTPClient(server.url)

    def run(*executors: Executor, **fields: Any) -> Task:
        id = tes.create_task(Task(executors=list(executors), **fields))
        ok("work", "-p", pool_url, "--quit", "--slots", 1, "--workdir", "scratch")
        return tes.get_task(id, "FULL")

    return run


def shell(line: str, **fields: Any) -> Executor:
    return Executor(image=IMAGE, command=["/bin/sh", "-c", line], **fields)


def test_executors_hand_on_files_and_all_of_it_is_told(run: Run, tmp_path: Path) -> None:
    there = tmp_path / "there"
    task = run(
        shell("cat /data/in/words.txt; echo odd >&2; mkdir -p /results/a; echo 1 > /results/a/one.txt",
              stdout="/data/in/copy.txt", workdir="/data/in"),
        Executor(image=IMAGE, command=["tr", "a-z", "A-Z"], stdin="/data/in/copy.txt", stdout="/results/a/two.txt"),
        shell("echo $WORD > /shared/x; cat /shared/x; exit 4", env={"WORD": "last"}, ignore_error=True),
        inputs=[Input(content="some words\n", path="/data/in/words.txt")],
        outputs=[
            Output(url=f"file://{there}/", path="/results/*/*.txt", path_prefix="/results"),
            Output(url=f"file://{there}/folder", path="/results", type="DIRECTORY"),
            Output(url=f"file://{there}/copied", path="/data/in/copy.txt"),
        ],
        volumes=["/shared"],
    )  # fmt: skip
    assert task.state == "COMPLETE", task.as_dict()
    assert (there / "a" / "two.txt").read_text() == "SOME WORDS\n"
    assert (there / "folder" / "a" / "one.txt").read_text() == "1\n"
    assert (there / "copied").read_text() == "some words\n"
    (log,) = task.logs
    assert [each.exit_code for each in log.logs] == [0, 0, 4]
    assert [each.stdout for each in log.logs] == ["some words\n", "SOME WORDS\n", "last\n"]
    assert "odd" in log.logs[0].stderr
    assert all(each.start_time <= each.end_time for each in log.logs)
    sent = {(each.path, each.url, each.size_bytes) for each in log.outputs}
    assert ("/results/a/two.txt", f"file://{there}/a/two.txt", 11) in sent
    assert ("/data/in/copy.txt", f"file://{there}/copied", 11) in sent
    assert len(sent) == 5
    assert log.metadata["hostname"]


def test_the_first_executor_that_fails_ends_the_task(run: Run, tmp_path: Path) -> None:
    task = run(
        shell("echo 1"), shell("echo 2; exit 5"), shell("echo 3"),
        outputs=[Output(url=f"file://{tmp_path}/there", path="/data/none")],
    )  # fmt: skip
    assert task.state == "EXECUTOR_ERROR"
    (log,) = task.logs
    assert [(each.exit_code, each.stdout) for each in log.logs] == [(0, "1\n"), (5, "2\n")]
    assert "executor 2 of 3 failed" in log.system_logs


def test_an_executor_starts_where_its_image_says(run: Run) -> None:
    task = run(shell("pwd"))
    assert [each.stdout for each in task.logs[0].logs] == ["/\n"]


def test_an_output_that_was_not_made_is_the_systems_error(run: Run, tmp_path: Path) -> None:
    task = run(shell("true"), outputs=[Output(url=f"file://{tmp_path}/there", path="/data/none")])
    assert task.state in ("EXECUTOR_ERROR", "SYSTEM_ERROR")
    assert "did not make /data/none" in " ".join(task.logs[-1].system_logs)


def test_an_image_that_is_not_there_is_the_systems_error(run: Run) -> None:
    task = run(Executor(image="localhost/none:1", command=["true"]))
    assert task.state == "SYSTEM_ERROR"
    assert "localhost/none:1" in " ".join(task.logs[-1].system_logs)
