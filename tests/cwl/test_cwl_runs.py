"""Workflows through the pool, with the real cwltool: the same as here and now, and what goes wrong says why."""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cli_tools import call, ok, spawn, use
from cwl_tools import (
    SUITE,
    TOOLS,
    Remotes,
    attachment,
    comparable,
    here_and_now,
    message,
    pushed,
    token,
    work,
)  # fmt: skip

from tokenpool.pool import connect

pytestmark = pytest.mark.usefixtures("cwltool")

#: A tool, its parameters, and the files that come out.
CASES = {
    "secondary files": ("count.cwl", "count.yml", ["count.txt"]),
    "folders": ("folder.cwl", "folder.json", ["turned/inner/b.txt", "turned/names.txt"]),
    "arrays and JavaScript": ("join.cwl", "join.yml", ["joined.txt"]),
    "scatter and a workflow inside": ("outer.cwl", "outer.yml", ["ada.txt", "joined.txt", "yes.txt"]),
    "one of several": ("several.cwl#main", "several.yml", ["said.txt"]),
    "default files": ("greet.cwl", "greet.yml", ["eve.txt"]),
}


def test_the_pool_gives_what_running_here_and_now_gives(tmp_path: Path) -> None:
    # Given all cases in a pool, and a worker that has never seen their folder
    ids = {name: pushed(TOOLS / tool, SUITE / params) for name, (tool, params, _) in CASES.items()}
    work()
    # When each is also run here and now
    with ThreadPoolExecutor(2) as two:
        jobs = {
            name: two.submit(here_and_now, tmp_path / name, TOOLS / tool, SUITE / params)
            for name, (tool, params, _) in CASES.items()
        }
    for name, (_, _, files) in CASES.items():
        folder = tmp_path / name
        code, result, log = jobs[name].result()
        assert code == 0, log
        # Then the output object is the same: checksums, sizes, names
        done = token(ids[name])
        assert comparable(done["output"]["result"]) == comparable(result), name
        # And the same files are attached
        attached = {each for each in done["_attachments"] if each.startswith("output/")}
        assert attached == {f"output/{each}" for each in files}, name
        for each in files:
            assert attachment(ids[name], f"output/{each}") == (folder / each).read_bytes()
        assert sorted(str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()) == sorted(files)
    # And cwltool's words are the logs
    assert b"Final process status is success" in attachment(ids["folders"], f"logs_{ids['folders']}.err")


def test_what_goes_wrong_says_why_and_the_worker_goes_on(remotes: Remotes) -> None:
    # Given workflows of which each goes wrong in its own way, a good one among them
    url = remotes.file_url
    remotes.make("me/flow", {"a.cwl": "", "b.cwl": ""})
    bad = {
        "does not validate": pushed(TOOLS / "wrong.cwl", SUITE / "several.yml"),
        "a missing parameter": pushed(TOOLS / "several.cwl#main"),
        "of the wrong type": pushed(TOOLS / "count.cwl", "--param", "text=3"),
        "a step fails": pushed(TOOLS / "fails.cwl"),
        "too large": pushed(TOOLS / "large.cwl", "--param", "bytes=2000"),
        "no such repository": pushed("me/nothing", "--no-resolve"),
        "no such ref": pushed("me/flow:v9", "--no-resolve"),
        "several": pushed("me/flow", "--no-resolve"),
        "no such URL": pushed("http://127.0.0.1:9/tool.cwl"),
    }
    with connect() as pool:
        more: dict[str, object] = {"workflow": {"repo": f"{url}/me/flow", "path": "../../x.cwl"}}
        bad["outside"], bad["gone"] = pool.push([more, {"workflow": {"url": "attachment:workflow.zip"}}])
    good = pushed(TOOLS / "several.cwl#main", SUITE / "several.yml")
    # When they are worked
    work("--attach-limit", "1000")
    # Then each ends in error with its reason, and those that can never run are invalid
    expected = {
        "does not validate": ("invalid", "\nwrong.cwl:6:5:"),
        "a missing parameter": ("invalid", "several.cwl:11:14: Missing required input parameter 'text'"),
        "of the wrong type": ("invalid", "text"),
        "a step fails": ("executor", "exited with status: 3"),
        "too large": ("staging", "large.bin has 2,000 bytes, and at most 1,000 are attached"),
        "no such repository": ("invalid", "cannot be cloned"),
        "no such ref": ("invalid", "'v9'"),
        "several": ("invalid", "a.cwl, b.cwl"),
        "no such URL": ("staging", "127.0.0.1:9"),
        "outside": ("invalid", "leaves"),
        "gone": ("invalid", "does not have"),
    }
    told = {name: message(token_id) for name, token_id in bad.items()}
    for name, (failure, words) in expected.items():
        assert told[name][0] == failure, (name, told[name])
        assert words in told[name][1], (name, told[name])
    assert "/1/" not in told["does not validate"][1]  # no folder of the worker: nobody else knows it
    # And the good one is done
    assert token(good)["exit_code"] == 0


def test_a_workflow_is_run_here_and_its_files_are_fetched() -> None:
    # When a workflow is run, with a parameter of the command line
    answer = ok("run", TOOLS / "greet.cwl", SUITE / "greet.yml", "--param", "name=bob")
    # Then its output object is printed, and its files are in this folder
    result = json.loads(answer.out)
    assert result["shouted"] == "BOB!"
    assert Path(result["file"]["path"]) == Path.cwd() / "bob.txt"
    assert Path("bob.txt").read_text() == "hello "
    # And a workflow that fails is a batch with failures
    failed = call("run", TOOLS / "fails.cwl")
    assert failed.code == 3
    assert "it is broken" in failed.err


def test_run_cwl_needs_no_pool_and_gives_cwltools_exit_code(tmp_path: Path, remotes: Remotes) -> None:
    # Given a repository
    remotes.make("me/flow", {"Dockstore.cwl": (TOOLS / "several.cwl").read_text()})
    # When it is run with words of the tool's own
    done = spawn(["run-cwl", "me/flow:main/Dockstore.cwl#main", "-q", "--outdir", "out", "--", "--text", "own words"])
    # Then it ran, and there is no pool
    assert json.loads(done.stdout)["said"]["basename"] == "said.txt", done.stderr
    assert Path("out/said.txt").read_text() == "own words\n"
    assert not Path("tokenpool.db").exists()
    # And a workflow that fails, or is not there, says so
    assert spawn(["run-cwl", TOOLS / "fails.cwl"]).returncode == 1
    assert spawn(["run-cwl", "me/nothing"]).returncode == 4
    assert spawn(["run-cwl", TOOLS / "fails.cwl", "--cwl-runner", "no-such-runner"]).returncode == 2


def test_repositories_and_archives_run_on_the_worker(remotes: Remotes, over_http: str) -> None:
    # Given one workflow in a repository, behind a plain URL, and in an archive there and here
    text = (TOOLS / "several.cwl").read_text()
    remote = remotes.make("me/flow", {"flows/tool.cwl": text, "flows/data.txt": "beside\n"})
    for place in (remotes.root / "flow.zip", Path("flow.zip")):
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("in/tool.cwl", text)
    (remotes.root / "tool.cwl").write_text(text)
    # When each is pushed; the worker finds the repository's commit by itself
    ids = [
        pushed("me/flow:main/flows/tool.cwl#main", "--no-resolve", "--param", "text=hi"),
        pushed(f"{over_http}/tool.cwl#main", "--param", "text=hi"),
        pushed(f"{over_http}/flow.zip/in/tool.cwl#main", "--param", "text=hi"),
        pushed("flow.zip/in/tool.cwl#main", "--param", "text=hi"),
    ]
    work()
    # Then all say the same, and the commit is recorded
    assert [attachment(each, "output/said.txt") for each in ids] == [b"hi\n"] * 4
    assert token(ids[0])["output"]["workflow"]["commit"] == remote.git("rev-parse", "HEAD")


def test_on_each_kind_of_pool(pool_url: str) -> None:
    # Given a folder with names that need care, and a pool
    use(pool_url)
    Path("in-here/sub").mkdir(parents=True)
    Path("in-here/ä+c@1.txt").write_text("odd\n")
    Path("in-here/sub/b.txt").write_text("b" * 300_000)
    token_id = pushed(TOOLS / "folder.cwl", "--param", "folder={class: Directory, path: in-here}")
    # When it is worked
    work()
    # Then the names came through, and so did the large file
    done = token(token_id)
    assert done["exit_code"] == 0, done["error"]
    assert attachment(token_id, "output/turned/names.txt").decode() == "./sub/b.txt\n./ä+c@1.txt\n"
    assert len(attachment(token_id, "output/turned/inner/b.txt")) == 300_000


def test_a_secret_reaches_the_workflow_and_shows_nowhere(remotes: Remotes, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a lando job with a key, and a worker that knows it
    remotes.make("me/toy", {"flow.cwl": (TOOLS / "several.cwl").read_text()})
    Path("job.yml").write_text(
        f"git_clone: {remotes.file_url}/me/toy\ncd: toy\nrun_cwl: 'flow.cwl#echo'\ninput: {{text: hunter2-from-the-file}}\n"
    )
    monkeypatch.setenv("TOKENPOOL_SECRET_text", "the-real-secret")
    token_id = ok("import", "lando", "job.yml", "--secret", "text").out.strip()
    # When it is worked
    work()
    # Then the workflow had it, and neither the logs nor the token do
    assert attachment(token_id, "output/said.txt") == b"the-real-secret\n"
    log = attachment(token_id, f"logs_{token_id}.err")
    assert b"echo" in log
    assert b"the-real-secret" not in log + json.dumps(token(token_id)).encode()
    # And its research object, which would hold it, is refused
    with connect() as pool:
        fields = {name: token(token_id)[name] for name in ("workflow", "params", "secrets")}
        (refused,) = pool.push([{**fields, "workflow": {**fields["workflow"], "provenance": True}}])
    work()
    assert message(refused) == ("invalid", message(refused)[1])
    assert "would hold the values" in message(refused)[1]


def test_provenance_is_kept_on_request() -> None:
    # When a workflow is worked that asks for it
    token_id = pushed(TOOLS / "several.cwl#main", SUITE / "several.yml", "--provenance")
    work()
    # Then the research object is attached whole
    archive = zipfile.ZipFile(io.BytesIO(attachment(token_id, "provenance.zip")))
    assert {"bagit.txt", "manifest-sha1.txt"} <= set(archive.namelist())
    assert any(name.startswith("metadata/provenance/") for name in archive.namelist())


def test_a_timeout_and_a_missing_runner(tmp_path: Path) -> None:
    # Given a tool that takes its time
    Path("slow.cwl").write_text(
        "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: [sleep, '300']\ninputs: []\noutputs: []\n"
    )
    slow = pushed("slow.cwl", "--timeout", "4")
    work("--grace", "1")
    # Then its end is a timeout
    assert message(slow)[0] == "timeout"
    # And a machine without a CWL runner says what to install
    nothing = pushed("slow.cwl")
    work("--cwl-runner", "no-such-runner --flag")
    assert message(nothing)[0] == "system"
    assert "no-such-runner" in message(nothing)[1]
