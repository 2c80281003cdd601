"""Stories of coming from PYTQ: command lines of pytq-launch become tokens that do the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli_tools import call, command, environment, ids, ok, use

from tokenpool.shell_words import command_lines


@pytest.fixture(autouse=True)
def pool(sqlite_url: str) -> str:
    return use(sqlite_url)


def token(*words: str) -> dict[str, Any]:
    """Return the token that a command line of pytq-launch becomes."""
    found: dict[str, Any] = json.loads(ok("import", "pytq", "--dry-run", "--", "pytq-launch", *words).out)
    return found


# --- PYTQ's own examples -------------------------------------------------------------------------------------------------


def test_a_bare_command():
    assert token("echo", "Hello world!")["input"] == "echo 'Hello world!'"


def test_a_batch_and_an_image():
    made = token("-b", "test", "-d", "alpine:latest", "echo", "Hello world!")
    assert (made["batch"], made["image"], made["command"]) == ("test", "alpine:latest", ["echo", "Hello world!"])


def test_the_eight_samples_of_its_readme():
    script = "pipeline_rnd.sh -e -c /input mgshot; returncode=$?;  cd /input; cp * /output/ ; exit $returncode"
    made = token(
        "-b", "s5810", "-n", "mgshot_1", "-i", "s3://clinical/S5810/m.1.fastq.gz s3://clinical/S5810/m.2.fastq.gz",
        "-o", "s3://clinical/results/S5810Nr1/", "-d", "registry.host:5000/biomscope:0.4", "sh", "-c", script,
    )  # fmt: skip
    assert made["inputs"] == [
        {"url": "s3://clinical/S5810/m.1.fastq.gz"},
        {"url": "s3://clinical/S5810/m.2.fastq.gz"},
    ]
    # PYTQ brings the results away whether the command succeeded or not
    assert made["outputs"] == [{"url": "s3://clinical/results/S5810Nr1/", "when": "always"}]
    assert made["command"] == ["sh", "-c", script]
    assert (made["batch"], made["name"]) == ("s5810", "mgshot_1")


def test_the_runs_and_the_resource_of_its_readme():
    made = token(
        "-r", "s3://database/my.db.gz|gunzip", "-i", "run+fastq/SRR890934/", "-i", "s3://data/s.dat|mv:samples", "do_mystuff"
    )  # fmt: skip
    assert made["inputs"] == [
        {"url": "run+fastq://SRR890934"},
        {"url": "s3://data/s.dat", "path": "samples/"},
        {"url": "s3://database/my.db.gz", "unpack": "gunzip", "shared": True},
    ]


def test_the_variable_that_says_how_many_cpus():
    # Outside of a container the line goes to a shell, and inside of one a shell has to be named
    assert token("do_x", "-t", "$CPU", ">", "out")["input"] == "do_x -t $CPU > out"
    assert token("-d", "image", "do_x", "-t", "$CPU")["command"] == ["sh", "-c", "do_x -t $CPU"]
    answer = call("import", "pytq", "--", "pytq-launch", "-d", "pigz:master", "-p", "$CPU", "-r", "/data/x")
    assert answer.code == 2
    assert "are options of the image's own program" in answer.error


def test_all_other_options():
    made = token(
        "-d", "image", "-O", "--shm-size 1g -e A=b --memory=2g --cpus 2", "-R", "t1,t2", "-R", "t3", "--retry", "3",
        "--run-timeout", "60", "--download-timeout", "60", "--use-cache", "-s", "server", "--", "-x",
    )  # fmt: skip
    assert made["container_options"] == ["--shm-size=1g"]
    assert made["env"] == {"A": "b"}
    assert made["resources"] == {"ram_gb": 2.147484, "cpu_cores": 2}
    assert made["depends_on"] == ["t1", "t2", "t3"]
    assert (made["max_retries"], made["timeout"], made["reuse"], made["command"]) == (3, 60, True, ["-x"])
    assert token("-u", "1000", "-g", "100", "id")["input"] == 'sudo -u "#1000" -g "#100" id'


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["ls"], "'ls' is no command line of pytq-launch"),
        (["pytq-launch"], "there is no command behind the options"),
        (["pytq-launch", "-b"], "-b has no value"),
        (["pytq-launch", "-o", "s3://b/1", "-o", "s3://b/2", "x"], "-o was given twice"),
        (["pytq-launch", "-i", "nothing", "x"], "'nothing' is no URL"),
        (["pytq-launch", "-i", "fasp://h/x", "x"], "unknown storage 'fasp'"),
        (["pytq-launch", "-t", "x"], "-t only prints"),
        (["pytq-launch", "-O", "--init", "x"], "-O holds options of docker, and there is no -d"),
        (["pytq-launch", "-d", "i", "-O", "-v /a:/b", "x"], "-O -v: a token has no such option"),
        (["pytq-launch", "-d", "i", "-u", "1", "x"], "a token cannot say which user"),
        (["pytq-launch", "--retry", "often", "x"], "--retry often is no whole number"),
    ],
)
def test_what_has_no_meaning_here_is_told(words, error):
    answer = call("import", "pytq", "--", *words)
    assert answer.code == 2
    assert error in answer.error
    assert ids("all") == []


def test_other_formats_are_no_command_lines():
    assert "lando is no format of command lines" in call("import", "lando", "--", "x").error
    assert "goes with a format, and with no file" in call("import", "pytq", "file", "--", "pytq-launch", "x").error


# --- scripts -------------------------------------------------------------------------------------------------------------

SCRIPT = """\
# two tasks
pytq-launch -b test sh -c "echo \\$CPU \\
  more"

pytq-launch -b test -n 'a b' echo 'it'"'"'s' ; pytq-launch echo $'x\\n\\303\\251'
"""


def test_a_file_of_command_lines_is_read_as_a_shell_reads_it(tmp_path):
    # Given a script with quotes, continued lines and comments
    path = tmp_path / "launch.sh"
    path.write_text(SCRIPT)
    # When its words are compared with those that a shell gives to the program
    program = tmp_path / "pytq-launch"
    program.write_text(
        '#!/bin/sh\nfor word; do printf \'%s\\0\' "$word"; done >> "$WORDS"; printf \'\\n\\n\' >> "$WORDS"\n'
    )
    program.chmod(0o755)
    seen = tmp_path / "words"
    subprocess.run(["bash", str(path)], env={"PATH": f"{tmp_path}:/usr/bin:/bin", "WORDS": str(seen)}, check=True)
    shells = [each.split("\0")[:-1] for each in seen.read_text().split("\n\n")[:-1]]
    # Then they are the same
    assert [words[1:] for _, words in command_lines(SCRIPT)] == shells
    # And each line becomes a token, from a file and from standard input
    assert "pushed 3 tokens" in ok("import", "pytq", str(path)).err
    assert "pushed 3 tokens into batch mine" in ok("import", "pytq", "-", "-b", "mine", stdin=SCRIPT).err


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("pytq-launch echo a\npytq-launch -n $i echo b\n", "line 2: only a shell knows what '$' stands for"),
        ("pytq-launch echo `date`\n", "line 1: only a shell knows what '`' stands for"),
        ("pytq-launch echo a | tee\n", "line 1: only a shell knows what '|' stands for"),
        ("for i in 1 2; do\n", "line 1: 'for i in 1 2' is no command line"),
        ("pytq-launch echo 'a\n", "a quote ' is not closed"),
        ("# nothing\n", "standard input describes no token"),
    ],
)
def test_a_script_that_only_a_shell_understands_is_told_with_its_line(text, error):
    answer = call("import", "pytq", "-", stdin=text)
    assert answer.code == 2
    assert error in answer.error
    assert ids("all") == []


def test_a_script_runs_as_it_is_with_a_function_in_place_of_the_program(sqlite_url):
    # Given the loop of PYTQ's README, and the function of docs/how-to/from-pytq.md
    loop = 'for i in 1 2; do pytq-launch -b s5810 -n m$i -o s3://b/r$i/ sh -c "echo \\$CPU $i; exit \\$?"; done'
    page = Path(__file__).parents[2] / "docs" / "how-to" / "from-pytq.md"
    function = next(line for line in page.read_text().splitlines() if line.startswith("pytq-launch() {"))
    tool = " ".join(command())
    script = f"{function.replace('tokenpool', tool)}\n{loop}\n"
    # When a shell runs both
    done = subprocess.run(
        ["bash", "-c", script],
        env={**environment(), "TOKENPOOL_POOL": sqlite_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Then each round of the loop is a token
    assert done.returncode == 0, done.stderr
    found = ok("list", "batch:s5810", "--json").json
    assert sorted(each["command"][2] for each in found) == ["echo $CPU 1; exit $?", "echo $CPU 2; exit $?"]
    assert sorted(each["name"] for each in found) == ["m1", "m2"]
