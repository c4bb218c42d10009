"""The rehearsal beside itself, and beside what it runs."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from rehearsal.cluster import Cluster, Faults, Observer
from rehearsal.sensor import Event, Sensor, Sensors
from rehearsal.server import WEBHOOK_PATH, Server

from .pairs import Pair, in_turns

ROOT = Path(__file__).parent.parent
TURNS = 20
EVENTS = 1000
PUBLISHERS = 100
REHEARSALS = 5
COMMANDS = """
set -e
cd "$1"
python parent_flow.py --branch bar argo-workflows create
python child_flow.py --config-value project '{"branch": "bar"}' argo-workflows create
python parent_flow.py --branch bar argo-workflows trigger
"""


def sensor(number: int) -> Sensor:
    """Return a sensor that waits for an event of its own."""
    name = f"food{number}"
    return Sensor.parse(
        {
            "metadata": {"name": name},
            "spec": {
                "dependencies": [
                    {
                        "name": name,
                        "filters": {
                            "exprs": [
                                {
                                    "expr": f"name == '{name}'",
                                    "fields": [{"name": "name", "path": "body.payload.name"}],
                                }
                            ]
                        },
                    }
                ],
                "triggers": [
                    {
                        "template": {
                            "name": name,
                            "argoWorkflow": {
                                "source": {
                                    "resource": {
                                        "metadata": {"namespace": "default"},
                                        "spec": {
                                            "workflowTemplateRef": {"name": name},
                                            "arguments": {"parameters": []},
                                        },
                                    }
                                }
                            },
                        }
                    }
                ],
            },
        }
    )


def body(number: int) -> bytes:
    """Return an event as it is posted."""
    return json.dumps({"payload": {"name": f"food{number}"}}).encode()


def decide(sensors: int) -> float:
    """Return the seconds for a thousand events among this many sensors."""
    known = Sensors()
    for number in range(sensors):
        known.add(sensor(number))
    events = [Event.parse(body(number % sensors)) for number in range(EVENTS)]
    start = time.perf_counter()
    started = sum(
        each.receive(event).workflow is not None
        for event in events
        for each in known.waiting_for(event)
    )
    seconds = time.perf_counter() - start
    assert started == EVENTS
    return seconds


def publish(publishers: int) -> float:
    """Return the seconds for a hundred events, from this many publishers at once."""
    cluster = Cluster(Observer(), Faults())
    server = Server(cluster)
    headers = {"Authorization": f"Bearer {cluster.token}"}

    def post(numbers: range) -> None:
        for number in numbers:
            url = server.url + WEBHOOK_PATH
            request = urllib.request.Request(url, data=body(number), headers=headers)
            with urllib.request.urlopen(request):
                pass

    each = PUBLISHERS // publishers
    threads = [
        threading.Thread(target=post, args=(range(first, first + each),))
        for first in range(0, PUBLISHERS, each)
    ]
    with server.serve():
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
    assert len(cluster.publications) == PUBLISHERS  # none is lost
    return seconds


def rehearse() -> tuple[float, float]:
    """Return the processor's seconds of a rehearsal itself, and of what it ran."""
    code = (
        "import resource, sys; from rehearsal.__main__ import main; status = main()\n"
        "own, rest = (resource.getrusage(who) for who in (0, -1))\n"
        "print('seconds', own.ru_utime + own.ru_stime, rest.ru_utime + rest.ru_stime)\n"
        "sys.exit(status)"
    )
    with tempfile.TemporaryDirectory() as logs:
        result = subprocess.run(
            [sys.executable, "-c", code, "--logs", logs, "bash", "-c", COMMANDS, "bash", ROOT],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    _, own, rest = result.stdout.splitlines()[-1].split()
    return float(own), float(rest)


def pairs() -> Iterator[Pair]:
    """Measure everything about the rehearsal."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    yield in_turns(
        f"decide {EVENTS} events",
        ("1000 sensors", lambda: decide(1000)),
        ("10 sensors", lambda: decide(10)),
        TURNS,
    )
    yield in_turns(
        f"take {PUBLISHERS} events",
        ("all at once", lambda: publish(PUBLISHERS)),
        ("one by one", lambda: publish(1)),
        TURNS,
    )
    yield Pair(
        "rehearse two flows, processor's time",
        "the rehearsal",
        "its commands and runs",
        [rehearse() for _ in range(REHEARSALS)],
    )
