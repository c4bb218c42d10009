"""What @trigger can express, @namespaced_trigger can."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import VERSION, Webhook, Workbench, has_traceback
from flows import CONFIG, PROJECT, config, listening, publishing

PROD_BAR = '@project(name="foo", branch="bar", production=True)'
TEST_BAR = '@project(name="foo", branch="bar")'
LISTENER = '@namespaced_trigger(event="food")'
BODY = """
project = Config("project", default_value={"event": "EVENT", "field": "n"})
count = Parameter("count", type=int, required=True)
text = Parameter("text", default="")
"""
OTHER_MUTATOR = """
class other(FlowMutator):
    def pre_mutate(self, flow):
        flow.add_decorator(project, deco_kwargs={"name": "foo", "branch": "bar"})
        flow.add_parameter("count", Parameter("count", default=1))

"""
AGAIN = """
from metaflow import flowspec

class again(FlowMutator):
    def pre_mutate(self, flow):
        items = getattr(flowspec, "FlowStateItems", None) or flowspec._FlowState
        mutators = flow._flow_cls._flow_state[items.FLOW_MUTATORS]
        if mutators[-1] is not self:
            mutators.append(self)

"""
# What a plain @trigger says, and all that says the same. Last is what @trigger itself would
# drop or refuse.
FORMS = {
    'event="EVENT"': (
        'event="EVENT"',
        'event={"name": "EVENT"}',
        'event=lambda context: "EVENT"',
        'event=config_expr("project").event',
        'events=[config_expr("project").event]',
        'event={"name": "EVENT", "parameters": None}',
    ),
    'event={"name": "EVENT", "parameters": {"count": "n"}}': (
        'event={"name": "EVENT", "parameters": {"count": "n"}}',
        'event={"name": "EVENT", "parameters": lambda context: {"count": "n"}}',
        'event={"name": lambda context: "EVENT", "parameters": {"count": "n"}}',
        'event=lambda context: {"name": "EVENT", "parameters": {"count": "n"}}',
        'event=lambda context: {"name": "EVENT", "parameters": lambda context: {"count": "n"}}',
        'event=lambda context: {"name": lambda context: "EVENT", "parameters": {"count": "n"}}',
        'event={"name": config_expr("project").event, "parameters": {"count": "n"}}',
        'event={"name": "EVENT", "parameters": lambda context: (("count", "n"),)}',
    ),
    'event={"name": "EVENT", "parameters": ["count", ("text", "t")]}': (
        'event={"name": "EVENT", "parameters": ["count", ("text", "t")]}',
        'event=lambda context: {"name": "EVENT", "parameters": ["count", ("text", "t")]}',
        'event={"name": "EVENT", "parameters": ("count", ("text", "t"))}',
        'event={"name": "EVENT", "parameters": ["count", ["text", "t"]]}',
    ),
    'events=["EVENT", "EVENT2"]': (
        'events=["EVENT", "EVENT2"]',
        'events=["EVENT", lambda context: "EVENT2"]',
        'events=lambda context: [lambda context: "EVENT", {"name": lambda context: "EVENT2"}]',
    ),
    'events=[{"name": "EVENT", "parameters": {"count": "n"}}, "EVENT2"]': (
        'events=[{"name": "EVENT", "parameters": {"count": "n"}}, "EVENT2"]',
        'events=lambda context: [{"name": "EVENT", "parameters": {"count": "n"}}, "EVENT2"]',
    ),
}


def compiled(bench: Workbench, decorator: str, event: str) -> Any:
    """Return what Metaflow makes of a decorator with this name in the place of EVENT.

    It orders mapped parameters by hash. The commands of a bench hash alike, being forks.
    """
    above, body = (text.replace("EVENT", event) for text in (decorator, BODY))
    result = bench.deploy(bench.flow(above=f"{above}\n{PROD_BAR}", body=body))
    assert result.status == 0, result.output
    (sensor,) = bench.objects("sensors")
    return sensor["spec"]["dependencies"], sensor["spec"]["triggers"]


@pytest.mark.parametrize("plain", FORMS)
def test_a_form_of_trigger_compiles_to_the_sensor_that_the_full_name_gives(
    bench: Workbench, plain: str
) -> None:
    expected = compiled(bench, f"@trigger({plain})", "foo.prod.bar.food")
    for form in FORMS[plain]:
        assert compiled(bench, f"@namespaced_trigger({form})", "food") == expected, form


def test_what_was_passed_in_is_not_changed(bench: Workbench) -> None:
    flow = bench.flow(
        above="""
        EVENT = {"name": "food", "project_branch": "prod", "parameters": ["count"]}
        EVENTS, OPTIONS = [EVENT, "drink"], {"reset_at": {"cron": "0 0 * * *"}}

        @namespaced_trigger(events=EVENTS, options=OPTIONS)
        @project(name="foo")
        """,
        body="""
        project = Config("project", default_value={})
        count = Parameter("count", default=1)
        """,
        start="print(EVENTS, OPTIONS)",
    )
    result = bench.run_locally(flow)
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
    flow = bench.flow(**listening(f'event={{"name": "food", {namespace}}}', TEST_BAR))
    assert bench.listened(flow) == [listened]


@pytest.mark.parametrize(
    ("base", "derived"),
    [
        (LISTENER, PROJECT),
        (PROJECT, LISTENER),
        (f"{LISTENER}\n{PROJECT}", ""),
    ],
)
def test_a_decorator_on_a_base_class_counts(bench: Workbench, base: str, derived: str) -> None:
    bench.flow(
        "BaseFlow", above=base, body='project = Config("project", default_value={"branch": "bar"})'
    )
    flow = bench.flow(above=f"from BaseFlow import BaseFlow\n{derived}", base="BaseFlow")
    assert bench.listened(flow) == ["foo.test.bar.food"]


def test_a_decorator_with_a_config_on_a_base_class_refuses_what_is_no_mapping(
    bench: Workbench,
) -> None:
    bench.flow("BaseFlow", above="", body=CONFIG)
    flow = bench.flow(
        above=f"from BaseFlow import BaseFlow\n{LISTENER}\n{PROJECT}", base="BaseFlow"
    )
    result = bench.run(flow, "--config-value", "project", "[1]", "show")
    assert result.status == 1
    assert "The config 'project' must be a mapping" in result.message
    assert not has_traceback(result.output)
    assert bench.listened(flow) == ["foo.user.alice.food"]


@pytest.mark.parametrize("value", ["[1]", "5"])
def test_a_config_in_a_subclass_of_the_decorated_class_rejects_what_is_no_mapping(
    bench: Workbench, value: str
) -> None:
    bench.flow(
        "BaseFlow",
        above=LISTENER,
        body="def __init_subclass__(cls, **_):\n    cls.mark = 'theirs'",
    )
    bench.flow("MiddleFlow", above="from BaseFlow import BaseFlow", base="BaseFlow")
    flow = bench.flow(
        above=f"from MiddleFlow import MiddleFlow\n{PROJECT}",
        base="MiddleFlow",
        body=CONFIG,
        start="print(self.mark)",
    )
    result = bench.run(flow, "--config-value", "project", value, "show")
    assert result.status == 1
    assert f"The config 'project' must be a mapping, not {value}." in result.message
    assert not has_traceback(result.output)
    assert bench.listened(flow, *config(branch="bar")) == ["foo.test.bar.food"]
    assert "theirs\n" in bench.run_locally(flow).stdout


@pytest.mark.parametrize("above", ["@other\n", "", "@again\n"])
def test_a_decorator_on_a_grandparent_counts_once(bench: Workbench, above: str) -> None:
    """Metaflow up to 2.19.9 lists its instance twice."""
    bench.flow("BaseFlow", above=LISTENER)
    bench.flow("MiddleFlow", above="from BaseFlow import BaseFlow", base="BaseFlow")
    flow = bench.flow(
        above=f"{OTHER_MUTATOR}{AGAIN}from MiddleFlow import MiddleFlow\n{above}{PROJECT}",
        base="MiddleFlow",
        body=CONFIG,
    )
    assert bench.listened(flow, *config(branch="bar")) == ["foo.test.bar.food"]


OVERRIDE = """
class overriding(FlowMutator):
    def pre_mutate(self, flow):
        {how}

"""
BY_NAME = 'flow.add_decorator("project", deco_kwargs={"name": "foo", "branch": "bar"})'


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize(
    ("how", "namespace"),
    [
        (
            'flow.add_decorator(project, deco_kwargs={"name": "foo", "branch": "bar"}, '
            "duplicates=flow.OVERRIDE)",
            "foo.test.bar",
        ),
        (
            'flow.add_decorator("project:name=foo,production=true", duplicates=flow.OVERRIDE)',
            "foo.prod",
        ),
        (f'flow.remove_decorator("project")\n        {BY_NAME}', "foo.user.alice"),
    ],
)
def test_a_project_that_another_mutator_puts_in_place_counts_as_for_a_publisher(
    bench: Workbench, webhook: Webhook, how: str, namespace: str, order: int
) -> None:
    if VERSION == (2, 16, 6) and "OVERRIDE" in how:
        pytest.skip("OVERRIDE is an internal error in this Metaflow")
    decorators = ["@overriding", '@project(name="other", branch="other")']
    publisher = bench.flow(
        "PublisherFlow",
        above=OVERRIDE.format(how=how) + "\n".join(decorators),
        start=publishing('"food"'),
    )
    assert bench.run_locally(publisher).status == 0
    decorators.insert(order, LISTENER)
    flow = bench.flow(above=OVERRIDE.format(how=how) + "\n".join(decorators), body=CONFIG)
    assert bench.listened(flow) == webhook.names == [f"{namespace}.food"]


def test_two_mutators_that_both_want_to_be_last_come_to_an_end(bench: Workbench) -> None:
    flow = bench.flow(above=f"{AGAIN}{LISTENER}\n@again\n{PROJECT}", body=CONFIG)
    assert bench.listened(flow) == ["foo.user.alice.food"]


@pytest.mark.parametrize("above", [True, False])
def test_what_other_mutators_do_counts(bench: Workbench, above: bool) -> None:
    decorators = ["@other", LISTENER]
    flow = bench.flow(
        above=OTHER_MUTATOR + "\n".join(decorators if above else reversed(decorators)),
        body=CONFIG,
    )
    assert bench.listened(flow) == ["foo.test.bar.food"]
    (sensor,) = bench.sensors.values()
    assert [parameter.key for parameter in sensor.parameters] == ["count", None]


def test_the_name_that_a_function_returns_warns_of_characters_it_cannot_have(
    bench: Workbench,
) -> None:
    flow = bench.flow(**listening('event={"name": lambda context: "fo od"}', TEST_BAR))
    result = bench.deploy(flow)
    assert result.status == 0, result.output
    assert (
        "Namespaced trigger warning: 'foo.test.bar.fo od' has characters that event names cannot "
        "have; the event is 'foo.test.bar.food'.\n"
    ) in result.stderr


def test_a_name_beside_a_function_warns_once(bench: Workbench) -> None:
    flow = bench.flow(**listening('events=["fo od", lambda context: "drink"]', TEST_BAR))
    result = bench.deploy(flow)
    assert result.status == 0, result.output
    assert result.stderr.count("Namespaced trigger warning: ") == 1


def test_a_config_may_have_a_parser_that_is_named_by_a_text(bench: Workbench) -> None:
    text = 'Config("project", parser="json.loads", default_value={"branch": "bar"})'
    flow = bench.flow(**listening(config=f"project = {text}"))
    assert bench.listened(flow) == ["foo.test.bar.food"]


IGNORES_CASE = """
import collections

class ignoring_case(collections.UserDict):
    def __contains__(self, key):
        return key.lower() in (each.lower() for each in self.data)
    def __getitem__(self, key):
        return {each.lower(): value for each, value in self.data.items()}[key.lower()]

def parse(text):
    return ignoring_case(Branch=text)

"""


def test_a_config_may_be_a_mapping_that_ignores_case(bench: Workbench) -> None:
    parts = listening(config='project = Config("project", parser=parse, default_value="bar")')
    flow = bench.flow(**{**parts, "above": IGNORES_CASE + parts["above"]})
    result = bench.deploy(flow)
    assert result.status == 0, result.output
    assert "warning" not in result.stderr
    (sensor,) = bench.sensors.values()
    assert sensor.event_names == ["foo.test.bar.food"]
    # A task reads the config from the code package, where it is a dict.
    assert bench.run_locally(flow).status == 0


@pytest.mark.parametrize(
    "timing", ['"0 0 * * *"', '"*/5 9-17 1,15 jan-Mar MON-fri"', '"0 0 * * *", "timezone": "UTC"']
)
def test_a_reset_that_argo_takes_passes(bench: Workbench, timing: str) -> None:
    options = f'options={{"reset_at": {{"cron": {timing}}}}}'
    flow = bench.flow(**listening(f'events=("food", "drink"), {options}'))
    assert bench.run(flow, "show").status == 0
