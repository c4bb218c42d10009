from __future__ import annotations

import json

import pytest
from conftest import Result, Webhook, Workbench
from flows import CONFIG, PROJECT, config, listening, publishing

# A pod publishes in the branch of the owner; whose login it has does not matter.
NO_URL = (
    "METAFLOW_ARGO_EVENTS_WEBHOOK_URL must be an http or https URL with a host and without a "
    "password, not"
)
DEPLOYED = {"ARGO_WORKFLOW_TEMPLATE": "foo.prod.bar.demoflow", "METAFLOW_OWNER": "jane"}
SCRIPT = """
import collections
from namespaced_trigger import NamespacedTriggerException, namespaced_trigger
class failing(collections.UserDict):
    def __init__(self):
        self.data = dict(a=1)
    def __getitem__(self, key):
        raise OSError("no")
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
        "Event 'foo.user.alice.food' was not published: safe_publish=True, and this is a local run."
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
        (307, "HTTP Error 307: Temporary Redirect, redirected to /login"),
        (308, "HTTP Error 308: Permanent Redirect, redirected to /login"),
        ("cut off", "Remote end closed connection without response"),
        ("cut off in the status", "HTTP/1.1 2"),
        ("refused", "<urlopen error [Errno 111] Connection refused>"),
        ("no webhook", f"{NO_URL} ''."),
        *(
            (url, f"{NO_URL} {url!r}.")
            for url in (
                "http://[webhook",
                "http://webhook:a/",
                "webhook:12000",
                "file:///etc/webhook",
                "ftp://webhook/",
                "htp://webhook/",
            )
        ),
        ("http://user:secret@webhook/", f"{NO_URL} 'http://...@webhook/'."),
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


@pytest.mark.parametrize("variables", [{}, DEPLOYED])
def test_a_script_publishes_in_the_branch_of_a_user_that_it_names(
    bench: Workbench, webhook: Webhook, variables: dict[str, str]
) -> None:
    bench.variables.update(variables)
    publish_from_a_script(bench, '"food", project="foo", user="bob"')
    assert webhook.names == ["foo.user.bob.food"]


def test_another_process_of_a_deployed_workflow_names_its_branch(
    bench: Workbench, webhook: Webhook
) -> None:
    bench.variables.update(DEPLOYED)
    result = publish_from_a_script(bench, '"food", project="foo"')
    assert result.status == 1
    assert (
        "The branch of 'foo' is not known in this process of a deployed workflow. Give branch=, "
        "production= or user= as well."
    ) in result.stderr
    assert webhook.requests == []
    publish_from_a_script(bench, '"food", project="foo", production=True')
    assert webhook.names == ["foo.prod.food"]


@pytest.mark.parametrize("count", ["0", "-1"])
def test_an_event_that_metaflow_does_not_try_to_send_is_not_published(
    bench: Workbench, webhook: Webhook, count: str
) -> None:
    bench.variables["METAFLOW_SERVICE_RETRY_COUNT"] = count
    result = publish_from_a_script(bench, '"food", project="foo", user="a", ignore_errors=False')
    assert result.status == 1
    assert "METAFLOW_SERVICE_RETRY_COUNT must be at least 1." in result.stderr
    assert webhook.requests == []


def test_blanks_around_the_url_do_not_count(bench: Workbench, webhook: Webhook) -> None:
    bench.variables["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] = f"  {webhook.url} \n"
    publish_from_a_script(bench, '"food", project="foo", user="a"')
    assert webhook.names == ["foo.user.a.food"]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer secret\n"}, "Authorization"),
        ({"X Y": "secret"}, "X Y"),
        ({"X": "secret\N{SNOWMAN}"}, "X"),
    ],
)
def test_headers_that_cannot_be_sent_are_named_without_their_values(
    bench: Workbench, webhook: Webhook, headers: dict[str, str], key: str
) -> None:
    bench.variables["METAFLOW_SERVICE_HEADERS"] = json.dumps(headers)
    bench.variables["METAFLOW_ARGO_EVENTS_WEBHOOK_AUTH"] = "service"
    result = publish_from_a_script(bench, '"food", project="foo", user="a"')
    assert (
        "The keys and values of METAFLOW_SERVICE_HEADERS must be text of one line, not those of "
        f"{key!r}."
    ) in result.stderr
    assert "secret" not in result.stderr
    assert webhook.requests == []


@pytest.mark.parametrize(
    "before",
    [
        "urllib.request.install_opener(urllib.request.build_opener())",
        "urllib.request.install_opener("
        "types.SimpleNamespace(open=urllib.request.build_opener().open))",
        "sys.stderr.close()",
        "sys.stderr = None",
    ],
)
def test_what_a_process_did_to_its_own_opener_or_stderr_does_not_count(
    bench: Workbench, webhook: Webhook, before: str
) -> None:
    publication = publishing('"f ood", dict(a="$x"), project="foo", user="a"')
    script = SCRIPT.format(call=publication).replace("print(", f"{before}\nprint(")
    result = bench.script(f"import sys, types, urllib.request\n{script}")
    assert result.stdout == f"id: {webhook.requests[0]['payload']['id']}\n", result.stderr
    assert webhook.names == ["foo.user.a.food"]


def test_a_payload_may_change_while_it_is_read(bench: Workbench, webhook: Webhook) -> None:
    result = bench.script(
        SCRIPT.format(call="None")
        + """
class changing(collections.UserDict):
    def items(self):
        yield "a", self.data.pop("a")
payload = changing(a=[1])
print("id:", namespaced_trigger.raise_event("food", payload, project="foo", user="a"))
"""
    )
    assert webhook.requests[0]["payload"]["a"] == [1], result.output


def test_a_script_without_a_namespace_publishes_nothing(bench: Workbench, webhook: Webhook) -> None:
    result = publish_from_a_script(bench, '"food"')
    assert result.status == 1
    assert (
        'outside of a flow, give project="my_project" with branch="my_branch" or production=True.'
    ) in result.stderr
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("payload", "warning"),
    [
        (
            '{"a": "x" * 99_992}',
            "the payload has 100,001 bytes, and more than 128 KiB cannot reach a pod. Put the data "
            "into a file, and its path into the payload.",
        ),
        (
            '{"a": [{"b": 2**53 + 1, "c": 2**53}]}',
            'payload["a"][0]["b"] is 9007199254740993, which arrives rounded. Send it as text.',
        ),
        ('{"a": -(2**53) - 1}', 'payload["a"] is -9007199254740993, which arrives rounded'),
        *(
            (
                repr({"a": [text, text]}),
                "payload[\"a\"][1] has a '$' or a backtick. If a listener maps it to a parameter, "
                "a shell in its pod runs it as a command.",
            )
            for text in ("$HOME", "${HOME}", "$(echo pwned)", "`echo pwned`", "$1", "\\\\$x")
        ),
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
    assert all(each == "True" or "cannot be sent (" in each for each in outcomes)


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
        f"Namespaced trigger warning: the config 'project' names {meant}, but sets the branch of "
        "flows with @namespaced_trigger only: this one publishes in foo.user.alice. Deploy it with "
        f"{flags}.\n"
    ) in result.output
    result = publish(bench, '"food"', *config(**values), *flags.split())
    assert webhook.names[1:] == [f"{meant}.food"]
    assert "warning" not in result.output


def test_a_listener_that_publishes_is_not_warned_of_its_own_config(
    bench: Workbench, webhook: Webhook
) -> None:
    flow = bench.flow(
        **listening('event="drink"', project='@project(name="foo", branch="st")'),
        start=publishing('"food"'),
    )
    result = bench.run_locally(flow, *config(production=True))
    assert webhook.names == ["foo.prod.st.food"]
    assert "warning" not in result.output


@pytest.mark.parametrize("values", [{}, {"branch": "", "production": False}, {"branch": 5}])
def test_a_publisher_whose_config_names_no_branch_is_not_warned(
    bench: Workbench, webhook: Webhook, values: dict[str, object]
) -> None:
    result = publish(bench, '"food"', *config(**values), "--branch", "bar")
    assert webhook.names == ["foo.test.bar.food"]
    assert "warning" not in result.output


@pytest.mark.parametrize(
    "payload",
    [
        '{"a": "x" * 99_991}',
        '{"a": [2**53, -(2**53), 0.5, 2**60, True, None, (1,)]}',
        '{"a": "5 $, $ 5, 100 % $"}',
    ],
)
def test_a_payload_that_arrives_as_it_is_does_not_warn(
    bench: Workbench, webhook: Webhook, payload: str
) -> None:
    result = publish_from_a_script(bench, f'"food", {payload}, project="foo", production=True')
    assert len(webhook.requests) == 1
    assert "warning" not in result.stderr


def test_a_flow_without_a_project_publishes_nothing(bench: Workbench, webhook: Webhook) -> None:
    result = publish(bench, '"food"', project="")
    assert result.status == 1
    assert "No flow with a project is running." in result.output
    assert webhook.requests == []


@pytest.mark.parametrize("project", ["2fast", "_x"])
def test_a_name_that_argo_never_hears_is_refused_at_publication(
    bench: Workbench, webhook: Webhook, project: str
) -> None:
    result = publish(bench, '"food"', project=f'@project(name="{project}")')
    assert result.status == 1
    assert f"Argo Events never hears '{project}.user.alice.food'" in result.output
    assert webhook.requests == []


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ("[1]", 'The payload must be a dict, for example {"path": "s3://bucket/key"}, not [1].'),
        ("{1: 2}", "A key of payload must be text that is valid Unicode, not 1."),
        ("{'a': [{None: 2}]}", 'A key of payload["a"][0] must be text that is valid Unicode'),
        ('{"b": [0, float("nan")]}', 'payload["b"][1] must be finite, not nan.'),
        (
            '{"a": {1}}',
            'payload["a"] must be text, a number, true, false, null, a list or a dict, not {1}.',
        ),
        ("(lambda d: d.update(a=d) or d)({})", "cannot be sent (RecursionError: maximum"),
        ('{"a": 10**400}', 'payload["a"] must fit a 64-bit float.'),
        ('{"a": 10**5000}', 'payload["a"] must fit a 64-bit float.'),
        ('{"a": deep(100_000)}', "cannot be sent (RecursionError: maximum recursion depth"),
        ("{'a': '\\ud800'}", 'payload["a"] must be text that is valid Unicode, not'),
        ("{'\\udfff': 1}", "A key of payload must be text that is valid Unicode, not"),
        ("failing()", "The payload cannot be sent (OSError: no)."),
        *(
            (
                repr({key: "x"}),
                f"The payload must not have the key {key!r}, which is the event's own. Rename it, "
                f'for example to "my_{key}".',
            )
            for key in ("name", "id", "timestamp", "utc_date", "generated-by-metaflow")
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
