"""Says in the words of schema.org what a run was: the software, the action, the files it took and made, who pushed it."""

from __future__ import annotations

import mimetypes
import re
import shlex
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..storage.urls import name_of, shown
from ..util import timestamp
from .facts import what_of
from .failures import what_of as failure_of
from .runs import DONE, FAILED, RUNNING, Run

Json = dict[str, Any]

ATTACHED = "attachment:"
_ODD = re.compile(r"[^A-Za-z0-9._-]")
STATUS = {
    DONE: "http://schema.org/CompletedActionStatus",
    RUNNING: "http://schema.org/ActiveActionStatus",
}
FAILED_STATUS = "http://schema.org/FailedActionStatus"
#: Letters of a command that are told.
LONGEST = 2000


@dataclass(frozen=True)
class Item:
    """A file that a token took or made: at a URL, attached to the token, or written in the token itself."""

    entity: Json
    #: The attachment that holds it, or its text; both None: it is where its URL says.
    attachment: str | None = None
    content: str | None = None


def agent_of(doc: Mapping[str, Any]) -> Json:
    """Return who pushed a token."""
    name = str(doc.get("submitter") or "unknown")
    return {"@id": f"#person-{_safe(name)}", "@type": "Person", "name": name}


def instruments_of(doc: Mapping[str, Any]) -> list[Json]:
    """Return the software that a token runs, first the one that it names; then what that needs."""
    function, workflow, executors = doc.get("function"), doc.get("workflow"), doc.get("executors")
    if isinstance(function, Mapping):
        name = str(function.get("name") or "function")
        return [_software(name, f"function-{name}", "A Python function.")]
    if isinstance(workflow, Mapping):
        return [_workflow(workflow)]
    if isinstance(executors, list) and executors and isinstance(executors[0], Mapping):
        return _in_image(str(executors[0].get("image") or ""), _program(executors[0].get("command")))
    program = _program(doc.get("command", doc.get("input")))
    return _in_image(str(doc["image"]), program) if doc.get("image") else [_software(program, f"software-{program}")]


def _in_image(image: str, program: str) -> list[Json]:
    return [
        _software(
            f"{program} in {image}",
            f"software-{program}-{image}",
            f"The program {program} of the container image {image}.",
        )
    ]


def image_of(doc: Mapping[str, Any]) -> Json | None:
    """Return the container image that a token runs in, if it does."""
    executors = doc.get("executors")
    first = executors[0] if isinstance(executors, list) and executors else doc
    image = first.get("image") if isinstance(first, Mapping) else None
    if not isinstance(image, str) or not image:
        return None
    place, _, digest = image.partition("@sha256:")
    front, slash, rest = place.partition("/")
    registry = front if slash and ("." in front or ":" in front) else "docker.io"
    name, _, label = (rest if registry == front else place).partition(":")
    told = {
        "@id": f"#image-{_safe(image)}", "@type": "ContainerImage", "name": name, "registry": registry,
        "tag": label or "latest", "additionalType": {"@id": "https://w3id.org/ro/terms/workflow-run#DockerImage"},
    }  # fmt: skip
    return {**told, "sha256": digest} if digest else told


def _workflow(workflow: Mapping[str, Any]) -> Json:
    if workflow.get("repo"):
        repo, path = shown(str(workflow["repo"])), str(workflow.get("path") or "")
        version = str(workflow.get("commit") or workflow.get("ref") or "")
        name = f"{repo} {path}".strip()
        told = {**_software(name, f"workflow-{name}-{version}", "A CWL workflow."), "url": repo}
        return {**told, "softwareVersion": version} if version else told
    url = shown(str(workflow.get("url") or "workflow"))
    told = _software(url, f"workflow-{url}", "A CWL workflow.")
    return {**told, "url": url} if url.startswith(("http://", "https://")) else told


def _software(name: str, key: str, description: str = "") -> Json:
    told = {"@id": f"#{_safe(key)}", "@type": "SoftwareApplication", "name": name}
    return {**told, "description": description} if description else told


def _program(command: Any) -> str:
    """Return the program that a command starts, without its folder; variables before it are left out."""
    if isinstance(command, list):
        words = [str(word) for word in command]
    else:
        try:
            words = shlex.split(str(command or ""))
        except ValueError:
            words = str(command).split()
        while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
            words = words[1:]
    return (words[0].rstrip("/").rpartition("/")[2] or words[0])[:100] if words else "unknown"


# --- actions -------------------------------------------------------------------------------------------------------


def action_of(doc: Mapping[str, Any], run: Run, number: int) -> Json:
    """Return what a run was, without its files."""
    told: Json = {
        "@id": f"#run-{_safe(run.token)}-{number}",
        "@type": "CreateAction",
        "identifier": run.token,
        "name": f"Run {number} of token {run.token}",
        "description": command_of(doc),
        "instrument": {"@id": instruments_of(doc)[0]["@id"]},
        "agent": {"@id": agent_of(doc)["@id"]},
        "actionStatus": STATUS.get(run.kind, FAILED_STATUS),
    }
    if run.start is not None:
        told["startTime"] = when(run.start)
    if run.end is not None and run.ended:
        told["endTime"] = when(run.end)
    if run.kind == FAILED:
        told["error"] = f"{run.failure}: {failure_of(run)}" if run.failure else failure_of(run)
    elif run.kind not in STATUS:
        told["error"] = f"{run.failure or 'given back'}: the token was run again"
    if run.host:
        told["location"] = run.host
    image = image_of(doc)
    if image is not None:
        told["containerImage"] = {"@id": image["@id"]}
    return told


def when(seconds: float) -> str:
    """Return a time as the profile writes it."""
    return timestamp(seconds).replace("Z", "+00:00")


def usage_of(run: Run, action: Json) -> list[Json]:
    """Return what a run used, as far as it was measured."""
    found = (("cpu-seconds", "CPU time", run.cpu, "SEC"), ("peak-memory", "peak memory", run.rss_mb, "E4L"))
    return [
        {
            "@id": f"{action['@id']}-{key}", "@type": "PropertyValue", "name": name, "value": f"{value:g}", "unitCode": unit,
            "propertyID": f"https://w3id.org/ro/terms/workflow-run#{key}",
        }
        for key, name, value, unit in found if value is not None
    ]  # fmt: skip


def command_of(doc: Mapping[str, Any]) -> str:
    """Return the command of a token as a line that can be read, or what it runs in place of one."""
    command = doc.get("command", doc.get("input"))
    if isinstance(command, list) and command:
        return shlex.join(map(str, command))[:LONGEST]
    return command[:LONGEST] if isinstance(command, str) and command else what_of(doc) or "a task"


# --- files ---------------------------------------------------------------------------------------------------------


def inputs_of(doc: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the files that a token takes."""
    token, inputs = str(doc.get("_id")), doc.get("inputs")
    for each in inputs if isinstance(inputs, list) else []:
        if not isinstance(each, Mapping):
            continue
        content, path = each.get("content"), str(each.get("path") or "")
        if isinstance(content, str) and path:
            yield Item(_file(inside("inputs", token, path), path), content=content)
        elif isinstance(each.get("url"), str) and not each["url"].startswith(ATTACHED):
            yield Item(_at(each["url"], path, each))


def outputs_of(doc: Mapping[str, Any]) -> Iterator[Item]:
    """Yield the files that a token made."""
    token, output = str(doc.get("_id")), doc.get("output")
    files = output.get("files") if isinstance(output, Mapping) else None
    for each in files if isinstance(files, list) else []:
        if not isinstance(each, Mapping) or not isinstance(each.get("url"), str):
            continue
        url, path = each["url"], str(each.get("path") or "")
        if url.startswith(ATTACHED):
            name = url[len(ATTACHED) :]
            yield Item({**_file(inside("outputs", token, path or name), path or name), **_size(each)}, attachment=name)
        elif url:
            yield Item({**_at(url, path, each), **_size(each)})


def inside(folder: str, token: str, path: str) -> str:
    """Return a path inside the crate: no part of it leads out of its folder, or needs to be written otherwise in a URL.

    >>> inside("outputs", "t1", "../x/./y.txt")
    'outputs/t1/x/y.txt'
    >>> inside("outputs", "t1", "x y.txt")
    'outputs/t1/x_y-121e98e0.txt'
    """
    names = [name for name in path.replace("\\", "/").split("/") if name not in ("", ".", "..")]
    return "/".join([folder, _plain(token), *map(_plain, names or ["file"])])


def _plain(name: str) -> str:
    plain = _ODD.sub("_", name)[:120]
    if plain == name and name.strip("."):
        return name
    # Two names must not become one.
    stem, dot, ending = plain.rpartition(".")
    mark = f"{zlib.crc32(name.encode('utf-8', 'replace')):08x}"
    return f"{stem}-{mark}{dot}{ending}" if stem.strip(".") else f"{plain.strip('.')}-{mark}"


def _file(place: str, name: str) -> Json:
    return {"@id": place, "@type": "File", "name": name, "encodingFormat": _format(name)}


def _at(url: str, path: str, each: Mapping[str, Any]) -> Json:
    address = quote(shown(url), safe=":/?#[]@!$&'()*+,;=%~", errors="replace")
    if address.startswith("/"):
        address = f"file://{address}"
    folder = each.get("type") == "DIRECTORY" or address.endswith("/")
    address = address.rstrip("/") + "/" if folder else address
    told = {"@id": address, "@type": "Dataset" if folder else "File", "name": path or name_of(url) or shown(url)}
    return told if folder else {**told, "encodingFormat": _format(name_of(url) or path)}


def _format(name: str) -> str:
    kind, packed = mimetypes.guess_type(name)
    return f"application/{packed}" if packed else kind or "application/octet-stream"


def _size(each: Mapping[str, Any]) -> Json:
    size, digest = each.get("size"), each.get("sha256")
    told: Json = {"contentSize": str(size)} if isinstance(size, int) else {}
    return {**told, "sha256": digest} if isinstance(digest, str) and digest else told


def _safe(text: str) -> str:
    """Return a text as it may stand in an identifier."""
    safe = quote(text, safe="", errors="replace")
    return safe if len(safe) <= 300 else f"{safe[:280]}-{zlib.crc32(safe.encode()):08x}"
