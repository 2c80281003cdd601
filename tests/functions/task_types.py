"""Task types for the tests: with payloads of several kinds, and with steps that fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tokenpool
from tokenpool.functions.registry import Result


@dataclass
class Range:
    start: int
    stop: int


@dataclass
class Payload:
    complex_id: int
    range: Range
    thresholds: list[int] = field(default_factory=list)


class Steps:
    """Writes down each step."""

    def prepare(self, task: Any, datasource: Any) -> None:
        print("prepare", task.basic_info.id)

    def execute(self, task: Any, datasource: Any) -> Result:
        print("execute", task.payload_info)
        return Result(True, [task.key("out")])

    def finalize(self, task: Any, datasource: Any, result: Result) -> None:
        print("finalize", result.outputs)


@tokenpool.task("TYPED")
class Typed(Steps):
    payload_info: Payload


@tokenpool.task("BUILT", payload=lambda value: sum(value))
class Built(Steps):
    pass


@tokenpool.task("UNSUCCESSFUL")
class Unsuccessful(Steps):
    def execute(self, task: Any, datasource: Any) -> Result:
        return Result(False, [])


@tokenpool.task("double")
def double(index: int) -> int:
    return 2 * index


class PrintTask:
    """As python-task-queue has them."""

    def __init__(self, index: int) -> None:
        self.index = index

    def execute(self) -> str:
        return f"index {self.index}"
