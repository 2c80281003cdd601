"""The page of a report: one file, well made, and harmless whatever the tokens say."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from test_report_facts import ABOUT, campaign, gathered, ran, token

from tokenpool.reports.actions import inside, instruments_of
from tokenpool.reports.facts import Facts
from tokenpool.reports.page import About, page

EMPTY = {"meta", "link", "br"}
EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31m\ud800"


class Reader(HTMLParser):
    """Reads a page as a browser does, and notes what does not belong there."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.ids: list[str] = []
        self.handlers: set[str] = set()
        self.labelled = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.add(tag)
        self.addresses |= {str(told[name]) for name in ("src", "href") if name in told}
        self.handlers |= {name for name in told if name.startswith("on")}
        self.ids += [str(told["id"])] if "id" in told else []
        if tag == "svg":
            assert told.get("role") == "img"
            assert told.get("aria-label")
            self.labelled += 1
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(facts: Facts, about: About = ABOUT) -> Reader:
    """Return the page as it is read; all that was opened is closed."""
    reader = Reader()
    reader.feed(page(facts, about))
    reader.close()
    assert reader.open == []
    assert len(set(reader.ids)) == len(reader.ids)
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.ids)
    return reader


@pytest.mark.parametrize("tokens", [0, 1, 50, 3000])
def test_a_page_needs_nothing_else(tokens: int) -> None:
    reader = read(gathered(*campaign(tokens)))
    assert not {"script", "img", "iframe", "object"} & reader.tags
    assert {address for address in reader.addresses if not address.startswith("#")} == {"data:,"}
    assert reader.labelled >= (6 if tokens else 0)


def test_each_chart_stands_beside_its_table() -> None:
    text = page(gathered(*campaign(300)), ABOUT)
    assert text.count("<figure>") == text.count("<details>") >= 6
    for figure in re.findall(r"<figure>.*?</figure>", text, re.DOTALL):
        assert re.search(r"<table>.*<tbody><tr>", figure, re.DOTALL)


def test_no_column_has_an_empty_heading() -> None:
    # A screen reader would announce it, and say nothing.
    text = page(gathered(*campaign(50)), ABOUT)
    assert "Failed runs by class" in text
    assert re.search(r'<th scope="col"[^>]*></th>', text) is None


def test_nothing_that_a_token_says_becomes_markup() -> None:
    # Given a token that tries it everywhere
    error = [{"time": 1_790_000_005, "message": EVIL}]
    run = ran(0, 5, 1, EVIL, hostname=EVIL, worker=EVIL)
    output = {"files": [{"path": EVIL, "url": f"s3://{EVIL}/x", "size": 1}]}
    fields = {"batch": EVIL, "submitter": EVIL, "command": EVIL, "error": error, "exit_code": 1, "output": output}
    facts = gathered(token(EVIL, run, **fields))
    facts.failures.largest[0].said = EVIL
    # When it is told on a page
    reader = read(facts, About(EVIL, EVIL, EVIL, "http://host/"))
    # Then it is only text
    assert not {"script", "img"} & reader.tags
    assert not reader.handlers
    text = page(facts, About(EVIL, EVIL, EVIL))
    assert "\x1b" not in text
    assert text.encode("utf-8")


def test_with_a_server_ids_lead_to_its_pages() -> None:
    facts = gathered(token("a b/c", ran(0, 5)))
    assert "http://host/pool/tokens/a%20b%2Fc" in read(facts, About("x", "p", "all", "http://host/pool/")).addresses
    assert not any("tokens" in address for address in read(facts).addresses)


# --- what the crate says of software and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"command": ["/usr/bin/bwa", "mem"]}, "bwa"),
        ({"command": "A=1 B=2 ./run.sh --x"}, "run.sh"),
        ({"command": "echo 'unclosed"}, "echo"),
        ({"command": ""}, "unknown"),
        ({"command": ["x"], "image": "quay.io/a/b:1"}, "x in quay.io/a/b:1"),
        ({"function": {"name": "mod:f"}}, "mod:f"),
        ({"workflow": {"repo": "https://h/r", "commit": "abc", "path": "w.cwl"}}, "https://h/r w.cwl"),
    ],
)
def test_software_is_called_by_its_name(fields: dict[str, object], name: str) -> None:
    (software,) = instruments_of({"_id": "t", **fields})
    assert (software["name"], software["@type"]) == (name, "SoftwareApplication")


@pytest.mark.parametrize(
    "path",
    ["../../etc/passwd", "/etc/passwd", "..", "", "a/../../b", "a\\..\\b", "x\0y", "ä #%?+,=@~.txt", "...", "\ud800"],
)
def test_no_name_leads_out_of_the_crate_or_is_written_otherwise_in_a_url(path: str) -> None:
    for token_id in ("t", "..", ".", "a/b", "a b"):
        made = inside("outputs", token_id, path)
        parts = made.split("/")
        assert parts[0] == "outputs"
        assert len(parts) >= 3
        assert all(part.strip(".") for part in parts)
        assert quote(made) == made


def test_names_that_differ_stay_apart_in_the_crate() -> None:
    names = ["a b.txt", "a_b.txt", "a?b.txt", "a%b.txt", "ä", "ö", "x" * 200, "x" * 201]
    assert len({inside("outputs", "t", name) for name in names}) == len(names)
    assert len({inside("outputs", name, "f") for name in ("a/b", "a_b", "a:b")}) == 3
