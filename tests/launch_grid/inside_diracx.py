"""Runs in DiracX's own Python, by its own pytest: hands a JDL to its server, which runs in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.enabled_dependencies(
    [
        *("AuthSettings", "ConfigSource", "DevelopmentSettings", "BaseAccessPolicy", "WMSAccessPolicy"),
        *("JobDB", "JobLoggingDB", "JobParametersDB", "PilotAgentsDB", "TaskQueueDB"),
        *("SandboxMetadataDB", "SandboxStoreSettings"),
    ]
)


def test_it_takes_a_jdl(client_factory: Any) -> None:
    """Hand in what JDL names as a user of the Grid; write down what became of it."""
    jdl = Path(os.environ["JDL"]).read_text()
    with client_factory.normal_user() as client:
        taken = client.post("/api/jobs/jdl", json=[jdl])
        found = client.post("/api/jobs/search", json={})
    told = {"status": taken.status_code, "answer": taken.json(), "jobs": found.json()}
    Path(os.environ["ANSWER"]).write_text(json.dumps(told))
