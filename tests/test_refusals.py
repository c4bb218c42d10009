"""Each mistake gives one message, before anything reaches the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from conftest import VERSION, Result, Workbench, has_traceback
from flows import CONFIG, PROJECT
from metaflow.user_decorators.mutable_flow import MutableFlow

MUTATOR = """
class other(FlowMutator):
    def {method}(self, flow):
        {action}
"""
ADD_TRIGGER = MUTATOR.format(
    method="pre_mutate", action='flow.add_decorator(trigger, deco_kwargs={"event": "drink"})'
).strip()
OTHER_BRANCH = MUTATOR.format(
    method="mutate", action='current._update_env({"branch_name": "test.other"})'
).strip()
EXAMPLE = """--config-value project '{"branch": "bar", "production": true}'"""
EVENTS = '@namespaced_trigger(events=["food", "drink"])'
EITHER = f'Write @namespaced_trigger(event="food") or {EVENTS}.'


@dataclass
class Mistake:
    """A flow, how it is called, and the message that the user gets."""

    message: str
    arguments: str = 'event="food"'
    above: str = ""
    project: str = PROJECT
    config: str = CONFIG
    value: str | None = None
    flags: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


MISTAKES = {
    "no name anywhere": Mistake(
        "This flow has no project, so its events would not be kept apart. Put "
        '@project(name="my_project") on the flow, or a name into the config: --config-value '
        """project '{"branch": "bar", "name": "my_project"}'""",
        project="",
        value='{"branch": "bar"}',
    ),
    "neither event nor events": Mistake(
        f"@namespaced_trigger takes exactly one of event and events, and got neither. {EITHER}",
        arguments="",
    ),
    "both event and events": Mistake(
        "@namespaced_trigger takes exactly one of event and events, and got event='food' and "
        f"events=['drink']. {EITHER}",
        arguments='event="food", events=["drink"]',
    ),
    "no events": Mistake(
        f"events is a list, and [] is not one with an event in it. {EITHER}", arguments="events=[]"
    ),
    "an empty name": Mistake(
        'The name of an event is empty: \'\'. Use letters, digits, "_", "-" and ".", for '
        'example "food".',
        arguments='event=""',
    ),
    "a name of nothing but other characters": Mistake(
        "The name of an event is empty: 'é!'. Use letters", arguments='event="é!"'
    ),
    "a config that is a list": Mistake(
        "The config 'project' is a mapping with the keys name, branch and production, and [1] is "
        f"not. Write, for example, {EXAMPLE}",
        value="[1]",
    ),
    "a config that is a text": Mistake(
        f"branch and production, and 'bar' is not. Write, for example, {EXAMPLE}", value='"bar"'
    ),
    "a parsed config that is a list": Mistake(
        "branch and production, and ['bar'] is not.",
        config='project = Config("project", parser=str.split)',
        value="bar",
    ),
    "a config that a named parser makes a list": Mistake(
        "branch and production, and [1] is not.",
        config='project = Config("project", parser="json.loads")',
        value="[1]",
    ),
    "a config that is not JSON": Mistake(
        "The config 'project' is not valid JSON (Expecting value: line 1 column 1 (char 0)): "
        f"'bar'. Write, for example, {EXAMPLE}",
        value="bar",
    ),
    "production as text": Mistake(
        "production is either true or false, and 'false' is neither. Write true or false",
        value='{"production": "false"}',
    ),
    "production as a number": Mistake(
        "production is either true or false, and 1 is neither.", value='{"production": 1}'
    ),
    "a branch that @project does not take": Mistake(
        '@project does not take the name "foo" with the branch "Feature-1": The branch name must '
        'contain only lowercase alphanumeric characters and underscores. Write the name "foo" '
        'with the branch "feature_1".',
        value='{"branch": "Feature-1"}',
    ),
    "a branch that is too long": Mistake(
        'Branch name is too long. The maximum is 128 characters. Write the name "foo" with the '
        f'branch "{"b" * 128}".',
        value=f'{{"branch": "{"b" * 129}"}}',
    ),
    "a branch that is a number": Mistake(
        'A branch is text, and 5 is not. Write, for example, "5", or leave it out.',
        value='{"branch": 5}',
    ),
    "a name that @project does not take": Mistake(
        '@project does not take the name "my-project": The @project name must contain only '
        'lowercase alphanumeric characters and underscores. Write the name "my_project".',
        project='@project(name="my-project")',
    ),
    "a name that is a number": Mistake(
        'A project\'s name is text, and 5 is not. Write, for example, "my_project".',
        project="@project(name=5)",
    ),
    "a name that begins with a digit": Mistake(
        "Argo Events would never hear '2fast.user.alice.food': the name of an event must begin "
        "with a letter, and the project '2fast' does not. Rename the project, for example to "
        '"p2fast".',
        project='@project(name="2fast")',
    ),
    "a name that begins with an underscore": Mistake(
        "Argo Events would never hear '_x.user.alice.food'", project='@project(name="_x")'
    ),
    "a slip in the config": Mistake(
        "The config 'project' has the key 'prodution', which would be ignored. Write "
        "'production', or choose a name that is less like it.",
        value='{"prodution": true}',
    ),
    "a capital in the config": Mistake(
        "The config 'project' has the key 'Branch'", value='{"Branch": "bar"}'
    ),
    "a transposition in the config": Mistake(
        "The config 'project' has the key 'nmae'", value='{"nmae": "foo"}'
    ),
    "two letters left out in the config": Mistake(
        "The config 'project' has the key 'brnc'", value='{"brnc": "bar"}'
    ),
    "an expression without a value": Mistake(
        "An argument of @project is a config expression that cannot be evaluated "
        "(AttributeError: name). Give the config a value for it.",
        project='@project(name=config_expr("project").name)',
    ),
    "@trigger": Mistake(
        "This flow has @trigger beside @namespaced_trigger, and Argo keeps one trigger for a "
        f"flow. Remove it, and name all events in one decorator: {EVENTS}.",
        project='@trigger(event="drink")\n@project(name="foo")',
    ),
    "@trigger_on_finish": Mistake(
        "This flow has @trigger_on_finish beside @namespaced_trigger",
        project='@trigger_on_finish(flow="Other")\n@project(name="foo")',
    ),
    "a second @namespaced_trigger": Mistake(
        "This flow has a second @namespaced_trigger beside @namespaced_trigger",
        project='@namespaced_trigger(event="drink")\n@project(name="foo")',
    ),
    "--branch": Mistake(
        "--branch bar (or METAFLOW_BRANCH) is not what the config says, and the branch of a flow "
        "with @namespaced_trigger is set in its config alone. Write this instead: "
        """--config-value project '{"branch": "bar"}'""",
        flags=("--branch", "bar"),
    ),
    "--production": Mistake(
        "--production (or METAFLOW_PRODUCTION) is not what the config says, and the branch of a "
        "flow with @namespaced_trigger is set in its config alone. Write this instead: "
        """--config-value project '{"team": "it'"'"'s us", "branch": "bar", "production": true}'""",
        value="""{"team": "it's us", "branch": "bar"}""",
        flags=("--production",),
    ),
    "both flags": Mistake(
        "--branch bar --production (or METAFLOW_BRANCH, METAFLOW_PRODUCTION) is not what the "
        f"config says, and the branch of a flow with @namespaced_trigger is set in its config "
        f"alone. Write this instead: {EXAMPLE}",
        flags=("--branch", "bar", "--production"),
    ),
    "an empty METAFLOW_BRANCH": Mistake(
        "--branch (or METAFLOW_BRANCH) is ''. Leave it out: the branch of a flow with "
        "@namespaced_trigger is set in its config alone.",
        variables={"METAFLOW_BRANCH": ""},
    ),
    "METAFLOW_BRANCH": Mistake(
        """Write this instead: --config-value project '{"branch": "bar"}'""",
        value='{"branch": "baaz"}',
        variables={"METAFLOW_BRANCH": "bar"},
    ),
    "METAFLOW_BRANCH without @project": Mistake(
        """Write this instead: --config-value project '{"name": "foo", "branch": "bar"}'""",
        project="",
        value='{"name": "foo"}',
        variables={"METAFLOW_BRANCH": "bar"},
    ),
    "METAFLOW_PRODUCTION without @project": Mistake(
        """Write this instead: --config-value project '{"name": "foo", "production": true}'""",
        project="",
        value='{"name": "foo"}',
        variables={"METAFLOW_PRODUCTION": "True"},
    ),
    "METAFLOW_PRODUCTION": Mistake(
        """Write this instead: --config-value project '{"production": true}'""",
        variables={"METAFLOW_PRODUCTION": "1"},
    ),
    "a flag without a Config": Mistake(
        'Add project = Config("project", default_value={}) to the flow. Write this instead: '
        """--config-value project '{"branch": "bar"}'""",
        config="",
        flags=("--branch", "bar"),
    ),
    "the same event twice": Mistake(
        "Two events of this flow are the same, 'foo.user.alice.food' (one is 'food!'). Leave one "
        "out, or rename it.",
        arguments='events=["food", "food!"], show_warnings=False',
    ),
    "a decorator that changes the branch afterwards": Mistake(
        "This flow listens in the namespace foo.user.alice, and @project made it foo.test.other: "
        "another decorator changed @project afterwards. Set the branch in the config alone.",
        above=OTHER_BRANCH,
        project='@other\n@project(name="foo")',
    ),
    "a @trigger that a decorator above adds": Mistake(
        "This flow has @trigger beside @namespaced_trigger", above=f"{ADD_TRIGGER}\n@other"
    ),
    "a @trigger that a decorator below adds": Mistake(
        "This flow has @trigger beside @namespaced_trigger",
        above=ADD_TRIGGER,
        project='@other\n@project(name="foo")',
    ),
    "a parser that fails": Mistake(
        "The parser of the config 'project' failed with 'bar' (ZeroDivisionError: division by "
        "zero). Correct the value, or the parser.",
        config='project = Config("project", parser=lambda text: 1 / 0)',
        value="bar",
    ),
    "a parser that is not there": Mistake(
        "The parser of the config 'project' failed with '{}' (ModuleNotFoundError: No module named "
        "'nowhere').",
        config='project = Config("project", parser="nowhere.loads")',
        value="{}",
    ),
    "parameters as a text": Mistake(
        "The parameters of an event are a dict or a list, and 'path' is neither. Write them as "
        '{"flow_parameter": "payload_key"}, or as ["name_of_both"].',
        arguments='event={"name": "food", "parameters": "path"}',
    ),
    "parameters as a set": Mistake(
        "The parameters of an event are a dict or a list, and {'path'} is neither.",
        arguments='event={"name": "food", "parameters": {"path"}}',
    ),
    "a mistake beside a function": Mistake(
        "and 5 is none.", arguments='events=[lambda context: "food", 5]'
    ),
    "a slip in the options": Mistake(
        "options has the key 'reset', which @trigger would ignore. Write 'reset_at'.",
        arguments='event="food", options={"reset": {"cron": "@daily"}}',
    ),
    "the namespace of another branch": Mistake(
        "The event 'foo.prod.food' has a namespace already, and would become "
        "'foo.user.alice.foo.prod.food'. Write the part behind it. For another namespace, write "
        '{"name": "food", "project_branch": "prod"} in the decorator, and raise_event("food", '
        "production=True) in a step.",
        arguments='event="foo.prod.food"',
    ),
    "events as a text": Mistake(
        f"events is a list, and 'food' is not one with an event in it. {EITHER}",
        arguments='events="food"',
    ),
    "events as a set": Mistake(
        "events is a list, and {'food'} is not one with an event in it.",
        arguments='events={"food"}',
    ),
    "a number": Mistake(
        "An event is a name, a dict with a name, or a function that returns one of them, and 5 is "
        f"none. {EITHER}",
        arguments="event=5",
    ),
    "a list as event": Mistake("and ['food'] is none.", arguments='event=["food"]'),
    "a dict without a name": Mistake(
        "The event {'parameters': {}} has no name. An event has a name, and may have parameters, "
        'project, project_branch: {"name": "food", "parameters": {"flow_parameter": '
        '"payload_key"}}.',
        arguments='event={"parameters": {}}',
    ),
    "an unknown key of an event": Mistake(
        "The event {'name': 'food', 'params': {}, 'other': 1} has the key 'params'.",
        arguments='event={"name": "food", "params": {}, "other": 1}',
    ),
    "a name that is no text": Mistake(
        "The name of an event is text, and 5 is not.", arguments='event={"name": 5}'
    ),
    "another project that @project does not take": Mistake(
        '@project does not take the name "Other"',
        arguments='event={"name": "food", "project": "Other"}',
    ),
    "another branch that @project does not make": Mistake(
        'The project_branch \'bar\' is not one that @project makes. Write "prod", "prod.bar", '
        '"test.bar" or "user.jane".',
        arguments='event={"name": "food", "project_branch": "bar"}',
    ),
    "another branch that @project does not take": Mistake(
        'with the branch "B-1"', arguments='event={"name": "food", "project_branch": "test.B-1"}'
    ),
    "a namespace twice": Mistake(
        "The event 'foo.user.alice.food' has its namespace already, which would be added once "
        "more. Write 'food'.",
        arguments='event="foo.user.alice.food"',
    ),
    "options that are no dict": Mistake(
        "options is a dict of dicts, and 'midnight' is not.",
        arguments='event="food", options="midnight"',
    ),
    "options that are no dict of dicts": Mistake(
        "options is a dict of dicts, and {'reset_at': '@daily'} is not.",
        arguments='event="food", options={"reset_at": "@daily"}',
    ),
    "a switch that is a text": Mistake(
        "show_warnings is either True or False, and 'no' is neither. Write show_warnings=True or "
        "show_warnings=False.",
        arguments='event="food", show_warnings="no"',
    ),
    "a name of nothing but dots": Mistake(
        "The name of an event is empty: '..'.", arguments='event=".."'
    ),
    "a config_name that is no name": Mistake(
        "config_name is the name of a Config, and None is not.",
        arguments='event="food", config_name=None',
    ),
    "an empty config_name": Mistake(
        "config_name is the name of a Config, and '' is not.",
        arguments='event="food", config_name=""',
    ),
    "an argument without a value": Mistake(
        "An argument of @namespaced_trigger is a config expression that cannot be evaluated "
        "(AttributeError: event). Give the config a value for it.",
        arguments='event=config_expr("project").event',
    ),
    "no argument's name": Mistake(
        f"@namespaced_trigger takes its arguments by name, and got 'food' without one. {EITHER}",
        arguments='"food"',
    ),
    "two arguments without names": Mistake(
        "takes its arguments by name, and got 'food' without one.", arguments='"food", "drink"'
    ),
    "an unknown argument": Mistake(
        "@namespaced_trigger has no argument 'evnt'. Write event=. It takes event, events, "
        "options, config_name, show_warnings.",
        arguments='evnt="food"',
    ),
    "an owner without a name": Mistake(
        "The branch is that of the user, and METAFLOW_OWNER is ''. Unset it, or give a branch.",
        variables={"METAFLOW_OWNER": ""},
    ),
}


def refused(bench: Workbench, mistake: Mistake, *command: str) -> Result:
    """Make a mistake; return the one message that it gives, which reaches no cluster."""
    decorator = f"@namespaced_trigger({mistake.arguments})"
    flow = bench.flow(above=f"{mistake.above}\n{decorator}\n{mistake.project}", body=mistake.config)
    bench.variables.update(mistake.variables)
    value = () if mistake.value is None else ("--config-value", "project", mistake.value)
    result = bench.run(flow, *mistake.flags, *value, *command)
    assert result.status == 1, result.output
    assert "Namespaced trigger error:" in result.message
    assert " ".join(mistake.message.split()) in result.message
    assert not has_traceback(result.output)
    assert not bench.sensors
    assert not bench.templates()
    return result


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gives_one_message_and_reaches_no_cluster(
    bench: Workbench, mistake: Mistake
) -> None:
    refused(bench, mistake, "argo-workflows", "create")
    assert not bench.packages


@pytest.mark.parametrize(
    "command",
    ["show", "check", "run", "argo-workflows trigger", "argo-workflows create --only-json"],
)
def test_each_command_gives_the_message_of_a_mistake(bench: Workbench, command: str) -> None:
    refused(bench, MISTAKES["@trigger"], *command.split())


@pytest.mark.skipif(
    "FlowMutator" not in str(MutableFlow.add_decorator.__doc__),
    reason="in this Metaflow a mutator cannot add another one",
)
def test_a_trigger_of_a_decorator_that_another_one_adds_is_refused(bench: Workbench) -> None:
    adding = MUTATOR.format(method="pre_mutate", action="flow.add_decorator(late)")
    late = ADD_TRIGGER.replace("other", "late")
    mistake = Mistake(
        "This flow has @trigger beside @namespaced_trigger", above=f"{late}\n\n{adding}\n@other"
    )
    refused(bench, mistake, "argo-workflows", "create")


def test_the_decorator_without_arguments_says_what_to_write(bench: Workbench) -> None:
    flow = bench.flow(above=f"@namespaced_trigger\n{PROJECT}")
    result = bench.run(flow, "show")
    assert result.status == 1
    assert f"takes exactly one of event and events, and got neither. {EITHER}" in result.message


AT_DEPLOYMENT = {
    "event=lambda context: 5": "and 5 is none.",
    'event={"name": lambda context: ""}': "The name of an event is empty: ''.",
    'events=lambda context: ["food", "food"]': "Two events of this flow are the same",
    'events=lambda context: "food"': "events is a list, and 'food' is not one",
    'events=["food", lambda context: "food"]': "Two events of this flow are the same",
    'event={"name": "food", "parameters": lambda context: 7}': "and 7 is neither.",
    "event=lambda context: 1 / 0": (
        "The function '<lambda>' in @namespaced_trigger raised ZeroDivisionError: division by zero "
        "("
    ),
    "events=lambda context: context.nothing": "raised AttributeError:",
    'event=lambda: "food"': (
        "The function '<lambda>' in @namespaced_trigger raised TypeError: <lambda>() takes 0 "
        "positional arguments but 1 was given. It is called with one argument, the context, when "
        "the flow is deployed."
    ),
    'event=__import__("metaflow").namespaced_event_name("food")': (
        "The event 'mfns.foo.user.alice.food' has its namespace already, which would be added "
        "once more. Write 'food'."
    ),
}


@pytest.mark.parametrize(("arguments", "message"), AT_DEPLOYMENT.items())
def test_what_a_function_returns_at_deployment_is_refused_in_one_message(
    bench: Workbench, arguments: str, message: str
) -> None:
    if "namespaced_event_name" in arguments and VERSION < (2, 19, 18):
        pytest.skip("namespaced_event_name came with Metaflow 2.19.18")
    refused(bench, Mistake(message, arguments), "argo-workflows", "create")


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"above": "", "body": "@namespaced_trigger(event='food')"}, "start"),
        ({"above": "@namespaced_trigger(event='food')", "base": ""}, "DemoFlow"),
    ],
)
def test_the_decorator_on_what_is_no_flow_says_where_it_stands(
    bench: Workbench, parts: dict[str, str], name: str
) -> None:
    result = bench.run(bench.flow(**parts), "show")
    assert result.status == 1
    assert result.stderr == (
        f"@namespaced_trigger stands above the class of a flow, and {name!r} is none. Move it "
        "there.\n"
    )
