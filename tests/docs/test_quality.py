"""The house rules are tests: lint, types, import contracts, doctests, and the shape of the code."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tokenpool

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(ROOT.glob("tokenpool/**/*.py"))
#: mypy and import-linter need a newer Python than the oldest that we support.
NEEDS_310 = pytest.mark.skipif(sys.version_info < (3, 10), reason="the tool itself needs Python 3.10")


def check(*command: str) -> None:
    """Run a tool of this environment over the tree; its findings are the failure."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint() -> None:
    check("ruff", "check", ".")


def test_format() -> None:
    check("ruff", "format", "--check", ".")


@NEEDS_310
def test_types() -> None:
    check("mypy")


@NEEDS_310
def test_rooms_import_only_downwards() -> None:
    check("lint-imports")


def module_names() -> list[str]:
    walked = pkgutil.walk_packages(tokenpool.__path__, "tokenpool.")
    return [
        "tokenpool",
        *(m.name for m in walked if not m.name.startswith(("tokenpool.testing", "tokenpool.__main__"))),
    ]


@pytest.mark.parametrize("name", module_names())
def test_doctests(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"connect": tokenpool.connect})
    assert result.failed == 0


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_shape(path: Path) -> None:
    """A module opens with one sentence and is no longer than a chapter; a function fits a screen."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or len(text.splitlines()) < 4
    assert len(text.splitlines()) <= 400
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert [f.name for f in functions if (f.end_lineno or 0) - f.lineno >= 60] == []


def test_a_token_that_we_push_is_what_the_schema_says() -> None:
    # Given the schema that ships in the package, and tokens as push makes them
    import json

    import jsonschema

    from tokenpool.pushes import make_token

    schema = json.loads((ROOT / "tokenpool" / "token.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    full = {
        "command": ["echo", "a b"], "env": {"A": 1}, "batch": "b", "tags": {"k": "v"}, "priority": 3, "timeout": 5,
        "max_retries": 2, "resources": {"cpu_cores": 2, "ram_gb": [1.5, 3], "disk_gb": 1, "gpus": 0}, "anything": ["else"],
        "retry_delay": 60, "retry_backoff": 2, "checkpoint": ["*.ckpt"], "not_before": "2030-01-31T08:00:00Z",
        "depends_on": ["t1"], "accept_failure": True, "paused": False, "reuse": True, "volumes": ["/vol/a"],
        "inputs": [{"url": "s3://b/x.gz", "unpack": "gunzip", "shared": True}, {"content": "a", "path": "a.txt"}],
        "outputs": [{"url": "s3://b/out/", "path": "*.bam", "when": "always", "credentials": "KEY"}, {"path": "r.json"}],
    }  # fmt: skip
    # Then both a bare command and a full token are valid, and a token with a broken lock is not
    for item in ("echo hi", full):
        jsonschema.validate(make_token(item, {}), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**make_token("echo hi", {}), "lock": "soon"}, schema)


def test_the_public_names_are_all_there() -> None:
    for name in tokenpool.__all__:
        assert getattr(tokenpool, name) is not None
