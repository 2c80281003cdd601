"""Reads the views of this project, JavaScript for CouchDB and SQL for SQLite, from their own files by name."""

from __future__ import annotations

import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Union

from .errors import NotFound

#: Written by `init`: picas' monitor and the pool's own.
DEFAULT_DESIGNS = ("Monitor", "tokenpool")
#: Written by ``createViews.py autopilot``.
AUTOPILOT_DESIGNS = ("SingleCore", "MultiCore")


#: A folder on the disk or in a single file.
Folder = Union[Path, zipfile.Path]


def folder() -> Folder:
    """Return the folder of views: inside an installed package or a single file, else beside it in a checkout.

    It is looked for when asked, not at import: a worker node that only runs tokens need not have it.
    """
    return shipped_folder("_views", "views")


def shipped_folder(inside: str, beside: str) -> Folder:
    """Return a folder that came with us: by its name inside the package, or beside it in a checkout. Raises NotFound."""
    archive = getattr(globals().get("__loader__"), "archive", None)
    here = Path(__file__).parent if archive else Path(__file__).resolve().parent
    candidates: list[Folder] = [here / inside, here.parent / beside]
    if archive:
        candidates = [zipfile.Path(archive, f"{here.relative_to(archive).as_posix()}/{inside}/")]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise NotFound(
        f"the {beside} of tokenpool are not installed here", "install tokenpool whole: pip install tokenpool"
    )


def views(design: str) -> dict[str, dict[str, str]]:
    """Return the functions of a design by view: ``{"todo": {"map.js": …, "map.sql": …}}``; empty if unknown."""
    root = folder() / design
    if not design or not root.is_dir():
        return {}
    return {
        view.name: {file.name: file.read_text("utf-8") for file in sorted(view.iterdir(), key=_name)}
        for view in sorted(root.iterdir(), key=_name)
        if view.is_dir()
    }


def _name(path: Folder) -> str:
    return path.name  # what lies in an archive has no order of its own


def design_document(design: str) -> dict[str, Any]:
    """Return the CouchDB design document of a design, byte for byte what picas' createViews writes."""
    functions = {
        name: {part: files[f"{part}.js"] for part in ("map", "reduce") if f"{part}.js" in files}
        for name, files in views(design).items()
    }
    if not functions:
        raise NotFound(
            f"there is no design {design!r}", f"known: {', '.join(sorted(p.name for p in folder().iterdir()))}"
        )
    return {"_id": f"_design/{design}", "language": "javascript", "views": functions}


@cache
def sql(design: str, view: str) -> tuple[str, str] | None:
    """Return the SQL of a view, its SELECT and its reduce expression (or ""), None where it has none."""
    files = views(design).get(view, {})
    if "map.sql" not in files:
        return None
    return files["map.sql"], files.get("reduce.sql", "")
