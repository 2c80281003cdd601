"""Runs Python functions, in processes that stay from one token to the next; never in the worker itself."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..children import Finished
from ..functions.ends import Answered, Call
from ..functions.hosts import Hosts
from ..run_checks import RUN_CHECKS
from .base import Context, Home, Places, Result, Runner
from .command import timeout_of
from .helper import ROOT

#: What a token may bring that needs a process of its own: what it changes there cannot be undone.
APART = ("env", "resources", "secrets", "checkpoint")
#: Variables that all tokens have: a token with others needs a process of its own as well.
USUAL = {
    "TOKENPOOL_WORKDIR", "TOKENPOOL_TOKEN_ID", "TOKENPOOL_ATTEMPT", "TOKENPOOL_CLAIM",
    "INPUT", "OUTPUT", "RESOURCE", "TEMP", "CPU",
}  # fmt: skip
_START = (
    "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); "
    "from tokenpool.functions.host import main; main(*sys.argv[2:])"
)


class FunctionRunner(Runner):
    """The token's `function`: ``module:name`` with args and kwargs, a registered task type, or a pickle."""

    lane = "function"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: Hosts | None = None
        self._width = 1

    def start(
        self, token: Mapping[str, Any], places: Places, context: Home, on_end: Callable[[Any], None]
    ) -> Call | None:
        if any(token.get(name) for name in APART) or not USUAL.issuperset(places.own):
            return None
        return self._of(context).add(_request(token, places), timeout_of(token), on_end)

    def push(self) -> None:
        if self._hosts is not None:
            self._hosts.push()

    def widen(self, n: int) -> None:
        self._width = n
        if self._hosts is not None:
            self._hosts.widen(n)

    def run(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        RUN_CHECKS["function"](token.get("function"), token)
        return self._alone(token, places, context)

    def result(self, token: Mapping[str, Any], finished: Finished) -> Result:
        answer = finished.answer if isinstance(finished, Answered) else None
        cpu, rss = finished.cpu_seconds, finished.max_rss_mb
        if answer is None:
            return _died(token, finished)
        files = {answer["as"]: answer["file"]} if "file" in answer else {}
        return Result(
            answer.get("exit_code", 0), answer.get("failure", ""), answer.get("message", ""), cpu, rss,
            answer.get("output"), files,
        )  # fmt: skip

    def close(self) -> None:
        if self._hosts is not None:
            self._hosts.close()

    def _of(self, context: Home) -> Hosts:
        with self._lock:
            if self._hosts is None or self._hosts.broken:
                self._hosts = Hosts(
                    lambda words, log, on_end: context.serve(_argv(words), log, on_end), _rules(context), context.grace
                )
                self._hosts.widen(self._width)
            return self._hosts

    def _alone(self, token: Mapping[str, Any], places: Places, context: Context) -> Result:
        """Run a token in a process of its own, with its environment from the beginning."""
        asked, answered = f"{places.bay.work}.call", f"{places.bay.work}.answer"
        try:
            with open(os.open(asked, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump({**_request(token, places), "rules": _rules(context)}, file)
            finished = context.execute(_argv(["once", asked, answered]), places, timeout_of(token))
            try:
                answer = json.loads(Path(answered).read_text("utf-8"))
            except (OSError, ValueError):
                answer = None
        finally:
            for path in (asked, answered):
                if os.path.exists(path):
                    os.unlink(path)
        return self.result(token, Answered(**{**vars(finished), "answer": answer}))


#: What a picas worker does with a call that only our workers can make.
_ONLY_HERE = "echo 'only a worker of tokenpool can make this call' >&2; exit 69"
_CALL = (
    "import functools, importlib, json, sys; m, n, a, k = sys.argv[1:]; "
    "f = functools.reduce(getattr, n.split('.'), importlib.import_module(m)); "
    "print(json.dumps(f(*json.loads(a), **json.loads(k))))"
)


def line_of(token: Mapping[str, Any]) -> str:
    """Return the shell line that makes the call of a token and prints its result, for a worker of picas.

    >>> line_of({"function": {"name": "math:sqrt", "args": [4]}}).endswith(" math sqrt '[4]' '{}'")
    True
    """
    function = token["function"]
    name = function["name"]
    module, _, attribute = name.partition(":") if ":" in name else name.rpartition(".")
    if not module or "pickle" in function or "chunk" in function:
        return _ONLY_HERE
    words = [module, attribute, json.dumps(function.get("args") or []), json.dumps(function.get("kwargs") or {})]
    exports = "".join(f"{key}={shlex.quote(str(value))} " for key, value in (token.get("env") or {}).items())
    return f"{exports}{shlex.join(['python3', '-c', _CALL, *words])}"


def _request(token: Mapping[str, Any], places: Places) -> dict[str, Any]:
    asked: dict[str, Any] = {"function": token["function"], "work": places.work}
    asked.update(out=places.stdout, err=places.stderr, env=dict(places.own))
    if isinstance(token.get("input"), dict):
        asked["input"] = token["input"]
    return asked


def _rules(context: Context) -> dict[str, Any]:
    policy = context.policy
    return {"modules": list(policy.modules), "pickles": policy.pickles, "attach_limit": policy.attach_limit}


def _argv(words: list[str]) -> list[str]:
    """Modules are found where the worker finds them, and where it was started: not in the folders of tokens."""
    here = os.getcwd()
    paths = dict.fromkeys([*(os.path.abspath(path or here) for path in sys.path), here, ROOT])
    return [sys.executable, "-c", _START, os.pathsep.join(paths), *words]


def _died(token: Mapping[str, Any], finished: Finished) -> Result:
    """Say how a process ended that was to answer."""
    code = 128 - finished.returncode if finished.returncode < 0 else finished.returncode
    cpu, rss = finished.cpu_seconds, finished.max_rss_mb
    if finished.timed_out:
        message = f"stopped: it ran longer than its timeout of {timeout_of(token):g} s"
        return Result(code or 1, "timeout", message, cpu, rss)
    if finished.error:
        return Result(code or 126, "system", finished.error, cpu, rss)
    try:
        how = (
            f"the signal {signal.Signals(-finished.returncode).name}"
            if finished.returncode < 0
            else f"exit code {code}"
        )
    except ValueError:
        how = f"the signal {-finished.returncode}"
    return Result(code or 1, "executor", f"the function ended its process, with {how}", cpu, rss)
