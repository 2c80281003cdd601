"""Gives the tests roc-validator from PyPI, in a virtual environment of its own that is made once and kept.

It wants an older rich than we do.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from couch_server import REAL_ENVIRONMENT, Unavailable
from kept_venvs import kept_python

VALIDATOR = "roc-validator==0.13.0"


def issues_of(crate: Path, severity: str = "REQUIRED") -> list[list[str]]:
    """Return what the validator has against a crate, as [check, severity, message, entity]; raises Unavailable."""
    context = Path(_module_folder("rocrate"), "data", "ro-crate.jsonld")
    script = Path(__file__).with_name("crate_check.py")
    done = subprocess.run(
        [validator_python(), str(script), str(crate), str(context), severity], capture_output=True, text=True, timeout=600,
        env={name: value for name, value in REAL_ENVIRONMENT.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["passed"] is not bool(told["issues"])
    issues: list[list[str]] = told["issues"]
    return issues


def validator_python() -> str:
    """Return a Python that imports the validator; raises Unavailable where it cannot be installed."""
    return kept_python(VALIDATOR.replace("==", "-"), [VALIDATOR])


def _module_folder(name: str) -> Path:
    import importlib.util

    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise Unavailable(f"the library {name} is not installed: pip install 'tokenpool[crate]'")
    return Path(found.origin).parent
