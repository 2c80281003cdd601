"""What tests of function tokens may ask for: a pool, and workers that find the functions of `deeds`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE))
sys.path.append(str(HERE.parent / "acceptance"))
