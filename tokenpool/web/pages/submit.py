"""The form to submit: a command, a container, a workflow, or a file of lines; shown as it will be, then sent."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import RedirectResponse, Response

from ...backends.base import Json
from ...cwl import texts
from ...cwl.sources import GITHUB, Source
from ...cwl.sources import parse as parse_source
from ...errors import BadInput
from ...pushes import NotAllSaved, make_token
from .. import cwl_form, drafts
from ..access import Person, Role, audit, require
from ..cwl_form import Workflow
from ..drafts import Draft, Drafts
from ..rendering import page
from ..site import site_of
from .asked import form_of, here

router = APIRouter()

KINDS = {"command": "Command", "container": "Container", "workflow": "CWL workflow", "lines": "File of lines"}
_REMOTE = re.compile(r"(https?://.+|[A-Za-z0-9][\w.-]*/[\w.-]+([:/#].*)?)", re.DOTALL)
#: Where a name in a form says that it is an input of the workflow.
INPUT = "in:"


@router.get("/submit")
def submit_form(request: Request, kind: str = "command", person: Person = Depends(require(Role.SUBMITTER))) -> Response:
    """Show the empty form."""
    return _form(request, kind if kind in KINDS else "command", {})


@router.post("/submit/preview")
def preview(
    request: Request, form: FormData = Depends(form_of), person: Person = Depends(require(Role.SUBMITTER))
) -> Response:
    """Show what would be sent; or the form again, with what is wrong, or with the inputs of a workflow."""
    kind = str(form.get("kind") or "")
    # A field of text and one for a file may have the same name.
    given = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    workflow: Workflow | None = None
    try:
        files = {n: _bytes_of(each) for n, each in form.multi_items() if isinstance(each, UploadFile) and each.filename}
        if kind == "workflow":
            workflow = _workflow(given, files)
            if form.get("step") == "read":
                return _form(request, kind, given, workflow=workflow)
        draft = _draft(request, kind, given, files, workflow, person)
        make_token(next(draft.items()), {})
    except BadInput as problem:
        return _form(
            request, kind if kind in KINDS else "command", given, workflow=workflow, problem=problem, status=400
        )
    return _form(request, kind, given, workflow=workflow, draft=draft, draft_id=drafts_of(request).keep(draft))


@router.post("/submit")
def submit(
    request: Request, form: FormData = Depends(form_of), person: Person = Depends(require(Role.SUBMITTER))
) -> Response:
    """Send a draft: put its tokens into the pool."""
    here(request)
    draft = drafts_of(request).take(str(form.get("draft") or ""), person.name)
    try:
        ids = site_of(request).pool.push(draft.items(), submitter=person.name)
    except NotAllSaved as problem:
        ids = problem.ids
        if not ids:
            raise
    site_of(request).hub.stir()
    batch = str(draft.fields.get("batch") or "")
    audit(
        request, "push", ids[0] if len(ids) == 1 else f"{ids[0]} and {len(ids) - 1} more", count=len(ids), batch=batch
    )
    root = request.scope.get("root_path", "")
    if len(ids) == 1:
        return RedirectResponse(f"{root}/tokens/{quote(ids[0], safe='')}?said=pushed", 303)
    return RedirectResponse(f"{root}/tokens?batch={quote(batch or '-', safe='')}&pushed={len(ids)}", 303)


def drafts_of(request: Request) -> Drafts:
    """Return what people are about to submit."""
    state = request.app.state
    found: Drafts | None = getattr(state, "drafts", None)
    if found is None:
        found = state.drafts = Drafts()
    return found


def _form(request: Request, kind: str, given: Mapping[str, str], status: int = 200, **more: Any) -> Response:
    snapshot = site_of(request).hub.snapshot()
    values = {
        "kind": kind,
        "kinds": KINDS,
        "given": given,
        "workflow": None,
        "problem": None,
        "draft": None,
        "draft_id": "",
        "batches": [name for name in snapshot.batches if name][:200],
        "away": snapshot.away,
        "prefix": INPUT,
    }
    return page(request, "submit.html", {**values, **more}, status)


def _bytes_of(file: UploadFile) -> tuple[str, bytes]:
    """Return the name of a file that came along, without folders, and its bytes."""
    name = (
        re.sub(r"[^\w.+=@,-]", "_", (file.filename or "").replace("\\", "/").rpartition("/")[2]).lstrip(".") or "file"
    )
    data = file.file.read(cwl_form.CARRIED + 1)
    if len(data) > cwl_form.CARRIED:
        raise BadInput(f"{name} is too large to go along with its token", "put it at a URL, and name that")
    return name, data


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not text in UTF-8", "is it the right file?") from None


# --- drafts ----------------------------------------------------------------------------------------------------------


def _draft(
    request: Request,
    kind: str,
    given: Mapping[str, str],
    files: Mapping[str, tuple[str, bytes]],
    workflow: Workflow | None,
    person: Person,
) -> Draft:
    """Return what a filled form means; raises BadInput for what makes no sense."""
    fields = drafts.common_fields(given)
    url = site_of(request).pool.url
    if kind == "lines":
        name, data = files.get("file", ("lines.txt", b""))
        lines = drafts.command_lines(_text(name, data) if data else given.get("lines", ""))
        return Draft(fields, drafts.command_line(url, fields, shlex.quote(name), given), lines, by=person.name)
    if kind == "workflow":
        return _workflow_draft(given, files, workflow, fields, url, person)
    command = given.get("command", "").strip().replace("\r\n", "\n")
    if kind == "container":
        if not given.get("image", "").strip():
            raise BadInput("no image is named", "for example alpine:3.20")
        fields["image"] = given["image"].strip()
        if command:
            fields["command"] = command
        # What the image itself runs is no command that could stand behind --.
        what = f"-- {shlex.quote(command)}" if command else "--format jsonl -"
        line = drafts.command_line(url, fields, what, given)
        return Draft(fields, line if command else f"echo '{{}}' | {line}", by=person.name)
    if kind != "command":
        raise BadInput(f"there is no form for {kind!r}", ", ".join(KINDS))
    if not command:
        raise BadInput("there is no command", "write what a shell is to run")
    fields["input"] = command
    return Draft(fields, drafts.command_line(url, fields, f"-- {shlex.quote(command)}", given), by=person.name)


def _workflow(given: Mapping[str, str], files: Mapping[str, tuple[str, bytes]]) -> Workflow | None:
    """Return the workflow that came with the form; None: the workers fetch it from its address."""
    if "cwl_file" in files:
        name, data = files["cwl_file"]
        return cwl_form.read(_text(name, data), name)
    if given.get("cwl", "").strip():
        name = given.get("cwl_name", "").strip() or "workflow.cwl"
        return cwl_form.read(given["cwl"], re.sub(r"[^\w.-]", "_", name))
    if not given.get("source", "").strip():
        raise BadInput("no workflow is named", "choose a file, paste its text, or write its address")
    return None


def _workflow_draft(
    given: Mapping[str, str],
    files: Mapping[str, tuple[str, bytes]],
    workflow: Workflow | None,
    fields: Json,
    url: str,
    person: Person,
) -> Draft:
    if workflow is None:
        word = given["source"].strip()
        params = _params(given.get("params", ""))
        token = cwl_form.remote_token(_remote(word), word, params)
        what = drafts.cwl_words(word, params) + " --no-resolve"
        return Draft({**token, **fields}, drafts.command_line(url, fields, what, given), by=person.name)
    texts_given = {name[len(INPUT) :]: value for name, value in given.items() if name.startswith(INPUT)}
    carried = {name[len(INPUT) :]: value for name, value in files.items() if name.startswith(INPUT)}
    params, attachments = cwl_form.params_of(workflow.fields, texts_given, carried)
    token = cwl_form.token_of(workflow, params, attachments)
    what = drafts.cwl_words(workflow.name + workflow.process, params)
    line = drafts.command_line(url, fields, what, given)
    return Draft({**token, **fields}, line, notes=workflow.notes, by=person.name)


def _remote(word: str) -> Source:
    """Return a workflow's address; what would be looked for on this machine is refused."""
    if not _REMOTE.fullmatch(word) or ".." in word.split("/"):
        raise BadInput(f"{word[:80]!r} is no address of a workflow", "user/repo[:ref][/path.cwl], or https://…")
    if "://" in word:
        return parse_source(word)
    owner, _, rest = word.partition("/")
    name = re.match(r"[\w.-]+", rest)
    assert name is not None  # the pattern has seen to it
    return parse_source(f"{GITHUB}/{owner}/{name.group().removesuffix('.git')}.git{rest[name.end() :]}")


def _params(text: str) -> Json:
    found = texts.parse(text, "the parameters") if text.strip() else {}
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise BadInput("the parameters are no object", "names and values, as YAML or JSON: message: hello")
    return {str(name): value for name, value in found.items()}
