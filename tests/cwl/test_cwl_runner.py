"""The conformance suite of runners, on workflows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from tokenpool.pool import Pool
from tokenpool.testing.runners import RunnerTests

Json = dict[str, Any]


def token(command: list[str], text: str = "") -> Json:
    """Return a token with a tool attached, which gives back what it was given."""
    tool = {
        "cwlVersion": "v1.2",
        "class": "CommandLineTool",
        "baseCommand": command,
        "inputs": {"text": "string"},
        "outputs": {"text": {"type": "string", "outputBinding": {"outputEval": "$(inputs.text)"}}},
    }
    data = base64.b64encode(json.dumps(tool).encode()).decode()
    return {
        "workflow": {"url": "attachment:tool.cwl"},
        "params": {"text": text},
        "_attachments": {"tool.cwl": {"content_type": "application/json", "data": data}},
    }


@pytest.mark.usefixtures("cwltool")
class TestWorkflows(RunnerTests):
    def printing(self, text: str) -> Json:
        return token(["true"], text)

    def failing(self, code: int) -> Json:
        return token(["sh", "-c", f"exit {code}"])

    def endless(self) -> Json:
        return token(["sleep", "1000"])

    def senseless(self) -> Json:
        return {"workflow": {"url": "attachment:nothing.cwl"}}

    def test_an_exit_code_is_the_tokens_own(self, pool: Pool, work: Callable[..., None]) -> None:
        """It is the CWL runner's, which says 1 for any step that fails; the step's own is in the message."""
        (failed,) = pool.push(self.failing(3))
        work()
        doc = pool.get(failed)
        assert (doc.state, doc["exit_code"]) == ("error", 1)
        assert doc["attempts"][0]["failure_class"] == "executor"

    def test_a_failure_is_tried_again_where_it_may(self, pool: Pool, work: Callable[..., None]) -> None:
        (failed,) = pool.push({**self.failing(3), "max_retries": 1, "retry_delay": 0})
        work()
        assert [attempt["exit_code"] for attempt in pool.get(failed)["attempts"]] == [1, 1]
