"""Writes the report as one HTML page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from string import Template
from urllib.parse import quote

from ..transitions import ERROR, FINAL, STATES
from . import charts, timeline, words
from .bins import OTHERS
from .facts import Facts, Sum
from .failures import Failure
from .findings import findings
from .markup import Child, Html, bar, figure, join, table, tag
from .runs import FAILED, KINDS, RUNNING

#: Rows of a table of batches, hosts or places.
MOST = 30


@dataclass(frozen=True)
class About:
    """What a report is about: shown at its top."""

    title: str
    pool: str
    selection: str
    #: The address of a server whose pages the ids lead to; "" for none.
    server: str = ""
    version: str = ""


def page(facts: Facts, about: About) -> str:
    """Return the whole page."""
    parts: list[tuple[str, str, Html]] = [
        ("summary", "Summary", _summary(facts)),
        ("time", "Timeline", tag("div", timeline.section(facts), cls="wide")),
        ("batches", "Batches", _batches(facts)),
        ("failures", "Failures", _failures(facts, about)),
        ("resources", "Resource use", _resources(facts)),
        ("slowest", "Slowest tokens", _slowest(facts, about)),
        ("hosts", "Hosts", _hosts(facts)),
        ("outputs", "Outputs", _outputs(facts)),
    ]
    sections = [
        tag("section", tag("h2", title, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title")
        for name, title, content in parts
    ]
    template = Template(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        title=join([about.title]),
        about=_about(facts, about),
        nav=join(tag("a", title, href=f"#{name}") for name, title, _ in parts),
        sections=join(sections, "\n"),
        foot=join([f"Made by tokenpool {about.version} at {words.moment(facts.now)} UTC. All times are UTC."]),
    )


def _about(facts: Facts, about: About) -> Html:
    chosen = "" if about.selection == "all" else f", chosen by {about.selection}"
    told = f"{words.things(facts.tokens, 'token')} of {about.pool}{chosen}. "
    if facts.all.last:
        told += f"From {words.moment(facts.all.first)} to {words.moment(facts.all.last)} UTC. "
    submitters = [name or "unknown" for name, _ in facts.submitters.largest(lambda each: sum(each.states.values()), 4)]
    return join(
        [
            told,
            f"Pushed by {', '.join(submitters[:3])}{' and others' if len(submitters) > 3 else ''}."
            if any(submitters)
            else "",
        ]
    )


# --- summary -------------------------------------------------------------------------------------------------------


def _summary(facts: Facts) -> Html:
    states = [(state, facts.all.states[state]) for state in STATES if facts.all.states[state]]
    told = ", ".join(f"{words.count(number)} {state}" for state, number in states)
    key = [
        tag("span", tag("i", cls=f"fill {state}"), tag("b", words.count(number)), f" {state}")
        for state, number in states
    ]
    whole = bar(states, max(1, facts.tokens), told or "no tokens")
    shown = Html(whole.replace('class="bar"', 'class="bar states"', 1))
    sentences = [tag("li", each.text, cls=each.level) for each in findings(facts)]
    return join([shown, tag("p", key, cls="legend"), _tiles(facts), tag("ul", sentences, cls="findings")])


def _tiles(facts: Facts) -> Html:
    """Return the figures that people ask for first."""
    everything, wall = facts.all, facts.wall
    runs = sum(everything.runs[kind] for kind in KINDS if kind != RUNNING)
    spent = sum(seconds for kind, seconds in facts.spent.items() if kind != RUNNING)
    again = sum(number for tries, number in facts.tries.items() if tries > 1)
    waits = f"half waited less than {words.span(facts.waits.quantile(0.5))}" if facts.waits.count else None
    done = f"{words.count(everything.states['done'])} of {words.count(facts.finished)} finished tokens"
    tiles: list[tuple[str, str, str | None]] = [
        ("Done", words.percent(facts.success), done),
        ("Wall time", words.span(wall), waits),
        ("Run time", words.hours(spent), f"{words.figure(round(spent / wall, 1))} runs at a time" if wall else None),
        ("CPU time", words.hours(everything.cpu), f"{words.percent(everything.efficiency)} of the CPUs asked for"),
        ("Throughput", words.rate(everything.runs["done"] / wall if wall else 0.0), "tokens done, on average"),
        ("Runs", words.count(runs), f"{words.things(again, 'token')} ran more than once"),
        ("Time that brought nothing", words.percent(facts.wasted), "of the run time: failed or given back"),
        ("Outputs", words.size(everything.bytes), f"in {words.things(everything.files, 'file')}"),
    ]  # fmt: skip
    if not everything.cpu_offered:
        tiles = [tile for tile in tiles if tile[0] != "CPU time"]
    return tag(
        "dl",
        [tag("div", tag("dt", t), tag("dd", v), tag("dd", more) if more else None) for t, v, more in tiles],
        cls="tiles",
    )


# --- tables --------------------------------------------------------------------------------------------------------


def _batches(facts: Facts) -> Html:
    def tokens(each: Sum) -> int:
        """Return how many tokens a batch has."""
        return sum(each.states.values())

    chosen = facts.batches.largest(tokens, MOST)
    rows: list[list[Child]] = []
    for name, each in chosen:
        parts = [(state, float(each.states[state])) for state in STATES]
        told = ", ".join(f"{number:.0f} {state}" for state, number in parts if number)
        rows.append([
            name or tag("span", "no batch", cls="what"), bar(parts, max(1, tokens(each)), told), words.count(tokens(each)),
            words.count(each.states["done"]), words.count(each.states[ERROR]),
            words.count(sum(n for state, n in each.states.items() if state not in FINAL)), *_durations(each),
            words.hours(each.used), words.percent(each.efficiency),
        ])  # fmt: skip
    titles = [
        "batch",
        "states",
        "tokens",
        "done",
        "failed",
        "open",
        "mean run",
        "shortest – longest",
        "run time",
        "CPU",
    ]
    return join(
        [
            table("Tokens and runs by batch", titles, rows, words=(0, 1)),
            _more(len(facts.batches) - len(chosen), "batches"),
        ]
    )


def _durations(each: Sum) -> list[str]:
    if not each.seconds.count:
        return ["–", "–"]
    return [words.span(each.seconds.mean), f"{words.span(each.seconds.least)} – {words.span(each.seconds.most)}"]


def _more(number: int, what: str) -> Html | None:
    return tag("p", f"{words.count(number)} more {what} are not shown.", cls="what") if number > 0 else None


def _hosts(facts: Facts) -> Html:
    chosen = facts.hosts.largest(lambda each: sum(each.runs.values()), MOST)
    rows: list[list[Child]] = []
    for name, each in chosen:
        parts = [(kind, float(each.runs[kind])) for kind in KINDS]
        number = sum(each.runs.values())
        told = ", ".join(f"{amount:.0f} {charts.NAMES[kind]}" for kind, amount in parts if amount)
        rows.append([
            name, bar(parts, max(1, number), told), words.count(number), words.percent(each.failed_share),
            words.span(each.seconds.mean) if each.seconds.count else "–", words.hours(each.used),
            words.percent(each.efficiency), words.megabytes(each.peak_mb) if each.peak_mb else "–",
        ])  # fmt: skip
    if not rows:
        return tag("p", "Nothing has run yet.")
    titles = ["host", "how runs ended", "runs", "failed", "mean run", "run time", "CPU", "peak memory"]
    keys = charts.legend([kind for kind in KINDS if facts.all.runs[kind]])
    return join(
        [keys, table("Runs by host", titles, rows, words=(0, 1)), _more(len(facts.hosts) - len(chosen), "hosts")]
    )


def _slowest(facts: Facts, about: About) -> Html:
    rows: list[list[Child]] = [
        [
            _token(slow.run.token, about), words.span(slow.run.seconds or 0.0), charts.NAMES[slow.run.kind], slow.batch or "–",
            slow.run.host or "–", tag("code", slow.what, cls="what cut"),
        ]
        for slow in facts.slowest
    ]  # fmt: skip
    if not rows:
        return tag("p", "Nothing has run yet.")
    titles = ["token", "run took", "ended", "batch", "host", "what it ran"]
    return table(f"The {len(rows)} longest runs", titles, rows, words=(0, 2, 3, 4, 5))


def _outputs(facts: Facts) -> Html:
    if not facts.all.files:
        return tag("p", "The tokens name no output files.")
    chosen = facts.places.largest(lambda each: each.bytes, MOST)
    rows = [[name, words.count(each.files), words.size(each.bytes)] for name, each in chosen]
    rows.append(["all", words.count(facts.all.files), words.size(facts.all.bytes)])
    return join(
        [
            table("Output files by place", ["place", "files", "size"], rows),
            _more(len(facts.places) - len(chosen), "places"),
        ]
    )


def _token(name: str, about: About) -> Html:
    shown = tag("span", name, cls="id")
    return (
        tag("a", shown, href=f"{about.server.rstrip('/')}/tokens/{quote(name, safe='', errors='replace')}")
        if about.server
        else shown
    )


# --- failures ------------------------------------------------------------------------------------------------------


def _failures(facts: Facts, about: About) -> Html:
    found = facts.failures
    if not found.classes and not found.given_back:
        return tag("p", "No run failed.")
    parts: list[Html | None] = []
    if found.classes:
        parts += [_classes("Failed runs by class", facts, "failed"), *(_failure(each, about) for each in found.largest)]
        parts.append(_more(len(found.groups) - len(found.largest), "kinds of failures"))
    if found.given_back:
        parts.append(_classes("Runs given back, lost or overtaken: repeated without being counted", facts, "returned"))
    return join(parts)


def _classes(title: str, facts: Facts, kind: str) -> Html:
    numbers = facts.failures.classes if kind == FAILED else facts.failures.given_back
    most = max(numbers.values())
    rows: list[list[Child]] = [
        [name, bar([(kind, float(number))], most), words.count(number), words.percent(number / sum(numbers.values()))]
        for name, number in numbers.most_common()
    ]
    return table(title, ["class", "", "runs", "share"], rows, words=(0, 1))


def _failure(each: Failure, about: About) -> Html:
    told = f"{words.things(each.runs, 'run')}; {words.things(each.tokens, 'token')} ended so"
    hosts = [host for host, _ in each.hosts.most_common(3)]
    if any(hosts):
        told += f"; on {', '.join(hosts)}{f' and {len(each.hosts) - 3} more' if len(each.hosts) > 3 else ''}"
    if each.first is not None and each.last is not None:
        same = words.moment(each.first)[:10] == words.moment(each.last)[:10]
        told += (
            f"; {words.moment(each.first)} to {words.moment(each.last)[11 if same else 0 :]}"
            if each.runs > 1
            else f"; {words.moment(each.first)}"
        )
    more = ", and more" if each.more else ""
    names = join([_token(name, about) for name in each.examples], ", ")
    said = tag("pre", each.said, tabindex="0") if each.said else None
    said_by = tag("p", f"Standard error of {each.examples[0]}, its end:", cls="what") if said else None
    return tag(
        "div", tag("h3", tag("span", each.failure, cls="tag"), each.message or OTHERS), tag("p", told + ".", cls="what"),
        tag("p", "For example ", names, more, "."), said_by, said, cls="failure",
    )  # fmt: skip


# --- resources -----------------------------------------------------------------------------------------------------


def _resources(facts: Facts) -> Html:
    parts: list[Html] = (
        [charts.durations(facts.durations)] if any(each.count for each in facts.durations.values()) else []
    )
    if facts.cpu_shares.count:
        parts.append(
            charts.shares(
                facts.cpu_shares, "CPU use.", "Of what each run asked for, or of one CPU.", "share of its CPUs"
            )
        )
    if facts.memory.count:
        parts.append(charts.memory(facts.memory, facts.memory_asked))
    if facts.memory_shares.count:
        parts.append(charts.shares(facts.memory_shares, "Memory of what was asked for.", "", "share of its ram_gb"))
    if len(facts.tries) > 1:
        parts.append(_tries(facts))
    if not parts:
        return tag("p", "The tokens do not tell what they used.")
    return tag("div", parts, cls="pair")


def _tries(facts: Facts) -> Html:
    found = [("5 or more" if tries == 5 else str(tries), number) for tries, number in sorted(facts.tries.items())]
    columns = [charts.Column(label, f"{label} runs", {"plain": number}) for label, number in found]
    data = table("Runs of a token", ["runs", "tokens"], [[label, words.count(number)] for label, number in found])
    return figure("Runs that a token needed.", charts.histogram(columns, "Histogram of runs by token", "runs"), data)
