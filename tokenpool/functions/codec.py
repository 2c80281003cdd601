"""Writes values so that they come back the same: as JSON where that is exact, else as pickles where these are allowed."""

from __future__ import annotations

import base64
import io
import json
import math
import pickle
from typing import Any


def is_exact(value: Any) -> bool:
    """Tell whether a value comes back from JSON as it was: no tuples, no keys that are no text, no NaN.

    >>> is_exact({"a": [1, None, "x"]}), is_exact((1, 2)), is_exact({1: 2})
    (True, False, False)
    """
    kind = type(value)
    if kind in (str, int, bool, type(None)):
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is list:
        return all(is_exact(each) for each in value)
    if kind is dict:
        return all(type(name) is str and is_exact(each) for name, each in value.items())
    return False


def to_json(value: Any) -> str:
    """Return a value as JSON; raises TypeError or ValueError with the reason where it is none."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)


def to_pickle(value: Any) -> str:
    """Return a value as a pickle in base64; functions of scripts and notebooks need cloudpickle. Raises TypeError."""
    try:
        return _text(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) if not _is_local(value) else _by_value(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _by_value(value)


def from_pickle(text: str) -> Any:
    """Return what `to_pickle` wrote. A pickle can do anything: only call this where that is allowed."""
    return pickle.loads(base64.b85decode(text))


def _text(data: bytes) -> str:
    return base64.b85encode(data).decode("ascii")


def _by_value(value: Any) -> str:
    try:
        import cloudpickle
    except ImportError:
        raise TypeError(
            f"{value!r:.80} cannot be sent as it is: it belongs to a script or a notebook, or is no plain value. "
            "Put the function into a module of its own, or install cloudpickle"
        ) from None
    return _text(cloudpickle.dumps(value))


class _Finder(pickle.Pickler):
    """Finds out whether a pickle would name something of ``__main__``, which is another module over there."""

    found = False

    def persistent_id(self, obj: Any) -> None:
        if getattr(obj, "__module__", None) == "__main__":
            self.found = True


def _is_local(value: Any) -> bool:
    finder = _Finder(io.BytesIO(), pickle.HIGHEST_PROTOCOL)
    finder.dump(value)
    return finder.found
