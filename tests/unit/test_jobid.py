"""The batch job that we are in is noted in a token, whichever batch system it is."""

from __future__ import annotations

from typing import Any

import pytest

from tokenpool.documents import Task
from tokenpool.jobid import JOB_ID_FIELDS, add_job_id, job_id, remove_job_id


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"DIRACJOBID": "1", "PBS_JOBID": "2"}, {"dirac_job_id": "1"}),
        ({"GLITE_WMS_JOBID": "https://wms/1"}, {"wms_job_id": "https://wms/1"}),
        ({"GLITE_WMS_JOBID": "Undefined"}, {"wms_job_id": None}),
        ({"GLITE_WMS_JOBID": "Undefined", "CREAM_JOBID": "c"}, {"cream_job_id": "c"}),
        ({"CREAM_JOBID": "c", "PBS_JOBID": "2"}, {"cream_job_id": "c"}),
        ({"PBS_JOBID": "2", "SLURM_JOB_ID": "3"}, {"pbs_job_id": "2"}),
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9"}, {"slurm_job_id": "7_3"}),
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_JOB_ID": "9"}, {"slurm_job_id": "9"}),
        ({"SLURM_ARRAY_JOB_ID": "7"}, {}),
        ({"DIRACJOBID": ""}, {}),
        ({}, {}),
    ],
)
def test_the_highest_layer_names_the_job(environ: dict[str, str], expected: dict[str, Any]) -> None:
    assert job_id(environ) == expected


def test_the_id_of_an_earlier_job_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DIRACJOBID", "GLITE_WMS_JOBID", "CREAM_JOBID", "PBS_JOBID", "SLURM_ARRAY_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    token = Task({"pbs_job_id": "old"})
    add_job_id(token)
    assert ("pbs_job_id" in token, token["slurm_job_id"]) == (False, "5")


def test_all_ids_are_removed_and_nothing_else() -> None:
    doc: dict[str, Any] = {**dict.fromkeys(JOB_ID_FIELDS, "x"), "mine": 1}
    remove_job_id(doc)
    assert doc == {"mine": 1}
    remove_job_id(doc)
