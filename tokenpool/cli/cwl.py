"""The verbs for CWL workflows: `run-cwl` here and now, without a pool, and makeitso's `sendtask`."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ..errors import BadInput, NotFound
from .intake import push_options
from .policy import ENGINES
from .push import push_source
from .session import Session, verb
from .workflows import cwl_options, param_option, workflow_of


@verb(
    "sendtask",
    "tokenpool sendtask ctb/salmon:master params.json",
    "tokenpool sendtask tool.cwl params.yaml --batch night",
)
@click.argument("source", metavar="NAME")
@click.argument("params", required=False)
@push_options
@cwl_options
@click.pass_obj
def sendtask(session: Session, /, source: str, params: str | None, **given: Any) -> int:
    """Put a CWL workflow into the pool: push --cwl.

    makeitso's word for it. NAME is user/repo[:ref][/path.cwl], a URL, or a file of this machine.
    """
    return push_source(session, workflow_of(session, source, (params,) if params else (), given), given)


@verb(
    "run-cwl",
    "tokenpool run-cwl tool.cwl params.yaml",
    "tokenpool run-cwl CancerCollaboratory/dockstore-tool-bamstats:develop params.yaml",
    "tokenpool run-cwl tool.cwl --param message=hello",
    "tokenpool run-cwl tool.cwl -- --message hello",
    takes_command=True,
)
@click.argument("source")
@click.argument("params", required=False)
@param_option
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Put the output files there, not into the current folder.",
)
@click.option("--provenance", "prov", metavar="DIR", help="Keep the CWLProv research object in DIR.")
@click.option("--engine", type=click.Choice(ENGINES), help="What runs containers (auto: what is found).")
@click.option("--network/--no-network", default=True, help="Whether containers may use the network (they may).")
@click.option("--cwl-runner", metavar="CMD", help="What runs it (cwltool).")
@click.pass_context
def run_cwl(ctx: click.Context, /, source: str, params: str | None, **given: Any) -> int:
    """Run a CWL workflow here and now, without a pool.

    SOURCE is user/repo[:ref][/path.cwl] on GitHub, a git URL that ends in .git, any other URL, a file, or a .zip with a
    path behind it. Output files are put into the current folder; the output object is printed; the exit code is the CWL
    runner's own. Words behind -- are given to it as they are.
    """
    session = ctx.ensure_object(Session)
    with tempfile.TemporaryDirectory(prefix="tokenpool-") as folder:
        argv = _argv(session, source, params or "", given, Path(folder))
        try:
            return subprocess.run([*argv, *(ctx.meta.get("tokenpool.command") or ())], check=False).returncode
        except OSError as error:
            raise BadInput(
                f"{argv[0]} cannot be started: {error.strerror}", "name another one with --cwl-runner"
            ) from None


def _argv(session: Session, word: str, params: str, given: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the command line of the CWL runner; what has to be brought is brought into `folder`."""
    from ..cwl.checkouts import bring
    from ..cwl.params import absolute, read
    from ..cwl.sources import parse
    from ..runners.base import Policy
    from ..runners.workflow import CWLTOOLS, engine_options, runner_of

    settings = session.settings(engine=given["engine"], cwl_runner=given["cwl_runner"])
    policy = Policy(engine=settings["engine"], cwl_runner=settings["cwl_runner"], network=given["network"])
    argv = runner_of(policy)
    if Path(argv[0]).name in CWLTOOLS:
        argv += engine_options(policy)
    argv += ["--outdir", str(given["outdir"])] if given["outdir"] else []
    argv += ["--provenance", given["prov"]] if given["prov"] else []
    argv += ["--quiet"] if session.quiet else []
    source = bring(parse(word, settings["github"]), folder / "source")
    if source.repo or source.archive:
        argv.append(str(folder / "source" / source.path))
    else:
        argv.append((source.local or source.url) + (source.path if source.local else ""))
    if given["pairs"]:
        merged = folder / "params.json"
        merged.write_text(json.dumps(absolute(read(params, given["pairs"]), Path(params).parent)), "utf-8")
        argv.append(str(merged))
    elif params:
        if not Path(params).is_file() and "://" not in params:
            raise NotFound(f"there is no file {params}", "a YAML or JSON file of parameters; or --param name=value")
        argv.append(params)
    return argv
