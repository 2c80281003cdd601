"""Tokens with data: it is in place before the command and where it belongs after it, or the token says why not."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from staging_tools import failure, files_of, ran, work

import tokenpool
from tokenpool.pool import Pool
from tokenpool.runners.base import Policy

TREE = "cd {} && find . -type f -o -type l | sort | tr '\\n' ' '"


@pytest.fixture
def pool(pool_url: str) -> Iterator[Pool]:
    with tokenpool.connect(pool_url, create=True) as pool:
        yield pool


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of files, some packed."""
    folder = tmp_path / "source"
    (folder / "run1" / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("A\n")
    (folder / "two words.txt").write_text("W\n")
    (folder / "run1" / "x.fq").write_text("X\n")
    (folder / "run1" / "deep" / "y.fq").write_text("Y\n")
    (folder / "ref.fa.gz").write_bytes(gzip.compress(b">chr1\nACGT\n"))
    with tarfile.open(folder / "t.tar.gz", "w:gz") as archive:
        archive.addfile(_member("in/tar.txt", 1), io.BytesIO(b"T"))
    with zipfile.ZipFile(folder / "z.zip", "w") as packed:
        packed.writestr("in/zip.txt", "Z")
    return folder


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _log(pool: Pool, name: str) -> str:
    pieces = pool.backend.get_attachment(name, f"logs_{name}.out")
    return b"".join(pieces).decode().strip()


# ── inputs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_inputs_are_in_place_and_outputs_go_where_they_belong(pool: Pool, tmp_path: Path, source: Path) -> None:
    token = ran(
        pool,
        tmp_path,
        _id="t",
        command='cat "$INPUT/two words.txt" "$RESOURCE/ref.fa" "$INPUT/set.json" > "$OUTPUT/all.txt"; echo 5 > $OUTPUT/n',
        inputs=[
            {"url": f"file://{source}/two%20words.txt"},
            {"url": str(source / "ref.fa.gz"), "unpack": "gunzip", "shared": True},
            {"content": '{"ü": 1}', "path": "set.json"},
        ],
        outputs=[{"path": "all.txt", "url": f"file://{tmp_path}/results/"}, {"path": "n"}],
    )
    assert token["exit_code"] == 0, token["error"]
    made = (tmp_path / "results" / "all.txt").read_bytes()
    assert made.decode() == 'W\n>chr1\nACGT\n{"ü": 1}'
    first, second = token["output"]["files"]
    assert first == {
        "path": "all.txt",
        "url": f"file://{tmp_path}/results/all.txt",
        "size": len(made),
        "sha256": hashlib.sha256(made).hexdigest(),
    }
    assert second["url"] == "attachment:output/n"
    assert b"".join(pool.backend.get_attachment("t", "output/n")) == b"5\n"
    assert not list((tmp_path / "scratch").rglob("*.txt"))


@pytest.mark.parametrize(
    ("given", "folder", "tree"),
    [
        ({"url": "{}/a.txt"}, "input", "./a.txt"),
        ({"url": "{}/a.txt", "path": "b.txt"}, "input", "./b.txt"),
        ({"url": "{}/a.txt", "path": "sub/"}, "input", "./sub/a.txt"),
        ({"url": "{}/a.txt", "path": "/tmp/b.txt"}, "tmp", "./b.txt"),
        ({"url": "{}/a.txt", "shared": True}, "resource", "./a.txt"),
        ({"url": "{}/run1/"}, "input", "./deep/y.fq ./x.fq"),
        ({"url": "{}/run1", "type": "DIRECTORY", "path": "r"}, "input", "./r/deep/y.fq ./r/x.fq"),
        ({"url": "{}/run1/", "shared": True, "path": "r"}, "resource", "./r/deep/y.fq ./r/x.fq"),
        ({"url": "{}/*.txt"}, "input", "./a.txt ./two words.txt"),
        ({"url": "{}/run*/*.fq"}, "input", "./run1/x.fq"),
        ({"url": "{}/**/*.fq", "path": "all"}, "input", "./all/run1/deep/y.fq ./all/run1/x.fq"),
        ({"url": "{}/ref.fa.gz|gunzip"}, "input", "./ref.fa"),
        ({"url": "{}/ref.fa.gz", "unpack": "gunzip", "path": "g.fa"}, "input", "./g.fa"),
        ({"url": "{}/*.gz", "unpack": "gunzip"}, "input", "./ref.fa ./t.tar"),
        ({"url": "{}/t.tar.gz", "unpack": "untar", "path": "u"}, "input", "./u/in/tar.txt"),
        ({"url": "{}/t.tar.gz", "unpack": "untar", "shared": True}, "resource", "./in/tar.txt"),
        ({"url": "{}/z.zip|unzip"}, "input", "./in/zip.txt"),
    ],
)
def test_where_inputs_go(
    sqlite_url: str, tmp_path: Path, source: Path, given: dict[str, Any], folder: str, tree: str
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        given = {**given, "url": given["url"].format(source)}
        ran(pool, tmp_path, _id="t", command=TREE.format(folder), inputs=[given])
        assert _log(pool, "t") == tree


def test_what_is_shared_cannot_be_written_and_is_the_same_file_for_all(
    sqlite_url: str, tmp_path: Path, source: Path
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        pool.push(
            [
                {"_id": f"t{n}", "command": "stat -c '%i %a' $RESOURCE/a.txt", "inputs": [_shared(source / "a.txt")]}
                for n in range(3)
            ]
        )
        work(pool, tmp_path)
        assert len({_log(pool, f"t{n}") for n in range(3)}) == 1
        assert _log(pool, "t0").endswith(" 444")


def _shared(path: object) -> dict[str, Any]:
    return {"url": str(path), "shared": True}


@pytest.mark.parametrize(
    ("inputs", "failed", "told"),
    [
        ([{"url": "{}/none.txt"}], "staging", "none.txt"),
        ([{"url": "{}/none*"}], "staging", "nothing matches"),
        ([{"url": "{}/a.txt", "sha256": "0" * 64}], "staging", "its sha256 is"),
        ([{"url": "{}/a.txt", "sha256": "0" * 64, "shared": True}], "staging", "its sha256 is"),
        ([{"url": "{}/a.txt|gunzip"}], "staging", "cannot be unpacked by gunzip"),
        ([{"url": "nowhere://x/y"}], "staging", "nowhere"),
        ([{"url": "{}/a.txt", "path": "/data/x"}], "invalid", "no folder of the token's own"),
        ([{"url": "{}/a.txt"}, {"url": "{}/a.txt"}], "invalid", "two inputs go to a.txt"),
    ],
)
def test_an_input_that_cannot_be_had_ends_the_token_with_the_reason(
    sqlite_url: str, tmp_path: Path, source: Path, inputs: list[dict[str, Any]], failed: str, told: str
) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        inputs = [{**each, "url": each["url"].format(source)} for each in inputs]
        ran(pool, tmp_path, _id="t", command="touch /proc/self/ran", inputs=inputs)
        kind, message = failure(pool, "t")
        assert kind == failed
        assert told in message
        assert "; " in message  # and what to do


def test_a_wrong_checksum_in_the_cache_is_found_too(sqlite_url: str, tmp_path: Path, source: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        good = hashlib.sha256(b"A\n").hexdigest()
        pool.push([
            {"_id": "1", "command": "true", "inputs": [_shared(source / "a.txt")]},
            {"_id": "2", "command": "true", "inputs": [{**_shared(source / "a.txt"), "sha256": "1" * 64}]},
            {"_id": "3", "command": "true", "inputs": [{**_shared(source / "a.txt"), "sha256": good}]},
        ])  # fmt: skip
        work(pool, tmp_path)
        assert [pool.get(name).state for name in "123"] == ["done", "error", "done"]


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────

MADE = 'cd $OUTPUT; mkdir -p bam/deep; echo a > bam/a.bam; echo b > bam/deep/b.bam; echo l > "my log.txt"'


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ({"url": "{}/", "path": "my log.txt"}, {"my log.txt": "my log.txt"}),
        ({"url": "{}/l", "path": "my log.txt"}, {"my log.txt": "l"}),
        ({"url": "{}/all"}, {"bam/a.bam": "all/bam/a.bam", "bam/deep/b.bam": "all/bam/deep/b.bam",
                             "my log.txt": "all/my log.txt"}),
        ({"url": "{}/", "path": "bam"}, {"bam/a.bam": "a.bam", "bam/deep/b.bam": "deep/b.bam"}),
        ({"url": "{}/", "path": "bam/*.bam"}, {"bam/a.bam": "a.bam"}),
        ({"url": "{}/", "path": "*/a.bam"}, {"bam/a.bam": "bam/a.bam"}),
        ({"url": "{}/x/", "path": "**/*.bam"}, {"bam/a.bam": "x/bam/a.bam", "bam/deep/b.bam": "x/bam/deep/b.bam"}),
        ({"url": "{}/", "path": "bam/deep/*", "path_prefix": "/output/bam"}, {"bam/deep/b.bam": "deep/b.bam"}),
        ({"url": "{}/", "path": "*.none"}, {}),
    ],
)  # fmt: skip
def test_where_outputs_go(sqlite_url: str, tmp_path: Path, given: dict[str, Any], files: dict[str, str]) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        there = tmp_path / "there"
        given = {**given, "url": given["url"].format(there)}
        token = ran(pool, tmp_path, _id="t", command=MADE, outputs=[given])
        assert token["exit_code"] == 0, token["error"]
        assert files_of(token) == {name: f"{there}/{path}" for name, path in files.items()}
        found = sorted(path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file())
        assert found == sorted(files.values())


def test_an_output_that_was_not_made_is_a_failure(sqlite_url: str, tmp_path: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        ran(pool, tmp_path, _id="t", outputs=[{"path": "x.bam", "url": f"{tmp_path}/there/"}])
        kind, message = failure(pool, "t")
        assert kind == "staging"
        assert "the token did not make x.bam" in message


def test_what_a_failed_token_leaves_goes_only_where_it_says_always(sqlite_url: str, tmp_path: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        outputs = [
            {"path": "a", "url": f"{tmp_path}/there/"},
            {"path": "log", "url": f"{tmp_path}/there/", "when": "always"},
        ]
        token = ran(pool, tmp_path, _id="t", command="cd $OUTPUT; touch a; echo l > log; exit 3", outputs=outputs)
        assert (token["exit_code"], failure(pool, "t")[0]) == (3, "executor")
        assert os.listdir(tmp_path / "there") == ["log"]
        assert files_of(token) == {"log": f"{tmp_path}/there/log"}


def test_links_that_lead_out_and_pipes_are_left_out(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with tokenpool.connect(sqlite_url, create=True) as pool:
        command = f"cd $OUTPUT; echo 1 > a; ln -s a b; ln -s {tmp_path}/secret c; ln -s {tmp_path} d; mkfifo e"
        token = ran(pool, tmp_path, _id="t", command=command, outputs=[{"url": f"{tmp_path}/there/"}])
        assert sorted(files_of(token)) == ["a", "b"]
        assert (tmp_path / "there" / "b").read_text() == "1\n"


def test_a_file_too_large_for_its_token_is_told(sqlite_url: str, tmp_path: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        policy = Policy(attach_limit=10)
        ran(pool, tmp_path, {"policy": policy}, _id="t", command="seq 100 > $OUTPUT/x", outputs=[{"path": "x"}])
        kind, message = failure(pool, "t")
        assert kind == "staging"
        assert "--attach-limit" in message


def test_a_token_without_data_has_one_folder(sqlite_url: str, tmp_path: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        ran(pool, tmp_path, _id="t", command='test "$INPUT" = "$OUTPUT" && test "$PWD" = "$TEMP" && ls -A')
        assert pool.get("t").state == "done"
        assert _log(pool, "t") == ""


def test_the_folder_of_an_attempt_is_empty_for_the_next_one(sqlite_url: str, tmp_path: Path, source: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        pool.push([
            {"_id": "1", "command": "touch x input/y", "inputs": [{"url": f"{source}/run1/", "shared": True}]},
            {"_id": "2", "command": "ls -A; find . -type f", "outputs": [{"url": f"{tmp_path}/there/"}]},
            {"_id": "3", "command": "ls -A"},
        ])  # fmt: skip
        work(pool, tmp_path)
        assert _log(pool, "2").split() == ["input", "output", "resource", "tmp"]
        assert _log(pool, "3") == ""


def test_a_function_finds_its_input_and_its_outputs_go(sqlite_url: str, tmp_path: Path, source: Path) -> None:
    with tokenpool.connect(sqlite_url, create=True) as pool:
        policy = Policy(modules=("shutil",))
        token = ran(
            pool,
            tmp_path,
            {"policy": policy},
            command=None,
            function={"name": "shutil:copy", "args": ["input/a.txt", "output/b.txt"]},
            inputs=[{"url": f"{source}/a.txt"}],
            outputs=[{"path": "b.txt", "url": f"{tmp_path}/there/"}],
        )
        assert token["exit_code"] == 0, token["error"]
        assert (tmp_path / "there" / "b.txt").read_text() == "A\n"
        assert token["output"]["result"] == "output/b.txt"
