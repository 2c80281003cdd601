"""Images that come from a registry: logged in or not, by digest, and when they go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cli_tools import ok
from container_tools import failure, message, out, shown, work_off
from docker.errors import APIError, NotFound
from engines import IMAGE, EngineServer, RegistryServer


@pytest.fixture
def private(engine: EngineServer, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An image that only the registry has, its digest behind an @; the worker knows the way in."""
    name = f"127.0.0.1:{registry.port}/group/tool"
    digest = registry.put(engine, "group/tool")
    monkeypatch.setenv("TOKENPOOL_SECRET_GROUP", f"{registry.USER}:{registry.PASSWORD}")
    yield f"{name}@{digest}"
    for each in (f"{name}:1", f"{name}@{digest}"):
        remove(engine, each)


def remove(engine: EngineServer, image: str) -> bool:
    """Take an image from an engine; tell whether it was there."""
    client = engine.client()
    try:
        client.images.remove(image)
    except NotFound:
        return False
    except APIError:  # Podman knows no name with a digest where it is to remove one
        assert "@" in image
    finally:
        client.close()
    return True


def tagged(private: str) -> str:
    """Return the image's name with its tag."""
    return f"{private.partition('@')[0]}:1"


def test_an_image_is_fetched_with_the_workers_login(private: str) -> None:
    work_off(image=tagged(private), command="echo here", registry_secret="GROUP")
    assert failure(shown("t")) == (0, None), shown("t")
    assert out() == "here\n"
    told = ok("logs", "t", "--err").out.splitlines()
    assert told[0].startswith(f"tokenpool: pulling {tagged(private)}")
    assert told[-1] == f"tokenpool: pulled {tagged(private)}"


def test_without_login_it_cannot_be_fetched(private: str) -> None:
    work_off(image=tagged(private), command="echo here")
    assert failure(shown("t"))[1] == "staging"
    assert "for a private registry, name a secret in registry_secret" in message(shown("t"))


def test_a_wrong_password_is_told_and_not_shown(private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPOOL_SECRET_GROUP", "ann:wrongword")
    work_off(image=tagged(private), command="echo here", registry_secret="GROUP")
    assert failure(shown("t"))[1] == "staging"
    assert "wrongword" not in ok("show", "t", "--json").out


def test_a_secret_that_the_worker_does_not_have(private: str) -> None:
    work_off(image=tagged(private), command="echo here", registry_secret="NONE")
    assert failure(shown("t"))[1] == "invalid"
    assert "this worker has no secret 'NONE'" in message(shown("t"))


def test_an_image_is_fetched_by_its_digest(private: str) -> None:
    work_off(image=private, command="echo here", registry_secret="GROUP")
    assert failure(shown("t")) == (0, None), shown("t")


def test_a_wrong_digest_is_refused(private: str) -> None:
    wrong = f"{private.partition('@')[0]}@sha256:{'0' * 64}"
    work_off(image=wrong, command="echo here", registry_secret="GROUP")
    assert failure(shown("t"))[1] == "staging"
    assert f"image {wrong} is not here and cannot be pulled" in message(shown("t"))


def test_images_that_no_token_uses_go_when_the_worker_says_so(engine: EngineServer) -> None:
    client = engine.client()
    names = ["localhost/old:1", "localhost/others:1"]
    for name in names:
        client.images.get(IMAGE).tag(*name.split(":"))
    client.close()
    work_off("--prune-images", "1h", image=names[0], command="true")
    assert remove(engine, names[0])
    client = engine.client()
    client.images.get(IMAGE).tag(*names[0].split(":"))
    client.close()
    work_off("--prune-images", "0.001s", _id="again", image=names[0], command="true")
    assert not remove(engine, names[0])
    assert remove(engine, names[1])
