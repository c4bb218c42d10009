"""The stand-in for the cluster, over HTTP."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rehearsal.cluster import Cluster, Faults, Observer

VECTORS = json.loads((Path(__file__).parent / "argo_vectors.json").read_text())
API = "/apis/argoproj.io/v1alpha1/namespaces/default/"
TEMPLATE = {"metadata": {"name": "plainlistener"}, "spec": {"templates": []}}
PUBLISHERS = 100


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(Observer(), Faults())
    with cluster.serve():
        yield cluster


def request(
    cluster: Cluster, method: str, path: str, content: Any = None, authorization: str | None = None
) -> tuple[int, bytes]:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": authorization or f"Bearer {cluster.token}"}
    asked = urllib.request.Request(cluster.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_listens_on_this_machine_only(cluster: Cluster) -> None:
    assert cluster.url.startswith("http://127.0.0.1:")


@pytest.mark.parametrize("authorization", ["none", "Bearer ", "Bearer x", "Credential=x/"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", f"{API}sensors"), ("PUT", "/rehearsal/package"), ("POST", "/metaflow-event")],
)
def test_a_request_without_the_token_does_nothing(
    cluster: Cluster, method: str, path: str, authorization: str
) -> None:
    event = {"payload": {"name": "food"}}
    assert request(cluster, method, path, event, authorization) == (401, b"unauthorized")
    assert not cluster.packages
    assert not cluster.publications


def test_a_hundred_publishers_at_once_lose_no_event(cluster: Cluster) -> None:
    request(cluster, "POST", f"{API}workflowtemplates", TEMPLATE)
    request(cluster, "POST", f"{API}sensors", VECTORS["sensors"]["Plain"])
    answers: list[tuple[int, bytes]] = []

    def publish(number: int) -> None:
        event = {"payload": {"name": "foo.prod.bar.food", "number": number}}
        answers.append(request(cluster, "POST", "/metaflow-event", event))

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [(200, b"success")] * PUBLISHERS
    numbers = [publication.event.payload["number"] for publication in cluster.publications]
    assert sorted(numbers) == list(range(PUBLISHERS))
    started = [name for publication in cluster.publications for name in publication.started]
    assert len(set(started)) == PUBLISHERS


@pytest.mark.parametrize("name", ["../up", "/etc", "a b", "A", "", "..", "x" * 300, 5, None])
def test_a_name_that_kubernetes_does_not_take_is_refused(cluster: Cluster, name: Any) -> None:
    template = {**TEMPLATE, "metadata": {"name": name}}
    status, body = request(cluster, "POST", f"{API}workflowtemplates", template)
    assert status in (400, 422)
    assert json.loads(body)["kind"] == "Status"
    assert not cluster.list_all("default", "workflowtemplates")


@pytest.mark.parametrize(
    "workflow",
    [
        {"metadata": {"name": "own"}, "spec": {"templates": [{"container": {"command": ["id"]}}]}},
        {"metadata": {"name": "own"}, "spec": {"workflowTemplateRef": {"name": "not-deployed"}}},
        [],
        b"{",
    ],
)
def test_only_what_was_deployed_runs(cluster: Cluster, workflow: Any) -> None:
    status, body = request(cluster, "POST", f"{API}workflows", workflow)
    assert status in (400, 404)
    assert json.loads(body)["kind"] == "Status"
    assert not cluster.list_all("default", "workflows")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{API}sensors/none", 404),
        ("GET", f"{API}pods", 404),
        ("GET", "/rehearsal/none", 404),
        ("GET", "/", 404),
        ("DELETE", f"{API}sensors", 405),
        ("DELETE", "/rehearsal/package", 405),
        ("GET", "/metaflow-event", 400),
    ],
)
def test_what_is_not_there_is_answered_as_a_cluster_does(
    cluster: Cluster, method: str, path: str, status: int
) -> None:
    assert request(cluster, method, path)[0] == status


def test_an_object_that_has_changed_since_it_was_read_is_not_replaced(cluster: Cluster) -> None:
    path = f"{API}workflowtemplates/plainlistener"
    request(cluster, "POST", f"{API}workflowtemplates", TEMPLATE)
    read = json.loads(request(cluster, "GET", path)[1])
    assert request(cluster, "PUT", path, read)[0] == 200
    status, body = request(cluster, "PUT", path, read)
    assert (status, json.loads(body)["reason"]) == (409, "Conflict")


def test_a_deleted_sensor_hears_nothing(cluster: Cluster) -> None:
    request(cluster, "POST", f"{API}workflowtemplates", TEMPLATE)
    request(cluster, "POST", f"{API}sensors", VECTORS["sensors"]["Plain"])
    request(cluster, "DELETE", f"{API}sensors/plainlistener")
    event = {"payload": {"name": "foo.prod.bar.food"}}
    assert request(cluster, "POST", "/metaflow-event", event) == (200, b"success")
    assert cluster.publications[0].listeners == []
