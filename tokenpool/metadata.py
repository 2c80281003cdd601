"""What this package is called, and which version of it is installed."""

from __future__ import annotations

from typing import Any

project = "tokenpool"
package = "tokenpool"
project_no_spaces = project.replace(" ", "")
authors = ["The tokenpool authors"]
authors_string = ", ".join(authors)
emails: list[str] = []
copyright = f"2026 {authors_string}"

#: Read from the installed package when asked for; these stand in where it runs uninstalled (a Grid sandbox).
_FALLBACKS = {
    "version": "0.1.0",
    "description": "A pool of tokens: run millions of independent tasks on computers that do not belong together.",
    "license": "MIT",
    "url": "",
}
_HEADERS = {"version": "Version", "description": "Summary", "license": "License", "url": "Home-page"}


def __getattr__(name: str) -> Any:
    """Look up a name that only the installed package knows."""
    if name not in _FALLBACKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        installed = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return _FALLBACKS[name]
    header = _HEADERS[name]
    return installed[header] if header in installed else _FALLBACKS[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_FALLBACKS})
