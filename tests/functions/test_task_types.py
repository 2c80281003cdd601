"""Task types of SimpleTasks, payloads of python-task-queue: pushed as they are, run by handlers that are registered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_tools import ROOT, call, ok
from function_tools import failure, made, message, work

import tokenpool

ALLOW = ("--allow-module", "task_types")


def task(name: str, payload: Any) -> dict[str, Any]:
    info = {"id": 4, "name": name, "base_directory": "data/set", "inputs": ["0_input/4.dat"]}
    return {"function": {"name": name}, "input": {"basic_info": info, "payload_info": payload}}


def test_the_steps_run_in_order_with_a_payload_of_their_own_type(sqlite_url: str) -> None:
    # When a task has a payload with an object in it, and another one a payload that a function makes
    payload = {"complex_id": 7, "range": {"start": 1, "stop": 2}, "thresholds": [1, 2]}
    typed, built = made(sqlite_url, task("TYPED", payload), task("BUILT", [1, 2, 3]), words=ALLOW)

    # Then the handlers got what they declare
    with tokenpool.connect(sqlite_url) as pool:
        said = pool.logs(typed.id).out.decode().splitlines()
        assert pool.logs(built.id).out.decode().splitlines()[1] == "execute 6"
    assert said == [
        "prepare 4",
        "execute Payload(complex_id=7, range=Range(start=1, stop=2), thresholds=[1, 2])",
        "finalize ['data/set/out']",
    ]
    assert typed["output"] == {"result": {"success": True, "outputs": ["data/set/out"]}}


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (task("UNSUCCESSFUL", 1), "executor", "says that it did not succeed"),
        (task("TYPED", {"strange": 1}), "invalid", "does not fit"),
        (task("NOBODY", 1), "invalid", "no task type 'NOBODY'"),
        ({"function": {"name": "TYPED"}, "input": "no object"}, "invalid", "no basic_info"),
    ],
)
def test_what_goes_wrong_is_told(sqlite_url: str, given: dict[str, Any], kind: str, says: str) -> None:
    (token,) = made(sqlite_url, given, words=ALLOW)
    assert failure(token) == kind
    assert says in message(token)


def test_a_class_without_a_step_is_refused() -> None:
    with pytest.raises(TypeError, match="has no finalize"):

        @tokenpool.task("INCOMPLETE")
        class Incomplete:
            def prepare(self) -> None: ...

            def execute(self) -> None: ...


def test_a_pydantic_model_makes_the_payload() -> None:
    pydantic = (
        pytest.importorskip("pydantic") if os.environ.get("TOKENPOOL_REQUIRE_ALL") != "1" else __import__("pydantic")
    )
    from tokenpool.functions.registry import build

    model = pydantic.create_model("Model", level=(int, ...))
    assert build(model, {"level": "3"}).level == 3


def test_the_example_of_simpletasks_runs(tmp_path: Path) -> None:
    # When the session of the example is run as it stands
    here = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = ROOT / "examples" / "simpletasks" / "session.sh"
    done = subprocess.run(["sh", str(script)], env=environment, capture_output=True, text=True, timeout=60)

    # Then the outputs are in the bucket
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("four\nfive\n")


def test_the_json_of_simpletasks_is_kept_as_it_is(sqlite_url: str, tmp_path: Path) -> None:
    # Given one task, as SimpleTasks' queue holds it
    original = task("TYPED", {"complex_id": 1})["input"]
    (tmp_path / "task.json").write_text(json.dumps(original))

    # When it is imported
    ok("--pool", sqlite_url, "import", "simpletasks", "task.json")

    # Then
    with tokenpool.connect(sqlite_url) as pool:
        (token,) = pool.tokens()
    assert token["input"] == original
    assert (token["name"], token["function"]) == ("TYPED/4", {"name": "TYPED"})


def test_payloads_of_python_task_queue_run(sqlite_url: str, tmp_path: Path) -> None:
    # Given a queued function, a registered task by its class, and one of a function with that name
    lines = [
        [["task_types", "double"], [4], {}, -1],
        {"class": "PrintTask", "index": 5},
        {"class": "double", "index": 6},
    ]
    (tmp_path / "queue.jsonl").write_text("\n".join(map(json.dumps, lines)))

    # When they are imported and run
    ok("--pool", sqlite_url, "import", "ptq", "queue.jsonl")
    work(sqlite_url, *ALLOW)

    # Then
    with tokenpool.connect(sqlite_url) as pool:
        results = {json.dumps(each["input"]): each["output"]["result"] for each in pool.tokens()}
    assert [results[json.dumps(line)] for line in lines] == [8, "index 5", 12]


@pytest.mark.parametrize(
    ("format", "text", "says"),
    [
        ("simpletasks", '{"basic_info": {"name": "X"}}', "has no base_directory"),
        ("simpletasks", '{"basic_info": {"name": "X", "base_directory": "d", "inputs": []}}', "has no inputs"),
        ("ptq", '{"index": 1}', "has no class"),
        ("ptq", "[1, 2]", "is no payload"),
        ("ptq", "{", "line 1"),
    ],
)
def test_files_that_make_no_sense_push_nothing(
    sqlite_url: str, tmp_path: Path, format: str, text: str, says: str
) -> None:
    (tmp_path / "bad.json").write_text(text)
    answer = call("--pool", sqlite_url, "import", format, "bad.json")
    assert answer.code == 2
    assert says in answer.error
