"""The verb `sandbox`: what a worker node gets, built into a folder."""

from __future__ import annotations

from pathlib import Path

import click

from ..sandbox import FLOOR, PROGRAM, Credentials, build
from .output import print_json, say, warn
from .session import Session, verb, without_password


@verb(
    "sandbox",
    "tokenpool sandbox",
    "tokenpool sandbox --output examples/grid-sandbox --credentials",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("dist/sandbox"),
    metavar="DIR",
    help="Write it there (dist/sandbox).",
)
@click.option(
    "--credentials",
    is_flag=True,
    help="Put the pool and its password beside it, in files that only you can read.",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    type=click.Path(dir_okay=False, exists=True),
    metavar="FILE",
    help="Compile for this Python too; those on PATH are found. May be repeated.",
)
@click.option(
    "--oldest-python", default=FLOOR, metavar="VERSION", help=f"The oldest Python that a node may have ({FLOOR})."
)
@click.pass_obj
def sandbox(session: Session, output: Path, credentials: bool, pythons: tuple[str, ...], oldest_python: str) -> None:
    """Build what a worker node gets: one file and its scripts.

    Any Python from 3.9 on runs the file: python3 tokenpool.pyz work --quit. Nothing is installed on the node. With
    --credentials the folder holds a password: keep it to yourself.
    """
    given = None
    if credentials:
        settings = session.settings()
        if settings.pool.startswith("sqlite:"):
            warn(f"{settings.pool} is a file of this machine: other machines do not see it")
        given = Credentials(without_password(settings.pool), settings.password())
    built = build(output, pythons, given, oldest_python)
    size = (output / PROGRAM).stat().st_size
    if session.json:
        print_json({"schema": 1, "folder": str(output), "files": built.files, "bytes": size, "pythons": built.pythons})
        return
    compiled = f", compiled for Python {', '.join(built.pythons)}" if built.pythons else ""
    say(f"built {output}: {', '.join(built.files)}")
    say(f"{PROGRAM} has {size / 1e6:.1f} MB{compiled}")
