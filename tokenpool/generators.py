"""Makes tokens of what people have: lines of commands, CSV, JSON, JSONL, YAML."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, TextIO

from .errors import BadInput, NotFound, NotPermitted

Fields = dict[str, Any]

#: CouchDB refuses a document of 8 000 000 bytes; the token needs room for its history.
MAX_TOKEN_BYTES = 7_000_000
#: File endings and what they hold; anything else is lines.
FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".yaml": "yaml", ".yml": "yaml"}


class TokenGenerator:
    """picas' maker of empty tokens."""

    @staticmethod
    def get_empty_token() -> dict[str, Any]:
        """Return a free token without an id or input."""
        return {"lock": 0, "done": 0, "hostname": "", "scrub_count": 0, "type": "token"}


def read_file(path: str, format: str = "") -> Iterator[Fields]:
    """Yield the fields of each token in a file, in constant memory where the format allows (lines, CSV, JSONL).

    Raises BadInput with file and line where something makes no sense, or where there is no token at all.
    """
    kind = format or FORMATS.get(Path(path).suffix.lower(), "lines")
    try:
        with open(path, encoding="utf-8-sig", newline="" if kind == "csv" else None) as file:
            yield from read(file, kind, path)
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", "check the name; '-' reads from standard input") from None
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder", "name a file of commands, CSV, JSON, JSONL or YAML") from None
    except PermissionError:
        raise NotPermitted(f"{path} may not be read", "check its permissions: ls -l") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in UTF-8: {error.reason}", "is it the right file?") from None


def read(file: TextIO, format: str, name: str) -> Iterator[Fields]:
    """Yield the fields of each token in an open file; `name` stands in errors."""
    readers: dict[str, Callable[[TextIO, str], Iterator[Fields]]] = {
        "lines": _lines,
        "csv": _csv,
        "json": _json,
        "jsonl": _jsonl,
        "yaml": _yaml,
    }
    if format not in readers:
        raise BadInput(f"unknown format {format!r}", f"known: {', '.join(readers)}")
    empty = True
    for fields in readers[format](file, name):
        empty = False
        yield fields
    if empty:
        raise BadInput(f"{name} holds no token", "write one command a line, or JSON, JSONL, CSV or YAML")


def check_size(fields: Mapping[str, Any], where: str) -> None:
    """Raise BadInput where a token is larger than any server takes."""
    text = fields.get("input")
    size = len(text) if isinstance(text, str) and len(fields) == 1 else len(json.dumps(fields))
    if size > MAX_TOKEN_BYTES:
        raise BadInput(
            f"{where}: a token of {size / 1e6:.1f} MB is too large (at most {MAX_TOKEN_BYTES / 1e6:.0f} MB)",
            "keep large data in a file and give its name to the command",
        )


def _lines(file: TextIO, name: str) -> Iterator[Fields]:
    for number, line in enumerate(file, 1):
        command = line.strip()
        if not command or command.startswith("#"):
            continue
        if "\0" in command:
            raise BadInput(f"{name}:{number}: a command cannot hold a NUL character", "is it a text file?")
        check_size({"input": command}, f"{name}:{number}")
        yield {"input": command}


def _csv(file: TextIO, name: str) -> Iterator[Fields]:
    # Python's own limit of 128 kB a field is far below what a token may hold.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_TOKEN_BYTES))
    reader = csv.DictReader(file, strict=True)
    try:
        for row in reader:
            where = f"{name}:{reader.line_num}"
            if None in row or None in row.values():
                raise BadInput(f"{where}: {len(reader.fieldnames or ())} columns were expected", "is a comma missing?")
            fields: Fields = {key: value for key, value in row.items() if value != ""}
            check_size(fields, where)
            yield fields
    except csv.Error as error:
        # The line of the row that failed, not of the last that did not.
        raise BadInput(f"{name}:{reader.reader.line_num}: {error}", "is a quote missing?") from None


def _jsonl(file: TextIO, name: str) -> Iterator[Fields]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise BadInput(
                f"{name}:{number}: not JSON: {error}", "one JSON document a line; nothing was pushed"
            ) from None
        yield _fields(value, f"{name}:{number}")


def _json(file: TextIO, name: str) -> Iterator[Fields]:
    try:
        whole = json.load(file)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise BadInput(f"{name}:{line}: not JSON: {error}", "for one document a line name it .jsonl") from None
    yield from _items(whole, name)


def _yaml(file: TextIO, name: str) -> Iterator[Fields]:
    import yaml

    try:
        documents = list(yaml.safe_load_all(file))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else name
        raise BadInput(f"{where}: not YAML: {getattr(error, 'problem', error)}", "check the indentation") from None
    for document in documents:
        yield from _items(document, name)


def _items(whole: Any, name: str) -> Iterator[Fields]:
    if isinstance(whole, Mapping) and isinstance(whole.get("tokens"), list):
        whole = whole["tokens"]
    for number, value in enumerate(whole if isinstance(whole, list) else [] if whole is None else [whole], 1):
        yield _fields(value, f"{name}: item {number}")


def _fields(value: Any, where: str) -> Fields:
    """Return the fields of one JSON value: an object is a token, a string is a command."""
    if isinstance(value, str):
        value = {"input": value}
    if not isinstance(value, dict):
        raise BadInput(
            f"{where}: a token is an object or a command, not {type(value).__name__}", 'write {"input": "echo hi"}'
        )
    check_size(value, where)
    return value
