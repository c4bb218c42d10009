"""What the tests share: real commands, a stand-in cluster and a webhook that records."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import metaflow
import pytest
from flows import flow

from rehearsal.cluster import Faults
from rehearsal.display import Display
from rehearsal.forkserver import fork_server
from rehearsal.sensor import Sensor
from rehearsal.stage import Stage

ROOT = Path(__file__).parent.parent
SECONDS_FOR_A_COMMAND = 120
VERSION = tuple(map(int, re.findall(r"\d+", metaflow.__version__)[:3]))
# What the commands of the tests import, but for what is tested.
PRELOADED = (
    *("metaflow", "metaflow.runtime", "metaflow.plugins.argo.argo_workflows_cli"),
    *("boto3.s3.inject", "boto3.s3.transfer", "kubernetes", "tests.warm"),
)


def has_traceback(output: str) -> bool:
    # Python 3.13 says with one that Metaflow leaves a code package open.
    return output.count("Traceback") != output.count("Exception ignored in: <gzip")


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def message(self) -> str:
        """What Metaflow printed of an error, on one line."""
        return " ".join(self.stderr.split())


class QuietStage(Stage):
    """A cluster that takes note of what is deployed and triggered, and runs nothing."""

    def expect(self, _template: Any) -> None:
        pass

    def start(self, _run: Any) -> None:
        pass


@dataclass
class Webhook:
    """A webhook that records what it was sent, and answers as it was told to."""

    url: str
    status: int = 200
    seconds: float = 0
    cut_off: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def names(self) -> list[str]:
        return [request["payload"]["name"] for request in self.requests]

    def forget(self) -> None:
        """Answer as a new one."""
        self.__init__(self.url)  # type: ignore[misc]


@contextmanager
def recorder() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            record.requests.append(json.loads(body))
            if record.cut_off is not None:
                self.wfile.write(record.cut_off)
                return
            time.sleep(record.seconds)
            self.send_response(record.status)
            if 300 <= record.status < 400:
                self.send_header("Location", "/login")
            self.end_headers()

        def do_GET(self) -> None:
            record.requests.append({"GET": self.path})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    record = Webhook(f"http://127.0.0.1:{server.server_port}/metaflow-event")
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield record
    server.shutdown()
    server.server_close()


@dataclass
class Worker:
    """What the tests of one process share, since a fork server has one environment."""

    stage: QuietStage
    webhook: Webhook
    environment: dict[str, str]
    python: Path


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp("worker")
    stage = QuietStage(folder, folder, Display(), Faults())
    with stage.server.serve(), recorder() as webhook:
        environment = {
            **stage.environment,
            "METAFLOW_USER": "alice",
            "METAFLOW_PYLINT": "0",  # ob-metaflow brings it, and it mislikes "import *"
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": webhook.url,
            "PYTHONPATH": os.fspath(ROOT),
        }
        # Without it, what a local run notes lies beside the flow.
        del environment["METAFLOW_DATASTORE_SYSROOT_LOCAL"]
        with fork_server(folder / "python", environment, PRELOADED) as python:
            yield Worker(stage, webhook, environment, python)


@dataclass
class Workbench:
    """A folder with flows, and the cluster that their commands reach."""

    folder: Path
    stage: Stage
    variables: dict[str, str]
    python: str | Path

    @property
    def sensors(self) -> dict[str, Sensor]:
        return {sensor.name: sensor for sensor in self.stage.cluster.sensors}

    def flow(self, name: str = "DemoFlow", **parts: str) -> Path:
        """Write a flow with these parts, and return its file."""
        path = self.folder / f"{name}.py"
        path.write_text(flow(name, **parts))
        return path

    def script(self, text: str) -> Result:
        """Run a program that is no flow."""
        path = self.folder / "script.py"
        path.write_text(textwrap.dedent(text))
        return self.run(path)

    def environment(self) -> dict[str, str]:
        return {key: value for key, value in self.variables.items() if value != "(unset)"}

    def run(self, *command: str | Path, stdin: str = "") -> Result:
        """Run a Python program, a flow for example, as a user would."""
        return self._run(self.python, *command, stdin=stdin)

    def shell(self, script: str) -> Result:
        """Run a script, with the same Python first on its path."""
        return self._run("bash", "-c", script, seconds=5 * SECONDS_FOR_A_COMMAND)

    def _run(
        self, *command: str | Path, stdin: str = "", seconds: int = SECONDS_FOR_A_COMMAND
    ) -> Result:
        environment = self.environment()
        path = os.pathsep.join((os.path.dirname(self.python), environment["PATH"]))
        process = subprocess.run(
            command,
            cwd=self.folder,
            env={**environment, "PATH": path},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if "OBP_PERIMETER was not found" in process.stdout + process.stderr:
            pytest.skip("ob-metaflow deploys to its own platform only")
        return Result(process.returncode, process.stdout, process.stderr)

    def deploy(self, flow: Path, *options: str) -> Result:
        return self.run(flow, *options, "argo-workflows", "create")

    def run_locally(self, flow: Path, *options: str) -> Result:
        return self.run(flow, *options, "--datastore", "local", "run")

    def listened(self, flow: Path, *options: str) -> list[str]:
        """Deploy a flow, and return the events that its Sensor waits for."""
        result = self.deploy(flow, *options)
        assert result.status == 0, result.output
        (sensor,) = self.sensors.values()
        return [str(dependency.event_name) for dependency in sensor.dependencies]

    def templates(self) -> list[dict[str, Any]]:
        """Return what was deployed."""
        return self.objects("workflowtemplates")

    def objects(self, kind: str) -> list[dict[str, Any]]:
        return self.stage.cluster.objects.list_all(None, kind)

    @property
    def packages(self) -> dict[str, bytes]:
        """The code packages and what else was uploaded, by their URLs."""
        return self.stage.server.objects()


@pytest.fixture
def bench(worker: Worker, tmp_path: Path) -> Workbench:
    folder = tmp_path / "flows"
    folder.mkdir()
    worker.stage.clear()
    return Workbench(folder, worker.stage, dict(worker.environment), worker.python)


@pytest.fixture
def webhook(worker: Worker) -> Webhook:
    """The webhook to which the commands of a bench publish."""
    worker.webhook.forget()
    return worker.webhook


def copy_project(folder: Path) -> None:
    """Put a clone of the project into a folder."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)


def copy_installed_project(folder: Path) -> None:
    """The same, with what is installed for it."""
    copy_project(folder)
    # Its files are copies: an installation that finds other pins changes nothing here.
    (folder / ".venv").mkdir()
    for entry in (ROOT / ".venv").iterdir():
        if entry.is_dir():
            (folder / ".venv" / entry.name).symlink_to(entry)
        else:
            shutil.copy(entry, folder / ".venv")


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder once in a run of the tests, whichever process needs it first."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def folder(name: str, fill: Callable[[Path], object]) -> Path:
        path, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir()
                fill(path)
                done.touch()
        return path

    return folder


@dataclass(frozen=True)
class SetUp:
    """A run of setup_flow.sh in a copy of the project."""

    folder: Path  # with the copy

    @property
    def script(self) -> Path:
        return self.folder / "project" / "setup_flow.sh"

    @property
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

    @property
    def status(self) -> int:
        return int((self.folder / "status.txt").read_text())

    @property
    def logs(self) -> list[str]:
        """What the runs printed."""
        return [path.read_text() for path in self.folder.glob("rehearsal-logs-*/*/*.txt")]

    def run(self, *command: str | Path, **variables: str) -> None:
        with (self.folder / "output.txt").open("w") as output:
            status = subprocess.call(
                command,
                cwd=self.folder,
                env={
                    **os.environ,
                    "METAFLOW_USER": "jane",
                    "TMPDIR": os.fspath(self.folder),
                    **variables,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=5 * SECONDS_FOR_A_COMMAND,
            )
        (self.folder / "status.txt").write_text(str(status))


def set_up(folder: Path) -> SetUp:
    copy_installed_project(folder / "project")
    return SetUp(folder)


@pytest.fixture(scope="session")
def rehearsed_setup(once: Once) -> SetUp:
    """`bash setup_flow.sh`, with a variable that is its own and not the user's."""

    def fill(folder: Path) -> None:
        own = set_up(folder)
        own.run("bash", own.script, ON_CLUSTER="1")

    return SetUp(once("rehearsed-setup", fill))


@pytest.fixture(scope="session")
def setup_on_cluster(once: Once) -> SetUp:
    """`bash setup_flow.sh --cluster`, on a stand-in for one."""

    def fill(folder: Path) -> None:
        own = set_up(folder)
        rehearsal = (sys.executable, "-m", "rehearsal", "--report", "picture.svg")
        command = ("bash", own.script, "--cluster")
        own.run(*rehearsal, *command, PYTHONPATH=os.fspath(ROOT))

    return SetUp(once("setup-on-cluster", fill))


@dataclass
class Rehearsal:
    status: int
    output: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def table(self) -> list[str]:
        return self.output.partition("\n\nEVENT ")[2].partition("\n\n")[0].splitlines()


@dataclass
class Rehearse:
    """Rehearses scripts in a folder."""

    folder: Path
    python: Path

    def __call__(self, script: str, *options: str, **variables: str) -> Rehearsal:
        report = self.folder / "report.json"
        options = ("--report", os.fspath(report), *options)
        if "--logs" not in options and "TMPDIR" not in variables:
            options = ("--logs", os.fspath(self.folder / "logs"), *options)
        rehearsal = self.command(*options, "bash", "-c", script, **variables)
        if report.exists():
            rehearsal.report = json.loads(report.read_text())
        return rehearsal

    def command(self, *arguments: str, **variables: str) -> Rehearsal:
        process = subprocess.run(
            [self.python, "-m", "rehearsal", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_FOR_A_COMMAND,
        )
        return Rehearsal(process.returncode, process.stdout)


@pytest.fixture(scope="session")
def python_for_rehearsals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Python that has imported what a rehearsal does, and no Metaflow."""
    folder = tmp_path_factory.mktemp("rehearsals") / "python"
    modules = ("flask", "moto.moto_server.werkzeug_app", "moto.s3.models")
    with fork_server(folder, {**os.environ, "PYTHONPATH": os.fspath(ROOT)}, modules) as python:
        yield python


@pytest.fixture
def rehearse(bench: Workbench, python_for_rehearsals: Path) -> Rehearse:
    return Rehearse(bench.folder, python_for_rehearsals)
