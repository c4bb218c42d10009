"""What the rehearsal does with a WorkflowTemplate is what Argo Workflows v4.0.5 does.

argo_workflows.json has workflows and what a running Argo Workflows made of them, written down by
record_argo_workflows.py. Here they play again; a pod ends as the recorded one did.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from record_argo_workflows import FILE, START, UID, node_as_recorded, seconds_of
from record_argo_workflows import workflow_and_template as objects_of

from rehearsal import expression
from rehearsal.workflow import Ended, Pod, UnknownTemplate, Workflow, check

ALL = json.loads(FILE.read_text())["workflows"]
# Argo Workflows finds these before anything runs, the rehearsal when they are deployed.
REJECTED = {
    each["name"]: each
    for each in ALL
    if each["recorded"]["message"].startswith("invalid spec: templates")
}
CASES = {each["name"]: each for each in ALL if each["name"] not in REJECTED}
# What the rehearsal does otherwise: what was recorded, and what it has there.
DIFFERENCES = {
    # v4.0.5 (recorded 2026-11-25) has nothing for the outputs of a task that did not run; older
    # ones leave the tag, which Metaflow's scripts cut out of their input paths.
    "switch": {
        "t-1,c/": "t-1,c/{{tasks.c.outputs.parameters.task-id}}",
        "YXJnby1zd2l0Y2gvOmEvdC0xLGMv": "YXJnby1zd2l0Y2gvOmEvdC0xLGMve3t0YXNrcy5j"
        "Lm91dHB1dHMucGFyYW1ldGVycy50YXNrLWlkfX0=",
    },
    # What Go says of what is no JSON.
    "foreach-of-no-list": {": invalid character 'w' looking for beginning of value": ""},
}
# After a shutdown v4.0.5 leaves these Running in a workflow that has ended; here they end.
LEFT_RUNNING = ("Retry", "TaskGroup")
# A pod that a shutdown has ended gets the first message; the second where Argo looks later.
KILLED = re.compile(r"workflow shutdown with strategy:  \w+$|main: Error \(exit code 143\)$")
# `workflow.failures` in a command.
FAILURES = re.compile(r'"\[\{.*\}\]"')
DEADLINE_EXCEEDED = "Pod was active on the node longer than the specified deadline"
# Until everything that can go on has gone on; what the deepest of the cases needs is a fifth.
ROUNDS_OF_THE_LOOP = 100


async def settle() -> None:
    for _ in range(ROUNDS_OF_THE_LOOP):
        await asyncio.sleep(0)


class Played:
    """A recorded workflow that plays again; its time is that of the recording."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.recorded = case["recorded"]
        self.now = float(seconds_of(START))
        self.pods: dict[str, dict[str, Any]] = {}
        self.running = 0
        self.most_running = 0
        self.timeline = list(self.recorded["timeline"])
        self.turn = asyncio.Condition()
        template, item = objects_of(case, "default")
        item["metadata"] = {
            **item["metadata"],
            "uid": UID,
            "creationTimestamp": self.recorded["created"],
        }
        check(template)
        self.workflow = Workflow(item, template, self.run_pod, lambda: self.now)

    async def play(self) -> None:
        running = asyncio.ensure_future(self.workflow.run())
        acting = asyncio.ensure_future(self.act())
        await asyncio.wait_for(running, 5)
        await asyncio.wait_for(acting, 5)

    async def act(self) -> None:
        """Suspend it, resume it and shut it down when that was done to the recorded one."""
        for act in [each for each in self.timeline if "spec" in each]:
            await self.wait_for(act)
            phases = {each.name: each.phase for each in self.workflow.nodes}
            # What waits for a slot is there already, as Pending; on Argo Workflows it is not.
            assert {name: each for name, each in phases.items() if each != "Pending"} == (
                act["phases"]
            )
            if "suspend" in act["spec"]:
                self.workflow.suspend(act["spec"]["suspend"])
            else:
                self.workflow.shut_down(act["spec"]["shutdown"])
            await self.next()

    async def wait_for(self, event: Mapping[str, Any]) -> None:
        """Wait until everything before it has happened, and has had its consequences."""
        async with self.turn:
            await self.turn.wait_for(lambda: self.timeline and self.timeline[0] == event)
        await settle()

    async def next(self) -> None:
        async with self.turn:
            del self.timeline[0]
            self.turn.notify_all()

    async def run_pod(self, pod: Pod, stop: asyncio.Event) -> Ended:
        container = pod.template["container"]
        self.pods[pod.name] = {"command": container["command"]}
        if pod.seconds is not None:
            self.pods[pod.name]["activeDeadlineSeconds"] = int(pod.seconds)
            deadline = self.now + pod.seconds
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        end = next(each for each in self.timeline if each.get("end") == pod.node.name)
        await self.wait_for(end)
        self.running -= 1
        self.now = float(seconds_of(end["at"]))
        ended = self.end_of(pod, stop)
        if ended.reason:  # here a second is a whole one
            self.now = max(self.now, deadline)
        await self.next()
        return ended

    def end_of(self, pod: Pod, stop: asyncio.Event) -> Ended:
        recorded = self.recorded["nodes"][pod.node.name]
        message = recorded.get("message", "")
        assert stop.is_set() == bool(KILLED.match(message))
        outputs = recorded.get("outputs", {})
        return Ended(
            exit_code=int(recorded.get("exitCode", 143 if stop.is_set() else 0)),
            last_lines=message.partition("): ")[2] if message.startswith("main: ") else "",
            reason=DEADLINE_EXCEEDED if message == DEADLINE_EXCEEDED else "",
            files={
                each["valueFrom"]["path"]: outputs[each["name"]]
                for each in (pod.template.get("outputs") or {}).get("parameters") or ()
                if each["name"] in outputs
            },
        )

    def result(self) -> dict[str, Any]:
        status = self.workflow.status()
        return {
            "phase": status["phase"],
            "message": status.get("message", ""),
            "nodes": {each["name"]: node_as_recorded(each) for each in status["nodes"].values()},
            "pods": self.pods,
        }


def comparable(result: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    """Return a result without what is not the same each time on Argo Workflows either."""
    shutdown = any("shutdown" in act["spec"] for act in case.get("acts", ()))
    deadline = case["spec"].get("activeDeadlineSeconds")

    def failures(match: re.Match[str]) -> str:
        """Return `workflow.failures` in an order, which Argo does not have, without times."""
        listed = [{**each, "finishedAt": ""} for each in json.loads(json.loads(match[0]))]
        if shutdown:
            listed = [each for each in listed if KILLED.match(each["message"])]
        return json.dumps(sorted(listed, key=lambda each: str(each["displayName"])))

    nodes = {}
    for name, node in result["nodes"].items():
        if shutdown and node["phase"] == "Failed" and KILLED.match(node.get("message", "")):
            node = {**node, "message": "killed", "exitCode": "143"}
        if shutdown and node["type"] in LEFT_RUNNING:
            node = {key: node[key] for key in ("id", "type", "templateName")}
        nodes[name] = node
    pods = {}
    for name, pod in result["pods"].items():
        pods[name] = {**pod, "command": [FAILURES.sub(failures, each) for each in pod["command"]]}
        if deadline and (seconds := pod.get("activeDeadlineSeconds")):
            assert deadline - 2 <= seconds <= deadline
            pods[name]["activeDeadlineSeconds"] = deadline
    return {"phase": result["phase"], "message": result["message"], "nodes": nodes, "pods": pods}


def as_recorded(case: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was recorded, with the differences that have a name."""
    text = json.dumps(case["recorded"], ensure_ascii=False)
    for argo, own in DIFFERENCES.get(case["name"], {}).items():
        assert argo in text, f"{case['name']} has no {argo!r} any more"
        text = text.replace(argo, own)
    recorded: dict[str, Any] = json.loads(text)
    return recorded


@pytest.mark.parametrize("name", CASES)
def test_a_workflow_does_what_it_did_on_argo_workflows(name: str) -> None:
    async def play() -> Played:
        played = Played(CASES[name])
        await played.play()
        return played

    played = asyncio.run(play())
    case = CASES[name]
    assert comparable(played.result(), case) == comparable(as_recorded(case), case)
    assert not played.timeline
    limit = case["spec"].get("parallelism")
    assert limit is None or played.most_running <= limit


# What a template may have, and what it may not.


def a_template(**changes: Any) -> dict[str, Any]:
    """Return a small WorkflowTemplate, of one task, with these changes of its spec."""
    container = {"image": "python:3.11", "command": ["sh", "-c", "true"]}
    spec = {
        "entrypoint": "main",
        "templates": [
            {"name": "main", "dag": {"tasks": [{"name": "a", "template": "ok"}]}},
            {"name": "ok", "container": container},
        ],
    }
    return {"metadata": {"name": "small"}, "spec": {**spec, **changes}}


def with_task(**task: Any) -> dict[str, Any]:
    template = a_template()
    template["spec"]["templates"][0]["dag"]["tasks"].append({"name": "b", "template": "ok", **task})
    return template


def with_the_pod(**changes: Any) -> dict[str, Any]:
    template = a_template()
    template["spec"]["templates"][1].update(changes)
    return template


def an_output(**source: str) -> dict[str, Any]:
    return {"parameters": [{"name": "x", "valueFrom": source}]}


def test_what_metaflow_compiles_is_accepted() -> None:
    check(a_template())
    check(with_task(depends="a.Succeeded", withParam="[1]"))


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (a_template(suspend=True), "'suspend' in a WorkflowTemplate's spec"),
        (a_template(entrypoint="other"), "the template 'other', which is not there"),
        (a_template(onExit="other"), "the template 'other', which is not there"),
        (
            a_template(hooks={"h": {"template": "ok", "arguments": {"parameters": [1]}}}),
            "'arguments' in the hook 'h'",
        ),
        (
            a_template(hooks={"h": {"template": "ok", "expression": "sprig.now()"}}),
            "the function 'sprig.now'",
        ),
        (a_template(templates=None), "which is not one that Metaflow compiles"),
        (with_task(withItems=[1]), "'withItems' in the task 'b'"),
        (with_task(template="other"), "the template 'other', which is not there"),
        (with_task(depends="a.AnySucceeded"), "'AnySucceeded' in depends"),
        (with_task(depends="a.Succeeded + 1"), "the expression 'a.Succeeded + 1'"),
        (with_the_pod(script={"source": "x"}), "'script' in the template 'ok'"),
        (with_the_pod(steps=[[{"name": "s", "template": "ok"}]]), "of steps and container"),
        (with_the_pod(container=None), "of no kind"),
        (with_the_pod(retryStrategy={"expression": "true"}), "'expression' in the retries of 'ok'"),
        (with_the_pod(outputs=an_output(event="x")), "'event' in the outputs of 'ok'"),
        (with_the_pod(outputs=an_output(expression="len(x)")), "the function 'len'"),
        (with_the_pod(metadata={"labels": {"x": "{{=uuid()}}"}}), "the function 'uuid'"),
    ],
)
def test_what_metaflow_does_not_compile_is_rejected_by_name(
    template: dict[str, Any], named: str
) -> None:
    with pytest.raises(UnknownTemplate) as raised:
        check(template)
    assert named in str(raised.value)


# The expressions that Metaflow compiles.

NAMES = {
    "workflow.status": "Failed",
    "workflow.parameters.alpha": '"é"',
    "inputs.parameters.num-parallel": "3",
    "inputs.parameters.workerCount": "2",
    "tasks.s.status": "Succeeded",
    "tasks.s.outputs.parameters.switch-step": "a",
    "tasks.s.outputs.parameters.task-id": "t-s",
    "tasks.off.status": "Skipped",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("toBase64(workflow.parameters['alpha'])", "IsOpIg=="),
        ("sprig.int(sprig.sub(sprig.int(inputs.parameters['num-parallel']),1))", 2),
        ("asInt(inputs.parameters.workerCount)", 2),
        ("workflow.status == 'Failed' || workflow.status == 'Error'", True),
        ("workflow.status == 'Succeeded'", False),
        (
            "(tasks['s'].status == 'Succeeded' "
            "? tasks['s'].outputs.parameters['switch-step'] : nil) == 'a'",
            True,
        ),
        (
            "(tasks['off'].status == 'Succeeded' "
            "? tasks['off'].outputs.parameters['switch-step'] : nil) == 'a'",
            False,
        ),
        ("get((tasks['off']?.outputs ?? tasks['s']?.outputs)?.parameters, 'task-id')", "t-s"),
        ("(tasks['never']?.outputs ?? tasks['s']?.outputs).parameters['task-id']", "t-s"),
        ("get((tasks['never']?.outputs)?.parameters, 'task-id')", None),
        ("!(true && false)", True),
    ],
)
def test_an_expression_that_metaflow_compiles_has_its_value(text: str, value: Any) -> None:
    assert expression.evaluate(text, NAMES) == value


def test_an_expression_about_what_is_not_there_cannot_be_evaluated() -> None:
    for text in ("tasks['never'].outputs.x", "toBase64(tasks.never)", "asInt(workflow.status)"):
        with pytest.raises(expression.CannotEvaluate):
            expression.evaluate(text, NAMES)


def test_a_tag_that_is_not_known_stays_unless_it_must_be() -> None:
    text = "{{tasks.s.status}} {{tasks.never.status}} {{=tasks['never'].status}} {{item}}"
    assert expression.replace(text, NAMES).startswith("Succeeded {{tasks.never.status}} {{=")
    with pytest.raises(expression.CannotEvaluate, match="failed to resolve"):
        expression.replace(text, NAMES, ("tasks",))


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ("a==a", True),
        ("a==b", False),
        ("Succeeded != Succeeded", False),
        ("(false)||(true)", True),
        ("(Skipped==Succeeded) || ((false))", False),
        ("(Succeeded==Succeeded)||(Skipped==Succeeded)", True),
    ],
)
def test_a_when_compares_words(when: str, holds: bool) -> None:
    assert expression.is_true(when) is holds


@pytest.mark.parametrize(
    ("depends", "holds"),
    [
        ("a.Succeeded", True),
        ("a.Succeeded && b-2.Succeeded", False),
        ("a.Succeeded || b-2.Succeeded", True),
        ("(a.Succeeded) && (b-2.Succeeded || c_3.Succeeded)", False),
        ("(((a.Succeeded) || (b-2.Succeeded)))&&((a.Succeeded))", True),
        ("b-2.Failed || c_3.Omitted", True),
        ("!a.Succeeded", False),
    ],
)
def test_a_depends_asks_for_the_results_of_tasks(depends: str, holds: bool) -> None:
    phases = {"a": "Succeeded", "b-2": "Failed", "c_3": "Skipped"}
    assert expression.depends_holds(depends, phases) is holds


@pytest.mark.parametrize("name", REJECTED)
def test_what_argo_workflows_does_not_begin_is_rejected(name: str) -> None:
    template, _ = objects_of(REJECTED[name], "default")
    with pytest.raises(UnknownTemplate, match="the task 'a' without 'x', which 'one' asks for"):
        check(template)
