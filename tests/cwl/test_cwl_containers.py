"""A step in a container: the real dockerd, driven by cwltool, through the pool as here and now."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cwl_tools import attachment, comparable, here_and_now, message, need, pushed, token, work

sys.path.append(str(Path(__file__).resolve().parents[1] / "container"))

pytestmark = pytest.mark.usefixtures("cwltool")

#: cwltool's own containers have no network unless the step asks for one.
TOOL = """
cwlVersion: v1.2
class: CommandLineTool
requirements:
  DockerRequirement: {dockerPull: "%s"}
  NetworkAccess: {networkAccess: %s}
baseCommand: [sh, -c, 'cat "$0" && ls /sys/class/net && test -x /bin/busybox']
inputs:
  text: {type: File, inputBinding: {position: 1}}
stdout: said.txt
outputs: {said: stdout}
"""


@pytest.fixture
def image(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A dockerd that cwltool's docker finds, and the image in it."""
    need("docker", "dockerd")
    pytest.importorskip("docker")
    from engines import IMAGE, EngineServer, Missing

    try:
        with EngineServer("docker", tmp_path_factory.mktemp("engine")) as server:
            monkeypatch.setenv("DOCKER_HOST", server.url)
            yield IMAGE
    except Missing as error:
        if os.environ.get("TOKENPOOL_REQUIRE_ALL") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def test_a_step_runs_in_its_container_with_the_network_that_the_worker_allows(image: str, tmp_path: Path) -> None:
    # Given a tool that runs in an image, another that wants the network too, and one whose image is nowhere
    assert shutil.which("docker")
    Path("text.txt").write_text("hello\n")
    for name, of, wants in (("closed", image, "false"), ("open", image, "true"), ("lost", "localhost/none:1", "false")):
        Path(f"{name}.cwl").write_text(TOOL % (of, wants))
    text = ("--param", f"text={{class: File, path: {tmp_path}/text.txt}}")
    ids = {name: pushed(f"{name}.cwl", *text) for name in ("closed", "open", "lost")}
    # When they are worked where the network is not allowed
    work("--engine", "docker", "--no-network")
    # Then the steps ran in their containers, without it
    for name in ("closed", "open"):
        assert attachment(ids[name], "output/said.txt") == b"hello\nlo\n"
    # And the same comes out here and now
    code, result, log = here_and_now(tmp_path / "here", tmp_path / "closed.cwl", *text, "--engine", "docker")
    assert code == 0, log
    assert comparable(token(ids["closed"])["output"]["result"]) == comparable(result)
    # And without its image a step fails, with the reason
    assert message(ids["lost"])[0] == "staging"
    assert "localhost/none:1" in message(ids["lost"])[1]
