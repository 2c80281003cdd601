"""Tokens in containers whose data is brought to the paths that they see, and taken from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from container_tools import failure, kept, message, out
from engines import IMAGE

Run = Callable[..., dict[str, Any]]


def test_inputs_and_outputs_are_where_the_container_sees_them(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A\n")
    (tmp_path / "ref.txt").write_text("R\n")
    token = run(
        command="cat /input/a.txt /resource/ref.txt /params/p.txt > /output/all.txt; cp $INPUT/a.txt /results/deep/b.txt;"
        " echo no > /resource/new || echo read-only",
        inputs=[
            {"url": f"{tmp_path}/a.txt"},
            {"url": f"{tmp_path}/ref.txt", "shared": True},
            {"content": "P\n", "path": "/params/p.txt"},
        ],
        outputs=[
            {"path": "all.txt", "url": f"{tmp_path}/there/"},
            {"path": "/results/deep/b.txt", "url": f"{tmp_path}/there/c.txt"},
        ],
    )
    assert failure(token) == (0, None), token
    assert out() == "read-only\n"
    assert (tmp_path / "there" / "all.txt").read_text() == "A\nR\nP\n"
    assert (tmp_path / "there" / "c.txt").read_text() == "A\n"


def test_a_volume_is_shared_by_the_executors_of_a_token(run: Run, tmp_path: Path) -> None:
    token = run(
        executors=[
            {"image": IMAGE, "command": ["/bin/sh", "-c", "echo 1 > /vol/x"]},
            {"image": IMAGE, "command": ["/bin/sh", "-c", "cat /vol/x > /output/y"]},
        ],
        volumes=["/vol"],
        outputs=[{"path": "y", "url": f"{tmp_path}/there/"}],
    )
    assert failure(token) == (0, None), token
    assert (tmp_path / "there" / "y").read_text() == "1\n"


def test_a_path_that_cannot_be_mounted_is_told(run: Run, tmp_path: Path) -> None:
    token = run(command="true", outputs=[{"path": "/x.txt", "url": f"{tmp_path}/there/"}])
    assert failure(token)[1] == "invalid"
    assert "path" in message(token)


def test_what_a_container_owned_by_root_made_is_taken(run: Run, tmp_path: Path) -> None:
    run("--image-user", command="echo r > /output/x; chmod 600 /output/x", outputs=[{"url": f"{tmp_path}/there/"}])
    assert (tmp_path / "there" / "x").read_text() == "r\n"


def test_a_link_that_leads_out_of_the_container_brings_nothing_of_this_machine(run: Run, tmp_path: Path) -> None:
    run(command="ln -s /etc/hostname /output/h; echo 1 > /output/x", outputs=[{"url": f"{tmp_path}/there/"}])
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["x"]


def test_what_a_failed_container_left_is_kept_to_be_looked_at(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A\n")
    run(command="cp /input/a.txt /output/x; exit 1", inputs=[{"url": f"{tmp_path}/a.txt"}])
    assert kept("output", "x").read_text() == "A\n"
