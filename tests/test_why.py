"""`python -m rehearsal why SENSOR EVENT`, from the outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Workbench, has_traceback

VECTORS = json.loads((Path(__file__).parent / "argo_vectors.json").read_text())
EACH_SENSOR_ONCE = {case["sensor"]: case for case in VECTORS["cases"]}.values()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "sensor.json").write_text(json.dumps(VECTORS["sensors"]["Typed"]))
    (tmp_path / "event.json").write_text('{"payload": {"name": "foo.test.baaz.food"}}')
    return tmp_path


def why(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rehearsal", "why", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        input=given,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("case", EACH_SENSOR_ONCE, ids=lambda case: str(case["sensor"]))
def test_the_answer_for_machines_is_that_of_argo(files: Path, case: dict[str, Any]) -> None:
    (files / "sensor.json").write_text(json.dumps(VECTORS["sensors"][case["sensor"]]))
    result = why(files, "--json", "sensor.json", "-", given=case["body"])
    assert result.returncode == 0, result.stderr
    keys = ("subscribes", "satisfied", "arguments")
    assert json.loads(result.stdout) == {key: case[key] for key in keys}


def test_an_event_that_starts_a_deployed_flow_is_shown_with_its_arguments(bench: Workbench) -> None:
    flow = bench.flow(
        """
        @namespaced_trigger(event={"name": "food", "parameters": {"count": "n"}})
        @project(name="foo", branch="bar")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={})
            count = Parameter("count", default=1)
        """
    )
    bench.listened(flow)
    (sensor,) = bench.stage.cluster.list_all("default", "sensors")
    (bench.folder / "event.json").write_text(
        '{"payload": {"name": "foo.test.bar.food", "n": 1500.0}}'
    )
    result = why(bench.folder, "-", "event.json", given=json.dumps(sensor))
    assert result.stdout.startswith("The event starts foo.test.bar.demoflow.\n"), result.stderr
    assert "\n  count = 1500\n" in result.stdout


def test_an_event_that_starts_nothing_is_shown_with_the_filter_and_the_value(files: Path) -> None:
    (files / "event.json").write_text('{"payload": {"name": "foo.test.baaz.foods"}}')
    result = why(files, "sensor.json", "event.json")
    (name,) = (each["name"] for each in VECTORS["sensors"]["Typed"]["spec"]["dependencies"])
    assert result.stdout == (
        "The event does not start typedlistener.\n"
        f"{name}: fails\n"
        "  asks that name == 'foo.test.baaz.food', and in the event it is 'foo.test.baaz.foods'\n"
    )
    result = why(files, "sensor.json", "-", given="{}")
    assert "asks that name == 'foo.test.baaz.food', and the event has no name\n" in result.stdout


def test_a_sensor_that_waits_for_another_event_names_it(files: Path) -> None:
    (files / "sensor.json").write_text(json.dumps(VECTORS["sensors"]["Pair"]))
    event = '{"payload": {"name": "foo.prod.bar.food"}}'
    result = why(files, "sensor.json", "-", given=event)
    assert "on its own: it waits for foo.prod.bar.drink.\n" in result.stdout


def test_a_dead_sensor_is_told(files: Path) -> None:
    (files / "sensor.json").write_text(json.dumps(VECTORS["sensors"]["LeadingDigit"]))
    assert "so this Sensor is dead." in why(files, "sensor.json", "event.json").stdout


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
    files: Path, sensor: str, event: str, message: str
) -> None:
    (files / "broken").write_text("{")
    timed = json.loads((files / "sensor.json").read_text())
    timed["spec"]["dependencies"][0]["filters"]["time"] = {"start": "1:00"}
    (files / "timed.json").write_text(json.dumps(timed))
    result = why(files, sensor, event)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert not has_traceback(result.stderr)
