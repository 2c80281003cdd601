"""YAML 1.2 as CWL has it, in which `yes` is a text and a date is one too; imported where a text is read."""

from __future__ import annotations

import re
from math import inf
from typing import Any

import yaml

from ..errors import BadInput

#: A text may mean so many characters, or so many times its own; a few lines of aliases can mean billions.
SMALL, GROWTH = 1_000_000, 20

_RESOLVERS = (
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)


#: PyYAML ends a word within brackets at a `?`, which is how CWL says that a type is optional: {type: File?}. It reads this.
_ASKED, _MARK = re.compile(r"(?<=[^\s,\[\]{}])\?"), "\ue03f"


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        node.value = node.value.replace(_MARK, "?")
        return node


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), [each.replace("\0", "") for each in _first])


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(node.value).lower().replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def _value(text: str, name: str) -> Any:
    loader = _Loader(text if _MARK in text else _ASKED.sub(_MARK, text))  # a SafeLoader
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _written_out(node, {}) > max(SMALL, GROWTH * len(text)):
            raise BadInput(f"{name} grows beyond measure where its aliases are written out", "write it without them")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _written_out(node: yaml.Node, known: dict[int, float]) -> float:
    """Return about how many characters a node is without aliases; a node that holds itself is infinite."""
    if isinstance(node, yaml.ScalarNode):
        return len(node.value) + 1
    if id(node) not in known:
        known[id(node)] = inf
        inner = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_written_out(each, known) for each in inner)
    return known[id(node)]


def parse(text: str, name: str) -> Any:
    """Return the value of a YAML or JSON text; `name` stands in errors, with line and column.

    >>> parse("{a: yes, b: 012, c: 1e3, d: 2020-01-01}", "x")
    {'a': 'yes', 'b': 12, 'c': 1000.0, 'd': '2020-01-01'}
    >>> parse("{a: {type: File?}, b: [int?, 'x?'], 'c?': 'https://h/x?y=1'}", "x")
    {'a': {'type': 'File?'}, 'b': ['int?', 'x?'], 'c?': 'https://h/x?y=1'}
    """
    try:
        return _value(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise BadInput(f"{place}: {error.problem or error.context}", "it is neither YAML nor JSON") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadInput(f"{name}: {error}", "it is neither YAML nor JSON") from None
