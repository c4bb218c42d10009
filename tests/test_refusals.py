"""Each mistake gives one message, before anything reaches the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from conftest import Workbench

FLOW = """
{decorators}
class DemoFlow(FlowSpec):
    {config}
"""
MUTATOR = """
class other_branch(FlowMutator):
    def pre_mutate(self, flow):
        flow.remove_decorator("project")
        flow.add_decorator(project, deco_kwargs={"name": "foo", "branch": "other"})

@other_branch
"""
EXAMPLE = """--config-value project '{"branch": "bar", "production": true}'"""
EVENTS = '@namespaced_trigger(events=["food", "drink"])'
EITHER = f'Write @namespaced_trigger(event="food") or {EVENTS}.'


@dataclass
class Mistake:
    """A flow, how it is called, and the message that the user gets."""

    message: str
    arguments: str = 'event="food"'
    above: str = ""
    project: str = '@project(name="foo")'
    config: str = 'project = Config("project", default_value={})'
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
    "a plain config": Mistake(
        f"branch and production, and 'bar' is not. Write, for example, {EXAMPLE}",
        config='project = Config("project", plain=True)',
        value="bar",
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
        "Branch name is too long. The maximum is 128 characters.",
        value=f'{{"branch": "{"b" * 129}"}}',
    ),
    "a branch that is a number": Mistake(
        'A branch is text, and 5 is not. Write, for example, "5".', value='{"branch": 5}'
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
    "a decorator that changes @project afterwards": Mistake(
        "This flow listens in the namespace foo.user.alice, and @project made it foo.test.other: "
        "another decorator changed @project afterwards. Set the branch in the config alone.",
        above=MUTATOR.strip(),
    ),
    "no argument's name": Mistake(
        f"@namespaced_trigger takes its arguments by name, and got 'food' without one. {EITHER}",
        arguments='"food"',
    ),
    "an unknown argument": Mistake(
        "@namespaced_trigger has no argument 'evnt'. Write event=. It takes event, events, "
        "options, config_name, show_warnings.",
        arguments='evnt="food"',
    ),
    "an owner without a name": Mistake(
        "The branch is that of the user, and Metaflow does not know who that is. Set "
        "METAFLOW_USER, or give a branch.",
        variables={"METAFLOW_OWNER": ""},
    ),
}


@pytest.mark.parametrize("command", ["show", "create"])
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_gives_one_message_and_reaches_no_cluster(
    bench: Workbench, mistake: Mistake, command: str
) -> None:
    decorators = f"{mistake.above}\n@namespaced_trigger({mistake.arguments})\n{mistake.project}"
    flow = bench.flow(FLOW.format(decorators=decorators.strip(), config=mistake.config))
    bench.variables.update(mistake.variables)
    value = () if mistake.value is None else ("--config-value", "project", mistake.value)
    action = ("argo-workflows", "create") if command == "create" else ("show",)
    result = bench.run(flow, *mistake.flags, *value, *action)

    assert result.status == 1, result.output
    assert "Namespaced trigger error:" in result.message
    assert " ".join(mistake.message.split()) in result.message
    assert "Traceback" not in result.output
    assert not bench.stage.cluster.packages
    assert not bench.stage.cluster.list_all("default", "workflowtemplates")
