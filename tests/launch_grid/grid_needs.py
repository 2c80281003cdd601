"""What a test of the Grid does where something that it needs is missing."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def not_here(what: str) -> NoReturn:
    """Fail where everything must be there, else leave the test out."""
    if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
        pytest.fail(what, pytrace=False)
    pytest.skip(what)
