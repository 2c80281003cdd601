"""The verb `logs`: what a token wrote, after its end or while it runs."""

from __future__ import annotations

import json
import sys

import click

from ..errors import BadInput, NotFound
from ..follow import STREAMS, Piece
from ..pool import Logs, Pool
from .output import number, print_json, say
from .session import Session, verb


@verb(
    "logs",
    "tokenpool logs task_1f0c",
    "tokenpool logs task_1f0c --err | tail",
    "tokenpool logs task_1f0c --attempt 1",
    "tokenpool logs -f task_1f0c",
)
@click.argument("token_id", metavar="ID")
@click.option("--out", "only", flag_value="out", help="Only what it wrote to standard output.")
@click.option("--err", "only", flag_value="err", help="Only what it wrote to standard error, to standard output.")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="The logs of attempt N; else of the last one.")
@click.option("-f", "--follow", is_flag=True, help="While it runs too, until it is finished.")
@click.pass_obj
def logs(session: Session, token_id: str, only: str | None, attempt: int | None, follow: bool) -> None:
    """Print the logs of a token.

    Its standard output goes to ours and its standard error to ours; with --err, that goes to standard output, to be piped.
    With --follow a token that waits is waited for, and a retry is followed too; with --json, an object a line.
    """
    if follow and attempt is not None:
        raise BadInput("an attempt that is over cannot be followed", "leave out --follow, or --attempt")
    with session.open() as pool:
        if follow:
            _follow(session, pool, token_id, only)
            return
        found = pool.logs(token_id) if attempt is None else _logs_of(pool, token_id, attempt)
    if session.json:
        texts = {"stdout": found.out.decode("utf-8", "replace"), "stderr": found.err.decode("utf-8", "replace")}
        print_json({"schema": 1, "id": token_id, "attempt": attempt, **texts})
        return
    if not (found.out or found.err):
        say(f"token {token_id} has no logs")
    if only != "err":
        _write(found.out, err=False)
    if only != "out":
        _write(found.err, err=only is None)


def _logs_of(pool: Pool, token_id: str, attempt: int) -> Logs:
    attempts = pool.get(token_id).doc.get("attempts")
    known = attempts if isinstance(attempts, list) else []
    if attempt > len(known):
        raise NotFound(
            f"token {token_id} has {number(len(known), 'attempt')}, not {attempt}", f"tokenpool show {token_id}"
        )
    told = known[attempt - 1] if isinstance(known[attempt - 1], dict) else {}
    names = [told.get("stdout"), told.get("stderr")]
    return Logs(*(pool.attachment(token_id, str(name)) if name else b"" for name in names))


def _write(data: bytes, err: bool) -> None:
    stream = sys.stderr if err else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


# --- while it runs -------------------------------------------------------------------------------------------------------


def _follow(session: Session, pool: Pool, token_id: str, only: str | None) -> None:
    """Print what a token writes until it is finished."""
    for piece in pool.follow(token_id):
        if piece.stream in STREAMS and only not in (None, piece.stream):
            continue
        if session.json:
            text = piece.data.decode("utf-8", "replace")
            click.echo(json.dumps({"stream": piece.stream, "text": text}, ensure_ascii=False))
            sys.stdout.flush()
        else:
            _print(session, piece, only)


def _print(session: Session, piece: Piece, only: str | None) -> None:
    if piece.stream in STREAMS:
        _write(piece.data, err=piece.stream == "err" and only is None)
    elif not session.quiet:
        click.echo(click.style(f"[... {piece.data.decode()} ...]", dim=True), err=True)
