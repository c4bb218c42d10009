"""The run: a Workflow, run as its pod would run it.

The command comes out of the deployed WorkflowTemplate. A pod unpacks the code
package, sets the parameters and runs `init` and one `step`; here `run` takes the place
of those two, and everything else is left as Metaflow compiled it.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .cluster import PUBLISHER_HEADER

_UNPACK = re.compile(r"exit 1; fi && (?P<unpack>.*?) && mflog 'Task is starting\.'", re.DOTALL)
_PARAMETERS = re.compile(
    r"(?P<set>python -m metaflow\.plugins\.argo\.set_parameters (?P<file>\w+) \S.*?)"
    r" && (?P<export>\. `pwd`/(?P=file))",
    re.DOTALL,
)
_INIT = re.compile(
    r"2>/dev/null; then (?P<options>python .*?) init (?P<arguments>.*?); fi && ", re.DOTALL
)
_TASK = re.compile(r"--run-id \S+ --task-id \S+")

# What a pod says about its cluster; a rehearsed run has its own.
_OPTIONS_OF_A_POD = (
    "--quiet",
    "--metadata=",
    "--environment=",
    "--datastore=",
    "--datastore-root=",
    "--with=kubernetes",
)
_OPTIONS_OF_A_RUN = (
    "--metadata=local",
    "--datastore=local",
    "--environment=local",
    "--with=rehearsal_pod.inside_pod",
)
# Of a task, not of a run. METAFLOW_RUN_ID is also how a parameter "id" is set.
_VARIABLES_OF_A_TASK = (
    "METAFLOW_RUN_ID",
    "METAFLOW_STEP_NAME",
    "METAFLOW_TASK_ID",
    "METAFLOW_RETRY_COUNT",
)
SECONDS_TO_STOP = 3


# What a pod has unless the user says otherwise.
_DEFAULT_IMAGE = re.compile(r"python:3\.\d+")
_DEFAULT_LIMITS = ("cpu", "memory")
_ENVIRONMENT = re.compile(r" --environment=(\S+)")
_LOCAL_ENVIRONMENTS = ("local", "default")


class UnknownTemplate(Exception):
    """A WorkflowTemplate that was not compiled as this rehearsal knows it."""


@dataclass(eq=False)  # each is itself; and one that never started has no process
class Run:
    """A Workflow's run and how it ended."""

    workflow: dict[str, Any]
    template: dict[str, Any]
    folder: Path
    log: Path  # the file with what it prints
    # The deployments whose events led to this run, itself included, and how often each did.
    lineage: Counter[str] = field(default_factory=Counter)
    problem: str = ""  # why it did not succeed, where it is not for itself to say
    process: subprocess.Popen[bytes] = field(init=False)
    is_running: bool = False
    seconds: float = 0

    @property
    def name(self) -> str:
        """The Workflow's name."""
        return str(self.workflow["metadata"]["name"])

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
        """Pending, Running, Succeeded, Failed or Error, as Argo has them."""
        return str(self.workflow["status"]["phase"])

    @phase.setter
    def phase(self, phase: str) -> None:
        finished = phase not in ("Pending", "Running")
        self.workflow["status"] = {
            "phase": phase,
            "finishedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()) if finished else None,
        }

    def start(self, packages: Mapping[str, bytes], environment: Mapping[str, str]) -> None:
        """Unpack the code package and start the flow.

        Raises
        ------
        UnknownTemplate
            Where Metaflow compiled the template in a way that is not known here.
        """
        container = self._container()
        variables = {**environment, **self._variables(container)}
        script = self._script(container["command"][-1])

        home = self.folder / "pod"
        out = self.folder / "out"
        for folder in (home, out):
            folder.mkdir(parents=True)
        # Copied, not imported: this process must not load Metaflow and its settings.
        shutil.copy(Path(__file__).with_name("pod.py"), self.folder / "rehearsal_pod.py")
        location = urlsplit(variables["METAFLOW_CODE_URL"])
        (home / "job.tar").write_bytes(packages[f"/{location.netloc}{location.path}"])

        variables["PYTHONPATH"] = os.fspath(self.folder)
        variables["REHEARSAL_MNT_OUT"] = os.fspath(out)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=home,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.is_running = True
        self.phase = "Running"

    def wait(self) -> int:
        """Wait for the end of the run, end what it has left behind, and return its status."""
        status = self.process.wait()
        end_groups([self.process])
        self.is_running = False
        return status

    def _container(self) -> dict[str, Any]:
        """Return the container of the flow's first step, which sets the parameters."""
        for template in self.template["spec"]["templates"]:
            container: dict[str, Any] = template.get("container") or {}
            if " init --run-id " in (container.get("command") or [""])[-1]:
                return container
        raise UnknownTemplate(f"{self.deployment} has no step that this rehearsal can start")

    def _variables(self, container: Mapping[str, Any]) -> dict[str, str]:
        variables = {
            each["name"]: self._substitute(str(each["value"]))
            for each in container["env"]
            if each.get("value") is not None and each["name"] not in _VARIABLES_OF_A_TASK
        }
        headers = json.loads(variables["METAFLOW_SERVICE_HEADERS"])
        headers[PUBLISHER_HEADER] = self.name
        variables["METAFLOW_SERVICE_HEADERS"] = json.dumps(headers)
        return variables

    def _script(self, pod_script: str) -> str:
        """Return the script of the pod, with `run` in the place of `init` and `step`."""
        unpack, init = _UNPACK.search(pod_script), _INIT.search(pod_script)
        if not unpack or not init:
            raise UnknownTemplate(f"{self.deployment} has a script that is not known here")
        options = shlex.split(init["options"].replace("--with ", "--with="))
        kept = [option for option in options if not option.startswith(_OPTIONS_OF_A_POD)]
        arguments = _TASK.sub("", init["arguments"])
        commands = [f'python() {{ {shlex.quote(sys.executable)} "$@"; }}', unpack["unpack"]]
        if parameters := _PARAMETERS.search(pod_script):
            rename = r"sed -i.init 's/^export METAFLOW_INIT_/export METAFLOW_RUN_/'"
            commands += [
                parameters["set"],
                f"{rename} {parameters['file']}",
                parameters["export"],
            ]
        commands.append(f"{shlex.join([*kept, *_OPTIONS_OF_A_RUN])} run {arguments}")
        return self._substitute(" && ".join(commands))

    def _substitute(self, text: str) -> str:
        """Replace what Argo replaces in a template: `{{workflow.name}}` and its kin."""
        given = {
            each["name"]: each.get("value")
            for source in (self.template, self.workflow)
            for each in source["spec"].get("arguments", {}).get("parameters") or ()
        }
        plain = {f"workflow.parameters.{name}": value for name, value in given.items()}
        plain["workflow.name"] = self.name
        encoded = {
            f"=toBase64(workflow.parameters['{name}'])": base64.b64encode(
                (value or "").encode()
            ).decode()
            for name, value in given.items()
        }
        known = {**plain, **encoded}
        return re.sub(r"\{\{(.*?)\}\}", lambda found: known.get(found[1], found[0]) or "", text)


def not_acted_out(template: Mapping[str, Any]) -> Iterator[str]:
    """Name what a WorkflowTemplate asks of a cluster that a run on this machine leaves out."""
    spec = template["spec"]
    if cron := spec.get("workflowMetadata", {}).get("annotations", {}).get("metaflow/cron"):
        yield f"the schedule {json.loads(cron)['schedule']!r}"
    for hook in spec.get("hooks") or ():
        yield f"the hook {hook!r}"
    for step in spec["templates"]:
        container = step.get("container") or {}
        command = (container.get("command") or [""])[-1]
        if " step " not in command:  # Metaflow's own: a heartbeat, the capture of errors
            continue
        name = step["name"]
        if not _DEFAULT_IMAGE.fullmatch(container["image"]):
            yield f"the image {container['image']!r} of {name}"
        for source in container.get("envFrom") or ():
            yield f"the secret {source['secretRef']['name']!r} of {name}"
        for limit in (container.get("resources") or {}).get("limits") or ():
            if limit not in _DEFAULT_LIMITS:
                yield f"the resource {limit!r} of {name}"
        environment = _ENVIRONMENT.search(command)
        if environment and environment[1] not in _LOCAL_ENVIRONMENTS:
            yield f"the environment {environment[1]!r} of {name}"


def end_groups(leaders: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes and all that they started, by force where they do not end."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    left = [leader for leader in leaders if _signal_group(leader, signal.SIGTERM)]
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [leader for leader in left if _signal_group(leader, 0)]
    for leader in left:
        _signal_group(leader, signal.SIGKILL)


def _signal_group(leader: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a process and its group; return whether anything is left of them."""
    leader.poll()
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    return True
