"""What a user's type checker makes of the library: only checked, never run."""

from metaflow import FlowSpec
from typing_extensions import assert_type

from namespaced_trigger import NamespacedTriggerException, namespaced_trigger
from rehearsal.sensor import Sensor

assert_type(namespaced_trigger.event_name("food", project="foo", user="jane"), str)
assert_type(namespaced_trigger.raise_event("food", {"rows": 5}, safe_publish=True), str | None)
namespaced_trigger.raise_event("food", project="foo", user="jane")
assert_type(Sensor.parse({}), Sensor)

namespaced_trigger("food")  # type: ignore[call-arg]
namespaced_trigger(evnt="food")  # type: ignore[call-arg]
namespaced_trigger(event=5)  # type: ignore[arg-type]
namespaced_trigger.raise_event("food", {1: "one"})  # type: ignore[dict-item]
namespaced_trigger.raise_event("food", ignore_errors="yes")  # type: ignore[arg-type]

names: list[str] = ["food"]
namespaced_trigger(events=names)
namespaced_trigger(events=tuple(names))


def listed(_context: object) -> list[str]:
    return names


namespaced_trigger(events=listed)


@namespaced_trigger(
    events=["food", {"name": "drink", "parameters": {"path": "path"}}, lambda context: "food"],
    options={"reset_at": {"cron": "0 0 * * *"}},
)
class ConsumerFlow(FlowSpec):
    rows: int = 5


def explained(problem: NamespacedTriggerException) -> str:
    return f"{problem.headline}: {ConsumerFlow.rows}"
