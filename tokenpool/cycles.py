"""Sorts tokens so that each stands behind those it depends on, and finds those that depend on themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping

#: The parents of each token; a parent that is no key is not looked at.
Graph = Mapping[str, Collection[str]]


def sort(graph: Graph) -> tuple[list[str], dict[str, list[str]]]:
    """Return the tokens in an order that has parents first, and the graph of those for which there is none.

    These are in a cycle, or depend on one.

    >>> sort({"c": ["b"], "a": [], "b": ["a"], "x": ["x"]})
    (['a', 'b', 'c'], {'x': ['x']})
    """
    parents = {name: {each for each in named if each in graph} for name, named in graph.items()}
    children: dict[str, list[str]] = {name: [] for name in graph}
    for name, named in parents.items():
        for parent in named:
            children[parent].append(name)
    missing = {name: len(named) for name, named in parents.items()}
    order = [name for name, count in missing.items() if not count]
    for name in order:  # which grows meanwhile
        for child in children[name]:
            missing[child] -= 1
            if not missing[child]:
                order.append(child)
    return order, {name: sorted(parents[name]) for name, count in missing.items() if count}


def cycles(graph: Graph) -> Iterator[list[str]]:
    """Yield cycles, each token once and behind a parent, until every token that is in one has been named.

    >>> list(cycles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["c"]}))
    [['b', 'c']]
    """
    left = _core(graph)
    found: set[str] = set()
    for name in left:
        if name not in found:
            cycle = _way_back(left, name)
            found.update(cycle)
            if cycle:
                yield cycle


def _core(graph: Graph) -> dict[str, list[str]]:
    """Return what is left of a graph when all are gone that have nothing before them, or nothing behind them."""
    rest = sort(graph)[1]
    behind: dict[str, list[str]] = {name: [] for name in rest}
    for name, named in rest.items():
        for parent in named:
            if parent in rest:
                behind[parent].append(name)
    kept = sort(behind)[1]
    return {name: [each for each in rest[name] if each in kept] for name in kept}


def _way_back(graph: Graph, start: str) -> list[str]:
    """Return the shortest cycle through a token, from that token on; empty where it is in none."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        name = queue.popleft()
        for parent in graph[name]:
            if parent == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return [start, *way[:-1]]
            if parent not in came_from:
                came_from[parent] = name
                queue.append(parent)
    return []
