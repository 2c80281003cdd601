"""Gives the tests the real picas from PyPI, in a virtual environment of its own that is made once and kept."""

from __future__ import annotations

import os

from kept_venvs import kept_python

PICAS = "picas==1.1.2"
#: picas declares a notebook kernel and an old cryptography besides; without them these are all that it imports.
ALONE = ["--no-deps", PICAS, "stopit", "couchdb", "setuptools<81"]
LIBRARIES = ["cryptography", "jsonschema", "pyyaml", "requests"]


def picas_python() -> str:
    """Return a Python that imports picas; raises Unavailable where it cannot be installed."""
    return kept_python(f"{PICAS.replace('==', '-')}-whole", ALONE, LIBRARIES)


def picas_environment() -> dict[str, str]:
    """Return the environment of a picas process: nothing of ours on its path."""
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "PYTHONWARNINGS": "ignore"}
