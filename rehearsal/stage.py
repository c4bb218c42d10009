"""The stage: brings the command, the cluster and the runs together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from . import inpod, jobset
from .cluster import NAMESPACE, Cluster, Faults, Observer, Publication
from .display import Display
from .forkserver import fork_server
from .pod import Pods
from .report import Report
from .run import Run
from .secret import Secrets
from .sensor import Sensor
from .server import BUCKET, REGION, WEBHOOK_PATH, Server
from .workflow import Ended, Pod, Workflow

# Variables that say how Metaflow and its clients reach the user's own systems.
_PREFIXES_LEFT_OUT = (
    *("METAFLOW_", "AWS_", "ARGO_", "KUBE"),
    # kubernetes 35 sends every request to the proxy, whatever no_proxy says.
    *("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
)
_KEPT = ("METAFLOW_USER",)
# What deploying imports.
PRELOADED = ("metaflow", "kubernetes", "boto3.s3.transfer", "rehearsal.models")
SECONDS_TO_STOP = 3


class CannotRun(Exception):
    """A command that cannot be run, with the exit status that a shell has for it."""

    def __init__(self, command: str, error: OSError) -> None:
        advice = f". Write what runs it: python {command}" if os.path.isfile(command) else ""
        super().__init__(f"{command!r} cannot be run: {error.strerror}{advice}")
        self.status = 127 if isinstance(error, FileNotFoundError) else 126


class TimedOut(Exception):
    """A rehearsal that took longer than it may."""


class Stage(Observer):
    """A rehearsal: runs a command against a cluster, and what it starts.

    Parameters
    ----------
    folder : Path
        For what is gone after the rehearsal.
    logs : Path
        For what the runs print.
    display : Display
        Where it says what happens.
    faults : Faults
        What goes wrong on purpose.
    seconds : float, optional
        How long the rehearsal may take.
    cycle : int
        How often a deployment may start itself again by the events that it causes.
    secrets : mapping, optional
        What the pods may ask for.
    """

    def __init__(
        self,
        folder: Path,
        logs: Path,
        display: Display,
        faults: Faults,
        seconds: float | None = None,
        cycle: int = 10,
        secrets: Secrets | None = None,
    ) -> None:
        self.folder = folder
        self.logs = logs
        self.display = display
        self.seconds = seconds
        self.cycle = cycle
        self.secrets = secrets or {}
        self.cluster = Cluster(self, faults)
        self.server = Server(self.cluster)
        self.server.keep(self.secrets)
        self.runs: dict[str, Run] = {}
        self.refusals: list[str] = []
        self._unfinished = 0  # how many runs
        self._stopping = False
        self._changed = threading.Condition()
        self.environment = _environment(folder, self.server.url, self.cluster.token)
        self.pods = Pods(
            folder / "pods",
            _environment_of_pods(self.environment),
            self.server.read,
            self.secrets,
        )

    def rehearse(self, command: Sequence[str]) -> int:
        """Run the command and wait for all that it starts; return its exit status.

        Raises
        ------
        CannotRun
            If the command is not there, or is no command.
        TimedOut
            If something has not ended in time. All of it is stopped by then.
        """
        deadline = None if self.seconds is None else time.monotonic() + self.seconds
        self._loop = asyncio.new_event_loop()
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        process: subprocess.Popen[bytes] | None = None
        python = fork_server(self.folder / "python", self.environment, PRELOADED)
        with self.server.serve(), self.display.updates(), self.pods, python:
            try:
                try:
                    process = self.display.start(command, self.environment)
                except OSError as error:
                    raise CannotRun(command[0], error) from error
                status = process.wait(_left(deadline))
                self.display.show_the_rest()
                with self._changed:
                    if not self._changed.wait_for(lambda: self._unfinished == 0, _left(deadline)):
                        raise TimedOut("not all runs have ended")
                return status if status >= 0 else 128 - status  # as a shell has it
            except subprocess.TimeoutExpired:
                raise TimedOut(f"{command[0]!r} has not ended") from None
            finally:
                with self._changed:
                    self._stopping = True
                    for run in self.runs.values():
                        run.stopped = run.stopped or run.phase in ("Pending", "Running")
                if process:
                    end_group(process)
                self.pods.kill()
                asyncio.run_coroutine_threadsafe(_cancel_the_rest(), self._loop).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join()
                self._loop.close()

    def clear(self) -> None:
        """Forget what was deployed, published and stored."""
        self.cluster.clear()
        self.server.clear()

    def report(self) -> Report:
        """Return what has happened."""
        return Report(
            self.cluster.publications,
            list(self.runs.values()),
            list(self.cluster.sensors),
            self.cluster.objects.list_all(None, "workflowtemplates"),
            self.refusals,
            self.secrets,
        )

    def deployed(self, template: Mapping[str, Any], sensor: Sensor | None) -> None:
        """Say what was deployed."""
        if sensor is None:
            self.expect(template)
            self.display.say("deployed", template["metadata"]["name"])
        else:
            events = " and ".join(sensor.event_names)
            what = "listens" if sensor.subscribes else "dead"
            self.display.say(what, f"{sensor.deployment} to {events}")

    def published(self, publication: Publication) -> None:
        """Say which event was published."""
        publisher = publication.publisher or "the command"
        self.display.say("published", f"{publication.event.name} by {publisher}")

    def settled(self, publication: Publication) -> None:
        """Say which sensors have lost an event, and why."""
        for sensor, reason in publication.lost.items():
            self.display.say("lost", f"{publication.event.name} for {sensor}: {reason}")

    def refused(self, event: str, publisher: str | None, reason: str) -> None:
        """Say which event the webhook did not take, and why."""
        self.refusals.append(f"{event} by {publisher or 'the command'}: {reason}")
        self.display.say("refused", self.refusals[-1])

    def created(self, item: dict[str, Any], publications: list[Publication]) -> None:
        """Run a Workflow, unless it goes round in circles."""
        template = self.cluster.objects.get(
            item["metadata"]["namespace"],
            "workflowtemplates",
            item["spec"]["workflowTemplateRef"]["name"],
        )
        with self._changed:
            if self._stopping:
                return
            flow = template["metadata"]["annotations"].get("metaflow/flow_name", "flow")
            folder = self.logs / f"{flow}-{item['metadata']['name']}"
            run = Run(Workflow(item, template, self._run_pod), template, folder)
            for publication in publications:
                if publication.publisher in self.runs:
                    run.lineage |= self.runs[publication.publisher].lineage
            run.lineage[run.deployment] += 1
            self.runs[run.name] = run
            if run.lineage[run.deployment] > self.cycle:
                run.stopped = True
                run.problem = (
                    f"{run.deployment} has started itself {self.cycle} times by the events that it "
                    "causes (--cycle)"
                )
                self.display.say("stopped", f"{run.name}: {run.problem}")
                return
        if publications:
            names = " and ".join(str(each.event.name) for each in publications)
            self.display.say("started", f"{run.name} by {names}")
        else:
            self.display.say("triggered", run.name)
        self.start(run)

    def expect(self, template: Mapping[str, Any]) -> None:
        """Prepare for the pods of a WorkflowTemplate."""
        self.pods.expect(template)

    def start(self, run: Run) -> None:
        """Let a Workflow run."""
        with self._changed:
            self._unfinished += 1
        self.display.add(run)
        running = asyncio.run_coroutine_threadsafe(self._run(run), self._loop)
        running.add_done_callback(self._ended)

    def changed(self, item: dict[str, Any]) -> None:
        """Suspend, resume or end a Workflow, as its spec says now."""
        workflow = self.runs[item["metadata"]["name"]].workflow
        workflow.item = item
        if strategy := item["spec"].get("shutdown"):
            self._loop.call_soon_threadsafe(workflow.shut_down, strategy)
        is_suspended = bool(item["spec"].get("suspend"))
        self._loop.call_soon_threadsafe(workflow.suspend, is_suspended)

    def status(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the `status` of a Workflow as it is now."""
        return self.runs[item["metadata"]["name"]].workflow.status()

    async def _run_pod(self, pod: Pod, stop: asyncio.Event) -> Ended:
        if "resource" in pod.template:
            gang = jobset.pods(pod)
            async with self.pods.cores.core(len(gang)):
                return await jobset.run(pod, gang, stop, self._run_pod)
        run = self.runs[pod.workflow]
        log = run.log_of(pod)
        token = self.cluster.token_of(run.name)
        variables = {
            inpod.OWN_SETTING: json.dumps({"Authorization": f"Bearer {token}"}),
            "AWS_ACCESS_KEY_ID": token,
            "AWS_SECRET_ACCESS_KEY": token,
        }
        ended = await self.pods.run(pod, stop, variables, log)
        is_ended_by_its_gang = pod.role and stop.is_set()
        if ended.exit_code and not self._stopping and not is_ended_by_its_gang:
            self.display.show_failure(pod, ended, log)
        return ended

    async def _run(self, run: Run) -> None:
        started = time.monotonic()
        try:
            await run.workflow.run()
        except Exception as error:  # whatever it is, the others go on
            run.problem = f"{type(error).__name__}: {error}"
            run.workflow.end("Error", run.problem)
            self.display.say("error", f"{run.name}: {run.problem}")
        run.seconds = time.monotonic() - started
        self.display.remove(run)
        if not self._stopping:
            self.display.say(run.phase.lower(), f"{run.name} after {run.seconds:.1f} s")

    def _ended(self, _run: Future[None]) -> None:
        with self._changed:
            self._unfinished -= 1
            self._changed.notify_all()


async def _cancel_the_rest() -> None:
    """End what is left to do: it would start pods again, and complain at exit."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for each in tasks:
        each.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=SECONDS_TO_STOP)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0, deadline - time.monotonic())


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, by force if they do not end."""
    deadline = time.monotonic() + SECONDS_TO_STOP
    is_there = _signal_group(leader, signal.SIGTERM)
    while is_there:
        time.sleep(0.02)
        is_there = _signal_group(leader, signal.SIGKILL if time.monotonic() > deadline else 0)


def _signal_group(leader: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to a process and its group; return whether anything is left of them."""
    leader.poll()
    try:
        os.killpg(leader.pid, number)
    except ProcessLookupError:
        return False
    return True


def _environment_of_pods(environment: Mapping[str, str]) -> dict[str, str]:
    """Return how a pod reaches the cluster; everything else comes from its container."""
    names = (
        *("KUBECONFIG", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"),
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "METAFLOW_DATASTORE_SYSROOT_LOCAL"),
    )
    return {name: environment[name] for name in names}


def _environment(folder: Path, url: str, token: str) -> dict[str, str]:
    """Return the environment in which Metaflow takes the stand-in for its cluster."""
    home, temporary, kubeconfig = folder / "metaflow", folder / "tmp", folder / "kubeconfig.json"
    home.mkdir()
    temporary.mkdir()
    kubeconfig.write_text(json.dumps(_kubeconfig(url, token)))
    programs = (os.fspath(folder / "python"), os.path.dirname(sys.executable))
    own = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not name.startswith(_PREFIXES_LEFT_OUT)
    }
    return {
        "METAFLOW_USER": _user(own),
        **own,
        "PATH": os.pathsep.join(filter(None, (*programs, own.get("PATH")))),
        "TMPDIR": os.fspath(temporary),
        **{
            name: ",".join(filter(None, (own.get(name), "127.0.0.1")))
            for name in ("NO_PROXY", "no_proxy")
        },
        "KUBECONFIG": os.fspath(kubeconfig),
        "AWS_ACCESS_KEY_ID": token,
        "AWS_SECRET_ACCESS_KEY": token,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": url,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "METAFLOW_HOME": os.fspath(home),
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": os.fspath(home),
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{BUCKET}/metaflow",
        "METAFLOW_S3_ENDPOINT_URL": url,
        "METAFLOW_DEFAULT_SECRETS_BACKEND_TYPE": "aws-secrets-manager",
        "METAFLOW_KUBERNETES_NAMESPACE": NAMESPACE,
        "METAFLOW_ARGO_EVENTS_EVENT": "metaflow-event",
        "METAFLOW_ARGO_EVENTS_EVENT_BUS": "default",
        "METAFLOW_ARGO_EVENTS_EVENT_SOURCE": "argo-events-webhook",
        "METAFLOW_ARGO_EVENTS_SERVICE_ACCOUNT": "operate-workflow-sa",
        "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": url + WEBHOOK_PATH,
        "METAFLOW_ARGO_EVENTS_WEBHOOK_AUTH": "service",
        "METAFLOW_SERVICE_HEADERS": json.dumps({"Authorization": f"Bearer {token}"}),
    }


def _user(environment: Mapping[str, str]) -> str:
    """Return a name for the user's branch where Metaflow would find none, as for root."""
    names = (environment.get(name) for name in ("SUDO_USER", "USERNAME", "USER"))
    return next((name for name in names if name and name != "root"), "rehearsal")


def _kubeconfig(url: str, token: str) -> dict[str, Any]:
    name = "rehearsal"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": url}}],
        "users": [{"name": name, "user": {"token": token}}],
    }
