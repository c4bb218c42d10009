"""The JobSet: what Metaflow compiles of a step with @parallel, a gang of pods.

The rules are those of the JobSet controller (jobset.x-k8s.io/v1alpha2) for what Metaflow
compiles: all pods start at once, one that fails ends the others. Of the `resource`
template around it, Argo Workflows only sees how it ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from .pod import DEADLINE_EXCEEDED
from .workflow import Ended, Pod, RunPod, UnknownTemplate

# The name of a pod of the gang in the cluster's DNS, which this machine cannot resolve.
_HOST_NAME = r"{}-[a-z]+-\d+-\d+\.\S+\.svc\.cluster\.local"
_ADDRESS = "127.0.0.1"
# Alone in a manifest, an expression is no YAML until it is replaced.
_EXPRESSION = re.compile(r"\{\{=.*?\}\}")
_JSON_PATH = re.compile(r"\{((?:\.\w+)+)\}")
_ON_SUCCESS, _ON_FAILURE = "status.terminalState == Completed", "status.terminalState == Failed"
_OF_A_RESOURCE = {
    *("action", "manifest", "setOwnerReference", "successCondition", "failureCondition"),
}
_OF_A_SPEC = {"replicatedJobs"}
_OF_A_JOB = {"backoffLimit", "completions", "parallelism", "ttlSecondsAfterFinished", "template"}
# What the process of Argo that waits for the resource ends with, as Argo Workflows v4.0.5 does.
_FAILED = Ended(64, "failure condition '{status.terminalState == [Failed]}' evaluated true")
_TERMINATED = 128 + 15


def pods(pod: Pod) -> list[Pod]:
    """Return the pods that the controller starts for the manifest of a `resource` template.

    Parameters
    ----------
    pod : Pod
        That of the template, in whose manifest nothing is left to be replaced.
    """
    manifest = yaml.safe_load(pod.template["resource"]["manifest"])
    return [
        _pod(pod, manifest, job, index)
        for job in manifest["spec"]["replicatedJobs"]
        for index in range(int(job["replicas"]))
    ]


async def run(pod: Pod, gang: Sequence[Pod], stop: asyncio.Event, run_pod: RunPod) -> Ended:
    """Run the pods of a gang together, and return how the resource has ended.

    Parameters
    ----------
    pod : Pod
        That of the `resource` template.
    gang : sequence of Pod
        Those that its manifest asks for.
    stop : Event
        Ends them when it is set.
    run_pod : callable
        Runs one of them.
    """
    ending = asyncio.Event()
    tasks = [asyncio.ensure_future(run_pod(each, ending)) for each in gang]
    running = asyncio.ensure_future(_first_failure(tasks))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait(
            {running, stopping}, timeout=pod.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if running in done:
            has_failed = running.result()
            return _FAILED if has_failed else Ended(0, files=dict(_outputs(pod)))
        return Ended(_TERMINATED, reason="" if stopping in done else DEADLINE_EXCEEDED)
    finally:
        ending.set()
        running.cancel()
        stopping.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _first_failure(tasks: Sequence[asyncio.Future[Ended]]) -> bool:
    """Wait until all have ended or one has failed; return whether one has."""
    for each in asyncio.as_completed(tasks):
        ended = await each
        if ended.exit_code or ended.reason:
            return True
    return False


def outline(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `resource` template as the `container` template that all its pods have.

    Parameters
    ----------
    template : mapping
        It may have tags that are not replaced yet.
    """
    (job, *_) = _parse(template)["spec"]["replicatedJobs"]
    return {**template, **_template(job)}


def check(template: Mapping[str, Any]) -> None:
    """Reject what the rehearsal does not know in the resources of a WorkflowTemplate.

    Raises
    ------
    UnknownTemplate
        With the name of the thing.
    """
    for each in template["spec"]["templates"]:
        if each.get("resource"):
            name = each["name"]
            try:
                _check_resource(name, each)
            except yaml.YAMLError as error:
                raise UnknownTemplate(
                    f"the resource of {name!r}, which has a manifest that is no YAML"
                ) from error
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UnknownTemplate(
                    f"the resource of {name!r}, which is not one that Metaflow compiles "
                    f"({type(error).__name__}: {error})"
                ) from error


def _check_resource(name: str, template: Mapping[str, Any]) -> None:
    resource = template["resource"]
    manifest = _parse(template)
    action, kind = resource["action"], manifest["kind"]
    if (action, kind) != ("create", "JobSet"):
        raise UnknownTemplate(f"the resource of {name!r}, which is to {action} a {kind}")
    conditions = resource.get("successCondition"), resource.get("failureCondition")
    if conditions != (_ON_SUCCESS, _ON_FAILURE):
        raise UnknownTemplate(
            f"the resource of {name!r}, which ends if {' or if '.join(map(repr, conditions))}"
        )
    unknown = [
        *_others(resource, _OF_A_RESOURCE),
        *_others(manifest["spec"], _OF_A_SPEC),
        *(each for job in _jobs(manifest) for each in _others(job, _OF_A_JOB)),
        *("backoffLimit" for job in _jobs(manifest) if job.get("backoffLimit")),
    ]
    for parameter in (template.get("outputs") or {}).get("parameters") or ():
        path = parameter["valueFrom"].get("jsonPath", "")
        if not _JSON_PATH.fullmatch(path) or not path.startswith("{.metadata."):
            unknown.append(parameter["name"])
    if unknown:
        raise UnknownTemplate(
            f"the resource of {name!r}, which has {', '.join(map(repr, unknown))}"
        )
    outline(template)


def _others(mapping: Mapping[str, Any], known: set[str]) -> list[str]:
    return sorted(key for key, value in mapping.items() if value and key not in known)


def _parse(template: Mapping[str, Any]) -> Any:
    return yaml.safe_load(_EXPRESSION.sub("0", template["resource"]["manifest"]))


def _jobs(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [job["template"]["spec"] for job in manifest["spec"]["replicatedJobs"]]


def _template(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the pods of a replicated job have, as a `container` template has it."""
    template = job["template"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    return {**template["spec"], "metadata": template.get("metadata") or {}, "container": container}


def _pod(pod: Pod, manifest: Mapping[str, Any], job: Mapping[str, Any], index: int) -> Pod:
    jobset = manifest["metadata"]["name"]
    host = f"{jobset}-{job['name']}-{index}-0"  # its job has one pod, the one with index 0
    identifier = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{pod.workflow}/{pod.name}/{host}"))
    template = _template(job)
    metadata = template["metadata"]
    about = {
        "jobset.sigs.k8s.io/jobset-name": jobset,
        "jobset.sigs.k8s.io/replicatedjob-name": job["name"],
        "jobset.sigs.k8s.io/job-index": str(index),
        "jobset.sigs.k8s.io/restart-attempt": "0",
    }
    kept = {
        kind: {
            **(metadata.get(kind) or {}),
            **about,
            "batch.kubernetes.io/job-completion-index": "0",
        }
        for kind in ("annotations", "labels")
    }
    fields = {
        "metadata.uid": identifier,
        **{
            f"metadata.{kind}['{name}']": str(value)
            for kind, values in kept.items()
            for name, value in values.items()
        },
    }
    container = template["container"]
    own = re.compile(_HOST_NAME.format(re.escape(jobset)))
    variables = [_variable(each, fields, own) for each in container.get("env") or ()]
    return dataclasses.replace(
        pod,
        name=f"{host}-{identifier[:5]}",
        template={
            **template,
            "name": pod.template.get("name"),
            "metadata": {**metadata, **kept},
            "container": {**container, "env": variables},
        },
        seconds=template.get("activeDeadlineSeconds"),
        variables={
            **pod.variables,
            # Which a container template has and a JobSet lacks; equal settings let it be a fork.
            "METAFLOW_KUBERNETES_NAMESPACE": pod.namespace,
            "HOSTNAME": host,
            "JOB_COMPLETION_INDEX": "0",
        },
        role=job["name"] if job["name"] == "control" else f"{job['name']}-{index}",
    )


def _variable(
    variable: Mapping[str, Any], fields: Mapping[str, str], host: re.Pattern[str]
) -> Mapping[str, Any]:
    """Return a variable with the field of its pod that it names, and with an address that works."""
    source = (variable.get("valueFrom") or {}).get("fieldRef") or {}
    value = fields.get(source.get("fieldPath", ""), variable.get("value"))
    if value is None:
        return variable  # the others are the same for every pod
    return {"name": variable["name"], "value": host.sub(_ADDRESS, str(value))}


def _outputs(pod: Pod) -> Iterator[tuple[str, str]]:
    """Return what the outputs of the template take from the object, by their jsonPath."""
    manifest = yaml.safe_load(pod.template["resource"]["manifest"])
    for parameter in (pod.template.get("outputs") or {}).get("parameters") or ():
        path = parameter["valueFrom"]["jsonPath"]
        value = manifest
        for name in path.strip("{.}").split("."):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            yield path, str(value)
