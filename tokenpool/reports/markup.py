"""Writes HTML and SVG so that no text of a token can become markup: only what `tag` made is left as it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Union


class Html(str):
    """Markup that was made here; any other text is escaped when it is put into some."""

    __slots__ = ()


Child = Union[str, float, None, Iterable["str | None"]]


def text(value: object) -> Html:
    """Return a text as markup that shows it.

    >>> text("a<b")
    'a&lt;b'
    """
    return value if isinstance(value, Html) else Html(escape(_printable(str(value)), quote=True))


def _printable(value: str) -> str:
    """Return a text without what HTML may not hold: control characters, and halves of characters."""
    kept = (
        value
        if value.isprintable()
        else "".join(each if each.isprintable() or each in "\n\t" else " " for each in value)
    )
    return kept.encode("utf-8", "replace").decode("utf-8")


def join(parts: Iterable[Child], between: str = "") -> Html:
    """Return all parts as one."""
    return Html(between.join(_of(part) for part in parts))


def tag(name: str, *children: Child, **attributes: object) -> Html:
    """Return an element; `cls` is its class, `_` in a name stands for `-`, None leaves an attribute out.

    >>> tag("a", "x & y", href="#t", cls="id")
    '<a href="#t" class="id">x &amp; y</a>'
    """
    told = "".join(
        f' {"class" if key == "cls" else key.rstrip("_").replace("_", "-")}="{text(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = join(children)
    return Html(f"<{name}{told}/>") if name in _EMPTY and not inside else Html(f"<{name}{told}>{inside}</{name}>")


_EMPTY = frozenset({"br", "rect", "line", "path", "meta", "use", "circle"})


def _of(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, (str, float, int)):
        return text(_short(child))
    return join(child)


def _short(value: object) -> object:
    """Return a coordinate with no more digits than a screen can show."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


def table(caption: str, titles: Sequence[str], rows: Iterable[Sequence[Child]], words: Sequence[int] = (0,)) -> Html:
    """Return a table; the columns named by `words` are of words, the others of numbers, set to the right; a title may be ""."""
    head = [
        tag("th", title, scope="col", cls=None if place in words else "n") if title else tag("td")
        for place, title in enumerate(titles)
    ]
    body = [
        tag("tr", [
            tag("th", cell, scope="row") if place == 0 else tag("td", cell, cls=None if place in words else "n")
            for place, cell in enumerate(row)
        ])
        for row in rows
    ]  # fmt: skip
    told = [tag("caption", caption), tag("thead", tag("tr", head)), tag("tbody", body)]
    return tag("div", tag("table", told), cls="scroll", tabindex="0", role="region", aria_label=caption)


def figure(caption: str, drawing: str, rows: Html, note: str = "") -> Html:
    """Return a chart with its caption, and the same as a table that opens."""
    # It scrolls on a small screen: by the keyboard too.
    shown = tag("div", drawing, cls="drawing", tabindex="0", role="group", aria_label=caption.rstrip("."))
    data = tag("details", tag("summary", "The same as a table"), rows)
    return tag("figure", tag("figcaption", tag("b", caption), f" {note}" if note else None), shown, data)


def bar(parts: Sequence[tuple[str, float]], whole: float, label: str = "") -> Html:
    """Return a bar of coloured parts, each with its class, in proportion to the whole."""
    pieces = [
        tag("i", cls=f"fill {name}", style=f"width:{100 * amount / whole:.2f}%") for name, amount in parts if amount > 0
    ]
    return tag("span", pieces, cls="bar", role="img", aria_label=label or None, aria_hidden=None if label else "true")
