"""Files become tokens: every format, errors with file and line, and no more memory for a large file than for a small one."""

from __future__ import annotations

import io
import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from tokenpool.errors import BadInput, NotFound, NotPermitted
from tokenpool.generators import MAX_TOKEN_BYTES, TokenGenerator, read, read_file

GOOD = {
    "lines": ("echo a\n\n# a remark\n  echo b  \n", [{"input": "echo a"}, {"input": "echo b"}]),
    "csv": ('input,batch\n"echo, a",x\n"two\nlines",\n', [{"input": "echo, a", "batch": "x"}, {"input": "two\nlines"}]),
    "jsonl": ('{"input": "a"}\n\n"echo b"\n', [{"input": "a"}, {"input": "echo b"}]),
    "json": ('{"tokens": [{"input": "a"}, "b"]}', [{"input": "a"}, {"input": "b"}]),
    "yaml": ("- input: a\n- b\n---\ninput: c\n", [{"input": "a"}, {"input": "b"}, {"input": "c"}]),
}


@pytest.mark.parametrize("kind", GOOD)
def test_each_format_gives_its_tokens(kind: str) -> None:
    text, tokens = GOOD[kind]
    assert list(read(io.StringIO(text, newline=""), kind, "f")) == tokens


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CSV", "csv"),
        ("a.json", "json"),
        ("a.jsonl", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.yml", "yaml"),
        ("a.txt", "lines"),
        ("a", "lines"),
    ],
)
def test_the_ending_names_the_format(name: str, kind: str) -> None:
    text, tokens = GOOD[kind]
    Path(name).write_bytes(b"\xef\xbb\xbf" + text.encode())  # as a Windows editor writes it
    assert list(read_file(name)) == tokens
    assert list(read_file(name, kind)) == tokens


@pytest.mark.parametrize(
    ("kind", "text", "where"),
    [
        ("lines", "a\n\nb\0c\n", "f:3: "),
        ("lines", "a\n" + "x" * (MAX_TOKEN_BYTES + 1), "f:2: "),
        ("csv", "input,batch\na,b\nc\n", "f:3: 2 columns"),
        ("csv", "input\na\nb,c\n", "f:3: 1 columns"),
        ("csv", 'input\na\n"b\n', "f:3: "),
        ("jsonl", '{"input": "a"}\n\n{nope}\n', "f:3: not JSON"),
        ("jsonl", '{"input": "a"}\n7\n', "f:2: a token is an object or a command, not int"),
        ("json", '[\n{"input": "a"},\n{]', "f:3: not JSON"),
        ("json", '["a", [1]]', "f: item 2: "),
        ("yaml", "- a\n- {b\n", "f:3: not YAML"),
        ("yaml", "- a\n- 5\n", "f: item 2: "),
        *((kind, "", "f holds no token") for kind in ("lines", "csv", "jsonl", "yaml")),
        ("json", "[]", "f holds no token"),
    ],
)
def test_an_error_names_file_and_line(kind: str, text: str, where: str) -> None:
    with pytest.raises(BadInput) as refused:
        list(read(io.StringIO(text, newline=""), kind, "f"))
    assert str(refused.value).startswith(where), refused.value
    assert refused.value.hint


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name, error in (("missing", NotFound), (str(tmp_path), BadInput), ("binary", BadInput)):
        with pytest.raises(error, match=name.rpartition("/")[2]):
            list(read_file(name))


def test_a_file_that_may_not_be_read_is_not_permitted(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(NotPermitted):
        list(read_file("secret"))


def test_an_unknown_format_is_refused_with_those_known() -> None:
    with pytest.raises(BadInput) as refused:
        list(read(io.StringIO("a"), "xml", "f"))
    assert "jsonl" in refused.value.hint


class Endless(io.TextIOBase):
    """A file of as many lines as asked for, made while they are read."""

    def __init__(self, line: str, lines: int, first: str = "") -> None:
        self.lines = itertools.chain([first] if first else [], itertools.repeat(line, lines))

    def __next__(self) -> str:
        return next(self.lines)

    def __iter__(self) -> Any:
        return self


@pytest.mark.parametrize(
    ("kind", "line", "first"),
    [("lines", "echo hi\n", ""), ("csv", "echo,hi\n", "input,batch\n"), ("jsonl", '{"input": "x"}\n', "")],
)
def test_a_large_file_needs_no_more_memory_than_a_small_one(kind: str, line: str, first: str) -> None:
    def peak(lines: int) -> int:
        tracemalloc.start()
        try:
            assert sum(1 for _ in read(Endless(line, lines, first), kind, "f")) == lines  # type: ignore[arg-type]
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    assert peak(20_000) < peak(100) + 50_000


def test_nothing_is_yielded_late_tokens_before_an_error_come_first() -> None:
    tokens = read(io.StringIO('"a"\n{'), "jsonl", "f")
    assert next(tokens) == {"input": "a"}
    with pytest.raises(BadInput):
        next(tokens)


def test_an_empty_token_is_picas() -> None:
    assert TokenGenerator.get_empty_token() == {"lock": 0, "done": 0, "hostname": "", "scrub_count": 0, "type": "token"}
