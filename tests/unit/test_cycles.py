"""Parents come before their children, and a token is in a cycle exactly if it can be reached from itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenpool.cycles import cycles, sort

names = st.sampled_from("abcdefg")
graphs = st.dictionaries(names, st.lists(names, max_size=3))


def ancestors(graph: dict[str, list[str]], name: str) -> set[str]:
    """Return all that a token depends on, itself only if it does."""
    found: set[str] = set()
    queue = list(graph.get(name, ()))
    while queue:
        each = queue.pop()
        if each not in found:
            found.add(each)
            queue += graph.get(each, ())
    return found


@given(graphs)
def test_parents_stand_before_their_children(graph: dict[str, list[str]]) -> None:
    order, rest = sort(graph)
    assert sorted([*order, *rest]) == sorted(graph)
    for name in order:
        assert all(order.index(parent) < order.index(name) for parent in graph[name] if parent in graph)
    for name in rest:
        assert any(each in ancestors(graph, each) for each in [name, *ancestors(graph, name)])


@given(graphs)
def test_exactly_the_tokens_that_depend_on_themselves_are_in_a_cycle(graph: dict[str, list[str]]) -> None:
    found = list(cycles(graph))
    assert {name for cycle in found for name in cycle} == {name for name in graph if name in ancestors(graph, name)}
    for cycle in found:
        assert len(set(cycle)) == len(cycle)
        assert all(parent in graph[name] for parent, name in zip([cycle[-1], *cycle], cycle))


def test_a_long_chain_and_a_long_cycle_need_no_deep_stack() -> None:
    count = 20_000
    chain = {f"t{n}": [f"t{n + 1}"] for n in range(count)}
    assert len(sort(chain)[0]) == count
    assert [len(cycle) for cycle in cycles({**chain, f"t{count}": ["t0"]})] == [count + 1]
