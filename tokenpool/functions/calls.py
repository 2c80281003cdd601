"""Makes one call, or a chunk of them, as a token describes it, and says how it went as JSON."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BadInput
from . import allowed, codec, registry
from .datasource import Datasource

Json = dict[str, Any]

#: Bytes of a result that still stand in the token itself; a larger one is attached.
SMALL = 64 * 1024
#: Where a large result waits, in the attempt's folder, to be attached.
LARGE = ".tokenpool-result"


@dataclass(frozen=True)
class Rules:
    """What the worker's owner lets functions do."""

    modules: tuple[str, ...] = ()
    pickles: bool = False
    attach_limit: int = 10_000_000


class Caller:
    """Makes calls, one after another, under the rules of one worker."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._found: dict[str, Any] = {}

    def answer(self, call: Mapping[str, Any]) -> Json:
        """Make the call of `call["function"]` and return how it went.

        ``{"output": …}`` is success; ``{"failure": class, "exit_code": n, "message": …}`` is not, its `output` may hold
        the exception. `file` is where a large result is to be attached, by the name `as`.
        """
        function, rules = call["function"], self._rules
        exact = bool(function.get("exact"))
        pickles = exact and rules.pickles
        began = time.perf_counter()
        try:
            made = self._prepared(function, call.get("input"))
        except BadInput as error:
            return _invalid(f"{error}; {error.hint}" if error.hint else str(error))
        except Exception as error:  # the module raises where it is imported
            return _raised(error, pickles)
        try:
            if isinstance(made, list):
                return _written({"results": [_outcome(each, pickles) for each in made]}, "", rules)
            value = made()
        except SystemExit as error:
            return _left(error)
        except (Exception, KeyboardInterrupt) as error:
            return _raised(error, pickles)
        if isinstance(value, registry.Result):
            return _of_result(value, rules)
        try:
            output, text = _encoded(value, pickles)
            if exact:  # an executor makes larger chunks of short calls
                output["seconds"] = round(time.perf_counter() - began, 6)
                text = ""
            return _written(output, text, rules)
        except (TypeError, ValueError, RecursionError) as error:
            return _failed(f"the result of {function['name']} is not JSON: {error}")

    def _prepared(self, function: Mapping[str, Any], task: Any) -> Callable[[], Any] | list[Callable[[], Any]]:
        """Return what is to be called without arguments, or a list of that; raises BadInput where it may not be."""
        pickled, chunk = function.get("pickle"), function.get("chunk")
        target, calls = None, [(function.get("args") or [], function.get("kwargs") or {})]
        if pickled is not None:
            if not self._rules.pickles:
                raise BadInput(
                    "this worker takes no pickles: they can do anything",
                    "start it with --allow-pickles where all who may write to the pool are trusted",
                )
            # A function or None, and the arguments of each call.
            target, calls = codec.from_pickle(pickled)
        elif chunk is not None:
            calls = [(args, function.get("kwargs") or {}) for args in chunk]
        target = target if target is not None else self._target(function["name"])
        if isinstance(target, type) and target in registry.HANDLERS.values():
            return _typed(target, task, function)
        if isinstance(target, type) and callable(getattr(target, "execute", None)):
            return lambda: target(*calls[0][0], **calls[0][1]).execute()
        made = [_bound(target, args, kwargs) for args, kwargs in calls]
        return made if chunk is not None else made[0]

    def _target(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = allowed.find(name, self._rules.modules)
        return self._found[name]


# --- before ----------------------------------------------------------------------------------------------------------


def _bound(target: Any, args: Any, kwargs: Any) -> Callable[[], Any]:
    return lambda: target(*args, **kwargs)


def _typed(handler: type, task: Any, function: Mapping[str, Any]) -> Callable[[], Any]:
    given = function.get("kwargs") or {}
    source = given if "basic_info" in given else task
    made = registry.typed(handler, source)

    def run() -> Any:
        steps, datasource = handler(), Datasource.of_environment()
        steps.prepare(made, datasource)
        result = steps.execute(made, datasource)
        if not isinstance(result, registry.Result):
            result = registry.Result(True, list(result) if isinstance(result, (list, tuple)) else [])
        steps.finalize(made, datasource, result)
        return result

    return run


# --- after -----------------------------------------------------------------------------------------------------------


def _outcome(made: Callable[[], Any], pickles: bool) -> Json:
    """Return what one call of a chunk gave."""
    try:
        value = made()
    except (Exception, SystemExit) as error:
        return {"exception": _described(error, pickles)}
    try:
        return _encoded(value, pickles)[0]
    except (TypeError, ValueError, RecursionError) as error:
        return {"exception": _described(TypeError(f"the result is not JSON: {error}"), pickles)}


def _encoded(value: Any, pickles: bool) -> tuple[Json, str]:
    """Return the output that holds a value, and its JSON where that is there already."""
    if pickles and not codec.is_exact(value):
        return {"pickle": codec.to_pickle(value)}, ""
    text = codec.to_json(value)
    return {"result": value}, f'{{"result":{text}}}'


def _written(output: Json, text: str, rules: Rules) -> Json:
    """Return the answer with an output; a large one lies in a file."""
    text = text or codec.to_json(output)
    if len(text) <= SMALL:
        return {"output": output}
    data = text.encode()
    if len(data) > rules.attach_limit:
        return _failed(f"the result has {len(data)} bytes, above the {rules.attach_limit} that this worker attaches")
    path = os.path.join(os.environ.get("TOKENPOOL_WORKDIR") or os.getcwd(), LARGE)
    with open(path, "wb") as file:
        file.write(data)
    return {"output": {"attached": "result.json"}, "file": path, "as": "result.json"}


def _of_result(result: registry.Result, rules: Rules) -> Json:
    try:
        answer = _written({"result": asdict(result)}, "", rules)
    except (TypeError, ValueError) as error:
        return _failed(f"the outputs of the task are not JSON: {error}")
    if not result.success:
        answer.update(failure="executor", exit_code=1, message="the task says that it did not succeed")
    return answer


def _invalid(message: str) -> Json:
    return {"failure": "invalid", "exit_code": 99, "message": message}


def _failed(message: str) -> Json:
    return {"failure": "executor", "exit_code": 1, "message": message}


def _left(error: SystemExit) -> Json:
    """``sys.exit`` means what it means in a script: a number is the exit code, a text goes to stderr."""
    code = error.code
    if code is None or code == 0:
        return {"output": {"result": None}}
    if not isinstance(code, int):
        print(code, file=sys.stderr)
    number = code & 0xFF if isinstance(code, int) else 1
    return {"failure": "executor", "exit_code": number or 1, "message": f"it called sys.exit({code!r})"}


def _raised(error: BaseException, pickles: bool) -> Json:
    described = _described(error, pickles)
    print(described["traceback"], file=sys.stderr, end="")
    message = f"{type(error).__name__}: {described['message']}"
    return {**_failed(message), "output": {"exception": described}}


def _described(error: BaseException, pickles: bool) -> Json:
    """Return an exception as JSON: its type, what it says, where it was raised."""
    kind = type(error)
    try:
        message = str(error)
    except Exception as worse:
        message = f"(its text cannot be shown: {worse!r})"
    told: Json = {"type": f"{kind.__module__}:{kind.__qualname__}", "message": message}
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next  # our own frames are no news
    told["traceback"] = "".join(traceback.format_exception(kind, error, trace))
    if codec.is_exact(list(error.args)):
        told["args"] = list(error.args)
    elif pickles:
        try:
            told["pickle"] = codec.to_pickle(error)
        except Exception:
            pass  # what cannot be sent comes back as text
    return told
