"""Which job of which batch system are we in: recorded in a token when it is claimed."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

#: Every field this module may write; `remove_job_id` clears them all.
JOB_ID_FIELDS = ("dirac_job_id", "wms_job_id", "cream_job_id", "pbs_job_id", "slurm_job_id")


def job_id(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Return the one field that names our batch job, or nothing outside of any.

    >>> job_id({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"})
    {'slurm_job_id': '7_3'}
    >>> job_id({})
    {}
    """
    env = os.environ if environ is None else environ
    for variable, field in (
        ("DIRACJOBID", "dirac_job_id"),
        ("GLITE_WMS_JOBID", "wms_job_id"),
        ("CREAM_JOBID", "cream_job_id"),
        ("PBS_JOBID", "pbs_job_id"),
    ):
        value = env.get(variable)
        if value and (field != "wms_job_id" or value.startswith("http")):
            return {field: value}
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    slurm = f"{array}_{task}" if array and task else env.get("SLURM_JOB_ID")
    if slurm:
        return {"slurm_job_id": slurm}
    # gLite sets its variable to a word, not an address, where there is no such job; picas notes that as null.
    return {"wms_job_id": None} if env.get("GLITE_WMS_JOBID") else {}


def add_job_id(doc: MutableMapping[str, Any]) -> None:
    """Write the id of our batch job into `doc`; those of earlier jobs go."""
    remove_job_id(doc)
    for field, value in job_id().items():
        doc[field] = value


def remove_job_id(doc: MutableMapping[str, Any]) -> None:
    """Take every batch job id out of `doc`."""
    for field in JOB_ID_FIELDS:
        if field in doc:
            del doc[field]
