"""GA4GH TES: the standard way to hand tasks to a server, over a pool."""

from .router import router

__all__ = ["router"]
