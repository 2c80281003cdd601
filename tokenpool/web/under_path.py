"""Lets a reverse proxy serve us under a path, whether it takes that path away before it asks us or not."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class UnderPath:
    """Middleware that gives back the path which a proxy took away: all that follows sees paths as visitors do."""

    def __init__(self, app: ASGIApp, root: str) -> None:
        self.app, self.root = app, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and self.root:
            scope["root_path"] = self.root
            path = scope["path"]
            if path != self.root and not path.startswith(self.root + "/"):
                raw = scope.get("raw_path")
                scope["path"] = self.root + path
                if raw is not None:
                    scope["raw_path"] = self.root.encode() + raw
        await self.app(scope, receive, send)
