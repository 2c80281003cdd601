"""Checks the fields of a token that say what data comes to it and where its results go."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import BadInput

Fields = Mapping[str, Any]

TYPES = ("FILE", "DIRECTORY")
UNPACK = ("gunzip", "untar", "unzip", "zstd")
WHEN = ("success", "always")
#: Bytes of the content that a token may bring inside itself, as GA4GH TES has it.
LONGEST_CONTENT = 131_072
_INPUT = {
    "url", "content", "path", "type", "sha256", "unpack", "shared", "credentials", "name", "description", "streamable",
}  # fmt: skip
_OUTPUT = {"url", "path", "path_prefix", "type", "when", "credentials", "name", "description"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_INPUT_HINT = 'for example [{"url": "s3://bucket/sample.fq.gz", "unpack": "gunzip"}]'
_OUTPUT_HINT = 'for example [{"path": "*.bam", "url": "s3://bucket/results/"}]'


def _inputs(value: Any, fields: Fields) -> None:
    for each in _objects("input", value, _INPUT, _INPUT_HINT):
        url, content = each.get("url"), each.get("content")
        if (url is None) == (content is None):
            raise BadInput("an input has either a url or a content", _INPUT_HINT)
        if url is not None:
            _url("input", url)
        elif not isinstance(content, str) or len(content.encode()) > LONGEST_CONTENT:
            raise BadInput(f"the content of an input is a text of at most {LONGEST_CONTENT:,} bytes", "give it by url")
        elif not each.get("path"):
            raise BadInput("an input with content has no path", 'say what file it is: "path": "params.json"')
        _path("input", each.get("path"))
        if each.get("unpack") is not None and each["unpack"] not in UNPACK:
            raise BadInput(f"unpack {_shown(each['unpack'])} is unknown", f"one of {', '.join(UNPACK)}")
        if each.get("sha256") and not (isinstance(each["sha256"], str) and _SHA256.fullmatch(each["sha256"])):
            raise BadInput(f"sha256 {_shown(each['sha256'])} is no checksum", "64 digits, as sha256sum prints them")
        if not isinstance(each.get("shared") or False, bool):
            raise BadInput(f"shared {_shown(each['shared'])} is neither true nor false", _INPUT_HINT)


def _outputs(value: Any, fields: Fields) -> None:
    for each in _objects("output", value, _OUTPUT, _OUTPUT_HINT):
        if each.get("url") is not None:
            _url("output", each["url"])
        _path("output", each.get("path"))
        _path("output", each.get("path_prefix"))
        if each.get("when") is not None and each["when"] not in WHEN:
            raise BadInput(f"when {_shown(each['when'])} is unknown", f"one of {', '.join(WHEN)}")


def _volumes(value: Any, fields: Fields) -> None:
    hint = 'paths inside the containers: ["/vol/a"]'
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, str) for each in value):
        raise BadInput(f"volumes {_shown(value)} is no list of paths", hint)
    for each in value:
        if posixpath.normpath(each) != each.rstrip("/") or not each.startswith("/") or each == "/":
            raise BadInput(f"volume {_shown(each)} is no path from the root", hint)


def _reuse(value: Any, fields: Fields) -> None:
    if not isinstance(value, bool):
        raise BadInput(f"reuse {_shown(value)} is neither true nor false", "reuse: true")


def _objects(what: str, value: Any, known: set[str], hint: str) -> list[Fields]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, Mapping) for each in value):
        raise BadInput(f"{what}s {_shown(value)} is no list of objects", hint)
    for each in value:
        strange = sorted(str(name) for name in set(each) - known)
        if strange:
            raise BadInput(f"an {what} has no field {strange[0]!r}", f"known: {', '.join(sorted(known))}")
        if each.get("type") is not None and each["type"] not in TYPES:
            raise BadInput(f"type {_shown(each['type'])} of an {what} is unknown", f"one of {', '.join(TYPES)}")
        name = each.get("credentials")
        if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
            raise BadInput(f"credentials {_shown(name)} is no name", "the name of a secret of the worker, no value")
    return list(value)


def _url(what: str, url: Any) -> None:
    if not isinstance(url, str) or not url or re.search(r"[\0\r\n]", url):
        raise BadInput(f"the url {_shown(url)} of an {what} is no URL", "for example s3://bucket/key, /data/x")
    place = url.partition("://")[2].partition("/")[0]
    user, at, host = place.rpartition("@")
    if at and ":" in user:
        raise BadInput(
            f"the url of an {what} on {host} holds a password",
            "leave it out, and name a secret of the worker: credentials: NAME",
        )


def _path(what: str, path: Any) -> None:
    if path is None:
        return
    if not isinstance(path, str) or "\0" in path or ".." in path.split("/"):
        raise BadInput(f"the path {_shown(path)} of an {what} leads nowhere", "a path without ..")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


#: By the name of the field; None counts as not given.
DATA_CHECKS: Mapping[str, Callable[[Any, Fields], None]] = {
    "inputs": _inputs,
    "outputs": _outputs,
    "volumes": _volumes,
    "reuse": _reuse,
}
