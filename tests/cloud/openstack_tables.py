"""Makes the empty database of one OpenStack service; run by the Python of its environment: SERVICE PORT."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import sqlalchemy as sa

#: Projects of keystone hang below this one; its migrations write it, which are too slow here.
ROOT = "<<keystone.domain.root>>"
NO_CELL = "00000000-0000-0000-0000-000000000000"
CELL = "11111111-1111-1111-1111-111111111111"


def make(url: str, metadata: Any) -> sa.Engine:
    """Make all tables in a database."""
    engine = sa.create_engine(url)
    metadata.create_all(engine)
    return engine


def keystone(url: str) -> None:
    """Make keystone's, with the root of all projects."""
    from keystone.cmd import cli  # noqa: F401 - its imports know all models
    from keystone.common.sql import core
    from keystone.server import backends

    assert backends
    for module in MODELS:
        __import__(module)
    engine = make(url, core.ModelBase.metadata)
    with engine.begin() as connection:
        table = core.ModelBase.metadata.tables["project"]
        row = {"id": ROOT, "name": ROOT, "enabled": False, "description": "", "domain_id": ROOT, "is_domain": True}
        connection.execute(table.insert().values(**row, extra=None, parent_id=None))


MODELS = [
    f"keystone.{name}"
    for name in (
        "assignment.backends.sql", "assignment.role_backends.sql_model", "catalog.backends.sql",
        "credential.backends.sql", "endpoint_policy.backends.sql", "federation.backends.sql",
        "identity.backends.sql_model", "identity.mapping_backends.sql", "limit.backends.sql",
        "oauth1.backends.sql", "policy.backends.sql", "resource.backends.sql_model", "resource.config_backends.sql",
        "revoke.backends.sql", "trust.backends.sql", "application_credential.backends.sql",
    )
]  # fmt: skip


def nova(url: str) -> None:
    """Make nova's three: of all cells, of the one cell, and of what got into none."""
    from nova.db.api import models as api
    from nova.db.main import models as main

    shared = make(f"{url}_api", api.BASE.metadata)
    # Services fill in what their own configuration says: this database may be copied to another port.
    server, queue = (
        "{scheme}://{username}:{password}@{hostname}:{port}",
        "{scheme}://{username}:{password}@{hostname}:{port}/",
    )
    with shared.begin() as connection:
        for uuid, name, transport, database in (
            (NO_CELL, "cell0", "none:///", "nova_cell0"),
            (CELL, "cell1", queue, "nova"),
        ):
            make(f"{url.rpartition('/')[0]}/{database}", main.BASE.metadata)
            row = {"uuid": uuid, "name": name, "transport_url": transport, "disabled": False}
            row["database_connection"] = f"{server}/{database}"
            connection.execute(
                api.BASE.metadata.tables["cell_mappings"].insert().values(**row, created_at=datetime.now())
            )


def placement(url: str) -> None:
    """Make placement's."""
    from placement.db.sqlalchemy import models

    make(url, models.BASE.metadata)


def glance(url: str) -> None:
    """Make glance's."""
    from glance.db.sqlalchemy import models, models_metadef

    make(url, models.BASE.metadata)
    make(url, models_metadef.BASE_DICT.metadata)


def neutron(url: str) -> None:
    """Make neutron's; its migrations do not go through with SQLite."""
    from neutron.db.migration.models import head

    make(url, head.get_metadata())


def main(service: str, port: str) -> None:
    """Make the tables of one service."""
    server = sa.create_engine(f"mysql+pymysql://root:any@127.0.0.1:{port}/")
    with server.connect() as connection:
        for name in (service, f"{service}_api", f"{service}_cell0"):
            connection.execute(sa.text(f"CREATE DATABASE {name} CHARACTER SET latin1"))
    globals()[service](f"mysql+pymysql://root:any@127.0.0.1:{port}/{service}")


if __name__ == "__main__":
    main(*sys.argv[1:])
