from __future__ import annotations

import pytest
from conftest import Result, Webhook, Workbench
from flows import CONFIG, PROJECT, config, listening, publishing

# A pod publishes in the branch of the owner; whose login it has does not matter.
DEPLOYED = {"ARGO_WORKFLOW_TEMPLATE": "foo.prod.bar.demoflow", "METAFLOW_OWNER": "jane"}
SCRIPT = """
from namespaced_trigger import NamespacedTriggerException, namespaced_trigger
def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value
print("id:", {call})
"""


def publish(bench: Workbench, call: str, *options: str, project: str = PROJECT) -> Result:
    """Publish from a flow that has a config."""
    start = f'print("id:", {publishing(call)})'
    return bench.run_locally(bench.flow(above=project, body=CONFIG, start=start), *options)


def publish_from_a_script(bench: Workbench, call: str) -> Result:
    return bench.script(SCRIPT.format(call=publishing(call)))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (("--branch", "bar", "--production"), "foo.prod.bar.food"),
        (("--branch", "bar"), "foo.test.bar.food"),
        (("--production",), "foo.prod.food"),
        ((), "foo.user.jane.food"),
    ],
)
def test_an_event_is_published_in_the_namespace_of_the_flow(
    bench: Workbench, webhook: Webhook, options: tuple[str, ...], name: str
) -> None:
    bench.variables.update(DEPLOYED)
    result = publish(bench, '"food", {"a": 1}, safe_publish=True', *options)
    assert result.status == 0, result.output
    (request,) = webhook.requests
    assert request["name"] == request["payload"]["name"] == name
    assert request["payload"]["a"] == 1
    assert f"id: {request['payload']['id']}" in result.stdout


def test_a_safe_publication_happens_in_a_deployed_workflow_only(
    bench: Workbench, webhook: Webhook
) -> None:
    result = publish(bench, '"food", safe_publish=True, ignore_errors=False')
    assert result.status == 0, result.output
    assert "id: None" in result.stdout
    assert (
        "Event 'foo.user.alice.food' was not published: this run is not a deployed workflow, and "
        "safe_publish=True publishes in those only."
    ) in result.output
    assert webhook.requests == []

    result = publish(bench, '"food"')
    assert webhook.names == ["foo.user.alice.food"]


def test_a_failed_publication_is_told_and_the_step_goes_on(
    bench: Workbench, webhook: Webhook
) -> None:
    webhook.status = 500
    result = publish(bench, '"food"')
    assert result.status == 0, result.output
    assert "id: None" in result.stdout
    assert (
        f"Event 'foo.user.alice.food' was not published to {webhook.host}: HTTP Error 500: "
        "Internal Server Error"
    ) in result.output


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "HTTP Error 401: Unauthorized"),
        (404, "HTTP Error 404: Not Found"),
        (500, "HTTP Error 500: Internal Server Error"),
        (302, "HTTP Error 302: Found, redirected to /login"),
        ("cut off", "Remote end closed connection without response"),
        ("cut off in the status", "HTTP/1.1 2"),
        ("refused", "<urlopen error [Errno 111] Connection refused>"),
        ("no webhook", "METAFLOW_ARGO_EVENTS_WEBHOOK_URL is not set"),
        (
            "http://[webhook",
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL is 'http://[webhook', which has no host",
        ),
        (
            "http://webhook:a/",
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL is 'http://webhook:a/', which has no host",
        ),
        ("webhook:12000", "METAFLOW_ARGO_EVENTS_WEBHOOK_URL is 'webhook:12000', which has no host"),
        (
            "http://user:secret@webhook/",
            "METAFLOW_ARGO_EVENTS_WEBHOOK_URL has a user's name or password in it, which Metaflow "
            "cannot send; METAFLOW_SERVICE_HEADERS can carry them",
        ),
    ],
)
def test_an_event_that_is_not_accepted_is_told_with_the_host_and_the_reason(
    bench: Workbench, webhook: Webhook, status: int | str, reason: str
) -> None:
    host = f" to {webhook.host}"
    if isinstance(status, int):
        webhook.status = status
    elif status.startswith("cut off"):
        webhook.cut_off = b"HTTP/1.1 2" if "status" in status else b""
    elif "webhook" in status:
        bench.variables["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] = (
            "(unset)" if status == "no webhook" else status
        )
        host = ""
    else:
        bench.variables["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] = "http://127.0.0.1:9/metaflow-event"
        bench.variables["METAFLOW_SERVICE_RETRY_COUNT"] = "1"
        host = " to 127.0.0.1:9"
    arguments = '"food", project="foo", production=True'
    going_on, ending = publishing(arguments), publishing(f"{arguments}, ignore_errors=False")
    result = bench.script(SCRIPT.format(call=going_on) + ending)
    assert (result.status, result.stdout) == (1, "id: None\n"), result.output
    message = f"Event 'foo.prod.food' was not published{host}: {reason}\n"
    assert result.stderr.startswith(f"{message}Traceback")
    assert result.stderr.endswith(f"NamespacedTriggerException: {message}")
    assert {"GET": "/login"} not in webhook.requests


def test_a_slow_webhook_is_waited_for(bench: Workbench, webhook: Webhook) -> None:
    webhook.seconds = 2
    result = publish_from_a_script(bench, '"food", project="foo", branch="bar"')
    assert result.stdout == f"id: {webhook.requests[0]['payload']['id']}\n"


def test_other_requests_of_the_process_are_redirected_as_before(
    bench: Workbench, webhook: Webhook
) -> None:
    webhook.status = 302
    publication = publishing('"food", project="foo", branch="bar"')
    result = bench.script(
        2 * SCRIPT.format(call=publication)
        + "import urllib.request\n"
        + f"print(urllib.request.urlopen({webhook.url + '/other'!r}, data=b'{{}}').status)\n"
    )
    assert result.stdout == "id: None\nid: None\n200\n", result.output
    assert [path for request in webhook.requests for path in request if path == "GET"] == ["GET"]


@pytest.mark.parametrize(
    ("namespace", "name"),
    [
        ('project="foo", branch="bar", production=True', "foo.prod.bar.food"),
        ('project="foo", branch="bar"', "foo.test.bar.food"),
        ('project="foo", production=True', "foo.prod.food"),
        ('project="foo"', "foo.user.alice.food"),
    ],
)
def test_a_script_publishes_in_the_namespace_that_it_names(
    bench: Workbench, webhook: Webhook, namespace: str, name: str
) -> None:
    publish_from_a_script(bench, f'"food", {namespace}')
    assert webhook.names == [name]


def test_a_flow_publishes_in_another_namespace_that_it_names(
    bench: Workbench, webhook: Webhook
) -> None:
    publish(bench, '"food", branch="bar"', "--production")
    publish(bench, '"food", project="other", production=True', "--branch", "bar")
    publish(bench, '"food", project="other"', "--branch", "bar")
    assert webhook.names == ["foo.test.bar.food", "other.prod.food", "other.test.bar.food"]


def test_a_script_without_a_namespace_publishes_nothing(bench: Workbench, webhook: Webhook) -> None:
    result = publish_from_a_script(bench, '"food"')
    assert result.status == 1
    assert (
        'outside of a flow, give project="my_project" with branch="my_branch", production=True '
        "or both."
    ) in result.stderr
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("payload", "warning"),
    [
        (
            '{"a": "x" * 99_992}',
            "the payload of 'foo.prod.food' has 100,001 bytes. One of more than 128 KiB cannot "
            "reach the pod; put the data into a file, and its path into the payload.",
        ),
        (
            '{"a": [{"b": 2**53 + 1, "c": 2**53}]}',
            "the payload of 'foo.prod.food' has the integer 9007199254740993, which arrives "
            "rounded (Argo Events keeps 53 bits). Send it as text.",
        ),
        ('{"a": -(2**53) - 1}', "the integer -9007199254740993, which arrives rounded"),
    ],
)
def test_a_payload_that_arrives_changed_warns(
    bench: Workbench, webhook: Webhook, payload: str, warning: str
) -> None:
    result = publish_from_a_script(bench, f'"food", {payload}, project="foo", production=True')
    assert len(webhook.requests) == 1
    assert result.stderr.count("Namespaced trigger warning: ") == 1
    assert warning in result.stderr


def test_a_nested_payload_is_sent_or_refused(bench: Workbench, webhook: Webhook) -> None:
    sent = publishing('"food", {"a": deep(levels)}, project="foo", production=True')
    result = bench.script(
        SCRIPT.format(call="None")
        + "for levels in (900, 1200, 5000):\n"
        + f"    try:\n        print(bool({sent}))\n"
        + "    except NamespacedTriggerException as refusal:\n        print(refusal)\n"
    )
    assert result.status == 0, result.output
    outcomes = result.stdout.splitlines()[1:]
    assert len(outcomes) == 3
    assert len(webhook.requests) == outcomes.count("True")
    assert all(each == "True" or "cannot be sent: " in each for each in outcomes)


@pytest.mark.parametrize(
    ("values", "meant", "flags"),
    [
        ({"branch": "bar"}, "foo.test.bar", "--branch bar"),
        ({"branch": "bar", "production": True}, "foo.prod.bar", "--branch bar --production"),
        ({"production": True}, "foo.prod", "--production"),
        ({"branch": "", "production": True}, "foo.prod", "--production"),
    ],
)
def test_a_publisher_whose_config_names_another_branch_is_warned(
    bench: Workbench, webhook: Webhook, values: dict[str, object], meant: str, flags: str
) -> None:
    result = publish(bench, '"food"', *config(**values))
    assert webhook.names == ["foo.user.alice.food"]
    assert (
        f"Namespaced trigger warning: the config 'project' names {meant}, and this flow publishes "
        "in foo.user.alice: the config sets the branch of a flow with @namespaced_trigger only. "
        f"Deploy this one with {flags}.\n"
    ) in result.output
    result = publish(bench, '"food"', *config(**values), *flags.split())
    assert webhook.names[1:] == [f"{meant}.food"]
    assert "warning" not in result.output


@pytest.mark.parametrize("values", [{}, {"branch": "", "production": False}, {"branch": 5}])
def test_a_publisher_whose_config_names_no_branch_is_not_warned(
    bench: Workbench, webhook: Webhook, values: dict[str, object]
) -> None:
    result = publish(bench, '"food"', *config(**values), "--branch", "bar")
    assert webhook.names == ["foo.test.bar.food"]
    assert "warning" not in result.output


@pytest.mark.parametrize("payload", ['{"a": "x" * 99_991}', '{"a": [2**53, -(2**53), 0.5]}'])
def test_a_payload_that_arrives_as_it_is_does_not_warn(
    bench: Workbench, webhook: Webhook, payload: str
) -> None:
    result = publish_from_a_script(bench, f'"food", {payload}, project="foo", production=True')
    assert len(webhook.requests) == 1
    assert "warning" not in result.stderr


def test_a_flow_without_a_project_publishes_nothing(bench: Workbench, webhook: Webhook) -> None:
    result = publish(bench, '"food"', project="")
    assert result.status == 1
    assert "No flow with a project is running here" in result.output
    assert webhook.requests == []


@pytest.mark.parametrize("project", ["2fast", "_x"])
def test_a_name_that_argo_never_hears_is_refused_at_publication(
    bench: Workbench, webhook: Webhook, project: str
) -> None:
    result = publish(bench, '"food"', project=f'@project(name="{project}")')
    assert result.status == 1
    assert f"Argo Events would never hear '{project}.user.alice.food'" in result.output
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("[1]", "The payload is a dict with text keys, and [1] is not."),
        ("{1: 2}", "The payload is a dict with text keys, and {1: 2} is not."),
        ("{'a': [{None: 2}]}", "The payload is a dict with text keys, and {None: 2} is not."),
        (
            '{"a": float("nan")}',
            "The payload of 'foo.user.alice.food' cannot be sent: Out of range float values are "
            "not JSON compliant",
        ),
        ('{"a": {1}}', "cannot be sent: Object of type set is not JSON serializable."),
        ("(lambda d: d.update(a=d) or d)({})", "cannot be sent: Circular reference detected."),
        ('{"a": 10**400}', "cannot be sent: int too large to convert to float."),
        ('{"a": 10**5000}', "cannot be sent: "),
        ('{"a": deep(100_000)}', "cannot be sent: maximum recursion depth exceeded"),
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
    result = publish_from_a_script(bench, f'"food", {payload}, safe_publish=True, project="foo"')
    assert result.status == 1
    assert message in result.output
    assert webhook.requests == []


def test_both_sides_of_a_deployment_use_the_same_name(bench: Workbench, webhook: Webhook) -> None:
    publish(bench, '"fo od"', "--branch", "bar", "--production")
    listener = bench.flow(**listening('event="fo od"'))
    assert bench.listened(listener, *config(branch="bar", production=True)) == webhook.names
