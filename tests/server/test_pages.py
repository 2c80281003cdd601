"""The pages as a browser without JavaScript sees them: what they show, what their forms do, and what they refuse."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import until
from waiting_tokens import finish

from tokenpool.cli import main
from tokenpool.errors import ServerAway
from tokenpool.pool import Pool
from tokenpool.web import deeds
from tokenpool.web.pages import logs

Clients = Callable[[str], Any]

PAGE = {"Accept": "text/html"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
TOOL = """
cwlVersion: v1.2
class: CommandLineTool
label: Count words
baseCommand: wc
inputs:
  text: {type: File, label: Where the words are, inputBinding: {position: 1}}
  message: {type: string, default: hello}
  number: int
  mode: {type: {type: enum, symbols: [fast, slow]}}
  more: string[]?
outputs: []
"""


def shown(client: Any, path: str, status: int = 200) -> str:
    """Return a page."""
    answer = client.get(path, headers=PAGE)
    assert answer.status_code == status, (path, answer.status_code, answer.text[:1000])
    assert "Traceback" not in answer.text
    return str(answer.text)


def sent(client: Any, path: str, data: dict[str, Any], files: dict[str, Any] | None = None) -> Any:
    """Send a form as a page of ours has it."""
    proof = re.search(r'name="csrf-token" content="([^"]*)"', shown(client, "/submit"))
    assert proof
    return client.post(path, data={"csrf_token": proof.group(1), **data}, files=files, headers=PAGE)


def done(client: Any, answer: Any) -> str:
    """Return the page to which a form led, when the change that it began is over."""
    assert answer.status_code == 303, answer.text[:2000]
    place = answer.headers["Location"]
    until(lambda: "at work" not in shown(client, place))
    return shown(client, place)


def words(text: str) -> str:
    """Return what people read of a page."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_the_overview_counts_and_draws(client: Any, pool: Pool) -> None:
    # Given tokens of which one is done and one has failed
    pool.push([{"_id": "good"}, {"_id": "bad"}, {"_id": "rest"}], batch="night")
    finish(pool.backend, "good")
    finish(pool.backend, "bad", exit_code=1)

    # When somebody looks
    text = shown(client, "/")

    # Then it is counted, by state and batch, and charts are there
    assert re.search(r'data-count="done">1<', text)
    assert re.search(r'data-count="error">1<', text)
    assert "night" in words(text)
    assert text.count("<svg") >= 3


def test_the_list_filters_and_leads_to_each_token(client: Any, pool: Pool) -> None:
    # Given tokens of two batches
    pool.push([{"_id": f"t{i}", "batch": "ab"[i % 2], "tags": {"n": str(i)}, "name": f"sample {i}"} for i in range(10)])
    pool.push({"_id": "with/slash ?&%", "name": "odd"})

    # Then each filter shows what it should
    for query, names in (
        ("batch=a", {0, 2, 4, 6, 8}),
        ("tag=n=3", {3}),
        ("text=SAMPLE+7", {7}),
        ("state=done", set()),
        ("batch=-", set()),
        ("sort=name&back=1&limit=25", set(range(10))),
    ):
        text = shown(client, f"/tokens?{query}")
        assert {int(each) for each in re.findall(r">sample (\d)<", text)} == names, query

    # And a token whose id has odd letters has a page
    place = re.search(r'href="(/tokens/with[^"]+)"', shown(client, "/tokens"))
    assert place
    assert "odd" in shown(client, html.unescape(place.group(1)))

    # And an id that is looked for leads to its token
    assert client.get("/tokens?text=t3", headers=PAGE).headers["Location"].endswith("/tokens/t3")


def test_pages_of_a_list_follow_one_another(client: Any, pool: Pool) -> None:
    # Given more tokens than a page shows
    pool.push([{"_id": f"t{i:02d}", "name": f"sample {i}"} for i in range(60)])

    # When one goes on as far as it goes
    seen: list[str] = []
    path = "/tokens?limit=25"
    for _ in range(9):
        text = shown(client, path)
        seen += re.findall(r">(sample \d+)<", text)
        following = re.search(r'href="(\?[^"]+)" rel="next"', text)
        if not following:
            break
        path = "/tokens" + html.unescape(following.group(1))

    # Then each was there once
    assert sorted(seen) == sorted(f"sample {i}" for i in range(60))


def test_a_token_says_what_it_runs_why_and_how_it_went(client: Any, pool: Pool) -> None:
    # Given one that failed, with an input at a URL and a log
    pool.push({"_id": "t1", "input": "wc -l", "batch": "night", "inputs": [{"url": "https://host/a?b=1&c=2"}]})
    token = pool.claim()[0]
    token.put_attachment("logs_t1.out", "the last line")
    pool.close(token, exit_code=7)

    # Then its page tells all that
    text = shown(client, "/tokens/t1")
    told = words(text)
    assert "wc -l" in told
    assert "exit code 7" in told
    assert 'href="https://host/a?b=1&amp;c=2"' in text
    assert "the last line" in shown(client, "/tokens/t1/tail?name=logs_t1.out")
    assert client.get("/tokens/t1/files/logs_t1.out").text == "the last line"


def test_a_token_that_waits_says_why(client: Any, pool: Pool) -> None:
    # Given a token without any worker, one that waits for it, and one of a paused batch
    pool.push([{"_id": "parent"}, {"_id": "child", "depends_on": ["parent"]}, {"_id": "still", "batch": "b"}])
    pool.set_batch("b", paused=True)

    # Then each page names its reason
    assert "no live worker" in words(shown(client, "/tokens/parent"))
    assert "it depends on parent" in words(shown(client, "/tokens/child"))
    assert "paused" in words(shown(client, "/tokens/still"))


def test_a_batch_says_how_long_its_tokens_take(client: Any, pool: Pool) -> None:
    # Given done tokens that took 10 s to 50 s
    times = {"start_time": "2026-05-01T00:00:00Z", "hostname": "n1", "exit_code": 0}
    for seconds in (10, 30, 50):
        entry = {**times, "end_time": f"2026-05-01T00:00:{seconds}Z"}
        doc = {"_id": f"t{seconds}", "type": "token", "lock": 100, "done": 200, "exit_code": 0, "batch": "night"}
        pool.backend.put_many([{**doc, "attempts": [entry]}])

    # Then average, least and most are there, and how far it is
    told = words(shown(client, "/batches"))
    assert "30 s [10 s – 50 s]" in told
    assert "100 % of 3" in told


# --- what forms do -----------------------------------------------------------------------------------------------------


def test_verbs_of_a_token(client: Any, pool: Pool) -> None:
    # Given a failed token
    pool.push({"_id": "t1", "batch": "b"})
    finish(pool.backend, "t1", exit_code=1)

    # When it is retried, paused, resumed, cancelled, deleted
    for verb, state in (("retry", "todo"), ("pause", "held"), ("resume", "todo"), ("cancel", "error")):
        answer = sent(client, "/tokens/t1/change", {"verb": verb})
        assert answer.status_code == 303, answer.text
        assert pool.get("t1").state == state
    assert pool.get("t1").doc["cancel"]["by"] == "local"
    sent(client, "/tokens/t1/change", {"verb": "rm"})

    # Then it is gone, and its page says so
    assert "there is no token" in words(shown(client, "/tokens/t1", 404))


def test_editing_a_token(client: Any, pool: Pool) -> None:
    # Given a token, and the form with its fields
    pool.push({"_id": "t1", "input": "echo old", "priority": 3, "tags": {"a": "1", "b": "2"}})
    text = shown(client, "/tokens/t1/edit")
    fields = json.loads(html.unescape(text.partition("<textarea")[2].partition(">")[2].partition("</textarea>")[0]))
    rev = pool.get("t1").rev
    assert "lock" not in fields

    # When some are changed and one is taken out
    fields.update(input="echo new", tags={"a": "1", "c": "3"})
    del fields["priority"]
    answer = sent(client, "/tokens/t1/edit", {"text": json.dumps(fields), "rev": rev})

    # Then exactly that is written
    assert answer.status_code == 303, answer.text
    doc = pool.get("t1").doc
    assert (doc["input"], doc["tags"], doc.get("priority")) == ("echo new", {"a": "1", "c": "3"}, None)

    # And what makes no sense, or is out of date, comes back with the reason, and writes nothing
    for wrong, word in (
        ('{"input": ', "not JSON"),
        ('{"input": "x", "lock": 5}', "not to be edited"),
        ("[]", "one object"),
    ):
        answer = sent(client, "/tokens/t1/edit", {"text": wrong, "rev": doc["_rev"]})
        assert answer.status_code == 400
        assert word in words(answer.text)
    assert "changed by somebody else" in words(sent(client, "/tokens/t1/edit", {"text": "{}", "rev": rev}).text)
    assert pool.get("t1").doc == doc


def test_many_at_once_after_a_preview_of_how_many(client: Any, pool: Pool) -> None:
    # Given twenty tokens of which half have failed
    pool.push([{"_id": f"t{i}", "batch": "ab"[i % 2], "tags": {"n": str(i % 3)}} for i in range(20)])
    finish(pool.backend, *(f"t{i}" for i in range(10)), exit_code=1)

    # When all failed ones of a batch are to be retried
    wanted = {"verb": "retry", "all": "1", "batch": "a"}
    preview = words(sent(client, "/tokens/preview", wanted).text)

    # Then the preview counts them, and nothing has changed
    assert "Retry 5 tokens?" in preview
    assert "10 tokens were chosen" in preview
    assert pool.counts()["error"] == 10

    # And then they are retried, and no others
    assert "5 tokens were put back" in words(done(client, sent(client, "/tokens/change", wanted)))
    assert pool.counts()["error"] == 5

    # And ids that were ticked, and tokens of a tag, are chosen in the same way
    ticked = {"verb": "cancel", "ids": ["t11", "t13", "nobody"]}
    assert "Cancel 2 tokens?" in words(sent(client, "/tokens/preview", ticked).text)
    assert "2 tokens were cancelled" in words(done(client, sent(client, "/tokens/change", ticked)))
    tagged = {"verb": "rm", "all": "1", "tag": "n=1", "state": "error"}
    count = re.search(r"Delete (\d+) tokens\?", words(sent(client, "/tokens/preview", tagged).text))
    assert count
    assert f"{count.group(1)} tokens were deleted" in words(done(client, sent(client, "/tokens/change", tagged)))


def test_many_are_edited_at_once(client: Any, pool: Pool) -> None:
    # Given ten tokens, of which one runs
    pool.push([{"_id": f"t{i}", "priority": 1, "timeout": 60} for i in range(10)], batch="a")
    running = pool.claim(1)[0]

    # When all of the batch get another priority, and no timeout
    wanted = {"verb": "edit", "all": "1", "batch": "a"}
    assert "Edit 9 tokens?" in words(sent(client, "/tokens/preview", wanted).text)
    edited = {**wanted, "patch": '{"priority": 7, "timeout": null}'}
    assert "9 tokens were edited" in words(done(client, sent(client, "/tokens/change", edited)))

    # Then those that wait have it
    docs = [token.doc for token in pool.tokens() if token.id != running.id]
    assert {(doc["priority"], doc.get("timeout")) for doc in docs} == {(7, None)}

    # And what makes no sense is refused before anything is written
    for wrong in ('{"lock": 1}', "[]", "{}", "{", '{"_id": "x"}'):
        assert sent(client, "/tokens/change", {**wanted, "patch": wrong}).status_code == 400, wrong
    told = done(client, sent(client, "/tokens/change", {**wanted, "patch": '{"priority": "high"}'}))
    assert "it failed" in words(told)
    assert {token.doc["priority"] for token in pool.tokens() if token.id != running.id} == {7}


def test_many_at_once_of_a_text_are_cut_where_they_are_too_many(
    client: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given more tokens of a text than are looked for
    monkeypatch.setattr(deeds, "FOUND", 10)
    pool.push([{"_id": f"t{i:02d}", "name": "sample"} for i in range(30)])
    wanted = {"verb": "cancel", "all": "1", "text": "sample"}

    # Then the preview says that it is cut, and so many are changed
    assert "or more" in words(sent(client, "/tokens/preview", wanted).text)
    assert "10 tokens were cancelled" in words(done(client, sent(client, "/tokens/change", wanted)))


def test_batches_are_steered(client: Any, pool: Pool) -> None:
    # Given a batch
    pool.push("echo 1", batch="a/b c")

    # When it is paused, prioritised and limited
    assert sent(client, "/batches", {"batch": "a/b c", "order": "pause"}).status_code == 303
    assert (
        sent(client, "/batches", {"batch": "a/b c", "order": "set", "priority": "7", "max_running": "3"}).status_code
        == 303
    )

    # Then its rule says so, and the page too
    rule = pool.batch("a/b c")
    assert (rule.paused, rule.priority, rule.max_running) == (True, 7, 3)
    assert "paused priority 7 at most 3" in words(shown(client, "/batches"))

    # And an empty limit is none; nonsense is refused with the reason
    sent(client, "/batches", {"batch": "a/b c", "order": "set", "priority": "0", "max_running": ""})
    assert pool.batch("a/b c").max_running is None
    for wrong in (
        {"max_running": "0"},
        {"max_running": "x"},
        {"priority": "soon"},
        {"order": "eat"},
        {"batch": "nobody"},
    ):
        answer = sent(client, "/batches", {"batch": "a/b c", "order": "set", **wrong})
        assert answer.status_code in (400, 404), wrong
    assert pool.batch("a/b c").priority == 0


def test_workers_are_steered(client: Any, pool: Pool) -> None:
    # Given a worker's document
    told = {"type": "worker", "hostname": "node7", "slots": 2, "lease": 120.0, "load": 1.5, "running": []}
    free = {"ram_gb": 3.5, "ram_total_gb": 8.0, "disk_gb": 20.0, "disk_total_gb": 100.0}
    pool.backend.put_many([{"_id": "worker_abc", "renewed": pool.backend.now(), "free": free, **told}])
    assert "node7" in words(shown(client, "/workers"))

    # When it gets slots, is drained, may go on, is stopped
    for order, name, value in (
        ("slots", "slots", 5),
        ("drain", "drain", True),
        ("go", "drain", False),
        ("stop", "stop", True),
    ):
        answer = sent(client, "/workers", {"worker": "worker_abc", "order": order, "slots": "5"})
        assert answer.status_code == 303, answer.text
        assert pool.backend.get("worker_abc")[name] == value
        assert "node7" in words(shown(client, answer.headers["Location"]))

    # And nonsense is refused
    for wrong in (
        {"slots": "0"},
        {"slots": "many"},
        {"slots": ""},
        {"prefetch": "-1"},
        {"prefetch": "some"},
        {"order": "dance"},
        {"worker": "t1"},
        {"worker": "worker_nobody"},
    ):
        answer = sent(client, "/workers", {"worker": "worker_abc", "order": "slots", "slots": "2", **wrong})
        assert answer.status_code in (400, 404), wrong
    assert pool.backend.get("worker_abc")["slots"] == 5


def test_a_worker_is_told_how_many_tokens_to_claim_ahead(client: Any, pool: Pool) -> None:
    # Given a worker that says nothing of it
    told = {"type": "worker", "hostname": "node7", "slots": 2, "lease": 120.0, "running": []}
    pool.backend.put_many([{"_id": "worker_abc", "renewed": pool.backend.now(), **told}])
    assert 'name="prefetch" min="0" max="100000" value="0"' in shown(client, "/workers")

    # When it is given a number
    form = {"worker": "worker_abc", "order": "slots", "slots": "2", "prefetch": "3"}
    answer = sent(client, "/workers", form)

    # Then its document has it, and the page tells
    assert answer.status_code == 303, answer.text
    doc = pool.backend.get("worker_abc")
    assert (doc["slots"], doc["prefetch"]) == (2, 3)
    page = shown(client, answer.headers["Location"])
    assert "node7 gets 2 slots, and claims 3 more ahead, as soon as it looks." in words(page)
    assert 'name="prefetch" min="0" max="100000" value="3"' in page

    # And a form that does not speak of it leaves it as it is
    assert sent(client, "/workers", {**form, "slots": "4", "prefetch": ""}).status_code == 303
    doc = pool.backend.get("worker_abc")
    assert (doc["slots"], doc["prefetch"]) == (4, 3)


# --- submitting ----------------------------------------------------------------------------------------------------------


def drafted(client: Any, data: dict[str, Any], files: dict[str, Any] | None = None) -> tuple[dict[str, Any], str, str]:
    """Fill in the form; return the token as JSON, the command line, and the draft."""
    answer = sent(client, "/submit/preview", data, files)
    assert answer.status_code == 200, words(answer.text)
    found = [re.search(pattern, answer.text, re.DOTALL) for pattern in (r'id="as-json"[^>]*>(.*?)</pre>', r'id="as-command"[^>]*>(.*?)</pre>', r'name="draft" value="([^"]+)"')]  # fmt: skip
    assert all(found), words(answer.text)
    token, line, draft = (html.unescape(each.group(1)) for each in found if each)
    return json.loads(token), line, draft


def test_a_command_is_shown_then_sent(client: Any, pool: Pool) -> None:
    # Given a filled form
    form = {"kind": "command", "command": "echo 'hi' > $OUTPUT/x", "batch": "b", "timeout": "2m", "tags": "a=1\nb=2", "cpu_cores": "2", "inputs": "x.txt=https://host/x"}  # fmt: skip
    token, line, draft = drafted(client, form)

    # Then the token is shown, with the line that does the same, and nothing is sent yet
    assert token["input"] == "echo 'hi' > $OUTPUT/x"
    assert (token["timeout"], token["tags"], token["resources"]) == (120, {"a": "1", "b": "2"}, {"cpu_cores": 2})
    assert line.startswith("tokenpool push --pool ")
    assert "--timeout 120s --tag a=1 --tag b=2 --cpu-cores 2 --input x.txt=https://host/x -- " in line
    assert pool.counts()["todo"] == 0

    # When it is sent, it is in the pool, and its page is shown; a second time it is not sent
    answer = sent(client, "/submit", {"draft": draft})
    assert answer.status_code == 303
    assert "It is in the pool" in words(shown(client, answer.headers["Location"]))
    assert sent(client, "/submit", {"draft": draft}).status_code == 404
    assert pool.counts()["todo"] == 1


def test_the_command_line_does_the_same(
    client: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given the command lines of three forms
    forms: list[dict[str, Any]] = [
        {"kind": "command", "command": 'echo "it\'s" $HOME', "batch": "b b", "priority": "2.5", "env": "A=x y"},
        {"kind": "container", "image": "alpine:3", "command": "wc -l < in", "ram_gb": "1.5", "max_retries": "2"},
        {"kind": "container", "image": "alpine:3", "outputs": "out/*=s3://bucket/x/", "description": "d"},
    ]
    for form in forms:
        token, line, _ = drafted(client, form)

        # When each is run with --dry-run, as a shell would
        argv = shlex.split(line.rpartition("| ")[2])[1:]
        Path("told").write_text("{}\n")
        with Path("told").open() as told, monkeypatch.context() as patched:
            patched.setattr("sys.stdin", told)
            code = main([argv[0], "--dry-run", *argv[1:]])

        # Then it would push what the form shows
        assert not code
        printed = json.loads(capsys.readouterr().out.splitlines()[0])
        assert {name: printed.get(name) for name in token} == token, line


def test_a_file_of_lines_becomes_tokens(client: Any, pool: Pool) -> None:
    # Given a file with a thousand lines, an empty one and a remark
    data = "# what to do\n\n" + "".join(f"echo {i}\n" for i in range(1000))
    files = {"file": ("jobs.txt", io.BytesIO(data.encode()), "text/plain")}
    token, line, draft = drafted(client, {"kind": "lines", "batch": "many"}, files)

    # Then the first is shown, and all are sent
    assert token == {"batch": "many", "input": "echo 0"}
    assert line.endswith("jobs.txt")
    assert sent(client, "/submit", {"draft": draft}).status_code == 303
    assert pool.counts("many")["todo"] == 1000


def test_who_sends_many_is_told_how_many_once(client: Any) -> None:
    # When three lines are sent
    page = sent(client, "/submit/preview", {"kind": "lines", "lines": "echo 1\necho 2\necho 3", "batch": "night"}).text
    draft = re.search(r'name="draft" value="([^"]+)"', page)
    assert draft
    answer = sent(client, "/submit", {"draft": draft.group(1)})

    # Then the list that follows says so, and its links do not say it again
    listed = shown(client, answer.headers["Location"])
    assert "3 tokens are in the pool." in words(listed)
    assert "pushed=" not in listed


def test_a_workflow_has_a_form_of_its_own(client: Any, pool: Pool) -> None:
    # Given a CWL file, whose inputs are read
    files = {"cwl_file": ("wc.cwl", io.BytesIO(TOOL.encode()), "text/plain")}
    text = sent(client, "/submit/preview", {"kind": "workflow", "step": "read"}, files).text

    # Then there is a field of the right kind for each
    assert "Count words" in words(text)
    assert re.search(r'<label for="f-in-1">Where the words are', text)
    assert re.search(r'<input[^>]*type="number" step="1" name="in:number"[^>]*required', text)
    assert re.search(r'<select[^>]*name="in:mode"><option>fast</option><option>slow</option>', text)
    assert re.search(r'name="in:message" value="hello"', text)

    # When they are filled in, with a file from here
    form = {"kind": "workflow", "cwl": TOOL, "cwl_name": "wc.cwl", "in:message": "hi", "in:number": "3", "in:mode": "slow", "in:more": "a\nb", "in:text": ""}  # fmt: skip
    token, line, draft = drafted(client, form, {"in:text": ("words.txt", io.BytesIO(b"one two"), "text/plain")})

    # Then the token has them as parameters, and the files with it
    location = "input/text/words.txt"
    assert token["params"] == {"text": {"class": "File", "location": location}, "message": "hi", "number": 3, "mode": "slow", "more": ["a", "b"]}  # fmt: skip
    assert set(token["_attachments"]) == {"workflow.zip", location}
    assert "--cwl wc.cwl" in line
    assert sent(client, "/submit", {"draft": draft}).status_code == 303
    (pushed,) = pool.tokens("state:todo")
    assert pool.attachment(pushed.id, location) == b"one two"


@pytest.mark.parametrize(
    ("cwl", "word"),
    [
        ("cwlVersion: v1.2\nclass: [oops\n", "broken.cwl:3:1"),
        ("class: Nonsense\ninputs: {}", "its class is 'Nonsense'"),
        ("just a text", "is no CWL"),
        ("class: CommandLineTool", "names no inputs"),
        ("class: CommandLineTool\ninputs: 7", "inputs of broken.cwl make no sense"),
        ("$graph: [{id: a, class: Workflow}]", "none is called main"),
        ("\x00\x01", "broken.cwl"),
        ("a: &x [*x]", ""),
        ("[" * 3000, "broken.cwl"),
    ],
)
def test_a_broken_workflow_is_told_on_the_page(client: Any, cwl: str, word: str) -> None:
    # When a file that is no workflow is given
    files = {"cwl_file": ("broken.cwl", io.BytesIO(cwl.encode()), "text/plain")}
    answer = sent(client, "/submit/preview", {"kind": "workflow", "step": "read"}, files)

    # Then the form says what is wrong with it
    assert answer.status_code == 400
    assert 'id="problem"' in answer.text
    assert word in words(answer.text)


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "../../etc/passwd",
        "ssh://host/x.git",
        "a/../../b",
        "x.cwl",
        "a/..",
        "-u/x y",
    ],
)
def test_a_workflow_is_never_looked_for_on_the_server(client: Any, source: str, tmp_path: Path) -> None:
    # Given a file of that name in the folder of the server
    Path("x.cwl").write_text(TOOL)

    # Then it is refused
    answer = sent(client, "/submit/preview", {"kind": "workflow", "source": source})
    assert answer.status_code == 400
    assert "no address of a workflow" in words(answer.text)


def test_a_workflow_at_an_address_is_fetched_by_the_worker(client: Any) -> None:
    # Given an address and parameters
    form = {"kind": "workflow", "source": "ctb/salmon:v1/tools/index.cwl", "params": "message: hello\nn: 3"}
    token, line, _ = drafted(client, form)

    # Then the token names it
    assert token["workflow"] == {"repo": "https://github.com/ctb/salmon.git", "ref": "v1", "path": "tools/index.cwl"}
    assert token["params"] == {"message": "hello", "n": 3}
    assert "--cwl ctb/salmon:v1/tools/index.cwl" in line


@pytest.mark.parametrize(
    ("form", "word"),
    [
        ({"kind": "command"}, "there is no command"),
        ({"kind": "container", "command": "x"}, "no image"),
        ({"kind": "lines", "lines": "\n# none\n"}, "no command in these lines"),
        ({"kind": "workflow"}, "no workflow is named"),
        ({"kind": "dance"}, "no form for 'dance'"),
        ({"kind": "command", "command": "x", "timeout": "soon"}, "not a duration"),
        ({"kind": "command", "command": "x", "cpu_cores": "-1"}, "cpu_cores"),
        ({"kind": "command", "command": "x", "tags": "no sign"}, "none of the tags"),
        ({"kind": "command", "command": "x", "not_before": "tomorrow"}, "tomorrow"),
        ({"kind": "command", "command": "x", "inputs": "not a url"}, "not a url"),
        ({"kind": "command", "command": "x", "priority": "1e999"}, "priority"),
    ],
)
def test_a_form_that_makes_no_sense_comes_back_with_the_reason(client: Any, form: dict[str, str], word: str) -> None:
    answer = sent(client, "/submit/preview", form)
    assert answer.status_code == 400
    assert 'id="problem"' in answer.text
    assert word in words(answer.text)


# --- who may what --------------------------------------------------------------------------------------------------------


def test_who_only_looks_sees_no_button_that_changes(logged_in: Clients, sqlite_pool: Pool) -> None:
    # Given somebody who may look
    sqlite_pool.push({"_id": "t1", "batch": "b"})
    viewer = logged_in("viewer")

    # Then no page has a form that changes anything but the login
    for path in ("/", "/tokens", "/tokens/t1", "/workers", "/batches"):
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]+)"', shown(viewer, path))
        assert [each for each in forms if "logout" not in each and "preview" not in each] == [], path
    assert 'name="verb"' not in shown(viewer, "/tokens")
    assert "is a viewer" in words(shown(viewer, "/submit", 403))


def test_who_submits_changes_their_own_tokens_only(logged_in: Clients, sqlite_pool: Pool) -> None:
    # Given a token of somebody else and one of theirs, both failed
    sqlite_pool.push([{"_id": "mine", "submitter": "submitter"}, {"_id": "other", "submitter": "somebody"}])
    finish(sqlite_pool.backend, "mine", "other", exit_code=1)
    client = logged_in("submitter")
    proof = {"csrf_token": client.headers["X-CSRF-Token"]}

    # When all that failed are to be retried, only theirs is
    wanted = {**proof, "verb": "retry", "all": "1", "state": "error"}
    assert "Retry 1 token?" in words(client.post("/tokens/preview", data=wanted, headers=PAGE).text)
    assert "1 token was" in words(done(client, client.post("/tokens/change", data=wanted, headers=PAGE)))
    assert (sqlite_pool.get("mine").state, sqlite_pool.get("other").state) == ("todo", "error")

    # And edited in bulk, the other one is left alone
    both = {**proof, "verb": "edit", "ids": ["mine", "other"], "patch": '{"priority": 9}'}
    assert "1 token was edited" in words(done(client, client.post("/tokens/change", data=both, headers=PAGE)))
    assert (sqlite_pool.get("mine").doc.get("priority"), sqlite_pool.get("other").doc.get("priority")) == (9, None)

    # And the other one is refused by name, too; it is not edited either
    assert client.post("/tokens/other/change", data={**proof, "verb": "retry"}, headers=PAGE).status_code == 403
    assert client.get("/tokens/other/edit", headers=PAGE).status_code == 403
    assert "Retry" not in words(shown(client, "/tokens/other"))
    assert sqlite_pool.get("other").state == "error"


def test_only_tokens_are_changed_whatever_is_named(client: Any, pool: Pool) -> None:
    # Given documents that are no tokens
    pool.backend.put_many([{"_id": "worker_abc", "type": "worker", "slots": 2}])
    others = ["worker_abc", "_design/tokenpool"]
    before = pool.backend.get_many(others)

    # When somebody who may do everything names them
    for verb in ("rm", "reset"):
        done(client, sent(client, "/tokens/change", {"verb": verb, "ids": others}))
        sent(client, "/tokens/worker_abc/change", {"verb": verb})

    # Then they are as they were
    assert pool.backend.get_many(others) == before


# --- what goes wrong -----------------------------------------------------------------------------------------------------


def test_hostile_words_are_only_words(client: Any, pool: Pool) -> None:
    # Given a token with HTML in all that it says
    pool.push({"_id": "t1", "name": HOSTILE, "input": HOSTILE, "batch": HOSTILE[:50], "tags": {HOSTILE: HOSTILE}, "description": HOSTILE, "inputs": [{"url": "https://h/" + HOSTILE.replace(" ", "")}]})  # fmt: skip
    token = pool.claim()[0]
    token.put_attachment("logs_t1.out", HOSTILE, "text/html")
    token.put_attachment("page.html", HOSTILE, "text/html")
    token["error"] = [{"message": HOSTILE, "exception": HOSTILE}]
    pool.close(token, exit_code=HOSTILE, output={"x": HOSTILE})  # type: ignore[arg-type]

    # Then no page has it as anything but text
    for path in ("/", "/tokens", "/tokens/t1", "/tokens/t1/edit", "/batches", "/tokens/t1/tail?name=logs_t1.out", f"/tokens?text={HOSTILE}", f"/batches?find={HOSTILE}"):  # fmt: skip
        text = shown(client, path)
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path

    # And a file is saved, not shown, whatever it says of itself
    for query in ("", "?view=1"):
        answer = client.get(f"/tokens/t1/files/page.html{query}")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"].startswith("attachment")


def test_a_huge_log_is_cut_and_offered_whole(client: Any, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a log that is larger than what a page shows, and one that is too large to be read as far as its end
    monkeypatch.setattr(logs, "READ", 1 << 20)
    sizes = {"logs_t1.out": 300_000, "logs_t1.err": 3 << 20}
    pool.push({"_id": "t1"})
    token = pool.claim()[0]
    for name, size in sizes.items():
        token.put_attachment(name, b"begin" + b"x" * (size - 8) + b"end")
    pool.close(token)

    # Then the page has the end of both, or the beginning where the pool reads it from there only; all are short
    end = shown(client, "/tokens/t1/tail?name=logs_t1.out")
    assert "end</pre>" in end
    assert len(end) < 70_000
    part = shown(client, "/tokens/t1/tail?name=logs_t1.err")
    assert ("end</pre>" if pool.url.startswith("sqlite") else ">begin") in part
    assert len(part) < 70_000

    # And both can be had whole, or from where a download broke off
    for name, size in sizes.items():
        assert len(client.get(f"/tokens/t1/files/{name}").content) == size
        rest = client.get(f"/tokens/t1/files/{name}", headers={"Range": f"bytes={size - 70_000}-"})
        assert (rest.status_code, rest.content) == (206, b"x" * 69_997 + b"end")


def test_a_log_that_is_no_text_can_be_read(client: Any, pool: Pool) -> None:
    # Given a log with bytes that are no UTF-8, and letters that would not be seen
    pool.push({"_id": "t1"})
    token = pool.claim()[0]
    token.put_attachment("logs_t1.out", b"one\r\ntwo\xff\x00\x1b[31mred\rlast")
    pool.close(token)

    # Then each of them is seen as such
    assert "one\ntwo\ufffd\ufffd\ufffd[31mred\nlast" in shown(client, "/tokens/t1/tail?name=logs_t1.out")


def test_a_token_that_was_deleted_is_told_kindly(client: Any, pool: Pool) -> None:
    # Given a token that is gone
    pool.push({"_id": "t1"})
    pool.rm(["t1"])

    # Then all of its addresses say so
    for path in ("", "/edit", "/tail?name=logs_t1.out", "/files/logs_t1.out", "/live"):
        answer = client.get(f"/tokens/t1{path}", headers=PAGE)
        assert answer.status_code == 404, path
        assert "It is not here" in answer.text or "there is no" in words(answer.text)
    assert sent(client, "/tokens/t1/change", {"verb": "retry"}).status_code == 404


def test_a_pool_that_is_away_is_told_on_every_page(serve: Callable[..., Any], sqlite_pool: Pool) -> None:
    # Given a server whose pool can be taken away
    away = threading.Event()
    real = sqlite_pool.backend

    class Leaving:
        def __getattr__(self, name: str) -> Any:
            if away.is_set() and name not in ("url", "close", "now"):
                raise ServerAway("no answer from the pool")
            return getattr(real, name)

    sqlite_pool.push({"_id": "t1"})
    client = serve(Pool(Leaving()), every=0.05)  # type: ignore[arg-type]
    assert 'data-count="todo">1<' in shown(client, "/")

    # When it goes
    away.set()
    until(lambda: "The pool is away" in shown(client, "/"))

    # Then pages that can show what was known say so, and the others try again by themselves
    for path in ("/", "/workers", "/batches", "/submit"):
        assert "The pool is away" in shown(client, path)
    for path in ("/tokens", "/tokens/t1"):
        text = shown(client, path, 503)
        assert "The pool is away" in text
        assert 'http-equiv="refresh"' in text

    # And when it is back, so are they
    away.clear()
    until(lambda: "The pool is away" not in shown(client, "/"))
    assert "t1" in shown(client, "/tokens/t1")


def test_all_of_it_works_under_a_path(serve: Callable[..., Any], sqlite_pool: Pool) -> None:
    # Given a server behind a proxy, under a path
    sqlite_pool.push({"_id": "t1", "batch": "b"})
    client = serve(sqlite_pool, root_path="/the/pool")

    # Then every link and form of its pages stays below it
    for path in ("/", "/tokens", "/tokens/t1", "/workers", "/batches", "/submit"):
        text = shown(client, path)
        places = re.findall(r'(?:href|src|action|hx-get|hx-sse:connect)="(/[^"]*)"', text)
        assert places
        assert [each for each in places if not each.startswith("/the/pool/")] == [], path


def test_pages_run_no_script_of_their_own(client: Any, pool: Pool) -> None:
    # Given all pages
    pool.push({"_id": "t1", "batch": "b"})
    for path in ("/", "/tokens", "/tokens/t1", "/tokens/t1/edit", "/workers", "/batches", "/submit", "/submit?kind=workflow", "/nowhere"):  # fmt: skip
        text = client.get(path, headers=PAGE).text

        # Then scripts and styles are files of ours, and nothing else comes from elsewhere
        assert not re.search(r"<script(?![^>]*\ssrc=\"/static/)", text), path
        assert not re.search(r"\s(on\w+|style)=\"", text), path
        assert "<style" not in text
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path
