"""Plays the workflows of argo_workflows.json on Argo Workflows, and writes down what it did.

    python tests/record_argo_workflows.py [--namespace NAMESPACE] [WORKFLOW ...]

needs `kubectl`, and a cluster whose pods may run the image that the containers name. What differs
from one time to the next (times, uids) is replaced, so that two recordings can be compared.
"""

from __future__ import annotations

import argparse
import calendar
import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("argo_workflows.json")
START = "2026-01-01T00:00:00Z"  # when each recorded workflow began
UID = "11111111-2222-3333-4444-555555555555"
TOGETHER = 4  # how many workflows play at once
SECONDS_BETWEEN_LOOKS = 1
SECONDS_FOR_ALL = 240
WIDTH = 160  # of the file
# As a node has them; a pod is told by its message and its exit code.
KEPT = ("id", "type", "displayName", "templateName", "phase", "message")
_NODE_NAME = "workflows.argoproj.io/node-name"
# What the executor adds to a container's log, whose end becomes the node's message.
_OF_THE_EXECUTOR = re.compile(r"time=\S+ level=\w+ msg=.* argo=true.*\n|Error: exit status \d+\n")
_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(Z| \+0000 UTC)")


def seconds_of(timestamp: str) -> int:
    """Return the seconds since 1970 of a time, as Kubernetes or as Go prints it."""
    return calendar.timegm(time.strptime(timestamp[:19].replace("T", " "), "%Y-%m-%d %H:%M:%S"))


def node_as_recorded(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is compared of a node that the API gave."""
    kept = {key: node[key] for key in KEPT if node.get(key)}
    if "message" in kept:
        kept["message"] = _OF_THE_EXECUTOR.sub("", kept["message"])
    for side in ("inputs", "outputs"):
        values = {
            each["name"]: each["value"]
            for each in (node.get(side) or {}).get("parameters") or ()
            if "value" in each
        }
        if values:
            kept[side] = values
    exit_code = (node.get("outputs") or {}).get("exitCode")
    return kept if exit_code is None else {**kept, "exitCode": exit_code}


def workflow_and_template(case: Mapping[str, Any], namespace: str) -> list[dict[str, Any]]:
    """Return the objects of a case; the Workflow is one that a sensor would create."""
    metadata = {"name": case["name"], "namespace": namespace}
    arguments = [{"name": name, "value": each} for name, each in case.get("arguments", {}).items()]
    spec: dict[str, Any] = {"workflowTemplateRef": {"name": case["name"]}}
    if arguments:
        spec["arguments"] = {"parameters": arguments}
    return [
        {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": each}
        for kind, each in (("WorkflowTemplate", case["spec"]), ("Workflow", spec))
    ]


def _kubectl(*arguments: str, text: str = "") -> str:
    command = ["kubectl", *arguments]
    return subprocess.run(command, input=text, stdout=-1, check=True, encoding="utf-8").stdout


def _play(case: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """Play a workflow to its end, and return what is to be compared."""
    name = case["name"]
    own = ("--namespace", namespace)
    for kind in ("workflow", "workflowtemplate"):
        _kubectl("delete", kind, name, "--ignore-not-found", *own)
    for each in workflow_and_template(case, namespace):
        _kubectl("create", "-f", "-", text=json.dumps(each))
    acts = list(case.get("acts", ()))
    timeline: list[dict[str, Any]] = []
    deadline = time.monotonic() + SECONDS_FOR_ALL
    while True:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        item = json.loads(_kubectl("get", "workflow", name, "-o", "json", *own))
        status = item.get("status", {})
        nodes = status.get("nodes", {}).values()
        if status.get("phase") in ("Succeeded", "Failed", "Error"):
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} does not end")
        phases = {each["name"]: each["phase"] for each in nodes}
        if acts and acts[0]["when"].items() <= phases.items():
            act = acts.pop(0)
            time.sleep(act.get("seconds", 0))
            item = json.loads(_kubectl("get", "workflow", name, "-o", "json", *own))
            nodes = item["status"]["nodes"].values()
            _add_ended_pods(timeline, nodes)
            timeline.append(
                {"spec": act["spec"], "phases": {each["name"]: each["phase"] for each in nodes}}
            )
            patch = json.dumps({"spec": act["spec"]})
            _kubectl("patch", "workflow", name, "--type=merge", "-p", patch, *own)
    if acts:
        raise ValueError(f"{name} ended before {acts[0]}")
    _add_ended_pods(timeline, nodes)
    selector = f"workflows.argoproj.io/workflow={name}"
    pods = json.loads(_kubectl("get", "pods", "-l", selector, "-o", "json", *own))["items"]
    with_pods = {each["metadata"]["annotations"][_NODE_NAME] for each in pods}
    recorded = {
        "created": item["metadata"]["creationTimestamp"],
        "phase": status["phase"],
        "message": status.get("message", ""),
        "nodes": {each["name"]: node_as_recorded(each) for each in nodes},
        "timeline": [each for each in timeline if each.get("end", "") in {"", *with_pods}],
        "pods": {each["metadata"]["name"]: _pod(each) for each in pods},
    }
    for kind in ("workflow", "workflowtemplate"):
        _kubectl("delete", kind, name, *own)
    return _without_generated(recorded, item)


def _add_ended_pods(timeline: list[dict[str, Any]], nodes: Any) -> None:
    """Add the pods that have ended since, in their order."""
    known = {each.get("end") for each in timeline}
    ended = [
        {"end": each["name"], "at": each["finishedAt"]}
        for each in nodes
        if each["type"] == "Pod" and each.get("finishedAt") and each["name"] not in known
    ]
    timeline += sorted(ended, key=lambda each: (each["at"], each["end"]))


def _pod(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a pod's main container was told to do."""
    main = next(each for each in pod["spec"]["containers"] if each["name"] == "main")
    words = [*main.get("command", ()), *main.get("args", ())]
    recorded: dict[str, Any] = {"command": words[words.index("--") + 1 :]}
    if seconds := pod["spec"].get("activeDeadlineSeconds"):
        recorded["activeDeadlineSeconds"] = seconds
    return recorded


def _without_generated(recorded: dict[str, Any], item: Mapping[str, Any]) -> dict[str, Any]:
    shift = seconds_of(START) - seconds_of(item["status"]["startedAt"])

    def shifted(match: re.Match[str]) -> str:
        moved = time.gmtime(seconds_of(match[0]) + shift)
        return time.strftime(f"%Y-%m-%d{match[1]}%H:%M:%S", moved) + match[2]

    text = json.dumps(recorded).replace(item["metadata"]["uid"], UID)
    result: dict[str, Any] = json.loads(_TIME.sub(shifted, text))
    return result


def _as_lines(value: Any, indent: str = "") -> str:
    """Return a value as JSON, what fits on a line on one."""
    text = json.dumps(value, ensure_ascii=False)
    if len(indent + text) <= WIDTH or not value or not isinstance(value, (dict, list)):
        return text
    own = indent + " "
    if isinstance(value, list):
        lines = [own + _as_lines(each, own) for each in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    lines = [f"{own}{json.dumps(key)}: {_as_lines(each, own)}" for key, each in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


def main(arguments: list[str]) -> None:
    """Play the workflows that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--argo", default="v4.0.5", help="the version, for the file")
    parser.add_argument("workflows", nargs="*")
    options = parser.parse_args(arguments)
    file = json.loads(FILE.read_text())
    cases = [
        each
        for each in file["workflows"]
        if each["name"] in options.workflows or not options.workflows
    ]
    with ThreadPoolExecutor(TOGETHER) as pool:
        playing = [(case, pool.submit(_play, case, options.namespace)) for case in cases]
        for case, future in playing:
            try:
                case["recorded"] = future.result()
                print(case["name"], case["recorded"]["phase"], case["recorded"]["message"])
            except (TimeoutError, ValueError, subprocess.CalledProcessError) as problem:
                print(case["name"], "NOT RECORDED:", problem)
    file["recorded"] = {
        "argoWorkflows": options.argo,
        "kubernetes": json.loads(_kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    FILE.write_text(_as_lines(file) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
