"""Tasks made of tokens and tokens made of tasks, without a pool: every state, logs of every attempt, odd documents."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tokenpool import transitions
from tokenpool.documents import new_token
from tokenpool.web.tes.models import tesNewTask, tesState, tesTask
from tokenpool.web.tes.parameters import read_parameters
from tokenpool.web.tes.states import TOKENS_OF, tes_state
from tokenpool.web.tes.to_logs import task_logs
from tokenpool.web.tes.to_task import task_of
from tokenpool.web.tes.to_token import token_of

Json = dict[str, Any]

EXECUTOR = {"image": "alpine:3", "command": ["echo", "hi"]}
LEASE = {"worker": "worker_1", "claim": "c", "lock": 1_700_000_000, "hostname": "n1"}
LOCKED = {"lock": 1_700_000_000, "hostname": "n1", "lease": LEASE}


def token(**fields: Any) -> Json:
    return new_token({"_id": "t", **fields})


def failed(failure_class: str, **fields: Any) -> Json:
    attempt = {"claim": "c", "failure_class": failure_class, "counted": True, "exit_code": 3}
    return token(lock=5_000, done=6_000, exit_code=3, attempts=[attempt], **fields)


def closed_by_us(**fields: Any) -> Json:
    return token(lock=99, done=99, exit_code=99, **fields)


# ── states ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STATES: list[tuple[str, Json, str, str]] = [
    ("waits", token(), "", "QUEUED"),
    ("waits for another", token(lock=-1, depends_on=["a"]), "", "PAUSED"),
    ("just claimed", token(**LOCKED, inputs=[{"url": "s3://b/x"}]), "", "INITIALIZING"),
    ("waits for its slot", token(**LOCKED), "wait", "INITIALIZING"),
    ("fetches", token(**LOCKED), "stage_in", "INITIALIZING"),
    ("runs", token(**LOCKED), "run", "RUNNING"),
    ("sends", token(**LOCKED), "stage_out", "RUNNING"),
    ("picas runs it", token(lock=1_700_000_000), "", "RUNNING"),
    ("is to stop", token(**LOCKED, cancel={"time": 1, "by": "ann"}), "run", "CANCELING"),
    ("done", token(lock=5, done=6, exit_code=0), "", "COMPLETE"),
    ("its command failed", failed("executor"), "", "EXECUTOR_ERROR"),
    ("too long", failed("timeout"), "", "EXECUTOR_ERROR"),
    ("too much memory", failed("oom"), "", "EXECUTOR_ERROR"),
    ("picas saw it fail", token(lock=5, done=6, exit_code=3), "", "EXECUTOR_ERROR"),
    ("no input", failed("staging"), "", "SYSTEM_ERROR"),
    ("no engine", failed("system"), "", "SYSTEM_ERROR"),
    ("its parent failed", failed("dependency"), "", "SYSTEM_ERROR"),
    ("makes no sense", failed("invalid"), "", "SYSTEM_ERROR"),
    ("given up", closed_by_us(), "", "SYSTEM_ERROR"),
    ("no such state", {"_id": "t", "type": "token", "lock": 0, "done": 7}, "", "SYSTEM_ERROR"),
    ("its workers were lost", failed("lost"), "", "PREEMPTED"),
    ("put off", failed("preempted"), "", "PREEMPTED"),
    ("cancelled while it ran", failed("cancelled"), "", "CANCELED"),
    ("cancelled before it ran", closed_by_us(cancel={"time": 1, "by": "ann"}), "", "CANCELED"),
    ("failed before the cancel came", failed("executor", cancel={"time": 1, "by": "ann"}), "", "EXECUTOR_ERROR"),
]


@pytest.mark.parametrize(("doc", "phase", "state"), [each[1:] for each in STATES], ids=[each[0] for each in STATES])
def test_every_way_of_a_token_is_a_state_of_tes(doc: Json, phase: str, state: str) -> None:
    assert tes_state(doc, phase) == state
    assert transitions.state_of(doc) in TOKENS_OF[state]


def test_every_state_of_the_standard_is_met() -> None:
    assert {each[3] for each in STATES} == {state.value for state in tesState} - {"UNKNOWN"}
    assert set(TOKENS_OF) == {state.value for state in tesState}


# ── there and back ───────────────────────────────────────────────────────────────────────────────────────────────────

FULL_TASK: Json = {
    "name": "align",
    "description": "all of TES",
    "inputs": [
        {"name": "reads", "description": "r", "url": "s3://b/r.fq", "path": "/data/r.fq", "type": "FILE", "streamable": True},
        {"content": "a: 1\n", "path": "/data/p.yml", "type": "FILE"},
        {"url": "s3://b/ref/", "path": "/ref/hs", "type": "DIRECTORY"},
    ],
    "outputs": [
        {"url": "s3://b/out/", "path": "/data/*.bam", "path_prefix": "/data", "type": "FILE"},
        {"name": "all", "description": "o", "url": "s3://b/all/", "path": "/vol/all", "type": "DIRECTORY"},
    ],
    "resources": {
        "cpu_cores": 4, "ram_gb": 2.5, "disk_gb": 10, "preemptible": True, "zones": ["a", "b"],
        "backend_parameters": {"Priority": "5", "GPUS": "1"}, "backend_parameters_strict": True,
    },
    "executors": [
        {"image": "alpine:3", "command": ["sh", "-c", "echo 1"], "workdir": "/data", "stdout": "/data/o",
         "stderr": "/data/e", "env": {"A": "1"}, "ignore_error": True},
        {"image": "alpine:3", "command": ["wc"], "stdin": "/data/o"},
    ],
    "volumes": ["/vol"],
    "tags": {"project": "x", "": ""},
}  # fmt: skip


def test_all_that_a_task_says_is_in_its_token_and_comes_back() -> None:
    fields = token_of(tesNewTask.model_validate_json(json.dumps(FULL_TASK)))
    assert (fields["priority"], fields["resources"]["gpus"]) == (5, 1)
    back = task_of(token(**fields), logs=lambda name, start, end: "")
    assert back == {**FULL_TASK, "id": "t", "state": "QUEUED"}


def test_what_only_the_full_view_has() -> None:
    basic = task_of(token(**token_of(tesNewTask.model_validate_json(json.dumps(FULL_TASK)))))
    assert basic["inputs"][1] == {"path": "/data/p.yml", "type": "FILE"}


def test_an_executor_without_a_workdir_starts_where_its_image_says() -> None:
    fields = token_of(tesNewTask.model_validate({"executors": [EXECUTOR]}))
    assert fields["executors"][0]["workdir"] == ""
    assert "workdir" not in task_of(token(**fields))["executors"][0]


def test_content_goes_before_a_url() -> None:
    given = {"content": "x", "url": "s3://b/x", "path": "/d/x"}
    fields = token_of(tesNewTask.model_validate({"executors": [EXECUTOR], "inputs": [given]}))
    assert fields["inputs"] == [{"content": "x", "path": "/d/x"}]


WILD = [
    ({"path": "/data/a/*.bam", "url": "s3://b/x/", "path_prefix": "/data"}, ("s3://b/x/", "/data")),
    ({"path": "/data/a/*.bam", "url": "s3://b/x/"}, ("s3://b/x/", "/data/a")),
    ({"path": "/data/a/c*/*.bam", "url": "s3://b/x/c*/*.bam"}, ("s3://b/x/", "/data/a")),
    ({"path": "/data/a", "url": "s3://b/x", "path_prefix": "/data"}, ("s3://b/x", None)),
]


@pytest.mark.parametrize(("output", "expected"), WILD)
def test_what_wildcards_find_is_named_without_the_prefix(output: Json, expected: tuple[str, str | None]) -> None:
    fields = token_of(tesNewTask.model_validate({"executors": [EXECUTOR], "outputs": [output]}))
    (made,) = fields["outputs"]
    assert (made["url"], made.get("path_prefix")) == expected
    assert made["when"] == "always"


def test_outputs_of_failures_are_left_where_somebody_says_so() -> None:
    resources = {"backend_parameters": {"outputs_when": "success"}}
    output = {"path": "/data/a", "url": "s3://b/x"}
    fields = token_of(tesNewTask.model_validate({"executors": [EXECUTOR], "outputs": [output], "resources": resources}))
    assert fields["outputs"][0]["when"] == "success"
    assert "outputs_when" not in fields


HOPELESS: dict[str, Json] = {
    "two inputs go to x": {"inputs": [{"content": text, "path": "/d/x"} for text in "ab"]},
    "right below /": {"outputs": [{"path": "/x", "url": "s3://b/x"}]},
    "put it into a folder": {"executors": [{**EXECUTOR, "stdout": "/x"}]},
    "'A=B' is no name of a variable": {"executors": [{**EXECUTOR, "env": {"A=B": "1"}}]},
    "/resource/x is in no folder": {"executors": [{**EXECUTOR, "stdout": "/resource/x"}]},
}


@pytest.mark.parametrize(("reason", "fields"), HOPELESS.items())
def test_a_task_that_could_only_fail_ends_at_once_and_says_why(reason: str, fields: Json) -> None:
    made = token_of(tesNewTask.model_validate({"executors": [EXECUTOR], **fields}))
    assert tes_state(made) == "SYSTEM_ERROR"
    (log,) = task_of(made, logs=lambda name, start, end: "")["logs"]
    assert log["logs"] == []
    assert reason in " ".join(log["system_logs"])


def test_a_folder_may_be_right_below_the_root() -> None:
    fields = {"outputs": [{"path": "/results", "url": "s3://b/r/", "type": "DIRECTORY"}]}
    assert token_of(tesNewTask.model_validate({"executors": [EXECUTOR], **fields})).get("done") is None


# ── backend parameters ───────────────────────────────────────────────────────────────────────────────────────────────


def test_parameters_are_fields_of_the_token_whatever_their_case() -> None:
    known = read_parameters({"BATCH": "night", "Timeout": "60", "max_retries": "2", "secrets": "A, B"})
    assert known.fields == {"batch": "night", "timeout": 60, "max_retries": 2, "secrets": ["A", "B"]}
    assert known.warnings == []


def test_a_value_that_makes_no_sense_is_told() -> None:
    known = read_parameters({"timeout": "soon", "gpus": "-1"})
    assert known.fields == {}
    assert [text.partition(":")[0] for text in known.warnings] == [
        "backend parameter 'timeout'",
        "backend parameter 'gpus'",
    ]


def unsupported(strict: bool) -> Json:
    resources = {"backend_parameters": {"VmSize": "D64", "priority": "1"}, "backend_parameters_strict": strict}
    return token_of(tesNewTask.model_validate({"executors": [EXECUTOR], "resources": resources}))


def test_an_unsupported_parameter_is_a_warning_and_is_not_kept() -> None:
    task = task_of(token(**unsupported(strict=False)), logs=lambda name, start, end: "")
    assert task["state"] == "QUEUED"
    assert task["resources"]["backend_parameters"] == {"priority": "1"}
    assert task["logs"][0]["system_logs"] == ["warning: backend parameter 'VmSize' is not supported"]


def test_an_unsupported_parameter_fails_a_strict_task() -> None:
    assert tes_state(unsupported(strict=True)) == "SYSTEM_ERROR"


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

PIECES = {"t.1.out": "first", "t.out": "onetwo"}


def printed(name: str, start: int, end: int | None) -> str:
    return PIECES.get(name, "")[start:end]


def test_each_attempt_has_a_log_and_each_executor_its_own_part_of_it() -> None:
    steps = [
        {"number": 0, "start_time": "S0", "end_time": "E0", "exit_code": 4, "stdout": [0, 3], "stderr": [0, 0]},
        {"number": 1, "start_time": "S1", "end_time": "E1", "exit_code": 0, "stdout": [3, 6], "stderr": [0, 0]},
    ]
    first = {"claim": "a", "failure_class": "executor", "counted": True, "exit_code": 7, "stdout": "t.1.out",
             "start_time": "A", "end_time": "B", "hostname": "n1"}  # fmt: skip
    last = {"claim": "b", "failure_class": None, "counted": True, "exit_code": 0, "stdout": "t.out", "executors": steps}
    files = [{"path": "volumes/0/x.bam", "url": "s3://b/x.bam", "size": 12}]
    done = token(lock=5, done=6, exit_code=0, attempts=[first, last], output={"files": files},
                 outputs=[{"path": "/data/x.bam", "url": "s3://b/x.bam"}], image="alpine:3")  # fmt: skip
    before, after = task_logs(done, printed)
    assert before == {
        "logs": [{"start_time": "A", "end_time": "B", "exit_code": 7, "stdout": "first", "stderr": ""}],
        "outputs": [],
        "start_time": "A",
        "end_time": "B",
        "metadata": {"hostname": "n1", "claim": "a", "failure_class": "executor", "counted": "true"},
        "system_logs": ["failure: executor"],
    }
    assert [(each["exit_code"], each["stdout"]) for each in after["logs"]] == [(4, "one"), (0, "two")]
    assert after["outputs"] == [{"url": "s3://b/x.bam", "path": "/data/x.bam", "size_bytes": "12"}]


def test_the_basic_view_has_no_text_of_executors_and_systems() -> None:
    done = failed("executor", error=[{"message": "executor 1 of 2 failed"}])
    (log,) = task_logs(done, None)
    assert log["logs"] == [{"exit_code": 3}]
    assert "system_logs" not in log


def test_an_executor_that_was_stopped_has_the_code_of_its_attempt() -> None:
    steps = [{"number": 0, "start_time": "S", "stdout": [0], "stderr": [0]}]
    attempt = {"claim": "c", "failure_class": "cancelled", "counted": True, "exit_code": 143, "end_time": "E"}
    (log,) = task_logs(token(lock=5, done=6, exit_code=143, attempts=[{**attempt, "executors": steps}]), None)
    assert log["logs"] == [{"start_time": "S", "end_time": "E", "exit_code": 143}]


def test_what_runs_now_has_a_log_that_says_where() -> None:
    (log,) = task_logs(token(**LOCKED), None)
    assert log["metadata"] == {"hostname": "n1", "worker": "worker_1", "claim": "c"}
    assert log["start_time"].startswith("2023-11-14T")


def test_a_token_of_picas_is_a_task_too() -> None:
    doc = {
        "_id": "t",
        "type": "token",
        "lock": 1_700_000_000,
        "done": 1_700_000_060,
        "exit_code": "0",
        "input": "run it",
    }
    task = task_of(doc)
    assert task["executors"] == [{"image": "", "command": ["/bin/sh", "-c", "run it"]}]
    assert task["logs"][0]["logs"][0]["exit_code"] == 0


PATHS = [
    ("bam/x", [{"path": "*"}], "/output/bam/x"),
    ("input/x", [{"path": "/input/x"}], "/input/x"),
    ("input/x", [{"path": "*"}], "/output/input/x"),
    ("x", [{"path": "/work/x"}], "/work/x"),
    ("volumes/0/deep/x", [{"path": "/data/deep/x"}, {"path": "/data/y"}], "/data/deep/x"),
    ("volumes/7/x", [{"path": "/data/y"}], "/output/volumes/7/x"),
]


@pytest.mark.parametrize(("told", "outputs", "seen"), PATHS)
def test_outputs_are_named_as_the_container_sees_them(told: str, outputs: list[Json], seen: str) -> None:
    doc = token(lock=5, done=6, exit_code=0, image="alpine:3", outputs=outputs, output={"files": [{"path": told}]})
    (log,) = task_logs(doc, None)
    assert [each["path"] for each in log["outputs"]] == [seen]


# ── whatever somebody wrote ──────────────────────────────────────────────────────────────────────────────────────────

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "lock", "done", "exit_code", "hostname", "name", "description", "tags", "batch", "creation_time", "input", "command",
    "image", "env", "executors", "inputs", "outputs", "volumes", "resources", "tes", "attempts", "error", "output", "cancel",
    "lease", "_attachments",
)  # fmt: skip


@hypothesis.given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_whatever_a_document_holds_it_is_shown_as_the_standard_says(fields: Json) -> None:
    task = task_of({"_id": "t", "type": "token", **fields}, logs=lambda name, start, end: "")
    shown = tesTask.model_validate_json(json.dumps(task))
    assert shown.id == "t"


ENTRIES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("path", "url", "size", "claim", "exit_code", "start_time", "executors", "failure_class", "number", "image", "type",
         "command", "stdout", "message", "files", "content", "shared"),
        ANYTHING | st.lists(st.dictionaries(st.sampled_from(["exit_code", "stdout", "path"]), ANYTHING), max_size=2),
    ),
)  # fmt: skip


@hypothesis.given(st.dictionaries(st.sampled_from(FIELDS), st.lists(ENTRIES, max_size=2) | ENTRIES))
def test_odd_entries_do_no_harm(fields: Json) -> None:
    task = task_of({"_id": "t", "type": "token", "lock": 5, "done": 6, **fields}, logs=lambda name, start, end: "")
    assert tesTask.model_validate_json(json.dumps(task)).id == "t"
