"""The library beside what Metaflow's users write without it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rehearsal.cluster import Faults
from rehearsal.display import Display
from rehearsal.stage import Stage

from .pairs import Pair, in_turns, processor_seconds

ROOT = Path(__file__).parent.parent
TURNS = 30
EVENTS_IN_A_DECORATOR = (1, 100, 1000)
PUBLICATIONS = 1000
SECONDS_OF_A_NETWORK = 0.005

FLOW = """
from metaflow import *
{decorator}
@project(name="foo")
class BenchmarkFlow(FlowSpec):
    project = Config("project", default_value={{}})

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    BenchmarkFlow()
"""
OURS = (
    "from namespaced_trigger import *\n\n"
    "@namespaced_trigger(events=[f'food{{n}}' for n in range({})])"
)
PLAIN = "@trigger(events=[f'foo.test.bar.food{{n}}' for n in range({})])"
METAFLOWS = "@trigger(events=[namespaced_event_name(f'food{{n}}') for n in range({})])"

# Notes the seconds of each publication, in turns.
PUBLISHER = """
import contextlib, json, os, time
from metaflow import *
from metaflow.integrations import ArgoEvent
from namespaced_trigger import namespaced_trigger

def bare(payload):
    ArgoEvent("foo.prod.bar.food").publish(payload=payload, ignore_errors=False)

def namespaced(payload):
    namespaced_trigger.raise_event("food", payload, ignore_errors=False)

def seconds(publish):
    start = time.perf_counter()
    publish({{"path": "s3://bucket/key", "rows": 5}})
    return time.perf_counter() - start

@project(name="foo")
class PublisherFlow(FlowSpec):
    @step
    def start(self):
        pairs = []
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
            seconds(namespaced)  # the first one imports what both need
            for turn in range({publications}):
                if turn % 2:
                    later = seconds(bare)
                    pairs.append((seconds(namespaced), later))
                else:
                    pairs.append((seconds(namespaced), seconds(bare)))
        with open({result!r}, "w") as file:
            json.dump(pairs, file)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    PublisherFlow()
"""

WEBHOOK = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(float(sys.argv[1]))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


class _QuietStage(Stage):
    def deployed(self, *_: Any) -> None:
        """Say nothing."""


def pairs() -> Iterator[Pair]:
    """Measure everything about the library."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stage = _QuietStage(folder, folder, Display(), Faults())
        environment = {**stage.environment, "PYTHONPATH": os.fspath(ROOT)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a module is not compiled each time
        with stage.server.serve():
            for number in EVENTS_IN_A_DECORATOR:
                for other, decorator in (
                    ("plain @trigger", PLAIN),
                    ("namespaced_event_name", METAFLOWS),
                ):
                    yield _deployment(folder, environment, number, other, decorator)
        yield _import(folder, environment)
        yield _publication(folder, environment, 0)
        yield _publication(folder, environment, SECONDS_OF_A_NETWORK)


def _deployment(
    folder: Path, environment: dict[str, str], number: int, other: str, decorator: str
) -> Pair:
    def deploy(file: str, decorator: str, *options: str) -> Callable[[], float]:
        (folder / file).write_text(FLOW.format(decorator=decorator.format(number)))
        config = ["--config-value", "project", '{"branch": "bar"}']
        command = [sys.executable, file, *config, *options, "argo-workflows", "create"]
        return lambda: processor_seconds(command, folder, environment)

    return in_turns(
        f"deploy a flow with {number} event{'s' * (number > 1)}",
        ("@namespaced_trigger", deploy("ours.py", OURS)),
        (other, deploy("theirs.py", decorator, "--branch", "bar")),
        TURNS,
    )


def _import(folder: Path, environment: dict[str, str]) -> Pair:
    def python(code: str) -> Callable[[], float]:
        return lambda: processor_seconds([sys.executable, "-c", code], folder, environment)

    return in_turns(
        "import",
        ("namespaced_trigger", python("import namespaced_trigger")),
        ("metaflow alone", python("from metaflow import FlowSpec, FlowMutator, project")),
        TURNS,
    )


def _publication(folder: Path, environment: dict[str, str], seconds: float) -> Pair:
    result, flow = folder / "pairs.json", folder / "publisher.py"
    flow.write_text(PUBLISHER.format(publications=PUBLICATIONS, result=str(result)))
    options = ["--datastore", "local", "--branch", "bar", "--production"]
    with webhook(seconds) as url:
        processor_seconds(
            [sys.executable, "publisher.py", *options, "run"],
            folder,
            {**environment, "METAFLOW_ARGO_EVENTS_WEBHOOK_URL": url},
        )
    answers = f"after {1000 * seconds:g} ms" if seconds else "at once"
    return Pair(
        f"publish an event, {PUBLICATIONS} times, to a webhook that answers {answers}",
        "raise_event",
        "ArgoEvent.publish",
        json.loads(result.read_text()),
    )


@contextmanager
def webhook(seconds: float) -> Iterator[str]:
    """Answer every event after this time, in a process of its own, and yield where."""
    command = [sys.executable, "-c", WEBHOOK, str(seconds)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}/"
    finally:
        server.terminate()
        server.wait()
