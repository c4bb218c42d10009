"""The workflow: does with a WorkflowTemplate what Argo Workflows does with it.

The rules are those of Argo Workflows v4.0.5 for what Metaflow compiles. It knows nothing
of processes: it is given a function that runs a pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import expression
from .expression import CannotEvaluate, UnknownExpression

# What a template may have. What only says where a pod runs decides nothing here.
_KINDS = ("dag", "steps", "container", "resource", "http")
_OF_A_TEMPLATE = {
    *("name", "inputs", "outputs", "retryStrategy", "activeDeadlineSeconds", "failFast"),
    *("metadata", "serviceAccountName", "volumes", "nodeSelector", "tolerations"),
    *("podSpecPatch", "affinity", "schedulerName", "priorityClassName"),
}
_OF_A_TASK = {"name", "template", "depends", "dependencies", "when", "withParam", "arguments"}
_OF_A_STEP = {"name", "template", "when", "arguments"}
_OF_A_RETRY = {"limit", "retryPolicy", "backoff"}
_OF_A_SPEC = {
    *("entrypoint", "templates", "arguments", "hooks", "onExit", "parallelism"),
    *("activeDeadlineSeconds", "workflowMetadata", "podMetadata", "serviceAccountName"),
    *("imagePullSecrets", "podPriorityClassName", "ttlStrategy", "podGC"),
}
_OF_A_VALUE = {"path", "parameter", "expression", "jsonPath"}


class UnknownTemplate(ValueError):
    """Something in a WorkflowTemplate that the rehearsal does not know."""


Clock = Callable[[], float]  # gives the seconds since 1970


@dataclass(eq=False)
class Node:
    """A node of a workflow, as its `status` has it."""

    name: str
    type: str  # Pod, DAG, Steps, StepGroup, Retry, TaskGroup, Skipped
    template: str
    phase: str = "Pending"
    message: str = ""
    id: str = ""
    display_name: str = ""
    boundary: Node | None = None
    started: float = 0
    finished: float = 0
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] | None = None
    exit_code: int | None = None
    children: list[Node] = field(default_factory=list)
    clock: Clock = time.time

    @property
    def has_failed(self) -> bool:
        """Whether it is Failed or Error, and not Skipped or Omitted."""
        return self.phase in ("Failed", "Error")

    def end(self, phase: str, message: str = "") -> Node:
        """Take the phase in which it ends."""
        self.phase, self.message, self.finished = phase, message, self.clock()
        return self

    def as_json(self) -> dict[str, Any]:
        """Return it as the Kubernetes API has it."""
        item: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "displayName": self.display_name,
            "type": self.type,
            "templateName": self.template,
            "phase": self.phase,
            "message": self.message,
            "boundaryID": self.boundary.id if self.boundary else "",
            "startedAt": timestamp(self.started),
            "finishedAt": timestamp(self.finished),
            "inputs": _as_parameters(self.inputs),
            "outputs": _as_parameters(self.outputs or {}),
            "children": [child.id for child in self.children],
        }
        if self.exit_code is not None:
            item["outputs"]["exitCode"] = str(self.exit_code)
        kept = ("finishedAt", "startedAt", "phase")
        return {key: value for key, value in item.items() if value or key in kept}


@dataclass(frozen=True)
class Pod:
    """A pod that is to run."""

    name: str
    workflow: str
    namespace: str
    node: Node
    template: Mapping[str, Any]  # nothing is left to be replaced in it
    seconds: float | None  # how long it may run
    retry: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)  # beside its container's
    role: str = ""  # in a gang: control, worker-0, worker-1


@dataclass(frozen=True)
class Ended:
    """How a pod has ended."""

    exit_code: int  # 128 and its number after a signal
    last_lines: str = ""  # what it printed last
    reason: str = ""  # what ended it, if it was not itself
    files: Mapping[str, str] = field(default_factory=dict)  # its output files, by their path


RunPod = Callable[[Pod, asyncio.Event], Awaitable[Ended]]


class _Parallelism:
    """How many pods of a workflow may run at once."""

    def __init__(self, limit: int | None) -> None:
        self._slots = asyncio.Semaphore(limit) if limit else None

    async def __aenter__(self) -> None:
        if self._slots:
            await self._slots.acquire()

    async def __aexit__(self, *_: object) -> None:
        if self._slots:
            self._slots.release()


class Workflow:
    """A Workflow that runs.

    Parameters
    ----------
    item : dict
        The custom object, whose `status` it keeps up to date.
    template : mapping
        The WorkflowTemplate that it refers to.
    run_pod : callable
        Runs a pod and returns how it has ended; it ends a pod whose event is set.
    clock : callable
        Gives the time.
    """

    def __init__(
        self,
        item: dict[str, Any],
        template: Mapping[str, Any],
        run_pod: RunPod,
        clock: Clock = time.time,
    ) -> None:
        self.item = item
        self.name: str = item["metadata"]["name"]
        self.nodes: list[Node] = []
        self._run_pod = run_pod
        self._clock = clock
        self._spec = template["spec"]
        self._arguments = _merged_arguments(self._spec, item["spec"])
        self._names = self._global_names()
        self._shutdown = ""
        self._is_exiting = False
        self._shutting_down = asyncio.Event()
        self._proceeding = asyncio.Event()
        self._proceeding.set()
        self._started = 0.0
        self._seconds: float | None = self._spec.get("activeDeadlineSeconds")
        item["status"] = {"phase": "Pending", "finishedAt": None}

    async def run(self) -> None:
        """Run it to its end."""
        self._started = self._clock()
        if missing := [name for name, value in self._arguments.items() if value is None]:
            prefix = f"spec.arguments.{missing[0]}"
            self.end("Failed", f"invalid spec: {prefix}.value or {prefix}.valueFrom is required")
            return
        self._set_status("Running")
        spec = expression.replace(self._spec, self._names)
        self._templates = {template["name"]: template for template in spec["templates"]}
        self._parallelism = _Parallelism(spec.get("parallelism"))
        entry = await self._execute(self.name, spec["entrypoint"], self._arguments, None)
        phase = {"Skipped": "Succeeded", "Omitted": "Succeeded"}.get(entry.phase, entry.phase)
        self._names["workflow.status"] = phase
        self._set_failures()
        message = entry.message
        if self._shutdown and entry.has_failed:
            message = f"Stopped with strategy '{self._shutdown}'"
        if await self._run_hooks(spec, entry) and not self._shutdown:
            self._set_failures()
        on_exit = spec.get("onExit") or (spec.get("hooks") or {}).get("exit", {}).get("template")
        if on_exit and self._shutdown != "Terminate":
            self._is_exiting = True
            last = await self._execute(f"{self.name}.onExit", on_exit, {}, None)
            if phase == "Succeeded" and last.has_failed:
                phase, message = last.phase, last.message
        self.end(phase, message)

    def suspend(self, is_suspended: bool) -> None:
        """Let the pods end and do nothing else, or go on."""
        if is_suspended:
            self._proceeding.clear()
        else:
            self._proceeding.set()

    def shut_down(self, strategy: str) -> None:
        """End its pods; with `Stop` the exit handler runs, with `Terminate` it does not.

        What is suspended ends when it is resumed.
        """
        self._shutdown = strategy
        self._shutting_down.set()

    def end(self, phase: str, message: str = "") -> None:
        """Take the phase in which it ends."""
        self._set_status(phase, message)

    def status(self) -> dict[str, Any]:
        """Return its `status`, nodes included."""
        return {**self.item["status"], "nodes": {node.id: node.as_json() for node in self.nodes}}

    def _set_status(self, phase: str, message: str = "") -> None:
        finished = self._clock() if phase not in ("Pending", "Running") else 0
        self.item["status"] = {
            "phase": phase,
            "startedAt": timestamp(self._started),
            "finishedAt": timestamp(finished),
            **({"message": message} if message else {}),
        }

    def _global_names(self) -> dict[str, str]:
        metadata = self.item["metadata"]
        return {
            "workflow.name": self.name,
            "workflow.namespace": metadata["namespace"],
            "workflow.uid": metadata.get("uid", ""),
            "workflow.creationTimestamp": metadata["creationTimestamp"],
            "workflow.serviceAccountName": self._spec.get("serviceAccountName") or "",
            "workflow.mainEntrypoint": self._spec["entrypoint"],
            **{
                f"workflow.parameters.{name}": value
                for name, value in self._arguments.items()
                if value is not None
            },
        }

    def _set_failures(self) -> None:
        failures = [
            {
                "displayName": node.display_name,
                "message": node.message,
                "templateName": node.template,
                "phase": node.phase,
                "podName": self._pod_name(node.name, node.template),
                "finishedAt": timestamp(node.finished),
            }
            for node in self.nodes
            if node.has_failed
        ]
        # A nil slice is null in Go.
        self._names["workflow.failures"] = _as_json(_as_json(failures or None))

    async def _run_hooks(self, spec: Mapping[str, Any], entry: Node) -> list[Node]:
        """Run the lifecycle hooks whose expression holds, together.

        After a shutdown there are nodes of them, whose pods do not run.
        """
        hooks = [
            self._execute(f"{self.name}.hooks.{name}", hook["template"], {}, None)
            for name, hook in (spec.get("hooks") or {}).items()
            if name != "exit" and expression.evaluate(hook["expression"], self._names) is True
        ]
        nodes = await _together(hooks)
        entry.children += nodes
        return nodes

    def _node(
        self, name: str, kind: str, template: str, boundary: Node | None, **values: Any
    ) -> Node:
        """Return a new node, or the one of that name, with these values."""
        hashed = _fnv1a(name)
        node = Node(
            name=name,
            type=kind,
            template=template,
            id=self.name if name == self.name else f"{self.name}-{hashed}",
            display_name=_display_name(name, boundary),
            boundary=boundary,
            started=self._clock(),
            clock=self._clock,
        )
        for key, value in values.items():
            setattr(node, key, value)
        if node.phase not in ("Pending", "Running"):
            node.finished = node.started
        self.nodes.append(node)
        return node

    def _pod_name(self, node: str, template: str) -> str:
        if node == self.name:
            return self.name
        prefix = f"{self.name}-{template}" if template else self.name  # a group of steps has none
        return f"{prefix[:242]}-{_fnv1a(node)}"

    async def _execute(
        self,
        name: str,
        reference: str,
        arguments: Mapping[str, str | None],
        boundary: Node | None,
    ) -> Node:
        """Execute a template with arguments, with its retries."""
        template = self._templates[reference]
        is_pod = "container" in template or "resource" in template
        strategy = template.get("retryStrategy")
        local = {"node.name": name}
        if is_pod and not strategy:
            local["pod.name"] = self._pod_name(name, reference)
        try:
            processed = self._with_inputs(template, arguments, local)
        except CannotEvaluate as problem:
            return self._node(
                name, "Skipped", reference, boundary, phase="Error", message=str(problem)
            )
        if not strategy:
            return await self._execute_once(name, processed, boundary)
        node = self._node(
            name, "Retry", reference, boundary, phase="Running", inputs=_inputs(processed)
        )
        for retry in itertools.count():
            own = f"{name}({retry})"
            local = {"pod.name": self._pod_name(own, reference), "retries": str(retry)}
            once = self._substituted(processed, local)
            child = await self._execute_once(own, once, boundary, retry)
            node.children.append(child)
            node.outputs, node.exit_code = child.outputs, child.exit_code
            if not child.has_failed:
                return node.end("Succeeded")
            # It has waited for the backoff: nothing here depends on the time of day.
            if self._shutdown:
                return node.end(child.phase, f"Stopped with strategy '{self._shutdown}'")
            if self._seconds and self._seconds_left() == 0:
                deadline = time.strftime(
                    "%Y-%m-%d %H:%M:%S +0000 UTC", time.gmtime(self._started + self._seconds)
                )
                return node.end(child.phase, f"retry exceeded workflow deadline {deadline}")
            if retry >= int(strategy.get("limit") or 0):
                return node.end(child.phase, "No more retries left")
        raise AssertionError  # the loop has no end

    def _with_inputs(
        self,
        template: Mapping[str, Any],
        arguments: Mapping[str, str | None],
        local: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return a template with the values of its inputs, and what they are used for."""
        inputs = []
        for parameter in (template.get("inputs") or {}).get("parameters") or ():
            value = arguments.get(parameter["name"], parameter.get("value"))
            if value is None:
                raise CannotEvaluate(f"inputs.parameters.{parameter['name']} was not supplied")
            inputs.append({**parameter, "value": value})
        return self._substituted({**template, "inputs": {"parameters": inputs}}, local)

    def _substituted(self, template: Mapping[str, Any], local: Mapping[str, str]) -> dict[str, Any]:
        """Replace global and local names, and with what results the inputs."""
        names = {**self._names, **local}
        replaced: dict[str, Any] = expression.replace(template, names)
        for name, value in _inputs(replaced).items():
            names[f"inputs.parameters.{name}"] = value
        replaced = expression.replace(replaced, names)
        return replaced

    async def _execute_once(
        self, name: str, template: Mapping[str, Any], boundary: Node | None, retry: int = 0
    ) -> Node:
        kind = _kind(template)
        if kind == "http":
            return self._node(
                name,
                "HTTP",
                template["name"],
                boundary,
                phase="Skipped",
                message="the rehearsal sends no HTTP requests of workflows",
            )
        types = {"dag": "DAG", "steps": "Steps"}
        node = self._node(
            name,
            types.get(kind, "Pod"),
            template["name"],
            boundary,
            phase="Running" if kind in types else "Pending",
            inputs=_inputs(template),
        )
        if kind == "dag":
            return await self._execute_dag(node, template)
        if kind == "steps":
            return await self._execute_steps(node, template)
        return await self._execute_pod(node, template, retry)

    async def _execute_pod(self, node: Node, template: Mapping[str, Any], retry: int) -> Node:
        """Run a pod as soon as the workflow lets it, and take its outputs.

        While it is suspended its pods end, and nothing comes of it.
        """
        async with self._parallelism:
            await self._proceeding.wait()
            strategy = self._shutdown
            if strategy and not (self._is_exiting and strategy == "Stop"):
                return node.end("Failed", f"workflow shutdown with strategy: {strategy}")
            seconds = [template.get("activeDeadlineSeconds"), self._seconds_left()]
            if seconds[1] == 0:
                return node.end("Failed", "Step exceeded its deadline")
            node.phase, node.started = "Running", self._clock()
            pod = Pod(
                self._pod_name(node.name, node.template),
                self.name,
                self.item["metadata"]["namespace"],
                node,
                template,
                min((float(each) for each in seconds if each is not None), default=None),
                retry,
            )
            never = asyncio.Event()
            ended = await self._run_pod(pod, never if self._is_exiting else self._shutting_down)
            self._end_pod(node, template, ended)
            await self._proceeding.wait()
        return node

    def _end_pod(self, node: Node, template: Mapping[str, Any], ended: Ended) -> None:
        node.exit_code = ended.exit_code
        problem = ""
        try:
            for name, value in self._outputs(template, {}, ended.files):
                node.outputs = {**(node.outputs or {}), name: value}
        except CannotEvaluate as error:
            problem = str(error)
        if self._shutdown and not self._is_exiting:
            node.end("Failed", f"workflow shutdown with strategy:  {self._shutdown}")
        elif ended.reason:
            node.end("Failed", ended.reason)
        elif ended.exit_code:
            message = f"main: Error (exit code {ended.exit_code})"
            node.end("Failed", f"{message}: {ended.last_lines}" if ended.last_lines else message)
        elif problem:
            node.end("Error", problem)
        else:
            node.end("Succeeded")

    def _seconds_left(self) -> float | None:
        """Return how long the workflow may still run; its exit handler is not bound by it."""
        if self._seconds is None or self._is_exiting:
            return None
        return max(0.0, self._started + self._seconds - self._clock())

    def _outputs(
        self, template: Mapping[str, Any], scope: Mapping[str, str], files: Mapping[str, str]
    ) -> Iterator[tuple[str, str]]:
        """Give the outputs in their order, up to the first that is not there."""
        for parameter in (template.get("outputs") or {}).get("parameters") or ():
            source = parameter["valueFrom"]
            value: str | None
            if "path" in source:
                value = files.get(source["path"])
            elif "jsonPath" in source:
                value = files.get(source["jsonPath"])
            elif "parameter" in source:
                value = expression.replace(source["parameter"], scope, ("tasks", "steps"))
            else:
                value = expression.evaluate(source["expression"], scope)
                value = "<nil>" if value is None else _as_text(value)  # as Go prints it
            if value is None and "path" in source:
                raise CannotEvaluate(
                    f"wait: Error (exit code 64): open /mainctrfs{source['path']}: no such file or "
                    "directory"
                )
            if value is None:
                raise CannotEvaluate(f"the output {parameter['name']} has no value")
            yield parameter["name"], value

    async def _execute_steps(self, node: Node, template: Mapping[str, Any]) -> Node:
        """Execute groups of steps, one after the other."""
        scope: dict[str, str] = {}
        for number, steps in enumerate(template["steps"]):
            group = self._node(f"{node.name}[{number}]", "StepGroup", "", node, phase="Running")
            node.children.append(group)
            group.children = await _together(
                self._execute_step(group, step, scope, node) for step in steps
            )
            if failed := [child for child in group.children if child.has_failed]:
                group.end("Failed", f"child '{failed[0].id}' failed")
                return node.end("Failed", group.message)
            group.end("Succeeded")
            for step, child in zip(steps, group.children, strict=True):
                scope.update(self._scope_of(f"steps.{step['name']}", child))
        return self._end_with_outputs(node, template, scope)

    async def _execute_step(
        self, group: Node, step: Mapping[str, Any], scope: Mapping[str, str], boundary: Node
    ) -> Node:
        return await self._execute_reference(
            f"{group.name}.{step['name']}", step, {**self._names, **scope}, boundary
        )

    async def _execute_dag(self, node: Node, template: Mapping[str, Any]) -> Node:
        """Execute the tasks of a dag, each as soon as those that it depends on have ended."""
        tasks = {task["name"]: task for task in template["dag"]["tasks"]}
        parents = {name: expression.dependencies(_depends(task)) for name, task in tasks.items()}
        ended: dict[str, asyncio.Task[Node | None]] = {}
        for name, task in tasks.items():
            ended[name] = asyncio.ensure_future(self._execute_task(node, task, parents, ended))
        children = dict(zip(ended, await _together(ended.values()), strict=True))
        node.children = [child for name, child in children.items() if child and not parents[name]]
        for name, child in children.items():
            for parent in filter(None, map(children.get, parents[name])):
                if child:
                    parent.children.append(child)
        leaves = set(tasks).difference(*parents.values())
        phases = [_phase_of_branch(leaf, children, parents) for leaf in sorted(leaves)]
        if self._shutdown and not self._is_exiting:
            return node.end("Failed")
        for phase in phases:
            if phase in ("Failed", "Error"):
                return node.end(phase)
        scope: dict[str, str] = {}
        for name, child in children.items():
            if child:
                scope.update(self._scope_of(f"tasks.{name}", child))
        return self._end_with_outputs(node, template, scope)

    async def _execute_task(
        self,
        dag: Node,
        task: Mapping[str, Any],
        parents: Mapping[str, list[str]],
        ended: Mapping[str, asyncio.Task[Node | None]],
    ) -> Node | None:
        """Execute a task; None if a shutdown has ended what it waited for."""
        name = f"{dag.name}.{task['name']}"
        before = {each: await ended[each] for each in parents[task["name"]]}
        is_stopped = self._shutdown and not self._is_exiting
        if is_stopped and any(node is None or node.has_failed for node in before.values()):
            return None
        phases = {each: node.phase for each, node in before.items() if node}
        if phases and not expression.depends_holds(_depends(task), phases):
            return self._node(
                name,
                "Skipped",
                task["template"],
                dag,
                phase="Omitted",
                message="omitted: depends condition not met",
            )
        names = dict(self._names)
        for each in _ancestors(task["name"], parents):
            node = ended[each].result()
            if node:
                names.update(self._scope_of(f"tasks.{each}", node))
                if node.outputs is None and node.phase in ("Skipped", "Omitted"):
                    names.update(self._outputs_of_the_skipped(f"tasks.{each}", node))
        return await self._execute_reference(name, task, names, dag)

    async def _execute_reference(
        self, name: str, task: Mapping[str, Any], names: Mapping[str, str], boundary: Node
    ) -> Node:
        """Execute what a task or a step refers to, if its `when` holds, for each of its items."""

        def without_execution(phase: str, message: str) -> Node:
            return self._node(
                name, "Skipped", task["template"], boundary, phase=phase, message=message
            )

        try:
            when = expression.replace(task.get("when") or "", names, ("tasks", "steps"))
            if when and not expression.is_true(when):
                if task.get("withParam"):
                    return without_execution("Skipped", "Skipped, empty params")
                return without_execution("Skipped", f"when '{when}' evaluated false")
            resolved = expression.replace(
                {key: task[key] for key in task if key != "when"}, names, ("tasks", "steps")
            )
            items = _items(resolved)
        except (CannotEvaluate, UnknownExpression) as problem:
            return without_execution("Error", str(problem))
        if items is None:
            arguments = _values(resolved.get("arguments"))
            return await self._execute(name, task["template"], arguments, boundary)
        if not items:
            return without_execution("Skipped", "Skipped, empty params")
        group = self._node(name, "TaskGroup", task["template"], boundary, phase="Running")
        group.children = await _together(
            self._execute(
                f"{name}({number}:{_in_a_name(item)})",
                task["template"],
                _values(expression.replace(resolved.get("arguments"), {"item": item})),
                boundary,
            )
            for number, item in enumerate(items)
        )
        failed = [child.phase for child in group.children if child.has_failed]
        return group.end(failed[-1] if failed else "Succeeded")

    def _end_with_outputs(
        self, node: Node, template: Mapping[str, Any], scope: Mapping[str, str]
    ) -> Node:
        try:
            node.outputs = dict(self._outputs(template, scope, {})) or None
        except CannotEvaluate as problem:
            return node.end("Error", str(problem))
        return node.end("Succeeded")

    def _scope_of(self, prefix: str, node: Node) -> dict[str, str]:
        """Return what later tasks may name of one that has ended."""
        outputs = node.outputs or {}
        if node.type == "TaskGroup":
            lists: dict[str, list[str]] = {}
            for child in node.children:
                for name, value in (child.outputs or {}).items():
                    lists.setdefault(name, []).append(value)
            outputs = {name: _as_json_list(values) for name, values in lists.items()}
        return {
            f"{prefix}.id": node.id,
            f"{prefix}.status": node.phase,
            **{f"{prefix}.outputs.parameters.{name}": value for name, value in outputs.items()},
        }

    def _outputs_of_the_skipped(self, prefix: str, node: Node) -> dict[str, str]:
        """Return the outputs of a task that did not run: the tags that name them.

        Metaflow's scripts cut paths with such tags out. Argo Workflows v4.0.5 replaces them
        by nothing, which Metaflow 2.19.39 does not understand; see `conditional_joins`.
        """
        outputs = self._templates[node.template].get("outputs") or {}
        names = [
            f"{prefix}.outputs.parameters.{parameter['name']}"
            for parameter in outputs.get("parameters") or ()
        ]
        return {name: f"{{{{{name}}}}}" for name in names}


async def _together(awaitables: Any) -> list[Any]:
    return list(await asyncio.gather(*awaitables))


def _phase_of_branch(
    task: str, nodes: Mapping[str, Node | None], parents: Mapping[str, list[str]]
) -> str:
    """Return the phase of a task, of one that did not run the worst of those before it."""
    node = nodes[task]
    if node and node.phase not in ("Skipped", "Omitted"):
        return node.phase
    before = [_phase_of_branch(each, nodes, parents) for each in parents[task]]
    return next((phase for phase in before if phase in ("Failed", "Error")), "Succeeded")


def _ancestors(task: str, parents: Mapping[str, list[str]]) -> Iterator[str]:
    seen: set[str] = set()
    left = list(parents[task])
    while left:
        each = left.pop()
        if each not in seen:
            seen.add(each)
            left += parents[each]
            yield each


def _depends(task: Mapping[str, Any]) -> str:
    """Return the `depends` of a task, or what its `dependencies` mean (Metaflow before 2.18)."""
    return task.get("depends") or " && ".join(
        f"({each}.Succeeded || {each}.Skipped || {each}.Daemoned)"
        for each in task.get("dependencies") or ()
    )


def _items(task: Mapping[str, Any]) -> list[str] | None:
    if not task.get("withParam"):
        return None
    try:
        items = json.loads(task["withParam"], parse_float=str)  # 1.50 stays 1.50
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise CannotEvaluate(
            f"withParam value could not be parsed as a JSON list: {task['withParam'].strip()}"
        )
    return [each if isinstance(each, str) else _as_json(each) for each in items]


def _in_a_name(item: str) -> str:
    """Return an item as the name of its node has it."""
    return json.dumps(item, ensure_ascii=False)[1:-1]


def _as_json(value: Any) -> str:
    """Return a value as Go writes it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _as_json_list(values: list[str]) -> str:
    """Return the outputs of a fan-out as one value; texts that are JSON lists are lists in it."""
    decoded = []
    for value in values:
        try:
            decoded.append(json.loads(value))
        except ValueError:
            return _as_json(values)
    are_nested = all(isinstance(each, (list, dict)) for each in decoded)
    return _as_json(decoded if are_nested else values)


def _merged_arguments(*specs: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the arguments by their names; those of the later spec win."""
    merged: dict[str, str | None] = {}
    for spec in specs:
        for name, value in _values(spec.get("arguments")).items():
            merged[name] = merged.get(name) if value is None else value
    return merged


def _values(arguments: Mapping[str, Any] | None) -> dict[str, str | None]:
    return {
        each["name"]: _as_text(each.get("value"))
        for each in (arguments or {}).get("parameters") or ()
    }


def _inputs(template: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in _values(template.get("inputs")).items() if value}


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _as_parameters(values: Mapping[str, str]) -> dict[str, Any]:
    parameters = [{"name": name, "value": value} for name, value in values.items()]
    return {"parameters": parameters} if parameters else {}


def _display_name(name: str, boundary: Node | None) -> str:
    """Return the last part of a node's name."""
    if boundary is None:
        return name
    own = name.removeprefix(boundary.name)
    return re.sub(r"^(\[\d+\])?\.", "", own)


def _kind(template: Mapping[str, Any]) -> str:
    return next(kind for kind in _KINDS if kind in template)


def _fnv1a(text: str) -> int:
    """Return the 32 bits of the hash that Argo makes names of pods with."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def timestamp(seconds: float) -> str | None:
    """Return a time as Kubernetes writes it, None for one that has not come."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds)) if seconds else None


def check(template: Mapping[str, Any]) -> None:
    """Reject what the rehearsal does not know in a WorkflowTemplate.

    Raises
    ------
    UnknownTemplate
        With the name of the thing.
    """
    try:
        _check_spec(template["spec"])
    except UnknownExpression as problem:
        raise UnknownTemplate(str(problem)) from problem
    except (AttributeError, KeyError, TypeError) as error:
        raise UnknownTemplate(
            f"this WorkflowTemplate, which is not one that Metaflow compiles "
            f"({type(error).__name__}: {error})"
        ) from error


def _check_spec(spec: Mapping[str, Any]) -> None:
    _only(spec, _OF_A_SPEC, "a WorkflowTemplate's spec")
    templates = {template["name"]: template for template in spec["templates"]}
    referred = [spec["entrypoint"], *filter(None, [spec.get("onExit")])]
    for name, hook in (spec.get("hooks") or {}).items():
        _only(hook, {"template", "expression"}, f"the hook {name!r}")
        if name != "exit":
            _try_expression(hook["expression"])
        referred.append(hook["template"])
    for name, template in templates.items():
        kinds = [kind for kind in _KINDS if template.get(kind) is not None]
        _only(template, {*_OF_A_TEMPLATE, *kinds}, f"the template {name!r}")
        if len(kinds) != 1:
            raise UnknownTemplate(f"the template {name!r} of {' and '.join(kinds) or 'no kind'}")
        _only(template.get("retryStrategy") or {}, _OF_A_RETRY, f"the retries of {name!r}")
        for parameter in (template.get("outputs") or {}).get("parameters") or ():
            _only(parameter["valueFrom"], _OF_A_VALUE, f"the outputs of {name!r}")
            if "expression" in parameter["valueFrom"]:
                _try_expression(parameter["valueFrom"]["expression"])
        for tag in expression.tags(template):
            if tag.startswith("="):
                _try_expression(tag[1:])
        for task in (template.get("dag") or {}).get("tasks") or ():
            _only(task, _OF_A_TASK, f"the task {task['name']!r}")
            before = expression.dependencies(_depends(task))
            if before:
                expression.depends_holds(_depends(task), dict.fromkeys(before, "Succeeded"))
            referred.append(task["template"])
            _check_arguments(task, templates)
        for step in (each for steps in template.get("steps") or () for each in steps):
            _only(step, _OF_A_STEP, f"the step {step['name']!r}")
            referred.append(step["template"])
            _check_arguments(step, templates)
    for name in referred:
        if name not in templates:
            raise UnknownTemplate(f"the template {name!r}, which is not there")


def _check_arguments(task: Mapping[str, Any], templates: Mapping[str, Any]) -> None:
    inputs = _values(templates.get(task["template"], {}).get("inputs"))
    given = _values(task.get("arguments"))
    for name, value in inputs.items():
        if value is None and name not in given:
            raise UnknownTemplate(
                f"the task {task['name']!r} without {name!r}, which {task['template']!r} asks for"
            )


def _try_expression(text: str) -> None:
    with contextlib.suppress(CannotEvaluate):  # its names are not there yet
        expression.evaluate(text, {})


def _only(mapping: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(key for key, value in mapping.items() if key not in known and value)
    if unknown:
        raise UnknownTemplate(f"{', '.join(map(repr, unknown))} in {what}")
