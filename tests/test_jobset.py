"""A JobSet: the pods that its manifest asks for, and how they end together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from rehearsal import jobset
from rehearsal.workflow import Ended, Node, Pod, UnknownTemplate

HOST = "js-a1-control-0-0.js-a1.default.svc.cluster.local"


def job(name: str, replicas: int) -> dict[str, Any]:
    """Return a replicated job as Metaflow writes it."""
    index = {"fieldRef": {"fieldPath": "metadata.annotations['jobset.sigs.k8s.io/job-index']"}}
    pod = {"fieldRef": {"fieldPath": "metadata.name"}}
    uid = {"fieldRef": {"fieldPath": "metadata.uid"}}
    container = {
        "name": "train",
        "image": "python:3.11",
        "command": ["bash", "-c", "true"],
        "env": [
            {"name": "MF_MASTER_ADDR", "value": HOST},
            {"name": "MF_WORKER_REPLICA_INDEX", "valueFrom": index},
            {"name": "METAFLOW_KUBERNETES_POD_NAME", "valueFrom": pod},
            {"name": "METAFLOW_KUBERNETES_POD_ID", "valueFrom": uid},
        ],
        "envFrom": [{"secretRef": {"name": "token"}}],
    }
    spec = {
        "activeDeadlineSeconds": 600,
        "containers": [container],
        "terminationGracePeriodSeconds": 0,
    }
    metadata = {"annotations": {"metaflow/step_name": "train"}, "labels": {}}
    template = {"spec": {"backoffLimit": 0, "template": {"metadata": metadata, "spec": spec}}}
    return {"name": name, "replicas": replicas, "template": template}


def resource_template(replicas: int = 2, **of_the_spec: Any) -> dict[str, Any]:
    jobs = [job("control", 1), job("worker", replicas)]
    manifest = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "js-a1", "labels": {"task_id_entropy": "a1", "num_parallel": "3"}},
        "spec": {"replicatedJobs": jobs, "suspend": False, "failurePolicy": None, **of_the_spec},
    }
    entropy = {"jsonPath": "{.metadata.labels.task_id_entropy}"}
    return {
        "name": "train",
        "resource": {
            "action": "create",
            "setOwnerReference": True,
            "manifest": yaml.safe_dump(manifest),
            "successCondition": "status.terminalState == Completed",
            "failureCondition": "status.terminalState == Failed",
        },
        "outputs": {"parameters": [{"name": "task-id-entropy", "valueFrom": entropy}]},
    }


def resource_pod(template: dict[str, Any], seconds: float | None = None) -> Pod:
    return Pod("flow-train-1", "flow", "default", Node("n", "Pod", "train"), template, seconds, 1)


def variables(pod: Pod) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in pod.template["container"]["env"]}


def test_a_manifest_asks_for_one_control_pod_and_its_workers() -> None:
    pods = jobset.pods(resource_pod(resource_template()))
    assert [pod.role for pod in pods] == ["control", "worker-0", "worker-1"]
    hosts = ["js-a1-control-0-0", "js-a1-worker-0-0", "js-a1-worker-1-0"]
    assert [pod.variables["HOSTNAME"] for pod in pods] == hosts
    for pod, host in zip(pods, hosts, strict=True):
        assert pod.name.startswith(f"{host}-")
        assert (pod.workflow, pod.retry, pod.seconds) == ("flow", 1, 600)
        assert pod.template["metadata"]["annotations"]["metaflow/step_name"] == "train"
        assert pod.template["terminationGracePeriodSeconds"] == 0


def test_a_gang_of_one_has_no_workers() -> None:
    assert [pod.role for pod in jobset.pods(resource_pod(resource_template(0)))] == ["control"]


def test_the_fields_that_differ_between_the_pods_are_their_own() -> None:
    all_variables = [variables(pod) for pod in jobset.pods(resource_pod(resource_template()))]
    assert [each["MF_WORKER_REPLICA_INDEX"] for each in all_variables] == ["0", "0", "1"]
    assert len({each["METAFLOW_KUBERNETES_POD_ID"] for each in all_variables}) == 3
    # Left to what runs the pods, as for every pod.
    assert [each["METAFLOW_KUBERNETES_POD_NAME"] for each in all_variables] == [None] * 3


def test_the_host_name_of_the_control_pod_becomes_an_address() -> None:
    pods = jobset.pods(resource_pod(resource_template()))
    assert {variables(pod)["MF_MASTER_ADDR"] for pod in pods} == {"127.0.0.1"}


def test_a_template_has_an_outline_before_its_tags_are_replaced() -> None:
    template = resource_template(77)
    manifest = template["resource"]["manifest"]
    template["resource"]["manifest"] = manifest.replace(
        "replicas: 77", "replicas: {{=asInt(inputs.parameters.workerCount)}}"
    )
    jobset.check({"spec": {"templates": [template]}})
    assert jobset.outline(template)["container"]["image"] == "python:3.11"


def other_action(template: dict[str, Any]) -> None:
    template["resource"]["action"] = "delete"


def other_kind(template: dict[str, Any]) -> None:
    template["resource"]["manifest"] = "kind: Job"


def other_condition(template: dict[str, Any]) -> None:
    template["resource"]["failureCondition"] = "status.failed > 3"


def policy(template: dict[str, Any]) -> None:
    template.update(resource_template(failurePolicy={"maxRestarts": 3}))


def other_output(template: dict[str, Any]) -> None:
    template["outputs"]["parameters"][0]["valueFrom"] = {"jsonPath": "{.status.restarts}"}


def no_yaml(template: dict[str, Any]) -> None:
    template["resource"]["manifest"] = "a: 'b"


def no_jobs(template: dict[str, Any]) -> None:
    template["resource"]["manifest"] = "kind: JobSet"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (other_action, "to delete a JobSet"),
        (other_kind, "to create a Job"),
        (other_condition, "'status.failed > 3'"),
        (policy, "'failurePolicy'"),
        (other_output, "'task-id-entropy'"),
        (no_yaml, "is no YAML"),
        (no_jobs, "not one that Metaflow compiles"),
    ],
)
def test_what_is_not_known_of_a_resource_is_named(
    change: Callable[[dict[str, Any]], None], name: str
) -> None:
    template = resource_template()
    change(template)
    with pytest.raises(UnknownTemplate, match=f"the resource of 'train', .*{name}"):
        jobset.check({"spec": {"templates": [template]}})


class Machine:
    """Runs pods that last until they are told to end, unless theirs is another end."""

    def __init__(self, **ends: Ended) -> None:
        self.ends = ends
        self.running: list[str] = []
        self.ended: list[str] = []

    async def run_pod(self, pod: Pod, stop: asyncio.Event) -> Ended:
        self.running.append(pod.role)
        while len(self.running) < 3:
            await asyncio.sleep(0)
        if pod.role in self.ends:
            return self.ends[pod.role]
        await stop.wait()
        self.ended.append(pod.role)
        return Ended(137)

    def run(self, seconds: float | None = None, stopped: bool = False) -> Ended:
        async def run() -> Ended:
            stop = asyncio.Event()
            if stopped:
                stop.set()
            pod = resource_pod(resource_template(), seconds)
            return await jobset.run(pod, jobset.pods(pod), stop, self.run_pod)

        return asyncio.run(asyncio.wait_for(run(), 5))


def test_a_gang_succeeds_if_all_of_its_pods_do() -> None:
    ends = dict.fromkeys(("control", "worker-0", "worker-1"), Ended(0))
    ended = Machine(**ends).run()
    assert ended == Ended(0, files={"{.metadata.labels.task_id_entropy}": "a1"})


def test_one_that_fails_ends_the_others() -> None:
    machine = Machine(**{"worker-1": Ended(1), "control": Ended(0)})
    ended = machine.run()
    assert (ended.exit_code, machine.ended) == (64, ["worker-0"])
    assert ended.last_lines == (
        "failure condition '{status.terminalState == [Failed]}' evaluated true"
    )


def test_a_gang_that_is_stopped_ends_its_pods() -> None:
    machine = Machine(control=Ended(0))
    ended = machine.run(stopped=True)
    assert (ended.exit_code, ended.reason) == (143, "")
    assert sorted(machine.ended) == ["worker-0", "worker-1"]


def test_a_gang_ends_at_its_deadline() -> None:
    machine = Machine(control=Ended(0))
    ended = machine.run(seconds=0.01)
    assert ended.reason == "Pod was active on the node longer than the specified deadline"
    assert sorted(machine.ended) == ["worker-0", "worker-1"]
