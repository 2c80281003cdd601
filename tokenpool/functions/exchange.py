"""What an executor sends and gets back: calls as the `function` of a token, results and exceptions out of its output."""

from __future__ import annotations

import builtins
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import codec

Json = dict[str, Any]


class RemoteError(RuntimeError):
    """A call failed over there in a way that has no exception of its own here; `str()` says how."""


class RemoteTraceback(Exception):
    """Where a call failed over there; the cause of its exception here."""

    def __str__(self) -> str:
        return "\n" + "\n".join(map(str, self.args))


@dataclass(frozen=True)
class Invocation:
    """A function and the arguments of one call of it."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def name_of(function: Any) -> str:
    """Return the name by which other processes find a function, "" where they cannot."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__" or "<" in name:
        return ""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is function else ""


def packed(calls: Sequence[Invocation], chunk: bool, pickles: bool) -> Json:
    """Return the `function` of a token that makes these calls of one function. Raises TypeError where it cannot be sent."""
    first = calls[0]
    name = name_of(first.function)
    plain = all(codec.is_exact(list(call.args)) and codec.is_exact(dict(call.kwargs)) for call in calls)
    told: Json = {"name": name or "pickled", "exact": True}
    if name and plain and not (chunk and any(call.kwargs for call in calls)):
        if chunk:
            return {**told, "chunk": [list(call.args) for call in calls]}
        return {**told, "args": list(first.args), "kwargs": dict(first.kwargs)}
    if not pickles:
        what = f"the arguments of {name} are not plain JSON" if name else f"{first.function!r} is in no module"
        raise TypeError(
            f"{what}: workers that take no pickles cannot get that. Use a function of a module and lists, texts and "
            "numbers, or PoolExecutor(…, pickles=True) with workers that were started with --allow-pickles"
        )
    inside = [(call.args, dict(call.kwargs)) for call in calls]
    told["pickle"] = codec.to_pickle((None if name else first.function, inside))
    return {**told, "chunk": []} if chunk else told


def result_of(
    outcome: Mapping[str, Any], pickles: bool, known: Callable[[str], bool]
) -> tuple[Any, BaseException | None]:
    """Return the value of one call, or None and its exception; types are looked for in modules that are `known`."""
    if "exception" in outcome:
        return None, _exception(outcome["exception"], pickles, known)
    if "pickle" in outcome:
        if not pickles:
            return None, RemoteError("the result came as a pickle, which this executor does not take")
        return codec.from_pickle(outcome["pickle"]), None
    return outcome.get("result"), None


def failure_of(token: Mapping[str, Any]) -> BaseException:
    """Return the exception for a token that failed without one of its function."""
    errors, attempts = token.get("error"), token.get("attempts")
    last = errors[-1] if isinstance(errors, list) and errors else {}
    message = last.get("message") if isinstance(last, dict) else ""
    failure = attempts[-1].get("failure_class") if isinstance(attempts, list) and attempts else ""
    text = f"{message or 'it failed'} (token {token['_id']})"
    return TimeoutError(text) if failure == "timeout" else RemoteError(text)


def outcomes_of(token: Mapping[str, Any], attachment: Callable[[str], bytes]) -> list[Json] | None:
    """Return what each call of a token gave, None where the token as a whole has failed."""
    output = token.get("output")
    if not isinstance(output, dict):
        return None
    if "attached" in output:
        output = json.loads(attachment(output["attached"]))
    if "results" in output:
        return list(output["results"])
    return [output] if any(name in output for name in ("result", "pickle", "exception")) else None


def _exception(told: Mapping[str, Any], pickles: bool, known: Callable[[str], bool]) -> BaseException:
    error: BaseException | None = None
    try:
        if "pickle" in told and pickles:
            error = codec.from_pickle(told["pickle"])
        elif "args" in told:
            error = _class_of(told["type"], known)(*told["args"])
    except Exception:
        error = None  # it is told in words
    if not isinstance(error, BaseException):
        error = RemoteError(f"{told.get('type', '').partition(':')[2]}: {told.get('message', '')}")
    error.__cause__ = RemoteTraceback(told.get("traceback", ""))
    return error


def _class_of(name: str, known: Callable[[str], bool]) -> type[BaseException]:
    module, _, path = name.partition(":")
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    if found is None and known(module):
        found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise TypeError(f"{name} is no exception")
    return found
