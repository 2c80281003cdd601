"""A cloud in memory, for faults that a real one does not make when it is asked to: one region of libcloud's interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

Node = SimpleNamespace


@dataclass
class SmallCloud:
    """One region. `room`: how many machines it has room for; `refusal`: what it says to one more."""

    room: int = 100
    refusal: Exception = field(default_factory=lambda: Exception("413 Quota exceeded for instances"))
    price: float = 0.0
    nodes: list[Any] = field(default_factory=list)
    #: Machines that cannot be removed.
    stuck: set[str] = field(default_factory=set)

    def list_sizes(self) -> list[Any]:
        return [Node(id="1", name="small", ram=1024, price=self.price)]

    def list_images(self) -> list[Any]:
        return [Node(id="9", name="debian")]

    def list_nodes(self) -> list[Any]:
        return list(self.nodes)

    def create_node(self, name: str, size: Any, image: Any, ex_userdata: str, ex_metadata: dict[str, str]) -> Any:
        if len(self.nodes) >= self.room:
            raise self.refusal
        node = Node(id=f"id-{name}", name=name, state="running", extra={"metadata": ex_metadata}, size=size)
        node.public_ips, node.private_ips, node.created_at = [], [], None
        self.nodes.append(node)
        return node

    def destroy_node(self, node: Any) -> bool:
        if node.name in self.stuck:
            raise Exception("500 it does not want to go")
        self.nodes = [each for each in self.nodes if each.id != node.id]
        return True
