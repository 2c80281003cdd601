"""Runs one peer and prints one JSON line: python run.py MODULE TOKENS SLOTS FOLDER; a missing peer is a line as well.

The folder is left full: ext4 is slow for seconds after thousands of files were removed, and the next peer would pay.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from base import Missing


def main() -> None:
    name, tokens, slots, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    os.chdir(folder)
    try:
        peer = importlib.import_module(name)
        told = {"version": peer.version(), **asdict(peer.run(tokens, slots, folder))}
    except (Missing, ImportError) as error:
        told = {"missing": str(error)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
