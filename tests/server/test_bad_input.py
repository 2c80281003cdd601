"""What is sent in bad faith: too large, endless, meaning more than it says, archives, broken; and faults of our own."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_parts import everything, serving

from tokenpool.pool import Pool, connect

Clients = Callable[[str], Any]

PAGE = {"Accept": "text/html"}


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(serve: Any, pool_with_tokens: Pool) -> None:
    client = serve(pool_with_tokens, upload_limit=1000)
    before = everything(pool_with_tokens)
    for path in ("login", "api/v1/tokens", "ga4gh/tes/v1/tasks"):
        answer = client.post(path, content=b"x" * 1001)
        assert answer.status_code == 413
    assert everything(pool_with_tokens) == before


def test_a_body_that_turns_out_too_large_is_refused(serve: Any, pool_with_tokens: Pool) -> None:
    # Given bodies that do not say how large they are
    client = serve(pool_with_tokens, upload_limit=1000)
    before = everything(pool_with_tokens)

    def pieces(start: bytes) -> Iterator[bytes]:
        yield start
        for _ in range(100):
            yield b" " * 100

    # When more comes than is allowed
    as_json = {"Content-Type": "application/json"}
    sent = [
        client.post("ga4gh/tes/v1/tasks", content=pieces(b"{"), headers=as_json),
        client.post("login", content=pieces(b"name="), headers={"Content-Type": "application/x-www-form-urlencoded"}),
    ]

    # Then it is refused, and nothing was changed
    assert [answer.status_code for answer in sent] == [413, 413]
    assert everything(pool_with_tokens) == before


@pytest.mark.parametrize("length", ["-1", "1e3", "12, 12", "²"])
def test_a_length_that_is_none_is_refused(serve: Any, sqlite_pool: Pool, length: str) -> None:
    answer = serve(sqlite_pool).post("ga4gh/tes/v1/tasks", headers={"Content-Length": length.encode()})
    assert answer.status_code in (400, 413)


def laughs(levels: int = 9) -> str:
    """Return YAML of a few lines that means 9 ** levels words."""
    lines = ["a0: &a0 [ha,ha,ha,ha,ha,ha,ha,ha,ha]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, ""])


CWL = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: [echo]\n"


@pytest.mark.parametrize(
    "form",
    [
        {"source": "user/repo", "params": laughs()},
        {"source": "user/repo", "params": "[" * 5000},
        {"source": "user/repo", "params": "a: &a [*a]"},
        {"cwl": f"{laughs()}{CWL}inputs: {{x: {{type: string, default: *a8}}}}\n"},
        {"cwl": f"{CWL}inputs: {'[' * 2000}{']' * 2000}\n"},
        {"source": "/etc/passwd"},
        {"source": "file:///etc/passwd"},
        {"source": "../../etc/passwd"},
    ],
    ids=["aliases", "depth", "circle", "aliases in CWL", "depth in CWL", "path", "file URL", "dots"],
)  # fmt: skip
def test_a_workflow_of_bad_faith_is_refused(logged_in: Clients, pool_with_tokens: Pool, form: dict[str, str]) -> None:
    # Given somebody who may submit
    browser, before = logged_in("submitter"), everything(pool_with_tokens)

    # When they give what would take all memory, or a file of the server
    answer = browser.post("submit/preview", data={"kind": "workflow", **form}, headers=PAGE)

    # Then the form says no, and holds nothing of this machine
    assert answer.status_code in (200, 400)
    assert len(answer.text) < 1_000_000
    assert "root:" not in answer.text
    assert (answer.status_code == 400) or 'name="draft"' not in answer.text
    assert everything(pool_with_tokens) == before


def test_a_zip_bomb_stays_as_small_as_it_came(logged_in: Clients, sqlite_pool: Pool) -> None:
    # Given an archive of a few kilobytes that would be a hundred megabytes, as workflow and as a workflow's input
    browser, archive = logged_in("submitter"), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as inside:
        inside.writestr("a", b"\0" * 100_000_000)
    bomb = ("bomb.zip", archive.getvalue(), "application/zip")

    # When it is sent
    as_workflow = browser.post("submit/preview", data={"kind": "workflow"}, files={"cwl_file": bomb}, headers=PAGE)
    form = {"kind": "workflow", "cwl": f"{CWL}inputs: {{x: File}}\noutputs: {{}}\n"}
    as_input = browser.post("submit/preview", data=form, files={"in:x": bomb}, headers=PAGE)

    # Then it is refused, or goes along as it is: nothing unpacks it here
    assert as_workflow.status_code == 400
    assert as_input.status_code in (200, 400)
    assert max(len(as_workflow.text), len(as_input.text)) < 1_000_000


def test_each_refusal_says_what_to_do(serve: Any, sqlite_pool: Pool) -> None:
    # Given what people mistype: a path, a method, and a body whose type curl makes up
    client = serve(sqlite_pool)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answers = [
        client.get("api/v1/nothing"),
        client.delete("api/v1/status"),
        client.post("api/v1/tokens", content=b'{"input": "true"}', headers=form),
    ]

    # Then each answer has a second line that helps
    told = [answer.json()["error"] for answer in answers]
    assert [answer.status_code for answer in answers] == [404, 405, 403]
    assert all(each["message"] and each["hint"] for each in told)
    assert "Content-Type: application/json" in told[2]["hint"]
    assert not list(sqlite_pool.tokens())


#: Bytes of a log, and what SQLite keeps of a file at most for a thread that reads it.
SIZE, CACHE = 128 << 20, 64 << 20
LOG = "tokens/t1/files/logs_t1.out"


def peak(pid: int) -> int:
    """Return the bytes of memory that a process has had at most."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found.group(1)) * 1024


def summed(pieces: Iterator[bytes]) -> str:
    """Return the checksum of what comes in pieces."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def test_a_huge_log_is_never_whole_in_memory(sqlite_url: str) -> None:
    # Given a token with a log of 128 MB, in a pool that a real server serves
    log = b"".join(b"%015d\n" % number for number in range(SIZE // 16))
    with connect(sqlite_url, create=True) as pool:
        pool.push([{"_id": "t1"}])
        pool.close(pool.claim()[0])
        rev = pool.get("t1").doc["_rev"]
        pool.backend.put_attachment("t1", rev, "logs_t1.out", io.BytesIO(log), SIZE, "text/plain")
    with serving(sqlite_url) as server, server.client() as client, server.client() as sleeper:
        assert client.get("tokens/t1").status_code == 200
        before = peak(server.process.pid)

        # When somebody follows it and then reads nothing of what comes
        with sleeper.stream("GET", "api/v1/tokens/t1/follow") as unread:
            assert unread.status_code == 200
            # And others see its end and a part of it, read all of it, and follow it
            end = client.get("tokens/t1/tail?name=logs_t1.out").text
            sums = []
            for path in (LOG, "api/v1/tokens/t1/logs/out"):
                part = client.get(path, headers={"Range": f"bytes={SIZE - 32}-{SIZE - 17}"})
                assert (part.status_code, part.content) == (206, log[-32:-16])
                with client.stream("GET", path) as whole:
                    sums.append(summed(whole.iter_bytes()))
            with client.stream("GET", "api/v1/tokens/t1/follow") as followed:
                told = (json.loads(line[6:]) for line in followed.iter_lines() if line.startswith("data: "))
                sums.append(summed(each.get("text", "").encode() for each in told))

        # Then its page has its end, all came as it is, and the server never had all of it in memory
        assert f"{SIZE // 16 - 1:015d}\n</pre>" in end
        assert len(end) < 70_000
        assert sums == [summed(iter([log]))] * 3
        assert peak(server.process.pid) - before < SIZE + 2 * CACHE


def test_a_fault_of_ours_shows_no_stack(serve: Any, sqlite_pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    # Given a route that fails in a way that nobody thought of
    client = serve(sqlite_pool)

    def fails() -> None:
        raise RuntimeError("nobody is to read this")

    client.app.add_api_route("/api/v1/fails", fails)
    client.app.add_api_route("/fails", fails)

    # When it is called, by a program and by a person
    answers = client.get("api/v1/fails"), client.get("fails", headers=PAGE)

    # Then they are told that it is our fault, and no more; the log has the rest
    assert [answer.status_code for answer in answers] == [500, 500]
    assert json.loads(answers[0].text)["error"]["code"] == "error"
    for answer in answers:
        assert "Traceback" not in answer.text
        assert "nobody is" not in answer.text
        assert "content-security-policy" in answer.headers
    assert "nobody is to read this" in caplog.text
