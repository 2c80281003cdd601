"""Figures for Prometheus, in its text format: tokens, workers, slots and rates, from the look that all share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from .access import Person, Role, require
from .hub import Snapshot
from .site import site_of

router = APIRouter(include_in_schema=False)

_LOOKS = Depends(require(Role.VIEWER))
TYPE = "text/plain; version=0.0.4; charset=utf-8"


@router.get("/metrics")
async def metrics(request: Request, person: Person = _LOOKS) -> Response:
    """Tell how many tokens and workers there are, and how fast it goes."""
    seen = await run_in_threadpool(site_of(request).hub.snapshot)
    return PlainTextResponse(text_of(seen), media_type=TYPE)


def text_of(seen: Snapshot) -> str:
    """Return all figures of one look."""
    return "".join(_lines(seen))


def _lines(seen: Snapshot) -> Iterator[str]:
    alive = [worker for worker in seen.workers if worker.alive]
    states = Counter(worker.state for worker in seen.workers)
    yield from _gauge("up", "1 if the pool answered at the last look.", [({}, 0 if seen.away else 1)])
    yield from _gauge("last_look_timestamp_seconds", "When the pool was looked at.", [({}, seen.when)])
    tokens = [({"state": state, "batch": batch}, number) for (state, batch), number in sorted(seen.raw.items())]
    yield from _gauge("tokens", "Tokens by state and batch.", tokens)
    yield from _gauge("workers", "Workers by state.", [({"state": name}, states[name]) for name in sorted(states)])
    yield from _gauge("slots", "Slots of the workers that live.", [({}, sum(worker.slots for worker in alive))])
    yield from _gauge("running_tokens", "Tokens that living workers hold.", [({}, sum(each.held for each in alive))])
    yield from _gauge("done_per_minute", "Tokens that end well in a minute.", [({}, seen.rate)])
    yield from _gauge("failed_per_minute", "Tokens that fail in a minute.", [({}, seen.failing)])
    left: list[tuple[Mapping[str, str], float]] = [] if seen.eta is None else [({}, seen.eta)]
    yield from _gauge("seconds_left", "Until all is finished, if it goes on like this.", left)
    paused = [({"batch": name}, float(rule.paused)) for name, rule in sorted(seen.rules.items())]
    yield from _gauge("batch_paused", "1 for a batch that is paused.", paused)


def _gauge(name: str, help_text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    yield f"# HELP tokenpool_{name} {help_text}\n# TYPE tokenpool_{name} gauge\n"
    for labels, value in samples:
        yield f"tokenpool_{name}{_labels(labels)} {_number(value)}\n"


def _labels(labels: Mapping[str, str]) -> str:
    spelled = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return f"{{{spelled}}}" if spelled else ""


def _escaped(text: str) -> str:
    r"""Return a label's value as it is written.

    >>> _escaped('a"b')
    'a\\"b'
    """
    clean = text.encode("utf-8", "replace").decode()
    return clean.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
