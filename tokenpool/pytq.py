"""Reads command lines of pytq-launch, PYTQ's way of putting a task into its queue, as fields of tokens."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .engines.options import OPTIONS
from .errors import BadInput
from .shell_words import command_lines
from .storage.spelling import input_of, outputs_of

Json = dict[str, Any]

PROGRAMS = ("pytq-launch", "scitq-launch")
#: The options that take a value, by all their spellings.
_VALUED = {
    "-b": "batch", "--batch": "batch", "-n": "name", "--name": "name", "-d": "docker", "--docker": "docker",
    "-i": "input", "--input": "input", "-o": "output", "--output": "output", "-r": "resource", "--resource": "resource",
    "-O": "option", "--option": "option", "-u": "uid", "--uid": "uid", "-g": "gid", "--gid": "gid",
    "-s": "server", "--server": "server", "-R": "requirements", "--requirements": "requirements",
    "--retry": "retry", "--run-timeout": "run-timeout", "--download-timeout": "download-timeout",
}  # fmt: skip
_REPEATED = {"input", "resource", "requirements"}
#: What a token says otherwise than an option of `docker run` does, or what the worker's owner says.
_ELSEWHERE = {
    "-v": "folders of the worker are shown by its owner: tokenpool work --mount /data:/data:rw",
    "--mount": "folders of the worker are shown by its owner: tokenpool work --mount /data:/data:rw",
    "-u": "containers run as the worker's own user, or with tokenpool work --image-user as their image has it",
    "-w": "begin the command with it: sh -c 'cd /data && ...'",
    "--rm": "containers are removed anyway",
}
_ELSEWHERE.update({"--volume": _ELSEWHERE["-v"], "--user": _ELSEWHERE["-u"], "--workdir": _ELSEWHERE["-w"]})
_ALIASES = {"azure://": "az://"}


@dataclass
class _Launch:
    """What one command line says."""

    given: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    use_cache: bool = False

    def one(self, name: str) -> str:
        """Return the value of an option that is given once at most, "" where it is not."""
        return self.given.get(name, [""])[0]

    def number(self, name: str) -> int:
        """Return the whole number that an option is."""
        try:
            return int(self.one(name))
        except ValueError:
            raise BadInput(f"--{name} {self.one(name)} is no whole number", f"for example --{name} 3") from None

    def several(self, name: str) -> list[str]:
        """Return the words of an option that holds several of them, and may be repeated."""
        return [word for text in self.given.get(name, []) for word in text.split()]


def read(path: str) -> Iterator[Json]:
    """Yield a token for each command line of pytq-launch in a file; a backslash at its end continues a line.

    Raises BadInput with the place of a line that is none, or that a shell has to fill in first.
    """
    at = ""
    try:
        for place, words in command_lines(Path(path).read_text("utf-8")):
            at = f"line {place}: "
            yield token_of(words)
            at = ""
    except BadInput as error:
        raise BadInput(f"{path}: {at}{error}", error.hint) from None


def token_of(words: Sequence[str]) -> Json:
    """Return the fields of the token that one command line of pytq-launch puts into the queue; raises BadInput.

    >>> token_of(["pytq-launch", "-b", "test", "echo", "Hello world!"])
    {'input': "echo 'Hello world!'", 'batch': 'test'}
    """
    if not words or words[0].rpartition("/")[2] not in PROGRAMS:
        raise BadInput(
            f"{shlex.join(words)[:60]!r} is no command line of pytq-launch", "for example pytq-launch -b test echo hi"
        )
    launch = _parsed(list(words[1:]))
    fields = {**_what(launch), **_data(launch)}
    fields.update({name: launch.one(name) for name in ("batch", "name") if launch.one(name)})
    if launch.one("retry"):
        fields["max_retries"] = launch.number("retry")
    if launch.one("run-timeout"):
        fields["timeout"] = launch.number("run-timeout")
    needed = [word for text in launch.several("requirements") for word in text.split(",") if word]
    if needed:
        fields["depends_on"] = needed
    if launch.use_cache:
        fields["reuse"] = True
    return fields


def _parsed(words: list[str]) -> _Launch:
    """Part options and command: the first word that is no option of pytq-launch begins the command."""
    launch = _Launch()
    while words:
        if words[0] == "--":
            words.pop(0)
            break
        if words[0] in ("-t", "--test"):
            raise BadInput("-t only prints what pytq-launch would do", "leave it out; --dry-run prints the token")
        if words[0] == "--use-cache":
            launch.use_cache = bool(words.pop(0))
            continue
        if words[0] not in _VALUED:
            break
        option = words.pop(0)
        name = _VALUED[option]
        if not words:
            raise BadInput(f"{option} has no value", "look at the end of the command line")
        if name in launch.given and name not in _REPEATED:
            raise BadInput(f"{option} was given twice", "pytq-launch takes it once")
        launch.given.setdefault(name, []).append(words.pop(0))
    if not words:
        raise BadInput("there is no command behind the options", "for example pytq-launch -b test echo hi")
    launch.words = words
    return launch


# --- what is run ---------------------------------------------------------------------------------------------------------


def _what(launch: _Launch) -> Json:
    image = launch.one("docker")
    if image:
        return {"image": image, "command": _inside(launch.words), **_docker_options(launch)}
    if launch.one("option"):
        raise BadInput("-O holds options of docker, and there is no -d", "name the image with -d")
    line = _line(launch.words)
    if launch.one("uid") or launch.one("gid"):
        who = [(letter, name) for letter, name in (("-u", "uid"), ("-g", "gid")) if launch.one(name)]
        user = " ".join(f'{letter} "#{launch.number(name)}"' for letter, name in who)
        return {"input": f"sudo {user} {line}"}
    # PYTQ's worker gives the line to a shell.
    return {"command": launch.words} if _is_shell(launch.words) else {"input": line}


def _inside(words: list[str]) -> list[str]:
    """Return the command of a container; a shell in it looks at what PYTQ's own shell would have looked at."""
    if _is_shell(words) or not any(_for_a_shell(word) for word in words):
        return words
    if words[0].startswith("-"):
        raise BadInput(
            f"{shlex.join(words)[:60]!r} are options of the image's own program, and a shell has to fill them in",
            "name the program: pytq-launch -d IMAGE sh -c 'pigz -p $CPU ...'",
        )
    return ["sh", "-c", _line(words)]


def _is_shell(words: list[str]) -> bool:
    return len(words) == 3 and words[0].rpartition("/")[2] in ("sh", "bash") and words[1] in ("-c", "-ec", "-lc")


def _for_a_shell(word: str) -> bool:
    return not _needs_quotes(word) and bool(re.search(r"[$`<>|&;*?]", word))


def _line(words: list[str]) -> str:
    """Return the words as a line: those without blanks as they are, as PYTQ joins them, so that ``$CPU > x`` works."""
    return " ".join(shlex.quote(word) if _needs_quotes(word) else word for word in words)


def _needs_quotes(word: str) -> bool:
    return not word or bool(re.search(r"[\s'\"\\()#!]", word))


def _docker_options(launch: _Launch) -> Json:
    """Return the fields that options of `docker run` stand for; raises BadInput for what a token cannot say."""
    if launch.one("uid") or launch.one("gid"):
        raise BadInput("a token cannot say which user its container is", _ELSEWHERE["-u"])
    text = launch.one("option")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"-O {text!r}: {error}", "look at its quotes") from None
    fields: Json = {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        if not name.startswith("-"):
            raise BadInput(f"-O {text!r}: {name!r} is no option", "for example -O '--shm-size=1g'")
        if not equals and words and not words[0].startswith("-"):
            equals, value = "=", words.pop(0)
        if name in ("-e", "--env"):
            variable, _, content = value.partition("=")
            fields.setdefault("env", {})[variable] = content
        elif name in ("-m", "--memory"):
            fields.setdefault("resources", {})["ram_gb"] = _gigabytes(value)
        elif name == "--cpus":
            fields.setdefault("resources", {})["cpu_cores"] = _amount(value)
        elif name != "--rm":
            fields.setdefault("container_options", []).append(_known(name) + equals + value)
    return fields


def _known(name: str) -> str:
    if name.lstrip("-") not in OPTIONS or not name.startswith("--"):
        hint = _ELSEWHERE.get(name, f"known: {', '.join(sorted(OPTIONS))}")
        raise BadInput(f"-O {name}: a token has no such option", hint)
    return name


def _gigabytes(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)([bkmg]?)", text.strip().lower())
    if found is None:
        raise BadInput(f"-O --memory {text!r} is no size", "for example 4g")
    return round(_amount(found[1]) * float(1024 ** "bkmg".index(found[2] or "b")) / 1e9, 6)


def _amount(text: str) -> float:
    try:
        return int(float(text)) if float(text).is_integer() else float(text)
    except ValueError:
        raise BadInput(f"-O: {text!r} is no number", "for example 4") from None


# --- data ----------------------------------------------------------------------------------------------------------------


def _data(launch: _Launch) -> Json:
    fields: Json = {}
    inputs = [_input(word) for word in launch.several("input")]
    inputs += [{**_input(word), "shared": True} for word in launch.several("resource")]
    if inputs:
        fields["inputs"] = inputs
    output = launch.one("output")
    if output:
        # PYTQ brings the results home whether the command succeeded or not.
        fields["outputs"] = [{**each, "when": "always"} for each in outputs_of(_renamed(output))]
    return fields


def _input(word: str) -> Json:
    """Return one input; scitq's ``|mv:folder`` behind it is a path."""
    word, _, folder = _renamed(word).partition("|mv:")
    folder, bar, rest = folder.partition("|")
    found = input_of(word + bar + rest)
    return {**found, "path": f"{folder.strip('/')}/"} if folder else found


def _renamed(url: str) -> str:
    for old, new in _ALIASES.items():
        url = re.sub(rf"^{old}", new, url)
    return url
