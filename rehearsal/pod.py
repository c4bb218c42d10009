"""The pod: a container of a WorkflowTemplate, run as a process on this machine.

A pod has a folder of its own: its working folder, home, temporary files and the volume
/mnt/out are there. Its environment is that of its container, and nothing of the user's.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import sys
import tarfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from . import inpod, secret
from .forkserver import fork_server
from .secret import Secrets
from .workflow import Ended, Pod

# As Kubernetes has it, between SIGTERM and SIGKILL.
SECONDS_OF_GRACE = 30
# What a container's end says of its log (terminationMessagePolicy: FallbackToLogsOnError).
LAST_BYTES, LAST_LINES = 2048, 80
DEADLINE_EXCEEDED = "Pod was active on the node longer than the specified deadline"
# Where an image of Python has its programs.
LANG = "C.UTF-8"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What the Pythons of a pod import, beside what they import for the flow at hand.
PRELOADED = (
    *("metaflow", "boto3.s3.transfer", "rehearsal.models"),
    "metaflow.plugins.argo.argo_workflows_decorator",
    *("metaflow.integrations", "metaflow.plugins.datatools.s3.s3op"),
)
# Metaflow starts 64 processes for each transfer unless it is told otherwise.
S3_WORKERS = "2"
# The one file outside of /mnt/out that a compiled script writes by its absolute path.
INPUT_PATHS = "/tmp/mf-input-paths"
# What a compiled script needs and not every machine has, as Python does it.
_PROGRAMS = {
    "md5sum": "import hashlib, sys; "
    "print(hashlib.md5(sys.stdin.buffer.read()).hexdigest() + '  -')",
    "date": "from datetime import datetime, timezone; "
    "print(datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%S,%f000+00:00'))",
}
SECONDS_BETWEEN_LOOKS = 0.25
SECONDS_WITHOUT_CHANGE = 10


class Cores:
    """Lets as many pods start as keep the machine's cores busy.

    A pod that only waits for something keeps no core busy, and another one may start.
    """

    def __init__(self) -> None:
        self._free = os.cpu_count() or 1
        self._changed = asyncio.Condition()
        self._last_change = time.monotonic()

    @contextlib.asynccontextmanager
    async def core(self, pods: int = 1) -> AsyncIterator[None]:
        """Wait for a core, and have it for the time of the context.

        A gang of pods keeps as many busy, and waits for the first: it starts as a whole.
        """
        async with self._changed:
            while self._free <= 0 and not await self._are_idle():
                pass
            self._free -= pods
            self._last_change = time.monotonic()
        try:
            yield
        finally:
            async with self._changed:
                self._free += pods
                self._last_change = time.monotonic()
                self._changed.notify()

    async def _are_idle(self) -> bool:
        """Wait a moment, and return whether more than half a core had nothing to do."""
        idle = _idle_seconds()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), SECONDS_BETWEEN_LOOKS)
            return self._free > 0
        if time.monotonic() - self._last_change > SECONDS_WITHOUT_CHANGE:
            return True
        if idle is None:
            return os.getloadavg()[0] < (os.cpu_count() or 1) - 0.5
        return (_idle_seconds() or 0) - idle > SECONDS_BETWEEN_LOOKS / 2


def _idle_seconds() -> float | None:
    """Return how long the cores have been idle in all, where the system tells."""
    try:
        fields = Path("/proc/stat").read_text().split(None, 6)
    except OSError:
        return None
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


class Pods:
    """Runs pods.

    Parameters
    ----------
    folder : Path
        For the folders of the pods, which are removed at their end.
    environment : mapping
        What a pod has beside its container's variables: how it reaches the cluster.
    package : callable
        Returns the code package at a URL.
    secrets : mapping
        Those that a pod may refer to.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        package: Callable[[str], bytes],
        secrets: Secrets,
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._package = package
        self._secrets = secrets
        self.cores = Cores()
        self._has_same_metaflow: dict[str, bool] = {}  # by the URL of a code package
        self._running: set[int] = set()
        site = folder / "site"
        site.mkdir(parents=True)
        self._site = os.fspath(site)
        shutil.copy(inpod.__file__, site / "sitecustomize.py")
        starting = folder / "starting"
        starting.mkdir()
        for name in ("python", "python3"):
            (starting / name).symlink_to(sys.executable)
        self._starting = add_programs(starting)
        self._forking = ""
        self._lock = threading.Lock()
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> None:
        """End the fork server at the end of the context."""

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._opened.close()

    def expect(self, template: Mapping[str, Any]) -> None:
        """Start a fork server with the settings of a WorkflowTemplate, unless there is one.

        Pods with other settings start a new Python each time.
        """
        containers = [each.get("container") or {} for each in template["spec"]["templates"]]
        container = next((each for each in containers if _is_a_step(each)), {})
        fields = {"metadata.namespace": template["metadata"]["namespace"]}
        settings = {
            **secret.variables(container, self._secrets),
            **_declared_variables(container, fields),
        }
        with self._lock:
            if self._forking:
                return
            environment = {
                **self._environment,
                "METAFLOW_S3_WORKER_COUNT": S3_WORKERS,
                **settings,
                "PATH": PATH,
                "LANG": LANG,
                # Where its Metaflow is; a fork has only what its pod has.
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (self._site, os.environ.get("PYTHONPATH")))
                ),
            }
            python = self._opened.enter_context(
                fork_server(
                    self._folder / "fork-server",
                    environment,
                    PRELOADED,
                    prepare=inpod.prepare_server,
                    prepared=(inpod.OWN_SETTING,),
                    twins=("metaflow",),
                )
            )
            self._forking = add_programs(python.parent)

    async def run(
        self,
        pod: Pod,
        stop: asyncio.Event,
        variables: Mapping[str, str],
        log: Path,
    ) -> Ended:
        """Run a pod to its end.

        Parameters
        ----------
        pod : Pod
            What to run.
        stop : Event
            Ends it when it is set.
        variables : mapping
            Its own variables, over those of its container.
        log : Path
            For what it prints.
        """
        folder = self._folder / pod.name
        async with contextlib.nullcontext() if pod.role else self.cores.core():
            try:
                for each in ("work", "home", "tmp", "out"):
                    (folder / each).mkdir(parents=True)
                environment = self._variables(pod, folder, variables)
                with log.open("wb") as output:
                    process = await asyncio.create_subprocess_exec(
                        *_command(pod, folder),
                        cwd=folder / "work",
                        env=environment,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=output,
                        stderr=asyncio.subprocess.STDOUT,
                        start_new_session=True,
                    )
                self._running.add(process.pid)
                try:
                    reason = await _end(process, stop, pod)
                finally:
                    _signal_group(process.pid, signal.SIGKILL)  # what it has left behind
                    self._running.discard(process.pid)
                status = process.returncode or 0
                return Ended(
                    exit_code=status if status >= 0 else 128 - status,
                    last_lines=_last_lines(log),
                    reason=reason,
                    files=dict(_output_files(folder / "out")),
                )
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def kill(self) -> None:
        """End all pods at once."""
        for each in list(self._running):
            _signal_group(each, signal.SIGKILL)

    def _variables(self, pod: Pod, folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
        container = _container(pod)
        fields = {
            "metadata.name": pod.name,
            "metadata.namespace": pod.namespace,
            "metadata.uid": pod.node.id,
            "spec.serviceAccountName": pod.template.get("serviceAccountName") or "default",
            "status.hostIP": "127.0.0.1",
        }
        values = {**_declared_variables(container, fields), **pod.variables}
        can_fork = self._forking and self._can_fork(values)
        programs = self._forking if can_fork else self._starting
        return {
            # What reaches the cluster is not theirs to change.
            **secret.variables(container, self._secrets),
            **self._environment,
            "PATH": f"{programs}:{PATH}",
            "LANG": LANG,
            "HOSTNAME": pod.name,
            "METAFLOW_S3_WORKER_COUNT": S3_WORKERS,
            "ARGO_CONTAINER_NAME": container.get("name") or "main",
            "ARGO_NODE_ID": pod.node.id,
            **values,
            "HOME": os.fspath(folder / "home"),
            "TMPDIR": os.fspath(folder / "tmp"),
            "PYTHONPATH": self._site,
            # Metaflow's own switch: the packages are there.
            "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
            inpod.FOLDER_VARIABLE: os.fspath(folder / "out"),
            **variables,
        }

    def _can_fork(self, variables: Mapping[str, str]) -> bool:
        """Whether the Metaflow of the code package is the one that the fork server has."""
        url = variables.get("METAFLOW_CODE_URL", "")
        if url not in self._has_same_metaflow:
            self._has_same_metaflow[url] = bool(url) and _has_same_metaflow(self._package(url))
        return self._has_same_metaflow[url]


def add_programs(folder: Path, path: str = PATH) -> str:
    """Add to a folder what a script needs and a path lacks, and return the folder."""
    for name, code in _PROGRAMS.items():
        if not shutil.which(name, path=path) or sys.platform == "darwin":
            program = folder / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS -c "{code}"\n')
            program.chmod(0o755)
    return os.fspath(folder)


def _is_a_step(container: Mapping[str, Any]) -> bool:
    return " step " in (container.get("command") or [""])[-1]


def _declared_variables(container: Mapping[str, Any], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a container, those that name a known field of its pod included."""
    variables = {}
    for each in container.get("env") or ():
        source = (each.get("valueFrom") or {}).get("fieldRef") or {}
        value = fields.get(source.get("fieldPath", ""), each.get("value"))
        if value is not None:
            variables[each["name"]] = str(value)
    return variables


def _container(pod: Pod) -> Mapping[str, Any]:
    container: Mapping[str, Any] = pod.template["container"]
    return container


def _command(pod: Pod, folder: Path) -> list[str]:
    """Return the command, with the one absolute path that a script writes in its folder."""
    own = os.fspath(folder / "tmp" / os.path.basename(INPUT_PATHS))
    container = _container(pod)
    command = [*(container.get("command") or ()), *(container.get("args") or ())]
    return [each.replace(INPUT_PATHS, own) for each in command]


async def _end(process: asyncio.subprocess.Process, stop: asyncio.Event, pod: Pod) -> str:
    """Wait for the end of a process, or end it; return the reason, "" if it is its own."""
    ending = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait(
            {ending, stopping}, timeout=pod.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if ending.done():
            return ""
        _signal_group(process.pid, signal.SIGTERM)
        grace = pod.template.get("terminationGracePeriodSeconds", SECONDS_OF_GRACE)
        await asyncio.wait({ending}, timeout=grace)
        _signal_group(process.pid, signal.SIGKILL)
        await ending
        return "" if stopping.done() else DEADLINE_EXCEEDED
    finally:
        stopping.cancel()


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _last_lines(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - LAST_BYTES))
        text = file.read().decode(errors="replace")
    return "".join(text.splitlines(keepends=True)[-LAST_LINES:])


def _output_files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in folder.iterdir():
        yield f"{inpod.VOLUME}{path.name}", path.read_text(errors="replace").removesuffix("\n")


def _has_same_metaflow(package: bytes) -> bool:
    """Whether a code package has the Metaflow that is installed here, file by file."""
    import importlib.util

    spec = importlib.util.find_spec("metaflow")
    installed = Path(spec.origin).parent if spec and spec.origin else Path()
    prefix = ".mf_code/metaflow/"
    is_there = False
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for member in archive:
            own = member.name.removeprefix("./")
            if not member.isfile() or not own.startswith(prefix):
                continue
            file = archive.extractfile(member)
            path = installed / own.removeprefix(prefix)
            if not file or not path.is_file() or path.read_bytes() != file.read():
                return False
            is_there = True
    return is_there
