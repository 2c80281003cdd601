"""Gives the compatibility tests a Python that has the real picas."""

from __future__ import annotations

import os

import pytest
from couch_server import Unavailable
from picas_venv import picas_python


@pytest.fixture(scope="session")
def python() -> str:
    """A Python that imports the real picas."""
    try:
        return picas_python()
    except Unavailable as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
