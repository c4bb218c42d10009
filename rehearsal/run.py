"""The run: a Workflow that was created, and what the report says of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import jobset, secret
from .secret import Secrets
from .workflow import Node, Pod, Workflow

_INDEX = re.compile(r"\((\d+):")
# What a pod has unless the user says otherwise.
_DEFAULT_IMAGE = re.compile(r"python:3\.\d+")
_DEFAULT_LIMITS = ("cpu", "memory")
_ENVIRONMENT = re.compile(r" --environment=(\S+)")
_LOCAL_ENVIRONMENTS = ("local", "default")
# Cuts out the paths of steps that did not run, which Argo Workflows v4.0.5 has changed.
_AFTER_A_SWITCH = "metaflow.plugins.argo.conditional_input_paths"


@dataclass(eq=False)
class Run:
    """A Workflow, how it ended, and where its pods print."""

    workflow: Workflow
    template: dict[str, Any]
    folder: Path  # for what its pods print
    # The deployments whose events led to this run, itself included, and how often each did.
    lineage: Counter[str] = field(default_factory=Counter)
    problem: str = ""  # why it did not succeed, where no step says it
    stopped: bool = False  # by the rehearsal
    seconds: float = 0
    logs: dict[str, Path] = field(default_factory=dict)  # by the pod's name

    @property
    def name(self) -> str:
        """The Workflow's name."""
        return self.workflow.name

    @property
    def deployment(self) -> str:
        """The name of the WorkflowTemplate."""
        return str(self.template["metadata"]["name"])

    def annotation(self, name: str) -> str | None:
        """Return what Metaflow noted on the WorkflowTemplate, `project_name` for example."""
        annotations: dict[str, str] = self.template["metadata"]["annotations"]
        return annotations.get(f"metaflow/{name}")

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded, Failed or Error, as Argo has them, or Stopped."""
        return "Stopped" if self.stopped else str(self.workflow.item["status"]["phase"])

    @property
    def failed_pods(self) -> list[Node]:
        """The last tries of the steps that failed."""
        parents = {child: node for node in self.workflow.nodes for child in node.children}
        return [
            node
            for node in self.workflow.nodes
            if node.type == "Pod"
            and node.has_failed
            and (parents[node].phase == node.phase if node in parents else True)
        ]

    def log_of(self, pod: Pod) -> Path:
        """Return a new file for what a pod prints: `<step>-<attempt>.txt`.

        One of a gang has `<step>-<role>-<attempt>.txt`.
        """
        annotations = (pod.template.get("metadata") or {}).get("annotations") or {}
        step = annotations.get("metaflow/step_name") or pod.node.template
        indices = _INDEX.findall(pod.node.name)
        if pod.role:
            del indices[-1:]  # a gang is the one item of its fan-out
        for number in [None, *range(2, 1 + len(self.logs) + 2)]:
            parts = [step, *indices, *([] if number is None else [f"{number}"])]
            if pod.role:
                parts[-1] += f"-{pod.role}"
            path = self.folder / f"{'.'.join(parts)}-{pod.retry}.txt"
            if path not in self.logs.values():
                break
        self.logs[pod.name] = path
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def unsupported(template: Mapping[str, Any], secrets: Secrets) -> Iterator[str]:
    """Name what a WorkflowTemplate asks of a cluster that this machine does not have."""
    spec = template["spec"]
    if cron := spec.get("workflowMetadata", {}).get("annotations", {}).get("metaflow/cron"):
        yield f"the schedule {json.loads(cron)['schedule']!r}"
    unused = spec.get("hooks", {}).get("exit", {}).get("template") if spec.get("onExit") else None
    for step in spec["templates"]:
        name = step["name"]
        if step.get("http") and name != unused:
            yield f"the HTTP request {name!r}"
        if step.get("resource"):
            yield f"the host names of a gang (each is 127.0.0.1 here) of {name}"
            step = jobset.outline(step)
        container = step.get("container") or {}
        command = (container.get("command") or [""])[-1]
        if " step " not in command:  # Metaflow's own: the capture of errors, for example
            continue
        if _AFTER_A_SWITCH in command:
            yield f"what Argo Workflows v4.0.5 does after a switch (Metaflow fails in {name})"
        if not _DEFAULT_IMAGE.fullmatch(container["image"]):
            yield f"the image {container['image']!r} of {name}"
        for each in secret.names(container):
            if each not in secrets:
                yield f"the secret {each!r} (which --secret {each}=FILE would give) of {name}"
        for limit in (container.get("resources") or {}).get("limits") or ():
            if limit not in _DEFAULT_LIMITS:
                yield f"the resource {limit!r} of {name}"
        for volume in step.get("volumes") or ():
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                yield f"the persistent volume {claim!r} of {name}"
        for selector in step.get("nodeSelector") or ():
            yield f"the node selector {selector!r} of {name}"
        if step.get("retryStrategy") and not _is_at_once(step["retryStrategy"]):
            wait = step["retryStrategy"]["backoff"]["duration"]
            yield f"the wait of {wait} before {name} is retried"
        environment = _ENVIRONMENT.search(command)
        if environment and environment[1] not in _LOCAL_ENVIRONMENTS:
            yield f"the environment {environment[1]!r} of {name}"


def _is_at_once(strategy: Mapping[str, Any]) -> bool:
    duration = str((strategy.get("backoff") or {}).get("duration") or "0")
    return not duration.strip("0smh")
