"""The conformance suite of a `Backend`: subclass `BackendTests` and give it a fixture `backend`.

The fixture returns an opened Backend on a pool that exists and is empty. No pool grows beyond a thousand documents, no
test waits for time to pass, and nothing is asserted that CouchDB and SQLite do differently: how texts collate, and the
`offset` of a view.
"""

from __future__ import annotations

from .backend_attachments import AttachmentTests
from .backend_documents import DocumentTests
from .backend_rules import RuleTests
from .backend_tokens import TokenTests
from .backend_views import ViewTests
from .backend_waits import HolderTests, ListenTests, WaitTests


class BackendTests(
    DocumentTests, AttachmentTests, TokenTests, RuleTests, HolderTests, WaitTests, ListenTests, ViewTests
):
    """Every sentence of `tokenpool.backends.base`, as a test."""
