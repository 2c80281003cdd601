"""Answers CouchDB's view options with SQL: what is asked for, in which order, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import BadInput
from .base import Row

#: Keys that one statement compares with.
CHUNK = 500
#: CouchDB sorts arrays and objects behind every text; in SQLite a blob is what sorts there.
_BEHIND_TEXT = b"\xff"
_ALIASES = {"start_key": "startkey", "end_key": "endkey", "start_key_doc_id": "startkey_docid"}
_IGNORED = frozenset({"update", "stale", "stable", "update_seq", "sorted"})
_FLAGS = {"descending": False, "include_docs": False, "inclusive_end": True, "group": False, "reduce": None}
_NUMBERS = ("limit", "skip", "group_level")
_KNOWN = {"key", "keys", "startkey", "endkey", "startkey_docid", *_FLAGS, *_NUMBERS}

Run = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Query:
    """One question to a view, checked; `bounds` holds key, startkey, endkey and startkey_docid where given."""

    bounds: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[Any, ...] | None = None
    descending: bool = False
    include_docs: bool = False
    inclusive_end: bool = True
    group: bool = False
    reduce: bool = False
    limit: int = -1
    skip: int = 0

    @property
    def order(self) -> str:
        """Return the direction in SQL."""
        return "DESC" if self.descending else "ASC"


def parse(params: Mapping[str, Any], reducible: bool) -> Query:
    """Check CouchDB's options; raises BadInput for those that make no sense with this view."""
    given = {_ALIASES.get(name, name): value for name, value in params.items() if value is not None}
    unknown = sorted(set(given) - _KNOWN - _IGNORED)
    if unknown:
        raise BadInput(f"unknown view option {unknown[0]!r}", f"known: {', '.join(sorted(_KNOWN))}")
    flags = {name: _flag(name, given[name]) if name in given else default for name, default in _FLAGS.items()}
    numbers = {name: _number(name, given[name]) for name in _NUMBERS if name in given}
    group = bool(flags["group"] or numbers.get("group_level"))
    reduce = reducible if flags["reduce"] is None else bool(flags["reduce"])
    keys = given.get("keys")
    if keys is not None and not isinstance(keys, (list, tuple)):
        raise BadInput("the view option 'keys' must be a list", 'for example keys=["a", "b"]')
    _check(reducible, reduce, group, bool(flags["include_docs"]), keys)
    return Query(
        {name: given[name] for name in ("key", "startkey", "endkey", "startkey_docid") if name in given},
        None if keys is None else tuple(keys),
        bool(flags["descending"]),
        bool(flags["include_docs"]),
        bool(flags["inclusive_end"]),
        group,
        reduce,
        numbers.get("limit", -1),
        numbers.get("skip", 0),
    )


def _check(reducible: bool, reduce: bool, group: bool, include_docs: bool, keys: Sequence[Any] | None) -> None:
    wrong = ""
    if reduce and not reducible:
        wrong = "reduce is for views that have a reduce function"
    elif group and not reduce:
        wrong = "group is for views that reduce"
    elif include_docs and reduce:
        wrong = "include_docs needs reduce=false here"
    elif reduce and keys is not None and len(keys) > 1 and not group:
        wrong = "several keys of a view that reduces need group=true"
    if wrong:
        raise BadInput(f"these view options do not go together: {wrong}", "see CouchDB's manual on views")


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise BadInput(f"the view option {name!r} is true or false, not {value!r}", f"for example {name}=true")


def _number(name: str, value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadInput(f"the view option {name!r} is a number from 0 on, not {value!r}", f"for example {name}=10")
    return value


def scalar(key: Any) -> Any:
    """Return what SQLite compares a key with."""
    return _BEHIND_TEXT if isinstance(key, (list, tuple, dict)) else key


def _where(query: Query) -> tuple[str, list[Any]]:
    bounds = query.bounds
    after, before = ("<", ">") if query.descending else (">", "<")
    terms: list[str] = []
    values: list[Any] = []
    if "key" in bounds:
        terms.append("key = ?")
        values.append(scalar(bounds["key"]))
    if "startkey" in bounds and "startkey_docid" in bounds:
        # The first term alone can use an index; the second one is exact.
        terms.append(f"key {after}= ? AND (key {after} ? OR id {after}= ?)")
        values += [scalar(bounds["startkey"])] * 2 + [bounds["startkey_docid"]]
    elif "startkey" in bounds:
        terms.append(f"key {after}= ?")
        values.append(scalar(bounds["startkey"]))
    if "endkey" in bounds:
        terms.append(f"key {before}{'=' if query.inclusive_end else ''} ?")
        values.append(scalar(bounds["endkey"]))
    return " AND ".join(terms) or "1", values


def read(run: Run, source: str, reducer: str, query: Query) -> list[Row]:
    """Answer from `source`, a SELECT of id, key, value; documents are not read here."""
    if query.keys is None:
        where, values = _where(query)
        return _select(run, source, reducer, query, where, values, query.limit, query.skip)
    found = _by_keys(run, source, reducer, query, query.keys)
    return found[query.skip : None if query.limit < 0 else query.skip + query.limit]


def _select(
    run: Run, source: str, reducer: str, query: Query, where: str, values: Iterable[Any], limit: int, skip: int
) -> list[Row]:
    if query.reduce and query.group:
        what, tail = f"NULL, key, {reducer}", f"GROUP BY key ORDER BY key {query.order}"
    elif query.reduce:
        # As CouchDB: nothing to reduce, no row.
        what, tail = f"NULL, NULL, {reducer}", "HAVING count(*) > 0"
        where = f"({where}) GROUP BY NULL"
    else:
        what, tail = "id, key, value", f"ORDER BY key {query.order}, id {query.order}"
    statement = f"SELECT {what} FROM ({source}) WHERE {where} {tail} LIMIT ? OFFSET ?"
    return [Row(*row) for row in run(statement, (*values, limit, skip))]


def _by_keys(run: Run, source: str, reducer: str, query: Query, keys: tuple[Any, ...]) -> list[Row]:
    """Return the rows in the order in which their keys were asked for."""
    found: dict[Any, list[Row]] = {}
    wanted = [scalar(key) for key in keys]
    distinct = list(dict.fromkeys(wanted))
    for at in range(0, len(distinct), CHUNK):
        some = distinct[at : at + CHUNK]
        marks = f"key IN ({','.join('?' * len(some))})"
        for row in _select(run, source, reducer, query, marks, some, -1, 0):
            found.setdefault(row.key, []).append(row)
    if query.reduce and not query.group:
        return [row for rows in found.values() for row in rows]
    return [row for key in wanted for row in found.get(key, ())]


def all_docs(rows: list[Row], query: Query) -> list[Row]:
    """Spell the rows of the list of all documents as CouchDB does; asked by keys, a missing document has a row too."""
    rows = [Row(row.id, row.key, {"rev": row.value}) for row in rows]
    if query.keys is None or query.limit >= 0 or query.skip:
        return rows
    there = {row.key: row for row in rows}
    return [there.get(scalar(key), Row(None, key, None)) for key in query.keys]
