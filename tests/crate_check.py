"""Checks an RO-Crate with roc-validator where there is no internet: ``crate_check.py CRATE CONTEXT.jsonld SEVERITY``.

Runs in the virtual environment of `crate_venv`. The two contexts that a crate names are answered from here: RO-Crate's from
the file that ro-crate-py ships, and the terms of workflow runs that are used. Prints the issues as a JSON list.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rocrate_validator import services
from rocrate_validator.utils import document_loader, http

RUN = "https://w3id.org/ro/terms/workflow-run"
TERMS = ("ContainerImage", "DockerImage", "containerImage", "registry", "tag", "sha256", "environment", "resourceUsage")
CONTEXTS = {
    "https://w3id.org/ro/crate/1.1/context": json.loads(Path(sys.argv[2]).read_text("utf-8")),
    f"{RUN}/context": {"@context": {name: f"{RUN}#{name}" for name in TERMS}},
}


class Answer:
    """What a web server would have answered."""

    status_code = 200

    def __init__(self, url: str) -> None:
        self._told = CONTEXTS[url]
        self.headers = {"Content-Type": "application/ld+json"}
        self.text = json.dumps(self._told)
        self.content = self.text.encode()

    def json(self) -> Any:
        return self._told


document_loader._fetch_json_ld = CONTEXTS.__getitem__
http.HttpRequester.get = lambda self, url, **more: Answer(url)
with tempfile.TemporaryDirectory() as cache:
    settings = services.ValidationSettings(
        rocrate_uri=sys.argv[1],
        profile_identifier="process-run-crate-0.5",
        requirement_severity=sys.argv[3],
        offline=True,
        cache_path=Path(cache),
        skip_availability_check=True,
    )
    result = services.validate(settings)
issues = [
    [each.check.identifier, each.severity.name, str(each.message), str(each.violatingEntity)]
    for each in result.get_issues()
]
print(json.dumps({"passed": result.passed(), "issues": issues}))
