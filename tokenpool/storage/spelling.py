"""How people write data on command lines and in tables: URLs with blanks between them, paths before, actions behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..data_checks import UNPACK
from ..errors import BadInput
from ..plugins import load
from . import BUILTIN
from .urls import refuse_password, scheme_of, shown

Json = dict[str, Any]

_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|run\+fastq/|/)"
#: ``PATH=URL``; the equals sign of a URL's own query has ``://`` before it.
_PAIR = re.compile(rf"(?P<path>[^=:]+)=(?P<url>{_SCHEME}.*)", re.DOTALL)
_WHOLE = re.compile(rf"{_SCHEME}.*", re.DOTALL)
#: Blanks part two URLs where the second one begins as URLs do: a name may hold blanks.
_BETWEEN = re.compile(rf"\s+(?=(?:[^\s=:]+=)?{_SCHEME})")
_RUN = re.compile(r"run\+fastq/+(?P<run>[^/|]+)/?(?P<rest>\|.*)?")
_SPELLING = "for example s3://bucket/key, file:///data/x, or PATH=URL to choose its name"


def inputs_of(text: str, shared: bool = False) -> list[Json]:
    """Return the inputs that a text names: JSON, or URLs with blanks between them, each with a path before it or not.

    >>> inputs_of("s3://b/a s3://b/c.gz|gunzip")
    [{'url': 's3://b/a'}, {'url': 's3://b/c.gz', 'unpack': 'gunzip'}]
    >>> inputs_of("ref.fa=https://host/x?v=1", shared=True)
    [{'url': 'https://host/x?v=1', 'path': 'ref.fa', 'shared': True}]
    """
    if text.lstrip().startswith(("[", "{")):
        found = [dict(each) if isinstance(each, Mapping) else each for each in _json("inputs", text)]
    else:
        found = [input_of(word) for word in _split(text)]
    if shared:
        found = [{**each, "shared": True} if isinstance(each, dict) else each for each in found]
    return found


def outputs_of(text: str) -> list[Json]:
    """Return the outputs that a text names: JSON, or URLs with blanks between them, each with a path before it or not.

    >>> outputs_of("s3://b/results")
    [{'url': 's3://b/results/'}]
    >>> outputs_of("*.bam=s3://b/bams/")
    [{'url': 's3://b/bams/', 'path': '*.bam'}]
    """
    if text.lstrip().startswith(("[", "{")):
        return _json("outputs", text)
    found = []
    for word in _split(text):
        path, url = _parts(word)
        front, bar, action = url.partition("|")
        if bar and action in UNPACK:
            raise BadInput(f"--output {shown(front)}|{action} would unpack a result", "leave out what follows |")
        if not path and not url.endswith("/") and "?" not in url:
            url += "/"
        found.append({"url": url, **({"path": path} if path else {})})
    return found


def input_of(word: str) -> Json:
    """Return the input that one URL names, with a path before it and an action behind it or not."""
    path, url = _parts(word)
    url, unpack = split_action(url)
    return {"url": url, **({"path": path} if path else {}), **({"unpack": unpack} if unpack else {})}


def split_action(url: str) -> tuple[str, str]:
    """Return a URL and how to unpack what it names, spelled behind a bar; raises BadInput.

    >>> split_action("s3://b/x.gz|gunzip"), split_action("s3://b/a|b")
    (('s3://b/x.gz', 'gunzip'), ('s3://b/a|b', ''))
    """
    front, bar, action = url.rpartition("|")
    if bar and action in UNPACK:
        return front, action
    if bar and re.fullmatch(r"[a-z0-9]+", action) and _close(action):
        raise BadInput(f"|{action} behind {shown(front)} is unknown", f"did you mean |{_close(action)}?")
    return url, ""


def _close(action: str) -> str:
    import difflib

    return next(iter(difflib.get_close_matches(action, [*UNPACK, "unzstd", "gzip"], 1)), "")


def _parts(word: str) -> tuple[str, str]:
    """Return the path, or "", and the URL in a word, spelled as storages know it; raises BadInput."""
    found = None if _WHOLE.fullmatch(word) else _PAIR.fullmatch(word)
    path, url = (found["path"], found["url"]) if found else ("", word)
    run = _RUN.fullmatch(url)
    if run:  # PYTQ's README has it so
        url = f"run+fastq://{run['run']}{run['rest'] or ''}"
    if not _WHOLE.fullmatch(url):
        raise BadInput(f"{shown(word)!r} is no URL", _SPELLING)
    refuse_password(url)
    # Nothing of it is imported here: a storage may be heavy, and it is the worker's.
    load("storage", scheme_of(url), dict.fromkeys(BUILTIN, "builtins:object"))
    return path, url


def _split(text: str) -> Iterable[str]:
    words = [word for word in _BETWEEN.split(text.strip()) if word]
    if not words:
        raise BadInput("an empty URL was given", _SPELLING)
    return words


def _json(name: str, text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{name} is neither URLs nor JSON: {error}", _SPELLING) from None
    return found if isinstance(found, list) else [found]
