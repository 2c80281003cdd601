"""Snakemake's own tests of executors, as it ships them, through a pool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_tokenpool import ExecutorSettings

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.filterwarnings("ignore")
class TestResidentWorkers(TestWorkflowsLocalStorageBase):
    """Jobs in a worker that the workflow starts, where Snakemake is loaded already."""

    __test__ = True
    workers = 2

    @pytest.fixture(autouse=True)
    def _own_pool(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = tmp_path
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))

    def get_executor(self) -> str:
        return "tokenpool"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(pool=f"sqlite:///{self.folder}/pool.db", workers=self.workers, poll=0.5)
