"""The routes of GA4GH TES 1.1 below /ga4gh/tes/v1: tasks are tokens, and a token of any kind is shown as a task."""

import hashlib
from typing import Annotated, Any, Optional

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import JSONResponse

from ... import changes, steering, transitions
from ...errors import BadInput, NotFound, NotPermitted
from ...metadata import __getattr__ as metadata
from ...pushes import make_token
from ...selectors import Selector
from ...storage import BUILTIN as STORAGES
from ..access import Person, Role, require
from ..api.together import together_of
from ..site import Site, site_of
from . import models
from .listing import Asked, list_tasks
from .models import View, tesState
from .parameters import READ
from .reading import logs_of, phase_of, running
from .to_task import minimal, task_of
from .to_token import token_of

PREFIX = "/ga4gh/tes/v1"
VERSION = "1.1.0"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
#: Answers that any route may give beside its own.
ERRORS: dict[Any, dict[str, Any]] = {
    status: {"model": models.tesError, "description": description}
    for status, description in {
        400: "The request makes no sense",
        401: "Nobody is logged in",
        403: "Not permitted",
        413: "The request is too large",
        429: "Too many failed logins",
        503: "The pool is away; try again",
    }.items()
}
MISSING: dict[Any, dict[str, Any]] = {404: {"model": models.tesError, "description": "There is no such task or page"}}

router = APIRouter(prefix=PREFIX, tags=["TaskService"], responses=ERRORS)

Viewer = Annotated[Person, Depends(require(Role.VIEWER))]
Submitter = Annotated[Person, Depends(require(Role.SUBMITTER))]
Here = Annotated[Site, Depends(site_of)]
Seen = Annotated[View, Query(description="How much of a task is told")]


def _only(path: str, *methods: str) -> None:
    """Have all other methods refused with the list of those that a path takes, however many routes they are."""

    def refuse() -> None:
        raise HTTPException(405, headers={"Allow": ", ".join(methods)})

    others = sorted(METHODS.difference(methods))
    needed = [Depends(require(Role.VIEWER))]
    router.add_api_route(path, refuse, methods=others, dependencies=needed, include_in_schema=False)


# The path of a task begins like that of its cancellation, which stands first therefore.
@router.post(
    "/tasks/{id:path}:cancel", operation_id="CancelTask", response_model=models.tesCancelTaskResponse, responses=MISSING
)
def cancel_task(id: str, site: Here, person: Submitter) -> Any:
    """Ask a task to stop; one that is over stays as it is."""
    doc = _token(site, id)
    if not person.may(Role.OPERATOR) and doc.get("submitter") != person.name:
        raise NotPermitted(f"task {id} is somebody else's", "an operator may cancel it")
    holders: set[str] = set()
    verb = steering.noting_holders(changes.cancel_verb(person.name), holders)
    changes.apply(site.pool.backend, Selector(ids=(id,)), verb)
    steering.steer_many(site.pool.backend, sorted(holders), look=True)
    return JSONResponse({})


_only("/tasks/{id:path}:cancel", "POST")


@router.get("/service-info", operation_id="GetServiceInfo", response_model=models.tesServiceInfo)
def service_info(site: Here, person: Viewer) -> Any:
    """Tell what this service is, and which backend_parameters it knows."""
    # The same for all servers of a pool, and no clue where the pool is.
    name = hashlib.sha256(site.pool.url.encode()).hexdigest()[:12]
    return {
        "id": f"tokenpool.{name}",
        "name": "tokenpool",
        "type": {"group": "org.ga4gh", "artifact": "tes", "version": VERSION},
        "description": str(metadata("description")),
        "organization": {"name": "tokenpool", "url": "https://pypi.org/project/tokenpool/"},
        "version": str(metadata("version")),
        "storage": [f"{scheme}://" for scheme in STORAGES],
        "tesResources_backend_parameters": list(READ),
    }


@router.post("/tasks", operation_id="CreateTask", response_model=models.tesCreateTaskResponse)
def create_task(task: models.tesNewTask, request: Request, site: Here, person: Submitter) -> Any:
    """Make a task; one that could only fail ends at once as SYSTEM_ERROR, with the reason in its system_logs."""
    by = {"submitter": person.name} if person.name else {}
    # Those that come at one moment are written together: a write costs the store the same, be it one token or fifty.
    answer = together_of(request.app.state, site.pool).push(make_token(token_of(task), by))
    if answer.reason:
        raise BadInput(f"the task was not saved: {answer.reason}")
    return JSONResponse({"id": answer.id})


@router.get(
    "/tasks",
    operation_id="ListTasks",
    response_model=models.tesListTasksResponse,
    response_model_exclude_unset=True,
    responses=MISSING,
)
def list_all(
    site: Here,
    person: Viewer,
    name_prefix: Annotated[str, Query(description="Only tasks whose name begins so")] = "",
    state: Annotated[Optional[tesState], Query(description="Only tasks in this state")] = None,
    tag_key: Annotated[tuple[str, ...], Query(description="Only tasks with these tags")] = (),
    tag_value: Annotated[tuple[str, ...], Query(description="The values of these tags; empty: any")] = (),
    page_size: Annotated[int, Query(ge=0, lt=2048, description="At most so many tasks; 0: 256")] = 256,
    page_token: Annotated[str, Query(description="The next_page_token of the page before")] = "",
    view: Seen = View.MINIMAL,
) -> Any:
    """List tasks page by page; a page may be short, or empty, and yet have a next_page_token."""
    values = (*tag_value, *[""] * len(tag_key))
    asked = Asked(name_prefix, state.value if state else "", dict(zip(tag_key, values)), page_size or 256, view.value)
    return JSONResponse(list_tasks(site.pool.backend, asked, page_token))


@router.get(
    "/tasks/{id:path}",
    operation_id="GetTask",
    response_model=models.tesTask,
    response_model_exclude_unset=True,
    responses=MISSING,
)
def get_task(id: str, site: Here, person: Viewer, view: Seen = View.MINIMAL) -> Any:
    """Tell how a task stands."""
    backend, doc = site.pool.backend, _token(site, id)
    phase = phase_of(doc, running(backend, [doc]))
    if view is View.MINIMAL:
        return JSONResponse(minimal(doc, phase))
    return JSONResponse(task_of(doc, phase, logs_of(backend, doc) if view is View.FULL else None))


def _token(site: Site, id: str) -> dict[str, Any]:
    doc = site.pool.backend.get_many([id])[0] if id else None
    if doc is None or not transitions.is_token(doc):
        raise NotFound(f"there is no task {id!r}", "list what is there: GET /tasks")
    return doc


_only("/service-info", "GET")
_only("/tasks", "GET", "POST")
_only("/tasks/{id:path}", "GET")
