"""What starts workers elsewhere: one file per kind of system, found by its name."""

from __future__ import annotations

from ..plugins import load
from .base import Launcher

BUILTIN = {
    "local": "tokenpool.launchers.local:LocalLauncher",
    "slurm": "tokenpool.launchers.slurm:SlurmLauncher",
    "pbs": "tokenpool.launchers.pbs:PbsLauncher",
    "htcondor": "tokenpool.launchers.htcondor:HTCondorLauncher",
    "dirac": "tokenpool.launchers.dirac:DiracLauncher",
    "arc": "tokenpool.launchers.arc:ArcLauncher",
    "cloud": "tokenpool.launchers.cloud:CloudLauncher",
}


def open_launcher(name: str) -> Launcher:
    """Return a launcher by its name; raises BadInput with the names there are."""
    launcher: Launcher = load("launchers", name, BUILTIN)()
    return launcher
