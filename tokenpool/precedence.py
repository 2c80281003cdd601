"""Which of several conflicting revisions of one document stands, and what it takes over from the others.

Pure functions of the revisions alone: whoever resolves a conflict, and wherever, comes to the same document. Of a
token, closed beats locked beats waiting. Among closed ones the earliest stands, among locked ones the smallest claim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import transitions

Json = dict[str, Any]

#: Other documents of a pool, and the number in them that grows with every write of theirs.
COMPANIONS = {"worker": "renewals", "bell": "rings", "batch": ""}
#: Marks that only one side may know of and that must not be lost: they were put there to end a worker.
ORDERS = ("fenced", "stop")
_RANKS = {transitions.DONE: 0, transitions.ERROR: 0, transitions.LOCKED: 1, transitions.TODO: 2, transitions.HELD: 2}
_INVALID = 3
#: Fields of an attempt that are written anew when another revision takes it over.
_CHANGED = frozenset({"superseded", "counted", "stdout", "stderr"})


@dataclass(frozen=True)
class Move:
    """An attachment that the surviving document takes over from revision `rev`, under another name."""

    rev: str
    name: str
    to: str
    stub: Json


@dataclass(frozen=True)
class Settled:
    """What is to stand: `doc` at the survivor's revision with `moves` to be added, and then `losers` deleted.

    `touch` is False where the survivor must not be written: a picas worker runs it, and any write would cost it its
    result.
    """

    doc: Json
    losers: tuple[str, ...]
    moves: tuple[Move, ...] = ()
    touch: bool = True
    #: Workers that lose their claim on the token, and may still run it.
    displaced: frozenset[str] = frozenset()


def settle(leaves: Sequence[Json], unused: str = "") -> Settled | None:
    """Decide between the revisions of one document; None where there is nothing to decide, or not by us, or not yet.

    `unused` is a claim that was never acted upon: its loss is no history.
    """
    if len(leaves) < 2:
        return None
    if any(map(transitions.is_token, leaves)):
        return _settle_token(order(leaves), unused)
    kinds = {leaf.get("type") for leaf in leaves}
    return _settle_companion(leaves, kinds.pop()) if len(kinds) == 1 else None


# --- the order ---------------------------------------------------------------------------------------------------


def order(leaves: Sequence[Json]) -> list[Json]:
    """Return the revisions of a token, the one that stands first.

    Equals are ordered as CouchDB itself does: the longer history, then the greater revision. So the survivor stays
    first when it has been written.
    """
    return sorted(sorted(leaves, key=_age, reverse=True), key=_rank)


def _age(doc: Json) -> tuple[int, str]:
    """Return what a revision's text means: how many writes there were, and a hash."""
    number, _, text = str(doc.get("_rev", "")).partition("-")
    return (int(number) if number.isdecimal() else 0, text)


def _rank(doc: Json) -> tuple[int, float, bool, str]:
    place = _RANKS.get(transitions.state_of(doc), _INVALID)
    if place == 0:
        return (place, _closed_at(doc), False, _closing_claim(doc))
    # What picas holds gives way: its worker cannot be told that somebody else wrote into its token.
    claim = _holding_claim(doc) if place == 1 else ""
    return (place, 0.0, place == 1 and not claim, claim)


def _closed_at(doc: Json) -> float:
    """Return when a token was closed, in seconds since 1970: `done`, or where picas' mark stands there, its error."""
    errors = doc.get("error")
    last = errors[-1] if isinstance(errors, list) and errors else None
    for value in (doc.get("done"), last.get("time") if isinstance(last, dict) else None):
        if isinstance(value, (int, float)) and math.isfinite(value) and value > transitions.PICAS_ERROR:
            return float(value)
    return math.inf


def _closing_claim(doc: Json) -> str:
    """Return the claim of the attempt that closed a token: the last one that was not taken over from another revision."""
    own = [attempt for attempt in transitions.attempts_of(doc) if not attempt.get("superseded")]
    return _text(own[-1].get("claim")) if own else ""


def _holding_claim(doc: Json) -> str:
    """Return the claim that holds a locked token; "" where picas or a person does."""
    lease = doc.get("lease")
    claim = _text(lease.get("claim")) if isinstance(lease, dict) else ""
    return claim if claim and transitions.is_held_by(doc, claim) else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


# --- tokens --------------------------------------------------------------------------------------------------------


def _settle_token(leaves: Sequence[Json], unused: str) -> Settled | None:
    survivor, losers = leaves[0], leaves[1:]
    state = transitions.state_of(survivor)
    doc, moves = _united(survivor, losers, unused)
    revs = tuple(str(loser["_rev"]) for loser in losers)
    if state == transitions.LOCKED and not _holding_claim(survivor):
        waits = doc != survivor or any(transitions.state_of(loser) == transitions.LOCKED for loser in losers)
        # Nobody may write into it: it is left until picas has closed it, unless there is nothing to be kept.
        return None if waits else Settled(doc, revs, touch=False)
    displaced = frozenset(map(transitions.holder_of, losers)) - {"", transitions.holder_of(survivor)}
    return Settled(doc, revs, moves, displaced=displaced)


def _united(survivor: Json, losers: Sequence[Json], unused: str) -> tuple[Json, tuple[Move, ...]]:
    """Return the survivor with the attempts of the others in its history, and the attachments to be added."""
    history = transitions.attempts_of(survivor)
    gained: list[Json] = []
    moves: list[Move] = []
    taken = dict(survivor.get("_attachments") or {})
    for loser in losers:
        known = {_key(attempt): _is_placeholder(attempt) for attempt in (*history, *gained)}
        # A note that an attempt began is worth less than what its worker told of it later.
        entries = [
            entry
            for entry in _own_entries(loser, survivor, unused)
            if _key(entry) not in known or (known[_key(entry)] and not _is_placeholder(entry))
        ]
        if not entries:
            continue
        moved = _moves(loser, taken)
        moves += moved
        taken.update({move.to: move.stub for move in moved})
        names = {move.name: move.to for move in moved}
        for entry in entries:
            told = {**_renamed(entry, names), "superseded": True, "counted": False}
            if not _fill_in(history, told) and not _fill_in(gained, told):
                gained.append(told)
    doc = {**survivor}
    if gained or history != transitions.attempts_of(survivor):
        doc["attempts"] = placed(survivor, history, gained)
    cancels = [loser["cancel"] for loser in losers if loser.get("cancel")]
    if cancels and not doc.get("cancel") and transitions.state_of(doc) == transitions.LOCKED:
        doc["cancel"] = cancels[0]
    return doc, tuple(moves)


def _is_placeholder(attempt: Json) -> bool:
    """Tell whether somebody else noted this attempt, before its worker told how it went."""
    return attempt.get("exit_code") is None and attempt.get("start_time") is None


def _key(attempt: Json) -> str:
    """Return what makes an attempt this one: its claim, or where it has none, all that a conflict does not change."""
    told = {name: value for name, value in attempt.items() if name not in _CHANGED}
    return _text(attempt.get("claim")) or json.dumps(told, sort_keys=True, default=str)


def _fill_in(entries: list[Json], told: Json) -> bool:
    """Put what an attempt came to in place of the note that it began; False where there is none."""
    for place, entry in enumerate(entries):
        if _key(entry) == _key(told):
            entries[place] = told
            return True
    return False


def _own_entries(loser: Json, survivor: Json, unused: str) -> list[Json]:
    """Return the history of a losing revision, with an entry for what held or closed it even where it wrote none."""
    entries = transitions.attempts_of(loser)
    state = transitions.state_of(loser)
    told = {"hostname": loser.get("hostname", ""), "superseded": True, "counted": False}
    if state == transitions.LOCKED:
        claim = _holding_claim(loser)
        told_of = {_holding_claim(survivor), _closing_claim(survivor), unused, *map(_key, entries)}
        if claim and claim not in told_of:
            entries.append({"claim": claim, "worker": loser["lease"].get("worker", ""), **told})
        elif not claim and any(loser.get(name) != survivor.get(name) for name in ("lock", "hostname")):
            entries.append({"lock": loser.get("lock"), **told})
    elif state in transitions.FINAL and not _tells_of_its_end(loser, survivor):
        entries.append({"exit_code": loser.get("exit_code"), "done": loser.get("done"), **told})
    return entries


def _tells_of_its_end(loser: Json, survivor: Json) -> bool:
    """Tell whether a closed revision's end is in its history, or is the survivor's as well."""
    if all(loser.get(name) == survivor.get(name) for name in ("lock", "done", "exit_code")):
        return True
    claim = _closing_claim(loser)
    common = [_key(each) for each in transitions.attempts_of(survivor) if not each.get("superseded")]
    return claim not in ("", *common)


def placed(doc: Json, history: list[Json], gained: list[Json]) -> list[Json]:
    """Return the whole history of a token; where it is closed, the attempt that closed it stays the last one."""
    place = len(history)
    if transitions.state_of(doc) in transitions.FINAL:
        own = [n for n, attempt in enumerate(history) if not attempt.get("superseded")]
        place = own[-1] if own else place
    return [*history[:place], *gained, *history[place:]]


def _moves(loser: Json, taken: Json) -> list[Move]:
    """Return the attachments of a losing revision that the survivor does not have, with names that are free there."""
    found = []
    claim = _closing_claim(loser) or _holding_claim(loser)
    for name, stub in sorted((loser.get("_attachments") or {}).items()):
        names = (name, f"superseded_{name}", f"superseded_{claim[:8]}_{name}", f"superseded_{loser['_rev']}_{name}")
        held = [taken[each].get("digest") for each in names if each in taken]
        if not stub.get("digest") or stub["digest"] not in held:
            found.append(Move(str(loser["_rev"]), name, next(each for each in names[1:] if each not in taken), stub))
    return found


def _renamed(entry: Json, names: dict[str, str]) -> Json:
    logs = {kind: names[entry[kind]] for kind in ("stdout", "stderr") if entry.get(kind) in names}
    return {**entry, **logs}


# --- other documents -----------------------------------------------------------------------------------------------


def _settle_companion(leaves: Sequence[Json], kind: object) -> Settled | None:
    """Keep the revision that was written most often; documents that are not the pool's own are left alone."""
    if not isinstance(kind, str) or kind not in COMPANIONS:
        return None
    first, *others = sorted(leaves, key=lambda leaf: (_number(leaf.get(COMPANIONS[kind])), _age(leaf)), reverse=True)
    orders = {name: True for name in ORDERS if kind == "worker" and any(leaf.get(name) for leaf in leaves)}
    return Settled({**first, **orders}, tuple(str(other["_rev"]) for other in others))


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
