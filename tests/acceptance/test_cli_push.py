"""Stories of `push`: what people have, in every format, on both kinds of pool; and what is not taken."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from cli_tools import call, command, environment, ids, ok, spawn, states, use


@pytest.fixture(autouse=True)
def pool(pool_url: str) -> str:
    return use(pool_url)


def one(*selector: str) -> dict[str, object]:
    (token,) = ok("list", "--json", *selector).json
    return token


def test_a_file_of_lines_becomes_a_batch():
    Path("jobs.txt").write_text("# nightly\necho one\n\necho 'two words'\n")
    answer = ok("push", "jobs.txt", "--batch", "night")
    assert (answer.out, answer.err) == ("", "pushed 2 tokens into batch night\n")
    assert sorted(token["input"] for token in ok("list", "batch:night", "--json").json) == [
        "echo 'two words'",
        "echo one",
    ]


def test_a_command_behind_two_dashes_is_executed_as_it_stands():
    answer = ok("push", "-b", "x", "--", "python", "run.py", "--seed", "7 8")
    assert answer.out.strip() == one()["_id"]
    assert one()["command"] == ["python", "run.py", "--seed", "7 8"]
    # What picas' workers run, who know nothing of `command`.
    assert one()["input"] == "python run.py --seed '7 8'"


def test_a_single_word_with_spaces_is_a_shell_line():
    ok("push", "--", "echo a | wc -c")
    assert one()["input"] == "echo a | wc -c"
    assert "command" not in one()


def test_every_option_sets_the_field_of_its_name():
    ok(
        "push", "--batch", "b", "--name", "n", "--description", "d", "--tag", "k=v", "--tag", "a=b=c", "--priority", "2.5",
        "--env", "A=1", "--timeout", "1h 30m", "--max-retries", "3", "--cpu-cores", "2", "--ram-gb", "1.5,3,6", "--gpus", "1",
        "--disk-gb", "20", "--retry-delay", "5m", "--retry-backoff", "2", "--checkpoint", "*.ckpt", "--checkpoint", "out/state",
        "--not-before", "2096-10-02T09:06:40+02:00", "--accept-failure", "--paused", "--id", "mine", "--", "true",
    )  # fmt: skip
    token = one()
    expected = {
        "_id": "mine", "batch": "b", "name": "n", "description": "d", "tags": {"k": "v", "a": "b=c"}, "priority": 2.5,
        "env": {"A": "1"}, "timeout": 5400, "max_retries": 3, "retry_delay": 300, "retry_backoff": 2,
        "resources": {"cpu_cores": 2, "ram_gb": [1.5, 3, 6], "gpus": 1, "disk_gb": 20}, "checkpoint": ["*.ckpt", "out/state"],
        "not_before": 4_000_000_000, "accept_failure": True, "paused": True,
    }  # fmt: skip
    assert {name: token[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", '{"input": "echo hi", "priority": 3, "tags": {"own": "yes"}}\n'),
        ("t.json", '[{"input": "echo hi", "priority": 3, "tags": {"own": "yes"}}]'),
        ("t.yaml", "- input: echo hi\n  priority: 3\n  tags: {own: 'yes'}\n"),
    ],
)
def test_a_token_s_own_fields_go_before_the_options(name, text):
    Path(name).write_text(text)
    ok("push", name, "--priority", "1", "--tag", "given=too", "--batch", "b")
    token = one()
    assert (token["input"], token["priority"], token["batch"]) == ("echo hi", 3, "b")
    assert token["tags"] == {"own": "yes", "given": "too"}


def test_a_table_has_one_field_a_column_and_numbers_are_numbers():
    with open("t.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "input", "priority", "timeout", "cpu_cores", "seed"])
        table.writerow(["t1", 'echo "a, b"', "2", "5m", "4", "17"])
    ok("push", "t.csv", "--ram-gb", "8")
    token = one()
    assert (token["_id"], token["input"], token["priority"], token["timeout"]) == ("t1", 'echo "a, b"', 2, 300)
    assert (token["resources"], token["seed"]) == ({"cpu_cores": 4, "ram_gb": 8}, "17")


def test_a_table_knows_lists_times_and_switches_too():
    Path("t.csv").write_text(
        "id,input,depends_on,not_before,accept_failure,checkpoint,ram_gb,retry_delay,retry_backoff,paused\n"
        "a,true,,,,,,,,\n"
        'b,true,,,,,"4,8",2m,1.5,no\n'
        'c,true,"a, b",2096-10-02T07:06:40Z,yes,"*.x, *.y",,,,\n'
    )
    ok("push", "t.csv")
    tokens = {token["_id"]: token for token in ok("list", "--json").json}
    assert (tokens["b"]["resources"], tokens["b"]["retry_delay"]) == ({"ram_gb": [4, 8]}, 120)
    assert (tokens["b"]["retry_backoff"], tokens["b"]["paused"]) == (1.5, False)
    assert (tokens["c"]["depends_on"], tokens["c"]["checkpoint"]) == (["a", "b"], ["*.x", "*.y"])
    assert (tokens["c"]["not_before"], tokens["c"]["accept_failure"]) == (4_000_000_000, True)
    assert states() == {"todo": 2, "held": 1}


# --- order ---------------------------------------------------------------------------------------------------------------


def test_a_token_waits_for_those_that_are_named_after_after():
    first, second = (ok("push", "--", "echo", word).out.strip() for word in ("one", "two"))
    third = ok("push", "--after", first, "--after", second, "--", "echo", "three").out.strip()
    assert ok("show", third, "--json").json["depends_on"] == [first, second]
    assert states() == {"todo": 2, "held": 1}


def test_after_is_added_to_what_a_token_waits_for_itself():
    Path("t.jsonl").write_text('{"_id": "a", "input": "a"}\n{"_id": "b", "input": "b", "depends_on": ["a"]}\n')
    ok("push", "--id", "first", "--", "true")
    ok("push", "t.jsonl", "--after", "first")
    assert ok("show", "a", "--json").json["depends_on"] == ["first"]
    assert ok("show", "b", "--json").json["depends_on"] == ["first", "a"]
    assert states() == {"todo": 1, "held": 2}


def test_children_of_a_failed_token_are_closed_and_wait_again_when_it_is_retried():
    ok("push", "--id", "a", "--", "true")
    ok("cancel", "a")
    ok("push", "--id", "b", "--after", "a", "--", "true")
    ok("push", "--id", "c", "--after", "b", "--", "true")
    ok("push", "--id", "d", "--after", "a", "--accept-failure", "--", "true")
    assert states() == {"todo": 1, "error": 3}
    assert ok("retry", "a", "--dry-run").err == (
        "1 token would be put back to todo\n2 tokens closed because of them: would be held again\n"
    )
    assert ok("retry", "a", "--json").json["reopened"] == 2
    assert states() == {"todo": 2, "held": 2}


def test_a_duration_is_counted_from_now():
    before = time.time()
    ok("push", "--not-before", "10m", "--", "true")
    assert before + 600 <= one()["not_before"] <= time.time() + 600
    assert states() == {"held": 1}


def test_paused_tokens_are_held():
    ok("push", "-", "--paused", stdin="a\nb\n")
    assert states() == {"held": 2}


def test_standard_input_and_pipes_are_read_too(tmp_path):
    ok("push", "-", "--format", "jsonl", stdin='{"input": "a"}\n"b"\n')
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text("c\n"))
    writer.start()
    ok("push", "pipe")
    writer.join()
    assert sorted(token["input"] for token in ok("list", "--json").json) == ["a", "b", "c"]


def test_verbose_prints_the_ids_and_quiet_prints_nothing():
    assert sorted(ok("push", "-", "-v", stdin="a\nb\n").out.split()) == sorted(ids())
    answer = ok("push", "-", "-q", stdin="a\nb\n")
    assert (answer.out, answer.err) == ("", "")


def test_a_dry_run_shows_the_tokens_and_pushes_none():
    answer = ok("push", "-", "--dry-run", "-b", "x", stdin="a\nb\n")
    tokens = [json.loads(line) for line in answer.out.splitlines()]
    assert [(token["input"], token["batch"], token["type"]) for token in tokens] == [
        ("a", "x", "token"),
        ("b", "x", "token"),
    ]
    assert states() == {}


def test_json_tells_what_became_of_them():
    assert ok("push", "-", "--json", stdin="a\nb\n").json == {"schema": 1, "pushed": 2, "known": 0, "refused": []}


def test_the_same_work_is_pushed_once_with_dedupe():
    assert ok("push", "-", "--dedupe", "--json", stdin="a\nb\n").json["pushed"] == 2
    assert ok("push", "-", "--dedupe", "--json", stdin="b\nc\n").json == {
        "schema": 1,
        "pushed": 1,
        "known": 1,
        "refused": [],
    }
    assert states() == {"todo": 3}


def test_an_id_that_is_taken_is_refused_and_told_and_the_rest_is_saved():
    ok("push", "--id", "t1", "--", "true")
    Path("t.jsonl").write_text('{"_id": "t1", "input": "again"}\n{"_id": "t2", "input": "new"}\n')
    answer = call("push", "t.jsonl")
    assert answer.code == 1
    assert "not saved: t1: a token of this id is there already\n" in answer.err
    assert sorted(ids()) == ["t1", "t2"]
    told = call("push", "t.jsonl", "--json")
    assert [refused["id"] for refused in told.json["refused"]] == ["t1", "t2"]


# --- bad input changes nothing -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "error", "code"),
    [
        ("none.txt", None, "there is no file none.txt", 4),
        ("empty.txt", b"", "empty.txt holds no token", 2),
        ("remarks.txt", b"# only\n\n", "remarks.txt holds no token", 2),
        ("binary.txt", b"\x89PNG\xff\xfe", "is not text in UTF-8", 2),
        ("nul.txt", b"echo a\0b\n", "nul.txt:1: a command cannot hold a NUL", 2),
        ("long.txt", b"echo ok\n" + b"x" * 10_000_000 + b"\n", "long.txt:2: a token of 10.0 MB is too large", 2),
        ("bad.json", b'[{"input": "a"},]', "bad.json:1: not JSON", 2),
        ("bad.yaml", b"- input: [a\n- b\n", "bad.yaml:", 2),
        ("bad.csv", b'input,tags\n"a,b\n', "bad.csv:", 2),
        ("short.csv", b"input,name\na,b\nc\n", "short.csv:3: 2 columns were expected", 2),
        ("number.csv", b"input,priority\na,1\nb,high\n", "number.csv: token 2: priority 'high' is not a number", 2),
        ("list.jsonl", b'{"input": "a"}\n[1]\n', "list.jsonl:2: a token is an object or a command", 2),
        ("id.jsonl", b'{"input": "a"}\n{"_id": "_x"}\n', "id.jsonl: token 2: '_x' cannot be the id", 2),
        ("command.jsonl", b'{"command": []}\n', "command.jsonl: token 1: a command is a text or a list", 2),
        ("timeout.jsonl", b'{"input": "a", "timeout": -1}\n', "timeout.jsonl: token 1: timeout -1 is not above 0", 2),
        (
            "cpus.jsonl",
            b'{"input": "a"}\n{"input": "b", "resources": {"cpu_cores": 0}}\n',
            "cpus.jsonl: token 2: resources.cpu",
            2,
        ),
        ("names.jsonl", b'{"resources": {"cores": 1}}\n', "names.jsonl: token 1: there is no resource 'cores'", 2),
        (
            "nan.jsonl",
            b'{"resources": {"ram_gb": NaN}}\n',
            "nan.jsonl: token 1: resources.ram_gb nan is not a number",
            2,
        ),
        ("retries.jsonl", b'{"max_retries": 1000000000}\n', "max_retries 1000000000 is above 1,000", 2),
        ("delay.csv", b"input,retry_delay\na,90d\n", "delay.csv: token 1: retry_delay 7776000 is above", 2),
        ("delay2.csv", b"input,retry_delay\na,soon\n", "delay2.csv: token 1: retry_delay: 'soon' is not a duration", 2),
        ("backoff.csv", b"input,retry_backoff\na,0.5\n", "retry_backoff 0.5 is below 1", 2),
        ("when.csv", b"input,not_before\na,2030-01-31T08:00\n", "not_before: '2030-01-31T08:00' is not a time", 2),
        ("when2.csv", b"input,not_before\na,noon\n", "'noon' is neither a time nor a duration", 2),
        ("when.jsonl", b'{"not_before": true}\n', "not_before True is not a number", 2),
        (
            "who.jsonl",
            b'{"_id": "a"}\n{"_id": "b", "depends_on": [1]}\n',
            "token 2: depends_on [1] is no list of texts",
            2,
        ),
        ("self.jsonl", b'{"_id": "a", "depends_on": ["a"]}\n', "token a depends on itself", 2),
        (
            "nobody.jsonl",
            b'{"_id": "a"}\n{"_id": "b", "depends_on": ["c"]}\n',
            "token b depends on c, which is neither",
            2,
        ),
        (
            "circle.jsonl",
            b'{"_id":"a","depends_on":["b"]}\n{"_id":"b","depends_on":["a"]}\n',
            "wait for one another: a",
            2,
        ),
        ("ckpt.jsonl", b'{"checkpoint": ["/etc/*"]}\n', "checkpoint '/etc/*' leaves the working folder", 2),
        ("switch.csv", b"input,accept_failure\na,maybe\n", "accept_failure: 'maybe' is neither true nor false", 2),
        ("paused.jsonl", b'{"paused": 1}\n', "paused 1 is neither true nor false", 2),
        ("batch.jsonl", b'{"batch": "a\\nb"}\n', "holds a control character", 2),
        ("tags.jsonl", b'{"tags": ["a"]}\n', "tags ['a'] is no object", 2),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_whole(name, content, error, code):
    if content is not None:
        Path(name).write_bytes(content)
    answer = call("push", name)
    assert error in answer.error
    assert answer.code == code
    assert states() == {}


def test_a_fault_in_line_7000_pushes_nothing():
    lines = [json.dumps({"input": f"echo {n}"}) for n in range(1, 8001)]
    lines[6999] = '{"input": "echo'
    Path("many.jsonl").write_text("\n".join(lines))
    answer = call("push", "many.jsonl")
    assert "many.jsonl:7000: not JSON" in answer.error
    assert states() == {}
    # The same from a pipe, which cannot be read twice.
    assert "standard input:7000: not JSON" in call("push", "-", "--format", "jsonl", stdin="\n".join(lines)).error
    assert states() == {}


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        ([], "0 files were named", "tokenpool push FILE"),
        (["a", "b"], "2 files were named", "tokenpool push -- a b"),
        (["a", "--", "b"], "a file and a command", "tokenpool push"),
        (["--"], "no command behind --", "tokenpool push"),
        (["echo $HOME; pwd"], "there is no file echo $HOME; pwd", "tokenpool push -- 'echo $HOME; pwd'"),
        (["."], ". is a folder", "name a file"),
        (["--id", "x", "-"], "--id names one token", "_id field"),
        (["--timeout", "0", "--", "true"], "timeout 0", "seconds"),
        (["--cpu-cores", "0", "--", "true"], "resources.cpu_cores 0 is not above 0", "a list to go through"),
        (["--cpu-cores", "2,x", "--", "true"], "'2,x' is not a number", "1,2,4"),
        (["--gpus", "-1", "--", "true"], "resources.gpus -1 is below 0", "a number"),
        (["--ram-gb", "1e9", "--", "true"], "resources.ram_gb 1000000000 is above", "a number"),
        (["--disk-gb", "nan", "--", "true"], "resources.disk_gb nan is not a number", "a number"),
        (["--max-retries", "1000000000", "--", "true"], "max_retries 1000000000 is above 1,000", "up to 1000"),
        (["--retry-delay", "31d", "--", "true"], "retry_delay 2678400 is above", "30 days"),
        (["--retry-backoff", "0", "--", "true"], "retry_backoff 0 is below 1", "2 doubles it"),
        (["--priority", "nan", "--", "true"], "priority nan is not a number", "higher goes first"),
        (["--not-before", "tomorrow", "--", "true"], "neither a time nor a duration", "10m"),
        (["--not-before", "2030-01-31T08:00", "--", "true"], "'2030-01-31T08:00' is not a time", "zone"),
        (["--checkpoint", "../x", "--", "true"], "checkpoint '../x' leaves", "without .."),
        (["--after", "nobody", "--", "true"], "depends on nobody, which is neither", "parents are pushed first"),
        (["--after", "me", "--id", "me", "--", "true"], "token me depends on itself", "before it"),
        (["--batch", " ", "--", "true"], "name of a batch is empty", "give it a name"),
    ],
)
def test_calls_that_make_no_sense_change_nothing(words, error, hint):
    answer = call("push", *words, stdin="a\nb\n")
    assert error in answer.error
    assert hint in answer.err
    assert answer.code in (2, 4)
    assert states() == {}


# --- large ---------------------------------------------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_file():
    """Peak memory in KiB of a process that reads 5 000 lines and of one that reads 100 000."""
    code = (
        "import resource, sys; from tokenpool.cli import main; code = main(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    peaks = []
    for count in (5_000, 100_000):
        Path("many.txt").write_text("".join(f"echo {n}\n" for n in range(count)))
        words = [command()[0], "-c", code, "push", "many.txt", "--dry-run"]
        done = subprocess.run(words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 2_000, peaks


def test_a_log_gets_lines_now_and_then(monkeypatch):
    monkeypatch.setattr("tokenpool.cli.progress.LOG_EVERY", 0.01)
    answer = ok("push", "-", stdin="".join(f"echo {n}\n" for n in range(3000)))
    assert "pushing: " in answer.err
    assert " of 3000" in answer.err
    assert "\x1b" not in answer.err


def test_it_works_as_a_program():
    Path("jobs.txt").write_text("echo one\n")
    done = spawn(["push", "jobs.txt"])
    assert (done.returncode, done.stderr) == (0, "pushed 1 token\n")
    assert done.stdout.strip() in ids()
