"""Finds the built-in or installed implementation of an exchangeable thing by its name."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping
from typing import Any

from .errors import BadInput


def load(group: str, name: str, builtin: Mapping[str, str]) -> Any:
    """Return the object registered as `name`: from the built-in table first, then from entry points ``tokenpool.<group>``.

    The table comes first so that no installed package can shadow a built-in, and because a single file on a Grid node
    has no package metadata at all. Raises BadInput with the names there are.
    """
    target = builtin.get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    installed = _entry_points(f"tokenpool.{group}")
    if name in installed:
        return installed[name].load()
    known = sorted({*builtin, *installed})
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
    raise BadInput(f"unknown {group.rstrip('s')} {name!r}", hint)


def _entry_points(group: str) -> dict[str, Any]:
    from importlib import metadata

    if sys.version_info >= (3, 10):
        return {point.name: point for point in metadata.entry_points(group=group)}
    return {point.name: point for point in metadata.entry_points().get(group, ())}
