"""The conformance suite on the runner of commands, and on one that a stranger's package brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenpool.testing.runners import RunnerTests

STRANGER = '''
from tokenpool.errors import BadInput
from tokenpool.runners.base import Runner
from tokenpool.runners.command import CommandRunner


class AwkRunner(Runner):
    """Runs awk programs."""

    def run(self, token, places, context):
        if not isinstance(token.get("program"), str):
            raise BadInput("there is no program", "give the token an awk program")
        finished = context.execute(["awk", token["program"]], places, token.get("timeout"))
        return CommandRunner().result(token, finished)
'''


class TestCommands(RunnerTests):
    def printing(self, text: str) -> dict[str, Any]:
        return {"command": ["echo", text]}

    def failing(self, code: int) -> dict[str, Any]:
        return {"command": f"exit {code}"}

    def endless(self) -> dict[str, Any]:
        return {"command": ["sleep", "1000"]}


class TestAStrangersRunner(RunnerTests):
    """It is found by its entry point, as an installed package names it."""

    @pytest.fixture(autouse=True)
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        site = tmp_path / "site"
        info = site / "awk_tokens-1.0.dist-info"
        info.mkdir(parents=True)
        (site / "awk_tokens.py").write_text(STRANGER)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: awk-tokens\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[tokenpool.runners]\nawk = awk_tokens:AwkRunner\n")
        monkeypatch.syspath_prepend(str(site))

    def printing(self, text: str) -> dict[str, Any]:
        return {"runner": "awk", "program": f'BEGIN {{ print "{text}" }}', "input": "awk"}

    def failing(self, code: int) -> dict[str, Any]:
        return {"runner": "awk", "program": f"BEGIN {{ exit {code} }}", "input": "awk"}

    def endless(self) -> dict[str, Any]:
        return {"runner": "awk", "program": "BEGIN { while (1) n++ }", "input": "awk"}

    def senseless(self) -> dict[str, Any]:
        return {"runner": "awk", "program": 7, "input": "awk"}
