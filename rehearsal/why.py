"""Why an event starts a workflow, or does not: `python -m rehearsal why SENSOR EVENT`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .sensor import Event, NotAnEvent, Sensor, UnknownToSensor


def main(arguments: Sequence[str]) -> int:
    """Explain what an event does to a Sensor, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m rehearsal why",
        description="Explain whether an event, on its own, starts the workflow of a Sensor. "
        "Needs no server.",
        epilog="Exit status: 0 where there is an answer, 2 where there is none.",
    )
    parser.add_argument(
        "sensor", metavar="SENSOR", help="what kubectl get sensor NAME -o json says"
    )
    parser.add_argument("event", metavar="EVENT", help="the body of the POST to the webhook")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if options.sensor == options.event == "-":
        parser.error("only one of SENSOR and EVENT can be -")
    try:
        sensor = Sensor.parse(json.loads(_read(options.sensor)))
        event = Event.parse(_read(options.event))
        answer = _answer(sensor, event) if options.json else explain(sensor, event)
    except OSError as error:
        parser.error(f"{error.filename} cannot be read: {error.strerror}")
    except NotAnEvent as error:
        parser.error(f"the webhook refuses {options.event}: {error}")
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        parser.error(
            f"{options.sensor} is not JSON: {error}. Write: kubectl get sensor NAME -o json"
        )
    except UnknownToSensor as unknown:
        parser.error(f"cannot tell: it is not known here what Argo does with {unknown}")
    print(answer)
    return 0


def explain(sensor: Sensor, event: Event) -> str:
    """Return the answer for people."""
    decision = sensor.receive(event)
    if decision.arguments is not None:
        answer = f"The event starts {sensor.deployment}."
    elif not sensor.subscribes:
        answer = (
            f"The event does not start {sensor.deployment}: Argo Events never hears a name that "
            "does not begin with a letter, so this Sensor is dead."
        )
    elif decision.satisfied:
        waited = " and ".join(decision.waiting_for)
        answer = f"The event does not start {sensor.deployment} on its own: it waits for {waited}."
    else:
        answer = f"The event does not start {sensor.deployment}."
    lines = [answer]
    for dependency in sensor.dependencies:
        failing = dependency.failing(event)
        lines.append(f"{dependency.name}: {'fails' if failing else 'passes'}")
        lines += [f"  asks that {each.explain(event)}" for each in failing]
    if decision.arguments:
        lines.append("The arguments of the Workflow:")
        lines += [f"  {name} = {value}" for name, value in decision.arguments.items()]
    return "\n".join(lines)


def _answer(sensor: Sensor, event: Event) -> str:
    """Return the answer for machines."""
    decision = sensor.receive(event)
    return json.dumps(
        {
            "subscribes": sensor.subscribes,
            "satisfied": decision.satisfied,
            "arguments": decision.arguments,
        }
    )


def _read(path: str) -> bytes:
    return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
