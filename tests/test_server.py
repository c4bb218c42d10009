"""The stand-in for the cluster, over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rehearsal.cluster import Cluster, Faults, Observer
from rehearsal.server import Server

VECTORS = json.loads((Path(__file__).parent / "argo_vectors.json").read_text())
API = "/apis/argoproj.io/v1alpha1/namespaces/default/"
CONTAINER = {"image": "python:3.11", "command": ["bash", "-c", "true"]}
TEMPLATE = {
    "metadata": {"name": "plainlistener"},
    "spec": {"entrypoint": "start", "templates": [{"name": "start", "container": CONTAINER}]},
}
PUBLISHERS = 100


class Served(NamedTuple):
    """A cluster and its server."""

    cluster: Cluster
    server: Server


@pytest.fixture
def served() -> Iterator[Served]:
    cluster = Cluster(Observer(), Faults())
    server = Server(cluster)
    server.clear()
    with server.serve():
        yield Served(cluster, server)


def request(
    served: Served, method: str, path: str, content: Any = None, authorization: str | None = None
) -> tuple[int, bytes]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": authorization or f"Bearer {served.cluster.token}"}
    asked = urllib.request.Request(served.server.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_listens_on_this_machine_only(served: Served) -> None:
    assert served.server.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("authorization", ["none", "Bearer ", "Bearer x", "Credential=x/"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"{API}sensors"), ("PUT", "/rehearsal/package"), ("POST", "/metaflow-event")],
)
def test_a_request_without_the_token_does_nothing(
    served: Served, method: str, path: str, authorization: str
) -> None:
    event = {"payload": {"name": "food"}}
    assert request(served, method, path, event, authorization) == (401, b"unauthorized")
    assert not served.server.objects()
    assert not served.cluster.publications


def test_a_hundred_publishers_at_once_lose_no_event(served: Served) -> None:
    request(served, "POST", f"{API}workflowtemplates", TEMPLATE)
    request(served, "POST", f"{API}sensors", VECTORS["sensors"]["Plain"])
    answers: list[tuple[int, bytes]] = []

    def publish(number: int) -> None:
        event = {"payload": {"name": "foo.prod.bar.food", "number": number}}
        answers.append(request(served, "POST", "/metaflow-event", event))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, b"success")] * PUBLISHERS
    numbers = [publication.event.payload["number"] for publication in served.cluster.publications]
    assert sorted(numbers) == list(range(PUBLISHERS))
    started = [name for publication in served.cluster.publications for name in publication.started]
    assert len(set(started)) == PUBLISHERS


@pytest.mark.parametrize("name", ["../up", "/etc", "a b", "A", "", "..", "x" * 300, 5, None])
def test_a_name_that_kubernetes_does_not_take_is_refused(served: Served, name: Any) -> None:
    template = {**TEMPLATE, "metadata": {"name": name}}
    status, body = request(served, "POST", f"{API}workflowtemplates", template)
    assert status in (400, 422)
    assert json.loads(body)["kind"] == "Status"
    assert not served.cluster.objects.list_all(None, "workflowtemplates")


@pytest.mark.parametrize(
    "workflow",
    [
        {"metadata": {"name": "own"}, "spec": {"templates": [{"container": {"command": ["id"]}}]}},
        {"metadata": {"name": "own"}, "spec": {"workflowTemplateRef": {"name": "not-deployed"}}},
        [],
        b"{",
    ],
)
def test_only_what_was_deployed_runs(served: Served, workflow: Any) -> None:
    status, body = request(served, "POST", f"{API}workflows", workflow)
    assert status in (400, 404)
    assert json.loads(body)["kind"] == "Status"
    assert not served.cluster.objects.list_all(None, "workflows")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{API}sensors/none", 404),
        ("GET", f"{API}pods", 404),
        ("GET", "/rehearsal/none", 404),
        ("DELETE", f"{API}sensors", 405),
        ("GET", "/metaflow-event", 400),
    ],
)
def test_what_is_not_there_is_answered_as_a_cluster_does(
    served: Served, method: str, path: str, status: int
) -> None:
    assert request(served, method, path)[0] == status


def test_an_object_that_has_changed_since_it_was_read_is_not_replaced(served: Served) -> None:
    path = f"{API}workflowtemplates/plainlistener"
    request(served, "POST", f"{API}workflowtemplates", TEMPLATE)
    read = json.loads(request(served, "GET", path)[1])
    assert request(served, "PUT", path, read)[0] == 200
    status, body = request(served, "PUT", path, read)
    assert (status, json.loads(body)["reason"]) == (409, "Conflict")


def test_a_deleted_sensor_hears_nothing(served: Served) -> None:
    request(served, "POST", f"{API}workflowtemplates", TEMPLATE)
    request(served, "POST", f"{API}sensors", VECTORS["sensors"]["Plain"])
    request(served, "DELETE", f"{API}sensors/plainlistener")
    event = {"payload": {"name": "foo.prod.bar.food"}}
    assert request(served, "POST", "/metaflow-event", event) == (200, b"success")
    assert served.cluster.publications[0].listeners == []
