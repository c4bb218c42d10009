"""`python -m rehearsal why SENSOR EVENT`, from the outside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Result, Workbench, has_traceback
from flows import CONFIG, listening

VECTORS = json.loads((Path(__file__).parent / "argo_vectors.json").read_text())
EACH_SENSOR_ONCE = {case["sensor"]: case for case in VECTORS["cases"]}.values()


@pytest.fixture
def files(bench: Workbench) -> Path:
    write(bench.folder / "sensor.json", VECTORS["sensors"]["Typed"])
    write(bench.folder / "event.json", {"payload": {"name": "foo.test.baaz.food"}})
    return bench.folder


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


def why(bench: Workbench, *arguments: str, given: str = "") -> Result:
    return bench.run("-m", "rehearsal", "why", *arguments, stdin=given)


@pytest.mark.parametrize("case", EACH_SENSOR_ONCE, ids=lambda case: str(case["sensor"]))
def test_the_answer_for_machines_is_that_of_argo(bench: Workbench, case: dict[str, Any]) -> None:
    write(bench.folder / "sensor.json", VECTORS["sensors"][case["sensor"]])
    result = why(bench, "--json", "sensor.json", "-", given=case["body"])
    assert result.status == 0, result.stderr
    keys = ("subscribes", "satisfied", "arguments")
    assert json.loads(result.stdout) == {key: case[key] for key in keys}


def test_an_event_that_starts_a_deployed_flow_is_shown_with_its_arguments(bench: Workbench) -> None:
    arguments = 'event={"name": "food", "parameters": {"count": "n"}}'
    count = 'count = Parameter("count", default=1)'
    bench.listened(bench.flow(**listening(arguments, config=f"{CONFIG}\n{count}")))
    (sensor,) = bench.objects("sensors")
    write(bench.folder / "event.json", {"payload": {"name": "foo.user.alice.food", "n": 1500.0}})
    result = why(bench, "-", "event.json", given=json.dumps(sensor))
    assert result.stdout.startswith("The event starts foo.user.alice.demoflow.\n"), result.stderr
    assert "\n  count = 1500\n" in result.stdout


def test_an_event_that_starts_nothing_is_shown_with_the_filter_and_the_value(
    bench: Workbench, files: Path
) -> None:
    write(files / "event.json", {"payload": {"name": "foo.test.baaz.foods"}})
    result = why(bench, "sensor.json", "event.json")
    (name,) = (each["name"] for each in VECTORS["sensors"]["Typed"]["spec"]["dependencies"])
    assert result.stdout == (
        "The event does not start typedlistener.\n"
        f"{name}: fails\n"
        "  asks that name == 'foo.test.baaz.food', and in the event it is 'foo.test.baaz.foods'\n"
    )
    result = why(bench, "sensor.json", "-", given="{}")
    assert "asks that name == 'foo.test.baaz.food', and the event has no name\n" in result.stdout


def test_a_sensor_that_waits_for_another_event_names_it(bench: Workbench, files: Path) -> None:
    write(files / "sensor.json", VECTORS["sensors"]["Pair"])
    event = '{"payload": {"name": "foo.prod.bar.food"}}'
    result = why(bench, "sensor.json", "-", given=event)
    assert "on its own: it waits for foo.prod.bar.drink.\n" in result.stdout


def test_a_dead_sensor_is_told(bench: Workbench, files: Path) -> None:
    write(files / "sensor.json", VECTORS["sensors"]["LeadingDigit"])
    assert "so this Sensor is dead." in why(bench, "sensor.json", "event.json").stdout


@pytest.mark.parametrize(
    ("sensor", "event", "message"),
    [
        ("no.json", "event.json", "no.json cannot be read: No such file or directory"),
        ("-", "-", "only one of SENSOR and EVENT can be -"),
        ("event.json", "event.json", "this Sensor, which is not one that Metaflow compiles"),
        ("sensor.json", "broken", "the webhook refuses broken: the body is not JSON"),
        ("broken", "event.json", "broken is not JSON: Expecting property name"),
        ("timed.json", "event.json", "what Argo does with 'time' in filters"),
    ],
)
def test_what_has_no_answer_is_refused_in_one_message(
    bench: Workbench, files: Path, sensor: str, event: str, message: str
) -> None:
    (files / "broken").write_text("{")
    timed = json.loads((files / "sensor.json").read_text())
    timed["spec"]["dependencies"][0]["filters"]["time"] = {"start": "1:00"}
    write(files / "timed.json", timed)
    result = why(bench, sensor, event)
    assert (result.status, result.stdout) == (2, "")
    assert message in result.stderr
    assert not has_traceback(result.stderr)
