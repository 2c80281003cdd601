"""Secrets are named in tokens, known to workers, and seen by nobody."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tokenpool import vault
from tokenpool.errors import BadInput
from tokenpool.pool import Pool, connect
from tokenpool.runners.base import Policy
from tokenpool.worker import Worker, WorkerOptions


def run(pool: Pool, tmp_path: Path, **policy: str) -> None:
    """Drain the pool here."""
    Worker(pool, WorkerOptions(quit=True, workdir=tmp_path / "work", policy=Policy(**policy))).run()


@pytest.fixture
def secrets(tmp_path: Path) -> str:
    """A folder with one secret."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "DATABASE_KEY").write_text("correct horse\n")
    return str(folder)


def test_a_token_gets_the_secrets_that_it_names(
    sqlite_url: str, tmp_path: Path, secrets: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a worker that knows two secrets, one from a file and one from its environment
    monkeypatch.setenv("TOKENPOOL_SECRET_API", "battery staple")
    with connect(sqlite_url, create=True) as pool:
        command = 'printf "%s %s" "$DATABASE_KEY" "$API" | sha256sum; env'
        named, other = pool.push([{"input": command, "secrets": ["DATABASE_KEY", "API"]}, "env"])
        run(pool, tmp_path, secrets=secrets)
        # Then the token that names them has them, and what it prints of them is stars
        log = pool.logs(named).out
        assert log.startswith(hashlib.sha256(b"correct horse battery staple").hexdigest().encode())
        assert b"DATABASE_KEY=*************\n" in log
        assert b"API=**************\n" in log
        # And another token knows nothing of them
        assert b"battery" not in pool.logs(other).out
        # And the pool holds neither
        assert not any(word in str(list(pool.export("all"))) for word in ("horse", "battery"))


def test_a_secret_that_the_worker_does_not_have_ends_the_token(sqlite_url: str, tmp_path: Path) -> None:
    with connect(sqlite_url, create=True) as pool:
        (token,) = pool.push({"input": "true", "secrets": ["NOBODY_KNOWS"]})
        run(pool, tmp_path)
        doc = pool.get(token)
        assert doc["attempts"][0]["failure_class"] == "invalid"
        assert "no secret 'NOBODY_KNOWS'" in doc.get_errors()[-1]["message"]


@pytest.mark.parametrize("secrets", ["KEY", [""], ["a b"], ["../passwd"], [7], {"KEY": "value"}])
def test_a_secret_is_named_not_told(sqlite_url: str, secrets: object) -> None:
    with connect(sqlite_url, create=True) as pool:
        with pytest.raises(BadInput, match="no list of names"):
            pool.push({"input": "true", "secrets": secrets})
        assert list(pool.tokens("all")) == []


def test_a_secret_across_two_pieces_of_a_file_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault, "_PIECE", 8)
    path = tmp_path / "log"
    path.write_bytes(b"123456hunter2-and-hunter2-and-hunter")
    vault.hide_in_file(str(path), ["hunter2"])
    assert path.read_bytes() == b"123456*******-and-*******-and-hunter"


def test_words_too_short_to_be_secret_stay(tmp_path: Path) -> None:
    assert vault.hide(b"a yes and a secret", ["yes", "secret"]) == b"a yes and a ******"
