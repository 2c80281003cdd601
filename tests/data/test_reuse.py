"""Identical work: a token that says so takes what an earlier one made of the same, if it is still there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from staging_tools import Token, files_of, ran

import tokenpool
from tokenpool.pool import Pool


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with tokenpool.connect(pool_url, create=True) as pool:
        pool.init()
        yield pool


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "sample.txt"
    path.write_text("sample\n")
    return path


class Lab:
    """Runs tokens that do the same, and counts how often their command ran."""

    def __init__(self, pool: Pool, tmp_path: Path, source: Path) -> None:
        self.pool, self.tmp_path, self.source = pool, tmp_path, source

    def run(self, **other: Any) -> Token:
        """Run one token; `other` is what differs."""
        fields = {
            "command": f"echo run >> {self.tmp_path}/runs; cat $INPUT/sample.txt > $OUTPUT/made; echo $MODE >> $OUTPUT/made",
            "inputs": [{"url": str(self.source)}],
            "outputs": [{"path": "made", "url": f"{self.tmp_path}/there/"}],
            "env": {"MODE": "a"},
            "reuse": True,
        }
        token = ran(self.pool, self.tmp_path, **{**fields, **other})
        assert token["exit_code"] == 0, token["error"]
        return token

    @property
    def runs(self) -> int:
        return len((self.tmp_path / "runs").read_text().split())


@pytest.fixture
def lab(pool: Pool, tmp_path: Path, source: Path) -> Lab:
    return Lab(pool, tmp_path, source)


def test_the_same_work_is_done_once(lab: Lab) -> None:
    first = lab.run()
    second = lab.run()
    assert lab.runs == 1
    assert second["output"]["files"] == first["output"]["files"]
    assert second["output"]["reused"] == first["_id"]
    assert second["reuse_key"] == first["reuse_key"]


@pytest.mark.parametrize(
    "other",
    [
        {"env": {"MODE": "b"}},
        {"reuse": False},
        {"inputs": [{"content": "else", "path": "sample.txt"}]},
        {"params": {"x": 1}},
    ],
    ids=["another environment", "it does not say so", "another input", "other parameters"],
)
def test_other_work_is_done(lab: Lab, other: dict[str, Any]) -> None:
    lab.run()
    token = lab.run(**other)
    assert lab.runs == 2
    assert "reused" not in token["output"]


def test_an_input_that_changed_is_worked_on_again(lab: Lab) -> None:
    lab.run()
    lab.source.write_text("another sample\n")
    lab.run()
    assert lab.runs == 2
    assert (lab.tmp_path / "there" / "made").read_text() == "another sample\na\n"


def test_results_that_are_gone_are_made_again(lab: Lab) -> None:
    lab.run()
    (lab.tmp_path / "there" / "made").unlink()
    lab.run()
    assert lab.runs == 2
    assert (lab.tmp_path / "there" / "made").exists()


def test_results_that_were_changed_are_made_again(lab: Lab) -> None:
    lab.run()
    (lab.tmp_path / "there" / "made").write_text("short")
    lab.run()
    assert lab.runs == 2


def test_results_that_are_to_go_elsewhere_are_copied_there(lab: Lab) -> None:
    first = lab.run()
    second = lab.run(outputs=[{"path": "made", "url": f"{lab.tmp_path}/elsewhere/"}])
    assert lab.runs == 1
    assert files_of(second) == {"made": f"{lab.tmp_path}/elsewhere/made"}
    assert (lab.tmp_path / "elsewhere" / "made").read_text() == "sample\na\n"
    assert [each["sha256"] for each in second["output"]["files"]] == [
        each["sha256"] for each in first["output"]["files"]
    ]


def test_results_inside_the_earlier_token_are_taken_along(lab: Lab) -> None:
    outputs = [{"path": "made"}]
    lab.run(outputs=outputs)
    second = lab.run(outputs=outputs)
    assert lab.runs == 1
    assert files_of(second) == {"made": "attachment:output/made"}
    assert b"".join(lab.pool.backend.get_attachment(second["_id"], "output/made")) == b"sample\na\n"


def test_what_failed_is_not_taken(lab: Lab) -> None:
    fields = {"command": f"echo run >> {lab.tmp_path}/runs; exit 1", "outputs": None, "reuse": True}
    for _ in range(2):
        ran(lab.pool, lab.tmp_path, **fields)
    assert lab.runs == 2
