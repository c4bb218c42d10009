"""What @trigger can express, @namespaced_trigger can."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import VERSION, Workbench, has_traceback

LISTENER = """
@{decorator}
@project(name="foo", branch="bar", production=True)
class DemoFlow(FlowSpec):
    project = Config("project", default_value={{"event": "EVENT", "field": "n"}})
    count = Parameter("count", type=int, required=True)
    text = Parameter("text", default="")
"""
OTHER_MUTATOR = """
class other(FlowMutator):
    def pre_mutate(self, flow):
        flow.add_decorator(project, deco_kwargs={"name": "foo", "branch": "bar"})
        flow.add_parameter("count", Parameter("count", default=1))

"""
FORMS = [
    'event="EVENT"',
    'event={"name": "EVENT"}',
    'event={"name": "EVENT", "parameters": {"count": "n"}}',
    'event={"name": "EVENT", "parameters": ["count", ("text", "t")]}',
    'event={"name": "EVENT", "parameters": lambda context: {"count": "n"}}',
    'event={"name": lambda context: "EVENT", "parameters": {"count": "n"}}',
    'event=lambda context: "EVENT"',
    'event=lambda context: {"name": "EVENT", "parameters": {"count": "n"}}',
    'event=lambda context: {"name": "EVENT", "parameters": ["count", ("text", "t")]}',
    'event=lambda context: {"name": "EVENT", "parameters": lambda context: {"count": "n"}}',
    'event=lambda context: {"name": lambda context: "EVENT", "parameters": {"count": "n"}}',
    'event=config_expr("project").event',
    'event={"name": config_expr("project").event, "parameters": {"count": "n"}}',
    'events=["EVENT", "EVENT2"]',
    'events=[{"name": "EVENT", "parameters": {"count": "n"}}, "EVENT2"]',
    'events=["EVENT2", lambda context: "EVENT"]',
    'events=[config_expr("project").event]',
    'events=lambda context: ["EVENT", {"name": "EVENT2", "parameters": {"count": "n"}}]',
]


def compiled(bench: Workbench, decorator: str, event: str) -> Any:
    """Return what Metaflow makes of a decorator with this name in the place of EVENT."""
    bench.variables["PYTHONHASHSEED"] = "0"  # Metaflow orders mapped parameters by hash
    result = bench.deploy(bench.flow(LISTENER.format(decorator=decorator).replace("EVENT", event)))
    assert result.status == 0, result.output
    (sensor,) = bench.stage.cluster.list_all("default", "sensors")
    return sensor["spec"]["dependencies"], sensor["spec"]["triggers"]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_of_trigger_compiles_to_the_sensor_that_the_full_name_gives(
    bench: Workbench, form: str
) -> None:
    if form.count("lambda") > 1 and VERSION < (2, 18):
        pytest.skip("@trigger takes a function within a function's dict from Metaflow 2.18 on")
    assert compiled(bench, f"namespaced_trigger({form})", "food") == compiled(
        bench, f"trigger({form})", "foo.prod.bar.food"
    )


@pytest.mark.parametrize(
    ("event", "same"),
    [
        (
            '{"name": "EVENT", "parameters": ("count", ("text", "t"))}',
            '{"name": "EVENT", "parameters": ["count", ("text", "t")]}',
        ),
        (
            '{"name": "EVENT", "parameters": ["count", ["text", "t"]]}',
            '{"name": "EVENT", "parameters": ["count", ("text", "t")]}',
        ),
        (
            '{"name": "EVENT", "parameters": lambda context: (("text", "t"),)}',
            '{"name": "EVENT", "parameters": {"text": "t"}}',
        ),
        ('{"name": "EVENT", "parameters": None}', '{"name": "EVENT"}'),
    ],
)
def test_a_mapping_that_trigger_would_drop_or_refuse_means_what_it_says(
    bench: Workbench, event: str, same: str
) -> None:
    assert compiled(bench, f"namespaced_trigger(event={event})", "food") == compiled(
        bench, f"trigger(event={same})", "foo.prod.bar.food"
    )


def test_a_function_that_returns_the_list_may_return_functions(bench: Workbench) -> None:
    events = 'lambda context: [lambda context: "EVENT", {"name": lambda context: "EVENT2"}]'
    assert compiled(bench, f"namespaced_trigger(events={events})", "food") == compiled(
        bench, 'trigger(events=["EVENT", "EVENT2"])', "foo.prod.bar.food"
    )


def test_what_was_passed_in_is_not_changed(bench: Workbench) -> None:
    flow = bench.flow(
        """
        EVENT = {"name": "food", "project_branch": "prod", "parameters": ["count"]}
        EVENTS, OPTIONS = [EVENT, "drink"], {"reset_at": {"cron": "0 0 * * *"}}

        @namespaced_trigger(events=EVENTS, options=OPTIONS)
        @project(name="foo")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={})
            count = Parameter("count", default=1)
        """,
        start="print(EVENTS, OPTIONS)",
    )
    result = bench.run(flow, "--datastore", "local", "run")
    assert (
        "[{'name': 'food', 'project_branch': 'prod', 'parameters': ['count']}, 'drink'] "
        "{'reset_at': {'cron': '0 0 * * *'}}"
    ) in result.stdout
    assert bench.listened(flow) == ["foo.prod.food", "foo.user.alice.drink"]


@pytest.mark.parametrize(
    ("namespace", "listened"),
    [
        ('"project_branch": "prod"', "foo.prod.food"),
        ('"project_branch": "prod.x"', "foo.prod.x.food"),
        ('"project_branch": "test.x"', "foo.test.x.food"),
        ('"project_branch": "user.jane"', "foo.user.jane.food"),
        ('"project": "other"', "other.test.bar.food"),
        ('"project": "other", "project_branch": "prod"', "other.prod.food"),
    ],
)
def test_an_event_may_come_from_another_namespace(
    bench: Workbench, namespace: str, listened: str
) -> None:
    flow = bench.flow(
        f"""
        @namespaced_trigger(event={{"name": "food", {namespace}}})
        @project(name="foo", branch="bar")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={{}})
        """
    )
    assert bench.listened(flow) == [listened]


@pytest.mark.parametrize(
    ("base", "derived", "listened"),
    [
        ('@namespaced_trigger(event="food")', '@project(name="foo")', "foo.test.bar.food"),
        ('@project(name="foo")', '@namespaced_trigger(event="food")', "foo.test.bar.food"),
        ('@namespaced_trigger(event="food")\n@project(name="foo")', "", "foo.test.bar.food"),
    ],
)
def test_a_decorator_on_a_base_class_counts(
    bench: Workbench, base: str, derived: str, listened: str
) -> None:
    flow = bench.flow(
        f"{base}\n"
        "class BaseFlow(FlowSpec):\n"
        "    project = Config('project', default_value={'branch': 'bar'})\n"
        f"{derived}\n"
        "class DemoFlow(BaseFlow):"
    )
    assert bench.listened(flow) == [listened]


def test_a_decorator_with_a_config_on_a_base_class_refuses_what_is_no_mapping(
    bench: Workbench,
) -> None:
    flow = bench.flow(
        """
        class BaseFlow(FlowSpec):
            project = Config("project", default_value={})

        @namespaced_trigger(event="food")
        @project(name="foo")
        class DemoFlow(BaseFlow):"""
    )
    result = bench.run(flow, "--config-value", "project", "[1]", "show")
    assert result.status == 1
    assert "The config 'project' is a mapping" in result.message
    assert not has_traceback(result.output)
    assert bench.listened(flow) == ["foo.user.alice.food"]


@pytest.mark.parametrize("above", [True, False])
def test_what_other_mutators_do_counts(bench: Workbench, above: bool) -> None:
    decorators = ["@other", '@namespaced_trigger(event="food")']
    flow = bench.flow(
        OTHER_MUTATOR
        + "\n".join(decorators if above else reversed(decorators))
        + "\nclass DemoFlow(FlowSpec):\n    project = Config('project', default_value={})"
    )
    assert bench.listened(flow) == ["foo.test.bar.food"]
    (sensor,) = bench.sensors.values()
    assert [parameter.key for parameter in sensor.parameters] == ["count", None]


def test_the_name_that_a_function_returns_warns_of_characters_it_cannot_have(
    bench: Workbench,
) -> None:
    flow = bench.flow(
        """
        @namespaced_trigger(event={"name": lambda context: "fo od"})
        @project(name="foo", branch="bar")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={})
        """
    )
    result = bench.deploy(flow)
    assert result.status == 0, result.output
    assert (
        "Namespaced trigger warning: 'foo.test.bar.fo od' has characters that event names cannot "
        "have; the event is 'foo.test.bar.food'.\n"
    ) in result.stderr


def test_a_name_beside_a_function_warns_once(bench: Workbench) -> None:
    flow = bench.flow(
        """
        @namespaced_trigger(events=["fo od", lambda context: "drink"])
        @project(name="foo", branch="bar")
        class DemoFlow(FlowSpec):
            project = Config("project", default_value={})
        """
    )
    result = bench.deploy(flow)
    assert result.status == 0, result.output
    assert result.stderr.count("Namespaced trigger warning: ") == 1


def test_a_config_may_have_a_parser_that_is_named_by_a_text(bench: Workbench) -> None:
    flow = bench.flow(
        """
        @namespaced_trigger(event="food")
        @project(name="foo")
        class DemoFlow(FlowSpec):
            project = Config("project", parser="json.loads", default_value={"branch": "bar"})
        """
    )
    assert bench.listened(flow) == ["foo.test.bar.food"]
