"""What a token of a workflow takes along: the workflow's own files, and those that its parameters name."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, ok
from cwl_tools import SUITE, TOOLS, Remotes

TOOL = "cwlVersion: v1.2\nclass: CommandLineTool\nbaseCommand: echo\ninputs: {}\noutputs: {}\n"


def dry(*words: object) -> dict[str, Any]:
    """Return the token that would be pushed."""
    found: dict[str, Any] = json.loads(ok("push", "--cwl", *words, "--dry-run").out)
    return found


def content(token: dict[str, Any], name: str) -> bytes:
    return base64.b64decode(token["_attachments"][name]["data"])


def test_a_local_workflow_travels_with_all_that_it_names() -> None:
    # When a workflow is pushed that has another one inside, a script, and a default file
    token = dry(TOOLS / "outer.cwl", SUITE / "outer.yml")
    # Then all of it is in the archive, and the archive is the same every time
    archive = zipfile.ZipFile(io.BytesIO(content(token, "workflow.zip")))
    assert set(archive.namelist()) == {"outer.cwl", "inner.cwl", "greet.cwl", "greeting.txt", "shout.js", "join.cwl"}
    assert token["workflow"] == {"url": "attachment:workflow.zip", "path": "outer.cwl"}
    again = dry(TOOLS / "outer.cwl", SUITE / "outer.yml")
    assert content(again, "workflow.zip") == content(token, "workflow.zip")
    # And YAML is read as CWL reads it: `yes` is a text
    assert token["params"] == {"names": ["ada", "yes"]}


def test_files_go_along_with_their_secondary_files_and_urls_stay(tmp_path: Path) -> None:
    # Given files beside the parameters, above them, and elsewhere
    work = tmp_path / "deep" / "er"
    work.mkdir(parents=True)
    (work / "a b.txt").write_text("a")
    (tmp_path / "deep" / "up.txt").write_text("u")
    (tmp_path / "deep" / "up.txt.idx").write_text("i")
    (work / "folder" / "empty").mkdir(parents=True)
    (work / "p.json").write_text(
        json.dumps(
            {
                "text": {"class": "File", "path": "../up.txt"},
                "more": [
                    {
                        "class": "File",
                        "location": "a%20b.txt",
                        "secondaryFiles": [{"class": "File", "path": "../up.txt"}],
                    },
                    {"class": "File", "location": "https://host/x.txt"},
                    {"class": "File", "location": "file:///data/x.txt"},
                    {"class": "File", "basename": "made", "contents": "in place"},
                ],
                "folder": {"class": "Directory", "path": "folder"},
            }
        )
    )
    # When they are pushed with a tool that wants an index beside `text`
    token = dry(TOOLS / "count.cwl", work / "p.json", "--param", "number=3", "--param", "word=no")
    # Then local files are attachments, with what belongs beside them; the rest is as it was
    params, names = token["params"], set(token["_attachments"])
    first, literal = params["more"][0], params["more"][3]
    assert content(token, "input/a b.txt") == b"a"
    assert first["location"] == "input/a%20b.txt"
    assert first["secondaryFiles"][0]["location"] == params["text"]["location"]
    assert content(token, params["text"]["location"]) == b"u"
    assert content(token, f"{params['text']['location']}.idx") == b"i"
    assert [each["location"] for each in params["more"][1:3]] == ["https://host/x.txt", "file:///data/x.txt"]
    assert literal == {"class": "File", "basename": "made", "contents": "in place"}
    assert any(name.startswith("input/folder/empty/") for name in names)
    assert (params["number"], params["word"]) == (3, "no")
    # And a worker that knows only shell lines has one
    assert token["input"].startswith(f"tokenpool run-cwl {TOOLS / 'count.cwl'} --param 'text=")


def test_secondary_files_of_a_type_that_has_a_name_go_along_too() -> None:
    # Given a tool whose input is a record that another file defines
    Path("types.yml").write_text(
        "- {name: pair, type: record, fields: [{name: text, type: File, secondaryFiles: [^.idx, '$(self.basename).js']}]}\n"
    )
    Path("tool.cwl").write_text(
        f"{TOOL.replace('{}', '{pair: types.yml#pair}', 1)}"
        "requirements: {SchemaDefRequirement: {types: [{$import: types.yml}]}}\n"
    )
    for name in ("a.txt", "a.idx", "a.txt.js", "b.txt"):
        Path(name).write_text(name)
    # When it is pushed; then what lies beside its file goes along, and nothing else
    token = dry("tool.cwl", "--param", "pair={text: {class: File, path: a.txt}}")
    inputs = {name for name in token["_attachments"] if name.startswith("input/")}
    assert inputs == {"input/a.txt", "input/a.idx", "input/a.txt.js"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--param", "text"), "has no value"),
        (("--param", "text={class: File, path: nowhere.txt}"), "there is no file"),
        (("--param", "text={class: Directory, path: here.txt}"), "there is no folder"),
        (("--param", "text={class: File, path: here.txt}", "--carry-limit", "400"), "too large to travel"),
        (("--param", "text={class: File"), "parameter text:"),
        (("nothing.yml",), "there is no file nothing.yml"),
        (("list.yml",), "holds no parameters"),
        (("one.yml", "two.yml"), "2 files of parameters"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_before_anything_is_pushed(words: tuple[str, ...], what: str) -> None:
    # Given a tool and some files
    Path("tool.cwl").write_text(TOOL)
    Path("here.txt").write_text("x" * 500)
    Path("list.yml").write_text("- a\n- b\n")
    # When it is pushed; then two lines say why not, and there is no pool
    answer = call("push", "--cwl", "tool.cwl", *words)
    assert what in answer.error
    assert not Path("tokenpool.db").exists()


def test_a_repository_is_looked_up_at_push(remotes: Remotes) -> None:
    # Given a repository with two tools, and a tag
    remote = remotes.make("me/flow", {"one.cwl": TOOL, "sub/two.cwl": TOOL})
    remote.git("tag", "v1")
    commit = remote.git("rev-parse", "HEAD")
    # Then its commit is in the token, and the file that is meant
    url = f"{remotes.file_url}/me/flow"
    assert dry("me/flow")["workflow"] == {"repo": url, "path": "one.cwl", "commit": commit}
    assert dry("me/flow:v1/sub/two.cwl")["workflow"] == {
        "repo": url,
        "ref": "v1",
        "path": "sub/two.cwl",
        "commit": commit,
    }
    # Unless the worker is to do that
    assert dry("me/flow:later", "--no-resolve")["workflow"] == {"repo": url, "ref": "later"}
    # And what cannot be found is told now
    remote.commit({"other.cwl": TOOL})
    assert "one.cwl, other.cwl" in call("push", "--cwl", "me/flow").error
    assert "'v9'" in call("push", "--cwl", "me/flow:v9").error
    assert "cannot be cloned" in call("push", "--cwl", "me/nothing").error


def test_options_of_workflows_go_with_workflows_only() -> None:
    assert "--cwl" in call("push", "--param", "a=1", "jobs.txt").err
    assert "cannot both" in call("push", "--cwl", TOOLS / "count.cwl", "--", "echo", "hi").error


def test_a_lando_job_file_becomes_a_token(remotes: Remotes) -> None:
    # Given a job file as lando has them, with a key in it
    remote = remotes.make("me/toyworkflow", {"flows/flow.cwl": TOOL})
    Path("job.yml").write_text(
        f"git_clone: {remotes.file_url}/me/toyworkflow\ncd: toyworkflow/flows\nrun_cwl: flow.cwl\n"
        "input: |\n  dds_user_key: hunter2\n  projectName: MouseRNA\n"
    )
    # Then the key is refused
    refused = call("import", "lando", "job.yml")
    assert "'dds_user_key' looks like a secret" in refused.error
    assert "hunter2" not in refused.err
    # Unless it is a secret of the workers; then its value is nowhere
    told = ok("import", "lando", "job.yml", "--secret", "dds_user_key", "--dry-run").out
    token = json.loads(told)
    assert "hunter2" not in told
    assert token["secrets"] == ["dds_user_key"]
    assert token["params"] == {"dds_user_key": {"$secret": "dds_user_key"}, "projectName": "MouseRNA"}
    commit = remote.git("rev-parse", "HEAD")
    assert token["workflow"] == {
        "repo": f"{remotes.file_url}/me/toyworkflow", "path": "flows/flow.cwl", "commit": commit,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a\n", "is no job file"),
        ("git_clone: x\ncd: x\ninput: 'a: 1'\n", "has no run_cwl"),
        ("git_clone: x\ncd: x\ninput: 'a: 1'\nrun_cwl: x.cwl\nvm: big\n", "'vm'"),
        ("git_clone: x\ncd: ../y\ninput: 'a: 1'\nrun_cwl: x.cwl\n", "lead out of the repository"),
        ("git_clone: x\ncd: x\ninput: 'a'\nrun_cwl: x.cwl\n", "holds no parameters"),
        ("git_clone: [\n", "job.yml:2:1"),
    ],
)
def test_job_files_that_make_no_sense_are_refused(text: str, what: str) -> None:
    Path("job.yml").write_text(text)
    assert what in call("import", "lando", "job.yml").error
    assert not Path("tokenpool.db").exists()


def test_formats_that_nobody_knows_are_refused() -> None:
    Path("job.yml").write_text("{}")
    assert "'nosuch'" in call("import", "nosuch", "job.yml").error
    assert "there is no file" in call("import", "lando", "nothing.yml").error
    assert "goes with a format" in call("import", "job.yml", "--secret", "x").error
