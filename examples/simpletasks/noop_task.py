"""A task type as SimpleTasks has them: it copies its inputs from ``0_input`` to ``0_output``, and says hello."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tokenpool
from tokenpool.functions.registry import Result, TypedTask


@dataclass
class Greeting:
    """The payload, made of the JSON that SimpleTasks writes: a text."""

    text: str

    @classmethod
    def from_dict(cls, value: Any) -> Greeting:
        return cls(str(value))


@tokenpool.task("NO_OP")
class NoOpTask:
    """Its three steps, in this order; one object for each task."""

    payload_info: Greeting

    def prepare(self, task: TypedTask, datasource: Any) -> None:
        """Fetch the inputs: from now on they lie in the cache of this machine."""
        for key in task.input_keys:
            datasource.get(key)

    def execute(self, task: TypedTask, datasource: Any) -> Result:
        """Do the work."""
        print(f"executing {task.basic_info.name}: {task.payload_info.text}")
        outputs = []
        for key in task.input_keys:
            output = key.replace("0_input", "0_output")
            datasource.put(output, datasource.get(key), only_cache=True)
            outputs.append(output)
        return Result(True, outputs)

    def finalize(self, task: TypedTask, datasource: Any, result: Result) -> None:
        """Send what was made."""
        for key in result.outputs:
            datasource.put(key, datasource.read(key))
