"""py-tes, a client that others wrote, uses a server of ours as any other: a real process, over both backends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests
from server_parts import People, Server, password_of, serving
from tes import Executor, HTTPClient, Input, Output, Resources, Task

from tokenpool.pool import Pool, connect


def hello(**fields: object) -> Task:
    return Task(executors=[Executor(image="alpine:3", command=["echo", "hi"])], **fields)


FULL = Task(
    name="align",
    description="all that py-tes knows",
    inputs=[
        Input(url="s3://b/r.fq", path="/data/r.fq", name="reads", description="r", streamable=True),
        Input(content="a: 1\n", path="/data/p.yml"),
        Input(url="s3://b/ref/", path="/ref/hs", type="DIRECTORY"),
    ],
    outputs=[
        Output(url="s3://b/out/", path="/data/*.bam", path_prefix="/data"),
        Output(url="s3://b/all/", path="/vol/all", type="DIRECTORY", name="all", description="o"),
    ],
    resources=Resources(
        cpu_cores=4, ram_gb=2.5, disk_gb=10, preemptible=True, zones=["a"], backend_parameters={"priority": "5"},
        backend_parameters_strict=True,
    ),
    executors=[
        Executor(image="alpine:3", command=["sh", "-c", "echo 1"], workdir="/data", stdout="/data/o", stderr="/data/e",
                 env={"A": "1"}, ignore_error=True),
        Executor(image="alpine:3", command=["wc"], stdin="/data/o"),
    ],
    volumes=["/vol"],
    tags={"project": "x"},
)  # fmt: skip


@pytest.fixture
def tes(server: Server) -> HTTPClient:
    return HTTPClient(server.url)


@pytest.fixture
def beside(server: Server, pool_url: str) -> Iterator[Pool]:
    """The pool of the server, as workers reach it."""
    with connect(pool_url) as pool:
        yield pool


def test_it_sees_what_the_service_is(tes: HTTPClient) -> None:
    info = tes.get_service_info()
    assert info.type == {"group": "org.ga4gh", "artifact": "tes", "version": "1.1.0"}
    assert "priority" in info.tes_resources_backend_parameters


def test_all_that_a_task_holds_comes_back(tes: HTTPClient) -> None:
    id = tes.create_task(FULL)
    back = tes.get_task(id, "FULL")
    assert (back.id, back.state) == (id, "QUEUED")
    assert back.creation_time is not None
    back.id = back.state = back.creation_time = None
    assert back.as_dict() == FULL.as_dict()


def test_views_show_more_and_more(tes: HTTPClient) -> None:
    id = tes.create_task(FULL)
    assert tes.get_task(id, "MINIMAL").as_dict() == {"id": id, "state": "QUEUED"}
    assert tes.get_task(id, "BASIC").inputs[1].content is None
    assert tes.get_task(id, "FULL").inputs[1].content == "a: 1\n"


def test_lists_have_pages(tes: HTTPClient) -> None:
    made = {tes.create_task(hello(name=f"n{number}")) for number in range(5)}
    found: set[str] = set()
    page = tes.list_tasks(view="BASIC", page_size=2)
    while True:
        found |= {task.id for task in page.tasks}
        if not page.next_page_token:
            break
        page = tes.list_tasks(view="BASIC", page_size=2, page_token=page.next_page_token)
    assert found == made


def test_it_waits_until_a_task_is_over(tes: HTTPClient, beside: Pool) -> None:
    id = tes.create_task(hello())
    (token,) = beside.claim()
    assert tes.get_task(id).state == "RUNNING"
    beside.close(token, 3)
    ended = tes.wait(id, timeout=30)
    assert ended.state == "EXECUTOR_ERROR"
    assert tes.get_task(id, "FULL").logs[0].logs[0].exit_code == 3


def test_it_cancels(tes: HTTPClient, beside: Pool) -> None:
    id = tes.create_task(hello())
    tes.cancel_task(id)
    assert tes.wait(id, timeout=30).state == "CANCELED"
    assert beside.claim() == []


def test_what_is_refused_is_an_error_for_it(tes: HTTPClient) -> None:
    with pytest.raises(requests.HTTPError) as refused:
        tes.create_task(Task(executors=[]))
    assert refused.value.response.status_code == 400
    assert "executors" in refused.value.response.json()["msg"]
    with pytest.raises(requests.HTTPError):
        tes.get_task("nothing")


def test_it_logs_in_with_a_token_or_a_password(sqlite_pool: Pool, people: People) -> None:
    with serving(sqlite_pool.url, "--users", str(people.file)) as server:
        for options in (
            {"token": people.tokens["submitter"]},
            {"user": "submitter", "password": password_of("submitter")},
        ):
            id = HTTPClient(server.url, **options).create_task(hello())
            assert sqlite_pool.get(id)["executors"]
        with pytest.raises(requests.HTTPError) as refused:
            HTTPClient(server.url, token=people.tokens["viewer"]).create_task(hello())
        assert refused.value.response.status_code == 403
