"""A user without a home and without an account, as on many a node of the Grid, works all the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from service_tools import PYTHON

from tokenpool.config import home, load
from tokenpool.sandbox import PROGRAM

NOBODY = 54321


def homeless(desk: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call tokenpool as a user whom this machine does not know, with nothing in the environment."""
    switch = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    # Not the file itself as the program: that one makes a home of its own, which an installation does not.
    argv = [*switch, PYTHON, "-m", "tokenpool", *words]
    environment = {"PATH": os.defpath, "PYTHONPATH": str(desk / "sandbox" / PROGRAM), **variables}
    return subprocess.run(argv, cwd=desk, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_worker_without_a_home_runs_tokens(desk: Path) -> None:
    # Given tokens of every need: none, a shared input, a secret of the worker's own folder
    (desk / "data").write_text("a b\n")
    secrets = desk / ".config" / "tokenpool" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "KEY").write_text("hunter2")
    tokens = [
        {"_id": "plain", "command": ["id", "-u"]},
        {"_id": "shared", "command": ["sh", "-c", "cat $RESOURCE/in"],
         "inputs": [{"url": f"file://{desk}/data", "path": "in", "shared": True}]},
        {"_id": "secret", "command": ["sh", "-c", "test $KEY = hunter2"], "secrets": ["KEY"]},
    ]  # fmt: skip
    (desk / "tokens.jsonl").write_text("\n".join(map(json.dumps, tokens)))
    assert homeless(desk, "push", "tokens.jsonl").returncode == 0
    # When a worker runs there
    worked = homeless(desk, "work", "--quit", "--slots", "1")
    # Then all are done, and what it keeps is in the folder that it works in
    assert (worked.returncode, worked.stderr.splitlines()[-1]) == (0, "left: 3 done, 0 failed")
    assert homeless(desk, "logs", "plain", "--out").stdout == f"{NOBODY}\n"
    assert homeless(desk, "logs", "shared", "--out").stdout == "a b\n"
    assert (desk / ".cache" / "tokenpool" / "data").is_dir()
    # And the other verbs that look for a home find a place
    assert homeless(desk, "launch", "list").returncode == 0
    assert homeless(desk, "spool", "list").returncode == 0
    assert "there is no home" in homeless(desk, "config", "list", "--origin").stdout


def test_the_xdg_variables_go_before_the_folder_that_it_works_in(desk: Path) -> None:
    places = {"XDG_CACHE_HOME": str(desk / "c"), "XDG_STATE_HOME": str(desk / "s"), "XDG_CONFIG_HOME": str(desk / "k")}
    told = json.loads(homeless(desk, "config", "list", "--json", **places).stdout)
    assert (told["cache"], told["spool"]) == ({"value": "", "origin": "default"},) * 2


def test_settings_that_begin_with_a_tilde_mean_that_folder(desk: Path) -> None:
    told = json.loads(
        homeless(desk, "config", "list", "--json", TOKENPOOL_SECRETS="~/mine", TOKENPOOL_CACHE="/c").stdout
    )
    assert (told["secrets"]["value"], told["cache"]["value"]) == (f"{desk}/mine", "/c")


def test_who_has_a_home_keeps_it(tmp_path: Path) -> None:
    assert home({"HOME": str(tmp_path / "me")}) == tmp_path / "me"
    assert load({"HOME": str(tmp_path)})["secrets"] == "~/.config/tokenpool/secrets"
