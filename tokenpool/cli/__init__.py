"""The program `tokenpool`: finds the verb, loads only its module, turns every error into two lines and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from .session import Nouns, Session, help_if_bare

COMPLETE = "_TOKENPOOL_COMPLETE"
INTERRUPTED = 130
#: What a shell reports of a program that wrote into a pipe nobody reads.
BROKEN_PIPE = 141

#: Every verb: its module (the function is named like it) and its line in ``--help``, so that help imports nothing.
VERBS = {
    "init": ("pool:init", "Make the pool and its views where they are missing."),
    "push": ("push:push", "Put tokens into the pool."),
    "run": ("run:run", "Push a file of tokens, or a workflow, and run them here."),
    "run-cwl": ("cwl:run_cwl", "Run a CWL workflow here and now, without a pool."),
    "sendtask": ("cwl:sendtask", "Put a CWL workflow into the pool: push --cwl."),
    "work": ("work:work", "Claim tokens and run them."),
    "status": ("tokens:status", "Show how many tokens are in every state."),
    "list": ("tokens:list_tokens", "List tokens."),
    "show": ("tokens:show", "Show one token."),
    "logs": ("logs:logs", "Print the logs of a token."),
    "fetch": ("fetch:fetch", "Bring the outputs and logs of tokens home."),
    "wait": ("waiting:wait", "Wait until tokens are finished."),
    "watch": ("watch:watch", "Watch the pool live."),
    "report": ("report:report", "Write a report of a campaign."),
    "retry": ("bulk:retry", "Put failed tokens back to todo."),
    "reset": ("bulk:reset", "Put tokens back to todo, their results forgotten."),
    "cancel": ("bulk:cancel", "End waiting tokens and stop running ones."),
    "rm": ("bulk:rm", "Delete tokens."),
    "scrub": ("bulk:scrub", "Put locked or failed tokens back to todo, counted."),
    "import": ("carry:import_tokens", "Read exported tokens, or another system's files."),
    "export": ("carry:export", "Write tokens with their logs as JSON lines."),
    "move": ("carry:move", "Move tokens into another pool, with their logs and history."),
    "doctor": ("doctor:doctor", "Check this computer and the pool; mend what can be mended."),
    "explain": ("explain:explain", "Say why a token does not run, who runs it, or how it ended."),
    "edit": ("edit:edit", "Change fields of tokens that do not run."),
    "pause": ("pause:pause", "Hold waiting tokens until they are resumed."),
    "resume": ("pause:resume", "Let paused tokens run."),
    "exec": ("exec:exec_token", "Run a token here, without claiming or changing it."),
    "worker": ("worker:worker", "Show the workers and steer them."),
    "batch": ("batch:batch", "Show the batches and steer them."),
    "launch": ("launch:launch", "Start workers elsewhere, and see what became of them."),
    "scale": ("scale:scale", "Keep as many workers as the waiting tokens need."),
    "service": ("service:service", "Let systemd run workers, scale or the server."),
    "spool": ("spool:spool", "Show and deliver finished tokens that wait on this computer."),
    "cache": ("cache:cache", "Show and clear what tokens share on this computer."),
    "serve": ("serve:serve", "Serve a dashboard, a JSON API and GA4GH TES over the pool."),
    "access": ("access:access", "Show and change who may use the server."),
    "config": ("config:config", "Show and change the settings."),
    "sandbox": ("sandbox:sandbox", "Build what a worker node gets: one file and its scripts."),
    "completion": ("completion:completion", "Print the completion script of a shell."),
}


class LazyGroup(Nouns):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        import importlib

        module, _, attribute = VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f".{module}", __name__), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, told) for name, (_, told) in VERBS.items()])


@click.group(
    cls=LazyGroup,
    subcommand_metavar="VERB ...",
    epilog="tokenpool VERB --help tells more, with examples. Tokens are chosen by an id, state:error, batch:x, tag:k=v, "
    "host:n1, 'age>2h', or all. Exit codes: 0 ok, 1 our failure, 2 usage, 3 some tokens failed (run, wait), 4 not found, "
    "69 server away, 75 try again, 77 not permitted, 130 interrupted.",
)
@click.pass_context
def root(ctx: click.Context) -> int:
    """A pool of tokens: push tasks from anywhere, run them anywhere, lose none."""
    return help_if_bare(ctx)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, "tokenpool", COMPLETE, os.environ[COMPLETE])
    try:
        with root.make_context("tokenpool", [*args], obj=Session(), color=_color()) as ctx:
            code = int(root.invoke(ctx) or 0)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_has_gone()
    except Exception as error:
        from .failures import report

        with click.Context(root, color=False if "--no-color" in args else _color()):
            return report(error, args)
    return code


def _color() -> bool | None:
    """Return whether colours are wanted: None asks the terminal."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return True if os.environ.get("FORCE_COLOR") else None


def _reader_has_gone() -> int:
    """Keep the interpreter from flushing into the broken pipe at its end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        pass
    return BROKEN_PIPE


def verbs() -> dict[str, Any]:
    """Return every command by its name, all loaded: for tests and for the reference page."""
    with click.Context(root) as ctx:
        return {name: root.get_command(ctx, name) for name in VERBS}
