"""The words themselves: verbs, help, options anywhere, errors of two lines, start-up time, the reference page."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import pytest
from cli_tools import ROOT, call, command, environment, ok, spawn, use

from tokenpool.cli import VERBS, verbs
from tokenpool.cli.reference import reference
from tokenpool.cli.session import Session

#: Rows "core" and "engine" of the table in the design; an issue that adds verbs adds its row.
CORE = "init push run work status list show logs wait watch retry reset cancel rm scrub import export move doctor config completion"
ENGINE = "explain edit pause resume exec worker batch spool"
RUNNERS = "run-cwl sendtask"
DATA = "fetch cache"
LAUNCH = "launch scale sandbox service"
SERVER = "serve access report"
#: Files that examples of verbs name, which look whether they are there.
FILES = ("workers.sh", "Snakefile", "bob.txt")
GROUPS = {
    "worker": "list slots prefetch drain stop", "batch": "list set pause resume", "spool": "list deliver", "cache": "ls rm prune",
    "launch": "slurm pbs htcondor local grid cloud list cancel", "service": "install remove show status",
    "access": "list add passwd role remove token revoke",
}  # fmt: skip


def commands() -> Iterator[tuple[str, click.Command]]:
    for name, each in verbs().items():
        yield name, each
        if isinstance(each, click.Group):
            yield from ((f"{name} {inner}", command) for inner, command in inside(each).items())


def inside(group: click.Group) -> dict[str, click.Command]:
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


NAMES = [name for name, _ in commands()]


def test_the_verbs_are_those_of_the_design():
    assert set(VERBS) == {
        *CORE.split(),
        *ENGINE.split(),
        *RUNNERS.split(),
        *DATA.split(),
        *LAUNCH.split(),
        *SERVER.split(),
    }
    listed = ok("--help").out.partition("Verbs:")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines() if line.strip()] == list(VERBS)


@pytest.mark.parametrize("name", GROUPS)
def test_the_verbs_of_a_group_are_those_of_the_design(name):
    group = verbs()[name]
    assert isinstance(group, click.Group)
    assert set(inside(group)) == set(GROUPS[name].split())


@pytest.mark.parametrize("name", list(VERBS))
def test_the_line_in_help_is_the_first_line_of_the_verbs_own_help(name):
    told = (verbs()[name].help or "").strip().splitlines()[0]
    assert told == VERBS[name][1]


@pytest.mark.parametrize("name", NAMES)
def test_every_verb_has_help_with_an_example_and_the_global_options(name):
    told = ok(*name.split(), "--help").out
    assert f"tokenpool {name.split()[0]}" in told.partition("Examples:")[2]
    assert "--pool" in told.partition("Global options:")[2]


@pytest.mark.parametrize(
    ("name", "each"), [(name, each) for name, each in commands() if not isinstance(each, click.Group)]
)
def test_every_example_is_a_call_that_the_verb_understands(name, each, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in FILES:
        (tmp_path / file).touch()
    for example in each.examples:
        inner = example.partition("$(")[2].partition(")")[0] or example
        calls = [part for part in inner.split("|") if "tokenpool" in part]
        words = shlex.split(calls[0].partition("#")[0])
        words = words[words.index("tokenpool") + 1 + len(name.split()) :]
        stop = next((n for n, word in enumerate(words) if word in (">", "<", "&&")), len(words))
        each.make_context(name, words[:stop], obj=Session()).close()


def test_every_option_has_help():
    missing = [
        f"{name} {param.name}"
        for name, each in commands()
        for param in each.params
        if isinstance(param, click.Option) and not param.help
    ]
    assert missing == []


def test_the_reference_page_is_what_the_commands_say():
    page = ROOT / "docs" / "reference" / "cli.md"
    assert page.read_text("utf-8") == reference(), "python -m tokenpool.cli.reference > docs/reference/cli.md"


# --- options -------------------------------------------------------------------------------------------------------------


def test_global_options_stand_before_or_behind_the_verb(sqlite_url):
    use(sqlite_url)
    other = sqlite_url.replace("tokenpool.db", "other.db")
    for flag in ("--pool", "-p", "-S"):
        assert ok(flag, other, "init", "--json").json == ok("init", "--json", flag, other).json
    assert "other.db" in ok("--json", "-p", other, "status").json["pool"]
    assert "other.db" in ok("status", "--json", "-p", other).json["pool"]


def test_settings_come_from_option_then_environment_then_file_then_default(tmp_path, monkeypatch):
    (tmp_path / "tokenpool.toml").write_text('pool = "sqlite:///file.db"\n')
    assert ok("config", "get", "pool").out == "sqlite:///file.db\n"
    monkeypatch.setenv("TOKENPOOL_POOL", "sqlite:///environment.db")
    assert ok("config", "get", "pool").out == "sqlite:///environment.db\n"
    assert ok("config", "get", "pool", "-p", "sqlite:///option.db").out == "sqlite:///option.db\n"


def test_version_is_told_before_and_behind_a_verb():
    assert ok("--version").out == ok("list", "--version").out
    assert ok("--version").out.startswith("tokenpool ")


def test_no_verb_at_all_is_wrong_usage_and_shows_the_help():
    for words in ((), ("config",), ("worker",), ("batch",)):
        answer = call(*words)
        assert (answer.code, answer.out) == (2, "")
        assert "Usage: tokenpool" in answer.err


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["pusj"], "there is no verb 'pusj'", "did you mean 'push'?"),
        (["config", "lst"], "there is no verb 'lst'", "did you mean 'list'?"),
        (["worker", "dran"], "there is no verb 'dran'", "did you mean 'drain'?"),
        (["worker", "slots", "many", "all"], "invalid value for 'N'", "tokenpool worker slots --help"),
        (
            ["batch", "set", "x", "--max-running", "0"],
            "invalid value for '--max-running'",
            "tokenpool batch set --help",
        ),
        (["xyzzy"], "there is no verb 'xyzzy'", "tokenpool --help lists them"),
        (["push", "--bath", "x"], "there is no option --bath", "did you mean --batch?"),
        (["list", "--frobnicate"], "there is no option --frobnicate", "tokenpool list --help"),
        (["--verson"], "there is no option --verson", "did you mean --version?"),
        (["show"], "missing argument 'ID'", "tokenpool show --help"),
        (["work", "--slots", "0"], "invalid value for '--slots'", "tokenpool work --help"),
        (["work", "--grace", "soon"], "invalid value for '--grace'", "tokenpool work --help"),
        (["push", "--tag", "x", "f"], "invalid value for '--tag'", "tokenpool push --help"),
        (["work", "--view", "x"], "invalid value for '--view'", "tokenpool work --help"),
        (["work", "--log-limit", "many"], "invalid value for '--log-limit'", "tokenpool work --help"),
        (["completion", "tcsh"], "invalid value for", "tokenpool completion --help"),
        (["list", "state:dne"], "there is no state 'dne'", "states: todo"),
        (["list", "x", "all"], "ids and conditions cannot be mixed", "name the ids alone"),
        (["list", "age>soon"], "'soon' is not a duration", "write 90s"),
        (["config", "get", "slot"], "there is no setting 'slot'", "did you mean 'slots'?"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(sqlite_url, words, error, hint):
    use(sqlite_url)
    answer = call(*words)
    assert answer.code == 2
    assert error in answer.error
    assert hint in answer.err
    assert answer.out == ""


def test_errors_are_json_when_json_is_asked_for(sqlite_url):
    use(sqlite_url)
    told = json.loads(call("show", "nobody", "--json").err)
    assert told["error"]["code"] == "not_found"
    assert set(told["error"]) == {"code", "message", "hint"}
    assert json.loads(call("--json", "pusj").err)["error"]["hint"] == "did you mean 'push'?"
    # Behind -- it belongs to the command.
    assert call("push", "-x", "--", "cmd", "--json").err.startswith("error: ")


def test_a_bug_is_told_in_two_lines_and_with_its_traceback_when_asked(sqlite_url, monkeypatch):
    def broken(self: object) -> None:
        raise ZeroDivisionError("oh")

    use(sqlite_url)
    monkeypatch.setattr("tokenpool.pool.Pool.status", broken)
    answer = call("status")
    assert (answer.code, answer.error) == (1, "error: ZeroDivisionError: oh (a bug)")
    assert "-v" in answer.err
    with pytest.raises(AssertionError, match="Traceback"):
        call("status", "-v")


def test_an_interrupt_ends_with_130(sqlite_url, monkeypatch):
    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    use(sqlite_url)
    monkeypatch.setattr("tokenpool.pool.Pool.status", interrupted)
    assert call("status").code == 130


# --- a process of its own ------------------------------------------------------------------------------------------------


def test_a_reader_that_leaves_is_no_error(sqlite_url):
    use(sqlite_url)
    ok("push", "-", stdin="".join(f"echo {n} {'x' * 100}\n" for n in range(5000)))
    line = f"{shlex.join(command('list', '-q'))} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}}"], env=environment(), capture_output=True, text=True
    )
    assert (done.stderr, done.stdout.split()[1]) == ("", "141")


def test_colours_are_for_terminals_and_can_be_forbidden(sqlite_url, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in call("pusj").err
    assert "\x1b[" not in call("status", "--no-color", "-p", "nonsense").err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in call("pusj").err


def test_completion_is_a_script_that_offers_verbs_and_selectors(monkeypatch):
    for shell in ("bash", "zsh", "fish"):
        assert "_TOKENPOOL_COMPLETE" in ok("completion", shell).out
    words = {"_TOKENPOOL_COMPLETE": "bash_complete", "COMP_WORDS": "tokenpool list state:e", "COMP_CWORD": "2"}
    done = subprocess.run(command(), env={**environment(), **words}, capture_output=True, text=True)
    assert "state:error" in done.stdout


def test_the_program_starts_fast():
    """As a ratio to the import of click, measured in one run, so that a slow machine judges the same."""
    ours, floor = [], []
    for _ in range(7):
        for words, times in ((command("--version"), ours), ([sys.executable, "-c", "import click"], floor)):
            began = time.perf_counter()
            subprocess.run(words, env=environment(), check=True, stdout=subprocess.DEVNULL)
            times.append(time.perf_counter() - began)
    ratio = min(ours) / min(floor)
    print(f"tokenpool --version: {min(ours) * 1000:.0f} ms, {ratio:.2f} × import click")
    assert ratio <= 3


def test_help_and_version_import_no_verb():
    code = "import sys; from tokenpool.cli import main; main([sys.argv[1]]); print([m for m in sys.modules if 'tokenpool' in m])"
    for word in ("--version", "--help"):
        done = subprocess.run([sys.executable, "-c", code, word], env=environment(), capture_output=True, text=True)
        assert "tokenpool.pool" not in done.stdout.splitlines()[-1], done.stdout
        assert "tokenpool.cli.session" in done.stdout.splitlines()[-1]


def test_the_module_runs_as_a_program():
    assert spawn(["--version"]).stdout.startswith("tokenpool ")
