"""Marks functions and classes as work for a pool: `task` gives a function its `push`, and registers a class by a name."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import BadInput

#: What `task` registered in this process, by name.
HANDLERS: dict[str, Any] = {}
#: What a class needs to be a task type.
STEPS = ("prepare", "execute", "finalize")
_PAYLOAD = "__tokenpool_payload__"


@dataclasses.dataclass(frozen=True)
class Result:
    """What `execute` says: whether it went well, and the names of what it made."""

    success: bool
    outputs: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class BasicInfo:
    """What every task of SimpleTasks has; inputs are names below the base directory."""

    id: int
    name: str
    base_directory: str
    inputs: list[str]

    @classmethod
    def of(cls, value: Any) -> BasicInfo:
        """Return it from its JSON; raises BadInput for what SimpleTasks refuses."""
        if not isinstance(value, Mapping):
            raise BadInput(f"basic_info {value!r:.60} is no object", "it has id, name, base_directory and inputs")
        for name in ("name", "base_directory"):
            if not isinstance(value.get(name), str) or not value[name]:
                raise BadInput(f"basic_info has no {name}", "it is a text that is not empty")
        inputs = value.get("inputs")
        if not isinstance(inputs, list) or not inputs or not all(isinstance(each, str) and each for each in inputs):
            raise BadInput("basic_info has no inputs", "a list of names below base_directory, at least one")
        number = value.get("id", -1)
        if isinstance(number, bool) or not isinstance(number, int):
            raise BadInput(f"the id {number!r} of basic_info is no whole number", "for example 4")
        return cls(number, value["name"], value["base_directory"], list(inputs))


@dataclasses.dataclass(frozen=True)
class TypedTask:
    """One task as its handler sees it; `payload_info` is of the handler's own type."""

    basic_info: BasicInfo
    payload_info: Any

    def key(self, name: str) -> str:
        """Return the key of something below the base directory."""
        return f"{self.basic_info.base_directory.rstrip('/')}/{name}"

    @property
    def input_keys(self) -> list[str]:
        """The keys of the inputs."""
        return [self.key(name) for name in self.basic_info.inputs]


class TaskFunction:
    """A function that can also be pushed; calling it calls it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __reduce__(self) -> str:
        return self._function.__qualname__

    @property
    def name(self) -> str:
        """The name by which workers find it."""
        return f"{self._function.__module__}:{self._function.__qualname__}"

    def token(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the fields of a token that makes this call."""
        called: dict[str, Any] = {"name": self.name}
        called.update({name: value for name, value in (("args", list(args)), ("kwargs", kwargs)) if value})
        return {"function": called}

    def push(self, pool: Any, /, *args: Any, **kwargs: Any) -> str:
        """Put one call into a pool, or into the pool of a URL; return the id of its token."""
        if not isinstance(pool, str):
            return str(pool.push(self.token(*args, **kwargs))[0])
        # By its name: the pool stands above this module, which processes that only call functions need too.
        with importlib.import_module("tokenpool.pool").connect(pool) as opened:
            return str(opened.push(self.token(*args, **kwargs))[0])


def task(what: Any = None, *, payload: Callable[[Any], Any] | None = None) -> Any:
    """Make a function one that can be pushed; with a name, register it, or a class with prepare, execute and finalize.

    The payload of a class is what its annotation `payload_info` says (a dataclass, a pydantic model, anything with
    `from_dict`), or what the function `payload` makes of the JSON.

    >>> @task
    ... def double(x: int) -> int:
    ...     return 2 * x
    >>> double(4), double.token(4)["function"]["args"]
    (8, [4])
    """
    if isinstance(what, str):
        return functools.partial(_register, what, payload)
    if isinstance(what, type):
        raise TypeError(f"say which tasks {what.__name__} is for: @tokenpool.task('NAME')")
    if what is None:
        return TaskFunction
    return TaskFunction(what)


def _register(name: str, payload: Callable[[Any], Any] | None, handler: Any) -> Any:
    if not isinstance(handler, type):
        handler = TaskFunction(handler)
    missing = [step for step in STEPS if not callable(getattr(handler, step, None))]
    if missing and isinstance(handler, type):
        raise TypeError(f"{handler.__name__} has no {missing[0]}: a task type has {', '.join(STEPS)}")
    known = HANDLERS.get(name)
    if known is not None and (known.__module__, known.__qualname__) != (handler.__module__, handler.__qualname__):
        raise ValueError(f"two task types are named {name!r}: {known.__qualname__} and {handler.__qualname__}")
    if payload is not None:
        setattr(handler, _PAYLOAD, staticmethod(payload))
    HANDLERS[name] = handler
    return handler


# --- payloads ------------------------------------------------------------------------------------------------------------


def typed(handler: type, task: Any) -> TypedTask:
    """Return a task for its handler, from the JSON of SimpleTasks; raises BadInput where the payload does not fit."""
    if not isinstance(task, Mapping) or "basic_info" not in task:
        raise BadInput("a typed task has no basic_info", '{"basic_info": {...}, "payload_info": ...}')
    info, value = BasicInfo.of(task["basic_info"]), task.get("payload_info")
    make = getattr(handler, _PAYLOAD, None) or _annotated(handler)
    try:
        return TypedTask(info, value if make is None else build(make, value))
    except BadInput:
        raise
    except Exception as error:  # whatever a user's constructor raises says that it does not like the payload
        raise BadInput(f"the payload_info of {info.name} does not fit: {type(error).__name__}: {error}", "") from error


def build(make: Any, value: Any) -> Any:
    """Make a value of a type out of JSON: by its own constructor for that, field by field, or by calling it."""
    for constructor in ("from_dict", "model_validate"):
        if hasattr(make, constructor):
            return getattr(make, constructor)(value)
    if isinstance(make, type) and dataclasses.is_dataclass(make):
        if not isinstance(value, Mapping):
            raise TypeError(f"{make.__name__} is made of an object, not of {value!r:.60}")
        hints = typing.get_type_hints(make)
        inner = {name: hints.get(name) for name in value}
        nested = {name for name, hint in inner.items() if isinstance(hint, type) and dataclasses.is_dataclass(hint)}
        return make(**{name: build(inner[name], each) if name in nested else each for name, each in value.items()})
    if make in (str, int, float, bool, list, dict) and not isinstance(value, make):
        raise TypeError(f"{value!r:.60} is no {make.__name__}")
    return make(value) if callable(make) and typing.get_origin(make) is None and make is not Any else value


def _annotated(handler: type) -> Any:
    hints = typing.get_type_hints(handler)
    return hints.get("payload_info", hints.get("payload"))
