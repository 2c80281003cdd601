"""The JSON API: what machines and scripts ask of a pool over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from . import events, files, protocol, pushing, steer, tokens

router = APIRouter(prefix="/api/v1")
# The paths of tokens begin alike, and an id may hold slashes: the longer ones stand first.
for part in (protocol, steer, events, files, pushing, tokens):
    router.include_router(part.router)

__all__ = ["router"]
