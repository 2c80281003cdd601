"""What says what is run, and makes no sense, is refused at push, and ends a token that was written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenpool.checks import check, problem
from tokenpool.errors import BadInput

CONTAINER = {"image": "alpine:3", "command": ["true"]}

SENSELESS: dict[str, dict[str, Any]] = {
    "an image with a blank": {"image": "alpine 3"},
    "an image that is an option": {"image": "--privileged"},
    "an image that is no text": {"image": 3},
    "executors that are none": {"executors": []},
    "an executor without an image": {"executors": [{"command": ["true"]}]},
    "an executor without a command": {"executors": [{"image": "alpine"}]},
    "an executor with a command that is a text": {"executors": [{"image": "alpine", "command": "true"}]},
    "an executor with what nobody knows": {"executors": [{**CONTAINER, "cmd": "true"}]},
    "an image beside executors": {"image": "alpine", "executors": [CONTAINER]},
    "a workflow that is a text": {"workflow": "user/repo"},
    "a workflow from two places": {"workflow": {"url": "http://host/a.cwl", "repo": "http://host/b"}},
    "a workflow from nowhere": {"workflow": {"ref": "main"}},
    "parameters that are a list": {"workflow": {"url": "http://host/a.cwl"}, "params": [1]},
    "a function that is a text": {"function": "module:name"},
    "a function with a strange name": {"function": {"name": "os.system('x')"}},
    "a function with arguments that are none": {"function": {"name": "m:f", "args": 1}},
    "a function beside a workflow": {"function": {"name": "m:f"}, "workflow": {"url": "http://host/a.cwl"}},
    "options that are a text": {**CONTAINER, "container_options": "--shm-size=1g"},
    "an option without dashes": {**CONTAINER, "container_options": ["shm-size=1g"]},
}
SENSIBLE: dict[str, dict[str, Any]] = {
    "an image": CONTAINER,
    "an image by its digest": {"image": f"docker.io/library/alpine@sha256:{'0' * 64}"},
    "executors": {"executors": [{**CONTAINER, "env": {"A": "1"}, "workdir": "/tmp", "ignore_error": True}]},
    "a workflow by url": {"workflow": {"url": "https://host/tool.cwl#main"}, "params": {"message": "hi"}},
    "a workflow in a repository": {"workflow": {"repo": "https://host/repo.git", "ref": "main", "path": "a.cwl"}},
    "a function": {"function": {"name": "package.module:Class.method", "args": [1], "kwargs": {"x": None}}},
    "a task by name": {"function": {"name": "NO_OP"}},
}


@pytest.mark.parametrize("name", SENSELESS)
def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        check(SENSELESS[name])
    assert error.value.message
    assert error.value.hint
    # And in a token that somebody wrote by hand it is the reason why it ends
    assert problem(SENSELESS[name])


@pytest.mark.parametrize("name", SENSIBLE)
def test_what_makes_sense_is_let_pass(name: str) -> None:
    check(SENSIBLE[name])
    assert problem(SENSIBLE[name]) == ""
