"""Finds the function that a token names, in the modules that the worker's owner allows and in no other."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput
from . import registry

ANY = "*"
#: An entry of the list that begins so names a file with one module a line.
FILE = "@"


def expanded(modules: Iterable[str]) -> list[str]:
    """Return the modules, those that stand in files included; the files are read each time."""
    found: list[str] = []
    for entry in modules:
        if not entry.startswith(FILE):
            found.append(entry)
            continue
        try:
            found += Path(entry[1:]).read_text("utf-8").split()
        except OSError as error:
            raise BadInput(f"the list of modules {entry[1:]} cannot be read", str(error)) from None
    return found


def is_allowed(module: str, modules: Iterable[str]) -> bool:
    """Tell whether a module, or a package around it, is on the list.

    >>> is_allowed("analysis.steps", ["analysis"]), is_allowed("analysis2", ["analysis"])
    (True, False)
    """
    return any(entry == ANY or module == entry or module.startswith(f"{entry}.") for entry in expanded(modules))


def find(name: str, modules: Sequence[str]) -> Any:
    """Return what ``module:name``, ``module.name`` or a registered name stands for; raises BadInput where it may not."""
    module, colon, attribute = name.partition(":")
    if not colon:
        if "." not in name:
            return _registered(name, modules)
        module, _, attribute = name.rpartition(".")
    _check(name, module, modules)
    found: Any = _import(module)
    try:
        for part in attribute.split("."):
            if found is not _import(module) and inspect.ismodule(found):
                raise AttributeError(part)  # another module, of which nobody said that it may be used
            found = getattr(found, part)
    except AttributeError:
        handler = registry.HANDLERS.get(attribute)
        if handler is None or handler.__module__ != module:
            raise BadInput(f"module {module} has no function {attribute!r}", "look at its name and version") from None
        found = handler
    if not callable(found):
        raise BadInput(f"{name} is no function", "a function, or a class that tokenpool.task registers")
    home = getattr(found, "__module__", None) or module
    shown = attribute in getattr(_import(module), "__all__", ())
    if not (shown or is_allowed(home, modules)):
        _check(name, home, modules)
    return found


def _registered(name: str, modules: Sequence[str]) -> Any:
    """Import what is allowed, one module after another, until the name is registered."""
    for module in expanded(modules):
        if name in registry.HANDLERS:
            break
        if module != ANY:
            _import(module)
    handler = registry.HANDLERS.get(name)
    if handler is None:  # python-task-queue names classes by their names alone
        found = [getattr(_import(module), name, None) for module in expanded(modules) if module != ANY]
        handler = next((each for each in found if isinstance(each, type) and hasattr(each, "execute")), None)
    if handler is not None and is_allowed(handler.__module__, modules):
        return handler
    known = ", ".join(sorted(registry.HANDLERS)) or "none"
    raise BadInput(
        f"no task type {name!r} is registered by the modules that this worker allows (known: {known})",
        "start it with --allow-module MODULE, the module that says @tokenpool.task",
    )


def _check(name: str, module: str, modules: Sequence[str]) -> None:
    if not is_allowed(module, modules):
        raise BadInput(
            f"this worker does not call {name}: module {module} is not on its list",
            f"start it with --allow-module {module}",
        )


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # it is there, and misses something itself
        raise BadInput(f"there is no module {module} on this worker", "install it there, or set PYTHONPATH") from None
