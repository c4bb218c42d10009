from __future__ import annotations

import json

import pytest
from conftest import Result, Webhook, Workbench

PROJECT = """
@project(name="foo")
class DemoFlow(FlowSpec):
    pass
"""
DEPLOYED = {
    "ARGO_WORKFLOW_TEMPLATE": "foo.prod.bar.demoflow",
    "METAFLOW_USER": "argo-workflows",
    "METAFLOW_OWNER": "alice",
}


def publish(
    bench: Workbench, webhook: Webhook, call: str, *options: str, source: str = PROJECT
) -> Result:
    flow = bench.flow(source, start=f'print("id:", namespaced_trigger.raise_event({call}))')
    bench.variables["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] = webhook.url
    return bench.run(flow, *options, "--datastore", "local", "run")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--branch", "bar", "--production"), "foo.prod.bar.food"),
        (("--branch", "bar"), "foo.test.bar.food"),
        (("--production",), "foo.prod.food"),
        ((), "foo.user.alice.food"),
    ],
)
def test_an_event_is_published_in_the_namespace_of_the_flow(
    bench: Workbench, webhook: Webhook, options: tuple[str, ...], name: str
) -> None:
    bench.variables.update(DEPLOYED)
    result = publish(bench, webhook, '"food", {"a": 1}, safe_publish=True', *options)
    assert result.status == 0, result.output
    (request,) = webhook.requests
    assert request["name"] == request["payload"]["name"] == name
    assert request["payload"]["a"] == 1
    assert f"id: {request['payload']['id']}" in result.stdout


def test_a_safe_publication_happens_in_a_deployed_workflow_only(
    bench: Workbench, webhook: Webhook
) -> None:
    result = publish(bench, webhook, '"food", safe_publish=True, ignore_errors=False')
    assert result.status == 0, result.output
    assert "id: None" in result.stdout
    assert (
        "Event 'foo.user.alice.food' was not published: this run is not a deployed workflow, and "
        "safe_publish=True publishes in those only."
    ) in result.output
    assert webhook.requests == []

    result = publish(bench, webhook, '"food"')
    assert webhook.names == ["foo.user.alice.food"]


def test_a_failed_publication_is_told_and_the_step_goes_on(
    bench: Workbench, webhook: Webhook
) -> None:
    webhook.status = 500
    result = publish(bench, webhook, '"food"')
    assert result.status == 0, result.output
    assert "id: None" in result.stdout
    host = webhook.url.removeprefix("http://").removesuffix("/metaflow-event")
    assert (
        f"Event 'foo.user.alice.food' was not published to {host}: HTTP Error 500: "
        "Internal Server Error"
    ) in result.output


def test_a_failed_publication_fails_the_step_where_errors_count(
    bench: Workbench, webhook: Webhook
) -> None:
    webhook.status = 401
    result = publish(bench, webhook, '"food", ignore_errors=False')
    assert result.status == 1
    assert "Event 'foo.user.alice.food' was not published to 127.0.0.1" in result.output
    assert "HTTP Error 401: Unauthorized" in result.output


def test_a_flow_without_a_project_publishes_nothing(bench: Workbench, webhook: Webhook) -> None:
    source = "class DemoFlow(FlowSpec):\n    pass"
    result = publish(bench, webhook, '"food"', source=source)
    assert result.status == 1
    assert "No flow with a project is running here" in result.output
    assert webhook.requests == []


@pytest.mark.parametrize("project", ["2fast", "_x"])
def test_a_name_that_argo_never_hears_is_refused_at_publication(
    bench: Workbench, webhook: Webhook, project: str
) -> None:
    source = PROJECT.replace("foo", project)
    result = publish(bench, webhook, '"food"', source=source)
    assert result.status == 1
    assert f"Argo Events would never hear '{project}.user.alice.food'" in result.output
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("[1]", "The payload is a dict with text keys, and [1] is not."),
        ("{1: 2}", "The payload is a dict with text keys, and {1: 2} is not."),
        ('{"a": float("nan")}', "The payload {'a': nan} is not valid JSON: Out of range"),
        ('{"a": {1}}', "The payload {'a': {1}} is not valid JSON: Object of type set"),
        ("(lambda d: d.update(a=d) or d)({})", "is not valid JSON: Circular reference"),
        *(
            (
                repr({key: "x"}),
                f"The payload has the key {key!r}, which would replace the event's own. Rename it, "
                f'for example to "my_{key}".',
            )
            for key in ("name", "timestamp", "utc_date", "generated-by-metaflow")
        ),
    ],
)
def test_a_payload_that_could_not_arrive_is_refused(
    bench: Workbench, webhook: Webhook, payload: str, message: str
) -> None:
    result = publish(bench, webhook, f'"food", {payload}, safe_publish=True')
    assert result.status == 1
    assert message in result.output
    assert webhook.requests == []


def test_both_sides_of_a_deployment_use_the_same_name(bench: Workbench, webhook: Webhook) -> None:
    bench.variables.update(DEPLOYED)
    publish(bench, webhook, '"fo od"', "--branch", "bar", "--production")
    listener = bench.flow(
        """
        @namespaced_trigger(event="fo od")
        @project(name="foo")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={})
        """,
        name="listener.py",
    )
    value = json.dumps({"branch": "bar", "production": True})
    assert bench.listened(listener, "--config-value", "project", value) == webhook.names
