"""The map functions of all views of ours, run by node, so that Python can be compared with them document by document."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from couch_server import REAL_ENVIRONMENT

from tokenpool import designs

#: Reads one document a line, answers with what each view emits for it.
NODE = """
const views = JSON.parse(process.argv[1]);
let rows;
globalThis.emit = (key, value) => rows.push(key);
const maps = Object.fromEntries(Object.entries(views).map(([name, text]) => [name, eval("(" + text + ")")]));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const answer = {};
  for (const name in maps) { rows = []; maps[name](JSON.parse(line)); answer[name] = rows; }
  console.log(JSON.stringify(answer));
});
"""
ODD: list[Any] = [
    "", "0", "0abc", 0, 0.4, None, True, -1, False, "-1", " 0 ", "0x0", "0x1", "1e2", "1e-9", [], [0], ["0"], [[1]], [1, 2], {},
    {"a": 1}, -0.0, 1e-7, 1e-320, 1e21, 1e300, 99, "99", "99.5", "abc", "Infinity", "-Infinity", "\u00a00", "\n", "٣", "０", "1_000",
    "0b1", "0o7", "+0", "-0", "+5", "--0", ".0", ".", "5.", "00", "0.9", "-0.9", 0.9, -0.9, 5e-7, "0n", 2**53 + 1, [None], [True], "\ufeff0",
    "\x1f0", "\x850", "\u200b0", "0x", "0xg", "1e", "e1", 123456789012, "- 0", [[]], [[[0]]], "nan", "NaN", "inf", "infinity",
    "\u30000", "\u20031", "\u16800", "\u180e0",
]  # fmt: skip


class Views:
    """All views of picas and ours, run by node."""

    def __init__(self, node: str) -> None:
        maps = {name: view["map"] for name, view in designs.design_document("Monitor")["views"].items()}
        own = designs.design_document("tokenpool")["views"]
        maps.update({name: view["map"] for name, view in own.items()})
        self.process = subprocess.Popen(
            [node, "-e", NODE, json.dumps(maps)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            env=dict(REAL_ENVIRONMENT),
        )  # fmt: skip

    def __call__(self, doc: dict[str, Any]) -> dict[str, list[Any]]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(doc) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@contextmanager
def views_by_node() -> Iterator[Views]:
    """Start node; without it the test is skipped."""
    node = shutil.which("node", path=REAL_ENVIRONMENT.get("PATH"))
    if node is None:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail("node is not installed (Debian: apt install nodejs)", pytrace=False)
        pytest.skip("node is not installed (Debian: apt install nodejs)")
    views = Views(node)
    yield views
    views.process.communicate()
