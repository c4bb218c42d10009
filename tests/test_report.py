"""What a report says, of happenings that are recorded: no Metaflow, and no processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from conftest import QuietStage, Workbench

from rehearsal.cluster import EventRefused, Faults
from rehearsal.display import Display
from rehearsal.report import Report

SVG = "{http://www.w3.org/2000/svg}"


class Happenings:
    """A cluster to which things happen, as Metaflow's commands and runs let them happen."""

    def __init__(self, folder: Path, faults: Faults | None = None, cycle: int = 10) -> None:
        self.stage = QuietStage(folder, folder / "logs", Display(), faults or Faults(), None, cycle)
        self.objects = self.stage.cluster.objects

    def deploy(self, name: str, *events: str, required: str = "") -> None:
        """Deploy a flow, `<project>.<branch>.<flow>`, that listens to events."""
        project, _, rest = name.partition(".")
        branch, _, flow = rest.rpartition(".")
        annotations = {"flow_name": flow, "project_name": project, "branch_name": branch}
        template = {
            "metadata": {
                "name": name,
                "annotations": {f"metaflow/{key}": value for key, value in annotations.items()},
            },
            "spec": {
                "entrypoint": "start",
                "arguments": {"parameters": [{"name": required, "value": "0"}] if required else []},
                "templates": [{"name": "start", "container": {"command": ["true"]}}],
            },
        }
        self.objects.create("default", "workflowtemplates", template)
        if events:
            self.objects.create("default", "sensors", sensor(name, events, required))

    def trigger(self, name: str) -> str:
        """Trigger a deployment, and return the name of the Workflow."""
        item = {
            "metadata": {"generateName": f"{name}-"},
            "spec": {"workflowTemplateRef": {"name": name}},
        }
        created = self.objects.create("default", "workflows", item)
        return str(created["metadata"]["name"])

    def publish(self, event: str, by: Any = None, **payload: Any) -> None:
        """Publish an event; the runs that it starts succeed."""
        body = json.dumps({"payload": {**payload, "name": event}}).encode()
        self.stage.cluster.publish(body, by)

    def end(self, phase: str = "Succeeded") -> None:
        """Let all runs end that have not."""
        for run in self.stage.runs.values():
            if run.phase == "Pending":
                run.workflow.end(phase)

    @property
    def report(self) -> Report:
        self.end()
        return self.stage.report()

    @property
    def problems(self) -> list[str]:
        return self.report.problems


def sensor(name: str, events: tuple[str, ...], required: str) -> dict[str, Any]:
    """Return the Sensor that Metaflow compiles for these events."""

    def expression(text: str, key: str) -> dict[str, Any]:
        return {"expr": text, "fields": [{"name": key, "path": f"body.payload.{key}"}]}

    dependencies = [
        {
            # As Metaflow names them, but for the four characters that it draws.
            "name": re.sub(r"[.@+-]", "", event) + "_abcd",
            "filters": {
                "exprs": [
                    expression(f"name == '{event}'", "name"),
                    *([expression("true == true", required)] if required else []),
                ]
            },
        }
        for event in events
    ]
    key = f'"{required}"'
    parameter = {
        "src": {
            "dependencyName": dependencies[0]["name"],
            "dataTemplate": f"{{{{ if (hasKey $.Input.body.payload {key}) }}}}"
            f"{{{{- (get $.Input.body.payload {key} | toRawJson) -}}}}"
            '{{- else -}}{{ (fail "use-default-instead") }}{{- end -}}',
        },
        "dest": f"spec.arguments.parameters.#(name={required}).value",
    }
    arguments = [{"name": required, "value": "0"}] if required else []
    resource = {
        "metadata": {"generateName": f"{name}-", "namespace": "default"},
        "spec": {
            "workflowTemplateRef": {"name": name},
            "arguments": {"parameters": arguments},
        },
    }
    action = {
        "operation": "submit",
        "source": {"resource": resource},
        "parameters": [parameter] if required else [],
    }
    return {
        "metadata": {"name": name.replace(".", "-")},
        "spec": {
            "dependencies": dependencies,
            "triggers": [{"template": {"name": name, "argoWorkflow": action}}],
        },
    }


@pytest.fixture
def happen(tmp_path: Path) -> Iterator[Callable[..., Happenings]]:
    """Return a function that makes a cluster, with what goes wrong in it."""
    with ExitStack() as opened:

        def make(**options: Any) -> Happenings:
            happenings = Happenings(tmp_path, **options)
            opened.callback(happenings.stage.server.close)
            return happenings

        yield make


@pytest.fixture
def happenings(happen: Callable[..., Happenings]) -> Happenings:
    return happen()


UP, DOWN, OTHER = "foo.test.bar.up", "foo.test.bar.down", "foo.test.bar.other"
FOOD, DRINK = "foo.test.bar.food", "foo.test.bar.drink"


def rows(report: Report) -> list[list[str]]:
    """Return the rows of the table of events, without the head."""
    return [list(row) for row in report.event_rows()[1:]]


def test_an_event_that_started_its_listener_is_no_problem(happenings: Happenings) -> None:
    happenings.deploy(DOWN, FOOD)
    happenings.deploy(UP)
    up = happenings.trigger(UP)
    happenings.publish(FOOD, by=up)
    report = happenings.report
    (row,) = rows(report)
    assert row[:2] == [FOOD, up]
    assert row[2].startswith(f"{DOWN}-")
    assert row[3] == "succeeded"
    assert report.problems == []


def test_a_failed_run_is_a_problem_and_names_the_run(happenings: Happenings) -> None:
    happenings.deploy(UP)
    up = happenings.trigger(UP)
    happenings.end("Failed")
    assert happenings.problems == [f"Failed: {up}"]


def test_an_orphan_has_the_nearest_name_that_somebody_listens_to(happenings: Happenings) -> None:
    happenings.deploy(DOWN, "foo.test.bar.foods")
    happenings.publish(FOOD)
    report = happenings.report
    assert report.problems == [
        f"Orphan: nobody heard {FOOD}; the nearest name that somebody listens to is "
        f"foo.test.bar.foods ({DOWN})"
    ]
    assert rows(report) == [[FOOD, "the command", "nobody", ""]]


@pytest.mark.parametrize(
    ("listened", "reason"),
    [
        ((), "nobody listens at all"),
        (("qqqq",), "no name that somebody listens to is like it"),
    ],
)
def test_an_orphan_that_is_like_no_name_says_so(
    happenings: Happenings, listened: tuple[str, ...], reason: str
) -> None:
    happenings.deploy(DOWN, *listened)
    happenings.publish(FOOD)
    assert happenings.problems == [f"Orphan: nobody heard {FOOD}; {reason}"]


def test_an_event_from_before_a_deployment_is_not_heard(happenings: Happenings) -> None:
    happenings.publish(FOOD)
    happenings.deploy(DOWN, FOOD)
    assert happenings.problems == [
        f"Orphan: nobody heard {FOOD}; its listener was deployed afterwards"
    ]


def test_a_listener_that_argo_leaves_dead_hears_nothing(
    happenings: Happenings, capfd: pytest.CaptureFixture[str]
) -> None:
    happenings.deploy(DOWN, "2fast")
    happenings.publish("2fast")
    assert happenings.problems == [
        f"Orphan: nobody heard 2fast; {DOWN} is dead",
        f"Dead: {DOWN} never hears 2fast: Argo Events takes a name only where it begins with a "
        "letter",
    ]
    assert f"[rehearsal] dead      {DOWN} to 2fast\n" in capfd.readouterr().out


def test_an_event_that_one_of_two_listeners_drops_says_why(happenings: Happenings) -> None:
    happenings.deploy(DOWN, FOOD, required="size")
    happenings.deploy(OTHER, FOOD)
    happenings.publish(FOOD)
    report = happenings.report
    assert report.problems == [f"Dropped: {FOOD} by {DOWN}, which asks that size is there"]
    assert rows(report)[1] == ["", "", DOWN, "drops it: asks that size is there"]
    assert report.as_json()["events"][0]["dropped"] == {
        "foo-test-bar-down": "asks that size is there"
    }


def test_an_event_that_its_only_listener_drops_is_an_orphan(happenings: Happenings) -> None:
    happenings.deploy(DOWN, FOOD, required="size")
    happenings.publish(FOOD)
    assert happenings.problems == [f"Orphan: nobody heard {FOOD}; {DOWN} asks that size is there"]


def test_an_automatic_event_counts_only_if_somebody_waits_for_it(happenings: Happenings) -> None:
    automatic = {"auto-generated-by-metaflow": True}
    happenings.publish("metaflow.foo.test.bar.Up.end", **automatic)
    assert happenings.problems == []
    happenings.deploy(DOWN, "metaflow.foo.test.bar.Up.end", required="size")
    happenings.publish("metaflow.foo.test.bar.Up.end", **automatic)
    assert happenings.problems == [
        "Orphan: nobody heard metaflow.foo.test.bar.Up.end; "
        "foo.test.bar.down asks that size is there"
    ]


def test_a_project_named_metaflow_has_orphans_too(happenings: Happenings) -> None:
    happenings.publish("metaflow.test.bar.food")
    assert happenings.problems == [
        "Orphan: nobody heard metaflow.test.bar.food; nobody listens at all"
    ]


def test_a_listener_of_two_events_waits_for_both(happenings: Happenings) -> None:
    happenings.deploy(DOWN, FOOD, DRINK)
    for event in (FOOD, DRINK, FOOD):
        happenings.publish(event)
    report = happenings.report
    assert report.problems == []
    assert len(report.runs) == 1
    assert rows(report)[2] == [FOOD, "the command", DOWN, f"waits for {DRINK}"]


@pytest.mark.parametrize(
    ("published", "nearest"),
    [
        ([FOOD], ""),
        (
            [FOOD, "foo.test.bar.drinks"],
            "; the nearest name that somebody published is foo.test.bar.drinks",
        ),
    ],
)
def test_a_listener_that_waits_for_what_nobody_published_is_a_problem(
    happenings: Happenings, published: list[str], nearest: str
) -> None:
    happenings.deploy(DOWN, FOOD, DRINK)
    happenings.deploy(OTHER, "foo.test.bar.drinks")
    for event in published:
        happenings.publish(event)
    assert happenings.problems == [
        f"Waiting: {DOWN} heard {FOOD} and waits for {DRINK}, which nobody published{nearest}"
    ]


def test_a_listener_whose_values_are_not_known_loses_the_event_and_the_others_hear_it(
    happenings: Happenings,
) -> None:
    happenings.deploy(DOWN, FOOD, required="size")
    happenings.deploy(OTHER, FOOD)
    happenings.publish(FOOD, size=10**400)
    report = happenings.report
    assert report.problems == [
        f"Lost: {FOOD} for foo-test-bar-down: the rehearsal does not support a number that does "
        "not fit a 64-bit float"
    ]
    (event,) = report.as_json()["events"]
    assert event["listeners"] == ["foo-test-bar-down", "foo-test-bar-other"]
    assert [name.partition("-")[0] for name in event["started"]] == [OTHER]


def test_a_workflow_that_cannot_be_created_loses_its_event(
    happen: Callable[..., Happenings],
) -> None:
    happenings = happen(faults=Faults(creations=1))
    happenings.deploy(DOWN, FOOD)
    happenings.publish(FOOD)
    happenings.publish(FOOD)
    report = happenings.report
    lost = "the Workflow could not be created, on purpose"
    assert report.problems == [f"Lost: {FOOD} for foo-test-bar-down: {lost}"]
    assert [event["lost"] for event in report.as_json()["events"]] == [
        {"foo-test-bar-down": lost},
        {},
    ]
    assert rows(report)[0] == [FOOD, "the command", DOWN, "lost"]


def test_an_event_that_the_webhook_does_not_take_is_a_problem(
    happen: Callable[..., Happenings], capfd: pytest.CaptureFixture[str]
) -> None:
    happenings = happen(faults=Faults(webhook_status=500))
    happenings.deploy(UP)
    up = happenings.trigger(UP)
    with pytest.raises(EventRefused):
        happenings.publish(FOOD, by=up)
    refusal = f"{FOOD} by {up}: the webhook answered 500, on purpose"
    assert happenings.problems == [f"Refused: {refusal}"]
    assert f"[rehearsal] refused   {refusal}\n" in capfd.readouterr().out


def test_a_body_that_is_too_large_is_a_problem(happenings: Happenings) -> None:
    with pytest.raises(EventRefused):
        happenings.publish(FOOD, text="x" * 1_100_000)
    (problem,) = happenings.problems
    assert re.fullmatch(
        r"Refused: an event by the command: the body has \d+ bytes, and at most 1048576 pass",
        problem,
    )


def test_a_cycle_is_stopped_after_as_many_rounds_as_it_may_have(
    happen: Callable[..., Happenings], tmp_path: Path
) -> None:
    happenings = happen(cycle=2)
    happenings.deploy(DOWN, FOOD)
    run = happenings.trigger(DOWN)
    for _ in range(2):
        happenings.publish(FOOD, by=run)
        run = next(reversed(happenings.stage.runs))
    report = happenings.report
    assert [run.phase for run in report.runs.values()] == ["Succeeded", "Succeeded", "Stopped"]
    assert report.problems == [
        f"Stopped: {run}: {DOWN} has started itself 2 times by the events that it causes (--cycle)"
    ]
    page = tmp_path / "report.html"
    report.write(page)
    assert "1 of 3 runs failed" in page.read_text()


CLUSTER_FLOW = {
    "above": "@schedule(daily=True)",
    "steps": """
        @kubernetes(image="my/image:1", secrets=["token"], gpu=1)
        @retry(times=1)
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass
    """,
}


def test_what_only_a_cluster_has_is_named(bench: Workbench) -> None:
    notify = ("--notify-on-error", "--notify-slack-webhook-url", "http://127.0.0.1:9")
    create = (bench.flow(**CLUSTER_FLOW), "argo-workflows", "create", *notify)
    result = bench.run(*create)
    assert result.status == 0, result.output
    report = bench.stage.report()
    for thing in (
        "the schedule '0 0 * * ?' of demoflow",
        "the image 'my/image:1' of start of demoflow",
        "the secret 'token' (which --secret token=FILE would give) of start of demoflow",
        "the resource 'nvidia.com/gpu' of start of demoflow",
        "the wait of 2m before start is retried of demoflow",
        "the HTTP request 'notify-slack-on-error' of demoflow",
    ):
        assert thing in report.unsupported
        assert f"Not supported: {thing}" in report.as_text()


def picture(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + len("</svg>")])


def test_the_page_shows_who_starts_whom_and_needs_nothing_else(
    happenings: Happenings, tmp_path: Path
) -> None:
    happenings.deploy(UP)
    happenings.deploy(DOWN, FOOD)
    happenings.publish(FOOD, by=happenings.trigger(UP))
    happenings.publish("<b>orphan")
    report = happenings.report
    for name in ("report.html", "report.svg"):
        report.write(tmp_path / name)
    page = (tmp_path / "report.html").read_text()
    boxes = {
        group[0].text: (group[1].get("class"), *(text.text for text in group[2:]))
        for group in picture(page).iter("g")
    }
    assert boxes == {
        UP: ("box deployment good", "up", "1 run"),
        FOOD: ("box event good", "food", "published once"),
        DOWN: ("box deployment good", "down", "1 run"),
        "<b>orphan": ("box event bad", "<b>orphan", "published, nobody heard it"),
    }
    assert "<li>Orphan: nobody heard &lt;b&gt;orphan" in page
    assert not re.search(r"<script|<link|src=|https?:", page)
    alone = ElementTree.fromstring((tmp_path / "report.svg").read_text())
    assert {group[0].text for group in alone.iter(f"{SVG}g")} == set(boxes)


@pytest.mark.parametrize(
    "text", [lambda report: report.as_text(), lambda report: report.as_json()["events"]]
)
def test_a_report_of_nothing_says_so(
    happenings: Happenings, tmp_path: Path, text: Callable[[Report], Any]
) -> None:
    report = happenings.report
    assert text(report) in ("No event was published.", [])
    report.write(tmp_path / "report.svg")
    assert "Nothing was deployed." in (tmp_path / "report.svg").read_text()
