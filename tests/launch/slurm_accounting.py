"""Slurm's accounting for the tests: slurmdbd on a MariaDB of its own, so that `sacct` and `sacctmgr` work."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

#: What it takes, beside Slurm itself.
PROGRAMS = ("mariadbd", "slurmdbd", "sacct", "sacctmgr")
_DBD = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=root
StorageLoc=slurm
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""
_SLURM = """
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.sock
"""


def missing(path: str) -> list[str]:
    """Return the programs that are not here."""
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def configure(folder: Path, dbd: int, sql: int) -> str:
    """Write slurmdbd's configuration; return the lines that slurm.conf gets."""
    file = folder / "slurmdbd.conf"
    file.write_text(_DBD.format(folder=folder, dbd=dbd, sql=sql))
    file.chmod(0o600)  # slurmdbd insists
    (folder / "mariadb").mkdir()
    return _SLURM.format(folder=folder, dbd=dbd)


def database(folder: Path, sql: int) -> list[str]:
    """Return the command of a database that asks nobody who they are, on loopback."""
    data = folder / "mariadb"
    options = [f"--datadir={data}", f"--socket={data}/socket", f"--pid-file={data}/pid", f"--port={sql}"]
    small = ["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--performance-schema=OFF"]
    return [
        "mariadbd", "--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-grant-tables", *options, *small,
        "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0",
    ]  # fmt: skip


def register(run: Callable[..., str], until: Callable[[str, Callable[[], bool]], None]) -> None:
    """Make the cluster known, as soon as slurmdbd answers."""
    until("slurmdbd", lambda: "Cluster" in run("sacctmgr", "-P", "list", "cluster", check=False))
    run("sacctmgr", "-i", "add", "cluster", "test")
