"""Reads YAML and JSON as CWL has them, from texts and from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import BadInput, NotFound, NotPermitted


def parse(text: str, name: str) -> Any:
    """Return the value of a YAML or JSON text; `name` stands in errors, with line and column."""
    # A worker that runs no workflow needs no YAML library.
    from .yaml12 import parse as parse_yaml

    return parse_yaml(text, name)


def load(path: Path, name: str = "") -> Any:
    """Return the value of a YAML or JSON file; raises BadInput, NotFound, NotPermitted."""
    name = name or str(path)
    try:
        return parse(path.read_text("utf-8-sig"), name)
    except FileNotFoundError:
        raise NotFound(f"there is no file {name}", "check the name") from None
    except IsADirectoryError:
        raise BadInput(f"{name} is a folder", "name a file") from None
    except PermissionError:
        raise NotPermitted(f"{name} may not be read", "check its permissions: ls -l") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} is not text in UTF-8: {error.reason}", "is it the right file?") from None
