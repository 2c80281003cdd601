"""schemathesis, which others wrote, looks for requests that TES answers in another way than its document says.

Every check, positive and negative data, chains of requests; nothing is left out. Over real processes of both backends.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_parts import Server

Json = dict[str, Any]
FRONT = "/ga4gh/tes/v1"
#: Requests of each kind for each route.
EXAMPLES = 30


#: What the standard has: the parameters of its routes, and the fields of its schemas.
ROUTES = {
    ("get", "/service-info"): "GetServiceInfo",
    ("get", "/tasks"): "ListTasks name_prefix state tag_key tag_value page_size page_token view",
    ("post", "/tasks"): "CreateTask",
    ("get", "/tasks/{id}"): "GetTask id view",
    ("post", "/tasks/{id}:cancel"): "CancelTask id",
}
EXECUTOR = "image command workdir stdin stdout stderr env ignore_error"
INPUT = "name description url path type content streamable"
OUTPUT = "name description url path path_prefix type"
RESOURCES = "cpu_cores preemptible ram_gb disk_gb zones backend_parameters backend_parameters_strict"
TASK = "name description inputs outputs resources executors volumes tags"
SCHEMAS = {
    "tesNewTask": TASK,
    "tesTask": f"id state {TASK} logs creation_time",
    "tesNewExecutor": EXECUTOR,
    "tesExecutor": EXECUTOR,
    "tesNewInput": INPUT,
    "tesInput": INPUT,
    "tesNewOutput": OUTPUT,
    "tesOutput": OUTPUT,
    "tesNewResources": RESOURCES,
    "tesResources": RESOURCES,
    "tesTaskLog": "logs metadata start_time end_time outputs system_logs",
    "tesExecutorLog": "start_time end_time stdout stderr exit_code",
    "tesOutputFileLog": "url path size_bytes",
    "tesListTasksResponse": "tasks next_page_token",
    "tesCreateTaskResponse": "id",
    "tesCancelTaskResponse": "",
    "tesServiceInfo": "id name type description organization documentationUrl version storage tesResources_backend_parameters",
}


def test_the_document_has_every_word_of_the_standard(document: Path) -> None:
    ours = json.loads(document.read_text())
    found = {
        (method, path[len(FRONT) :]): " ".join(
            [told["operationId"], *(each["name"] for each in told.get("parameters", ()))]
        )
        for path, item in ours["paths"].items()
        for method, told in item.items()
    }
    assert found == ROUTES
    schemas = ours["components"]["schemas"]
    assert {name: " ".join(schemas[name].get("properties", ())) for name in SCHEMAS} == SCHEMAS


@pytest.fixture
def document(server: Server, tmp_path: Path) -> Path:
    """The server's own document, of the routes of TES alone."""
    with server.client() as client:
        whole: Json = client.get("openapi.json").json()
    whole["paths"] = {path: item for path, item in whole["paths"].items() if path.startswith(FRONT)}
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(whole))
    return file


def test_requests_of_all_kinds_are_answered_as_the_document_says(server: Server, document: Path) -> None:
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", str(document), "--url", server.url.rstrip("/"), "--checks", "all",
        "--mode", "all", "--max-examples", str(EXAMPLES), "--seed", "1", "--generation-database", "none",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 selected / 5 total" in " ".join(done.stdout.split()), done.stdout
