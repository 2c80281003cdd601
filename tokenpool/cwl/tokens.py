"""Makes the token of a workflow: its source looked up and packed, its parameters with their files."""

from __future__ import annotations

import base64
import json
import shlex
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import BadInput
from .bundles import inputs_of, pack
from .checkouts import bring, has_git
from .files import CARRY_LIMIT, Cargo
from .params import carry
from .sources import ATTACHED, Source, choose, split_fragment

Json = dict[str, Any]

#: The attachment that is the workflow, with the files that it names.
BUNDLE = "workflow.zip"


@dataclass(frozen=True)
class Wanted:
    """How a token of a workflow is made: `look` says to find the repository's commit and file now, not on the worker."""

    limit: int = CARRY_LIMIT
    look: bool = True
    provenance: bool = False
    #: Files of parameters may be missing here: they lie beside the workflow.
    may_miss: bool = False


def token_of(source: Source, params: Json, base: Path, wanted: Wanted) -> Json:
    """Return the fields of a token that runs a workflow with parameters whose relative paths are seen from `base`.

    Raises BadInput, NotFound, ServerAway for a source or a file that is not there.
    """
    cargo = Cargo(wanted.limit)
    found, inputs, bundle = _look_up(source, wanted)
    workflow: Json = found.field()
    if wanted.provenance:
        workflow["provenance"] = True
    carried = carry(params, base, cargo, inputs, wanted.may_miss)
    attachments = {name: _attachment(path.read_bytes()) for name, path in cargo.files.items()}
    if bundle:
        attachments[BUNDLE] = _attachment(bundle, "application/zip")
    fields: Json = {"input": line_of(source, found, params), "workflow": workflow, "params": carried}
    if attachments:
        fields["_attachments"] = attachments
    return fields


def line_of(source: Source, found: Source, params: Mapping[str, Any]) -> str:
    """Return the shell line that does the same where tokenpool is installed: what people read, and picas' workers run.

    >>> line_of(Source(repo="https://host/u/r"), Source(repo="https://host/u/r", commit="1f0c", path="x.cwl"), {"n": 1})
    'tokenpool run-cwl https://host/u/r.git:1f0c/x.cwl --param n=1'
    """
    word = source.local + ("/" if source.archive and source.path else "") + source.path if source.local else source.url
    if source.repo:
        ref = found.commit or found.ref
        word = (
            f"{source.repo.removesuffix('.git')}.git"
            + (f":{ref}" if ref else "")
            + (f"/{found.path}" if found.path else "")
        )
    elif source.url and source.archive:
        word = f"{source.url}/{source.path}".rstrip("/")
    pairs = [f"--param {shlex.quote(f'{name}={json.dumps(value)}')}" for name, value in params.items()]
    return " ".join(["tokenpool run-cwl", shlex.quote(word), *pairs])


def _look_up(source: Source, wanted: Wanted) -> tuple[Source, Mapping[str, Any], bytes]:
    """Return the source as a worker is to find it, the workflow's inputs as far as they are known, and what is attached."""
    if source.local and not source.archive:
        bundle = pack(Path(source.local), wanted.limit)
        inputs = inputs_of(Path(source.local), source.path)
        return Source(url=ATTACHED + BUNDLE, path=bundle.path + source.path), inputs, bundle.data
    if source.local:
        return _archive(source, wanted)
    if source.repo and wanted.look and has_git():
        with tempfile.TemporaryDirectory(prefix="tokenpool-") as name:
            folder = Path(name) / "source"
            found = bring(source, folder)
            file, process = split_fragment(found.path)
            return found, inputs_of(folder / file, process), b""
    return source, {}, b""


def _archive(source: Source, wanted: Wanted) -> tuple[Source, Mapping[str, Any], bytes]:
    data = Path(source.local).read_bytes()
    if len(data) > wanted.limit:
        raise BadInput(
            f"{source.local} ({len(data):,} bytes) is too large to travel with its token",
            "put it at a URL; or --carry-limit",
        )
    with tempfile.TemporaryDirectory(prefix="tokenpool-") as name:
        folder = Path(name) / "source"
        found = bring(source, folder)
        file, process = split_fragment(choose(folder, found.path, source.local))
        inputs = inputs_of(folder / file, process)
    return replace(Source(url=ATTACHED + BUNDLE), path=found.path), inputs, data


def _attachment(data: bytes, content_type: str = "application/octet-stream") -> Json:
    return {"content_type": content_type, "data": base64.b64encode(data).decode("ascii")}
