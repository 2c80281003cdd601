"""Who may do what: people and their roles, sessions, API tokens, forged requests, and lines of who did what."""

from __future__ import annotations

from .audit import audit
from .gate import Access, Gate, csrf_token, current, require
from .people import ROLES, Person, Role

__all__ = ["ROLES", "Access", "Gate", "Person", "Role", "audit", "csrf_token", "current", "require"]
