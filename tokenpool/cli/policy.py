"""The options of `work` and `run` that say what tokens may do on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..errors import BadInput
from ..runners.base import Policy
from .session import Session, flags
from .types import DURATION, SIZE

Function = TypeVar("Function", bound=Callable[..., Any])

ENGINES = ("auto", "docker", "podman", "apptainer")


def policy_options(function: Function) -> Function:
    """Give a verb the options that say what tokens may do here; none of them can be set by a token."""
    return flags(
        click.option("--engine", type=click.Choice(ENGINES), help="What runs containers (auto: what is found)."),
        click.option("--network/--no-network", default=True, help="Whether containers may use the network (they may)."),
        click.option(
            "--mount",
            "mounts",
            multiple=True,
            metavar="HOST[:PATH][:rw]",
            help="Show containers this folder, read-only without :rw; may be repeated.",
        ),
        click.option("--image-user", is_flag=True, help="Let containers run as the user that their image names."),
        click.option(
            "--allow-option",
            "container_options",
            multiple=True,
            metavar="NAME",
            help="Let tokens give the engine this option, for example shm-size; may be repeated.",
        ),
        click.option(
            "--prune-images",
            type=DURATION,
            metavar="TIME",
            help="Remove images that no token used for so long (never).",
        ),
        click.option(
            "--allow-module",
            "modules",
            multiple=True,
            metavar="MODULE",
            help="Let tokens call functions of this Python module; may be repeated; '*': of any.",
        ),
        click.option("--allow-pickles", is_flag=True, help="Let tokens bring pickles, which can do anything."),
        click.option("--cwl-runner", metavar="CMD", help="What runs CWL workflows (cwltool)."),
        click.option("--attach-limit", type=SIZE, metavar="BYTES", help="The largest result file to attach (10MB)."),
    )(function)


def staging_options(function: Function) -> Function:
    """Give a verb the options that say how data comes to this machine and leaves it."""
    return flags(
        click.option(
            "--cache",
            type=click.Path(file_okay=False),
            metavar="DIR",
            help="Keep there what tokens share (--resource); all workers of a machine take the same.",
        ),
        click.option("--cache-limit", metavar="SIZE", help="How large it may grow: 50GB, or a part of its disk (20%)."),
        click.option(
            "--scratch-limit",
            type=click.FloatRange(0, 100, min_open=True),
            metavar="PERCENT",
            help="Claim nothing while the scratch disk is that full; remove old folders first (95).",
        ),
        click.option(
            "--transfers", type=click.IntRange(1), metavar="N", help="Streams to and from storages at a time (8)."
        ),
    )(function)


def staging_of(session: Session, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return how data comes and goes, as a worker is told: what was given, then the settings."""
    names = ("cache", "cache_limit", "scratch_limit", "transfers")
    settings = session.settings(**{name: given.get(name) for name in names})
    return {"storage": settings.storage, **{name: settings[name] for name in names}}


def policy_of(session: Session, given: Mapping[str, Any]) -> Policy:
    """Return what tokens may do here: what was given, then the settings."""
    settings = session.settings(engine=given["engine"], cwl_runner=given["cwl_runner"])
    if settings["engine"] not in ENGINES:
        raise BadInput(f"engine = {settings['engine']!r} is unknown", f"one of {', '.join(ENGINES)}")
    modules = given["modules"] or filter(None, re.split(r"[,\s]+", settings["modules"]))
    return Policy(
        engine=settings["engine"],
        network=given["network"],
        image_user=given["image_user"],
        mounts=tuple(given["mounts"]),
        container_options=tuple(name.lstrip("-") for name in given["container_options"]),
        prune_images=given["prune_images"],
        modules=tuple(modules),
        pickles=given["allow_pickles"],
        cwl_runner=settings["cwl_runner"],
        secrets=settings["secrets"],
        attach_limit=given["attach_limit"] or Policy.attach_limit,
    )
