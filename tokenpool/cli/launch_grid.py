"""The verb `launch grid`: workers on the Grid, from a sandbox that holds all they need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ..errors import BadInput
from .launch import BatchVerb, hand_in, order_of, order_options
from .output import say
from .session import Session


@click.command(
    "grid",
    cls=BatchVerb,
    takes_command=True,
    examples=(
        "tokenpool launch grid -n 20 --cpus 4 --time 12h",
        "tokenpool launch grid -n 20 --print > workers.jdl",
        "tokenpool launch grid -n 20 -- 'Site = \"LCG.SURFsara.nl\"'",
        "tokenpool launch grid --arc -n 20 --time 2h -- -C https://ce.example.org/arex -T arcrest",
        "tokenpool launch grid --environment /cvmfs/softdrive.nl/me/snakemake --input Snakefile",
    ),
)
@click.option("--arc", is_flag=True, help="By arcsub to an ARC computing element; else by DIRAC.")
@click.option(
    "--sandbox",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("dist/sandbox"),
    metavar="DIR",
    help="What tokenpool sandbox built; built now where it is missing (dist/sandbox).",
)
@click.option(
    "--input",
    "inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Send this file along; may be repeated.",
)
@click.option(
    "--environment", metavar="DIR", help="Programs on the node: DIR/bin is put first, for example from CVMFS."
)
@order_options
@click.pass_context
def grid(
    ctx: click.Context, /, arc: bool, sandbox: Path, inputs: tuple[Path, ...], environment: str | None, **given: Any
) -> int:
    """Start workers on the Grid, by DIRAC or by an ARC computing element.

    The sandbox travels with each job: nothing is installed there. The pool's password travels in its own file, which the
    setting password_file names. Behind -- stand lines of the JDL, or options of arcsub.
    """
    session: Session = ctx.obj
    if given["program"]:
        raise BadInput(
            "--program makes no sense: a job of the Grid runs tokenpool.pyz", "name its folder with --sandbox"
        )
    extra = tuple(ctx.meta.get("tokenpool.command", ()))
    order = order_of(session, given, extra)
    told = (("TOKENPOOL_ENVIRONMENT", environment),) if environment else ()
    folder = sandbox.absolute()
    order = replace(
        order, program=str(folder), files=tuple(str(path.absolute()) for path in inputs), env=(*order.env, *told)
    )
    if not (given["script"] or given["shown"] or given["dry_run"] or (folder / "tokenpool.pyz").is_file()):
        from ..sandbox import build

        build(folder)
        say(f"built {sandbox}")
    return hand_in(session, "arc" if arc else "dirac", order, given)
