"""The pages for people: what runs, every token, workers and batches, and the form to submit."""

from __future__ import annotations

from fastapi import APIRouter

from . import access, batches, logs, overview, submit, token, tokens, workers

router = APIRouter(include_in_schema=False)
# The paths of a token end with any id, so what stands below one comes first.
for part in (overview, workers, batches, submit, access, tokens, logs, token):
    router.include_router(part.router)

__all__ = ["router"]
