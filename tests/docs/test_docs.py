"""The documentation is tested: its Python runs, its commands exist, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_tutorial_runs_from_top_to_bottom() -> None:
    # Given the Python blocks of the tutorial, in their order; when they run as one program; then no assertion fails
    code = blocks(ROOT / "docs" / "tutorial.md", "python")
    assert len(code) >= 5
    exec(compile("\n".join(code), "tutorial.md", "exec"), {"__name__": "tutorial"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_other_python_blocks_run(page: Path) -> None:
    if page.name == "tutorial.md":
        return
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), {"__name__": "docs"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_verb_that_a_page_shows_exists(page: Path) -> None:
    # Given the verbs of the command line
    from tokenpool.cli import verbs as commands

    verbs = set(commands())
    # When a page shows a command, then its verb is one of them
    shown = re.findall(
        r"^\$ (?:.*\| )?tokenpool (?:--?\S+ )*([a-z]+)|`tokenpool ([a-z]+)", page.read_text("utf-8"), re.MULTILINE
    )
    assert {first or second for first, second in shown} - verbs == set()


def test_every_setting_is_on_its_page() -> None:
    from tokenpool.config import DEFAULTS

    text = (ROOT / "docs" / "reference" / "settings.md").read_text("utf-8")
    assert [name for name in DEFAULTS if f"`{name}`" not in text or f"TOKENPOOL_{name.upper()}" not in text] == []
