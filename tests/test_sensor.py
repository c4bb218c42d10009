from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rehearsal.sensor import Event, NotAnEvent, Sensor, Sensors, UnknownToSensor, to_go_json

VECTORS = json.loads((Path(__file__).parent / "argo_vectors.json").read_text())


def event(**payload: Any) -> Event:
    return Event.parse(json.dumps({"payload": payload}).encode())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=range(len(VECTORS["cases"])))
def test_an_event_does_to_a_sensor_what_it_does_in_argo(case: dict[str, Any]) -> None:
    sensor = Sensor.parse(VECTORS["sensors"][case["sensor"]])
    decision = sensor.receive(Event.parse(case["body"].encode()))
    assert sensor.subscribes == case["subscribes"]
    assert decision.satisfied == case["satisfied"]
    assert decision.arguments == case["arguments"]


def test_a_sensor_of_two_events_fires_on_the_latest_of_each_and_forgets_them() -> None:
    sensor = Sensor.parse(VECTORS["sensors"]["Pair"])
    food, drink = "foo.prod.bar.food", "foo.prod.bar.drink"
    assert sensor.receive(event(name=food, a=1)).waiting_for == [drink]
    assert sensor.receive(event(name=food, a=2)).workflow is None
    fired = sensor.receive(event(name=drink, b=3))
    assert fired.arguments is not None
    assert (fired.arguments["alpha"], fired.arguments["beta"]) == ("2", "3")
    assert [each.name for each in fired.events] == [food, drink]
    assert sensor.receive(event(name=drink)).waiting_for == [food]


def test_the_first_of_two_equal_keys_wins() -> None:
    sensor = Sensor.parse(VECTORS["sensors"]["Typed"])
    body = b'{"payload":{"name":"foo.test.baaz.food","name":"other","count":1,"count":2}}'
    fired = sensor.receive(Event.parse(body)).arguments
    assert fired and fired["count"] == "1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1500.0, "1500"),
        (9007199254740993, "9007199254740992"),
        (-0.0, "-0"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        ({"b": 1, "a": [None, True, "<\u2028>"]}, '{"a":[null,true,"<\\u2028>"],"b":1}'),
    ],
)
def test_a_value_is_written_as_go_writes_it(value: Any, text: str) -> None:
    assert to_go_json(value) == text


@pytest.mark.parametrize("body", [b"{", b"", b'{"payload": NaN}', b"\xff", b" " * 1024 * 1025])
def test_a_body_that_the_webhook_refuses_is_no_event(body: bytes) -> None:
    with pytest.raises(NotAnEvent):
        Event.parse(body)


def unknown_sensors() -> list[tuple[str, dict[str, Any]]]:
    def changed(change: Any) -> dict[str, Any]:
        sensor: dict[str, Any] = json.loads(json.dumps(VECTORS["sensors"]["Mapped"]))
        change(sensor["spec"])
        return sensor

    def trigger(spec: dict[str, Any]) -> dict[str, Any]:
        template: dict[str, Any] = spec["triggers"][0]["template"]
        return template

    def source(spec: dict[str, Any]) -> dict[str, Any]:
        parameter: dict[str, Any] = trigger(spec)["k8s"]["parameters"][0]["src"]
        return parameter

    filters = {"time": {"start": "1:00"}, "script": "return true", "data": [{"path": "x"}]}
    cases: list[tuple[str, Any]] = [
        ("conditions", lambda spec: trigger(spec).update(conditions="a || b")),
        ("transform", lambda spec: spec["dependencies"][0].update(transform={"jq": "."})),
        ("policy", lambda spec: spec["triggers"][0].update(policy={"k8s": {}})),
        ("2 triggers", lambda spec: spec["triggers"].append(spec["triggers"][0])),
        ("'delete'", lambda spec: trigger(spec)["k8s"].update(operation="delete")),
        ("{{ .Input }}", lambda spec: source(spec).update(dataTemplate="{{ .Input }}")),
        (
            "'body.name'",
            lambda spec: source(spec).update(dataTemplate=None, dataKey="body.name"),
        ),
        (
            "name != ",
            lambda spec: spec["dependencies"][0]["filters"]["exprs"][0].update(expr="name != 'x'"),
        ),
    ]
    cases += [
        (
            repr(key),
            lambda spec, key=key: spec["dependencies"][0]["filters"].update({key: filters[key]}),
        )
        for key in filters
    ]
    return [(name, changed(change)) for name, change in cases]


@pytest.mark.parametrize(("thing", "sensor"), unknown_sensors())
def test_what_the_evaluator_does_not_know_is_refused_by_name(
    thing: str, sensor: dict[str, Any]
) -> None:
    with pytest.raises(UnknownToSensor, match=re.escape(thing)):
        Sensor.parse(sensor)


@pytest.mark.parametrize(
    ("cron", "is_valid"),
    [
        ("0 0 * * *", True),
        ("*/5 9-17 1,15 jan-Mar ?", True),
        ("@daily", False),
        ("0 0 * * * *", False),
        ("60 0 * * *", False),
        ("0 0 * * 7", False),
        ("0 0 * foo *", False),
        ("0 9-5 * * *", False),
        ("", False),
        (None, False),
    ],
)
def test_a_reset_needs_five_fields_that_argo_parses(cron: str | None, is_valid: bool) -> None:
    manifest = json.loads(json.dumps(VECTORS["sensors"]["Pair"]))
    reset = [{"byTime": {"cron": cron, "timezone": None}}]
    manifest["spec"]["triggers"][0]["template"]["conditionsReset"] = reset
    if is_valid:
        assert "conditionsReset" in Sensor.parse(manifest).unsupported[0]
    else:
        with pytest.raises(UnknownToSensor, match="the cron expression"):
            Sensor.parse(manifest)


@pytest.mark.parametrize("depth", [2000, 100_000])
def test_a_value_that_is_nested_too_deeply_is_refused_by_name(depth: int) -> None:
    sensor = Sensor.parse(VECTORS["sensors"]["Typed"])
    value = "[" * depth + "]" * depth
    body = f'{{"payload": {{"name": "foo.test.baaz.food", "count": {value}}}}}'
    with pytest.raises(UnknownToSensor, match="nested so deeply"):
        sensor.receive(Event.parse(body.encode()))


def test_a_redeployment_that_waits_for_the_same_keeps_what_was_heard() -> None:
    sensors, manifest = Sensors(), VECTORS["sensors"]["Pair"]
    food = event(name="foo.prod.bar.food")
    sensors.add(Sensor.parse(manifest))
    (sensor,) = sensors.waiting_for(food)
    assert sensor.receive(food).workflow is None
    sensors.add(Sensor.parse(manifest))
    (sensor,) = sensors.waiting_for(event(name="foo.prod.bar.drink"))
    assert sensor.receive(event(name="foo.prod.bar.drink")).workflow is not None


def test_a_redeployment_with_other_events_starts_afresh() -> None:
    sensors, manifest = Sensors(), VECTORS["sensors"]["Pair"]
    food, drink = event(name="foo.prod.bar.food"), event(name="foo.prod.bar.drink")
    sensors.add(Sensor.parse(manifest))
    sensors["pairlistener"].receive(food)
    other = json.loads(json.dumps(manifest).replace("foo.prod.bar.drink", "foo.prod.bar.milk"))
    sensors.add(Sensor.parse(other))
    assert sensors.waiting_for(drink) == []
    milk = sensors["pairlistener"].receive(event(name="foo.prod.bar.milk"))
    assert milk.waiting_for == ["foo.prod.bar.food"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=range(len(VECTORS["cases"])))
def test_a_sensor_that_an_event_satisfies_is_found_among_all(case: dict[str, Any]) -> None:
    sensors = Sensors()
    for manifest in VECTORS["sensors"].values():
        sensors.add(Sensor.parse(manifest))
    given = Event.parse(case["body"].encode())
    satisfied = {sensor.name for sensor in sensors if sensor.satisfied_by(given)}
    assert satisfied <= {sensor.name for sensor in sensors.waiting_for(given)}


def test_an_event_is_given_only_to_the_sensors_that_wait_for_its_name() -> None:
    sensors = Sensors()
    for manifest in VECTORS["sensors"].values():
        sensors.add(Sensor.parse(manifest))
    assert sensors.waiting_for(event(name="nobody's")) == []
    assert sensors.waiting_for(event(name=["food"])) == []
    (pair,) = sensors.waiting_for(event(name="foo.prod.bar.drink"))
    assert pair.name == "pairlistener"
