"""Each mistake gives one message, before anything reaches the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from conftest import VERSION, Result, Workbench, has_traceback
from flows import CONFIG, PROJECT, TWO_STEPS
from metaflow.user_decorators.mutable_flow import MutableFlow

MUTATOR = """
class other(FlowMutator):
    def {method}(self, flow):
        {action}
"""
ADD_TRIGGER = MUTATOR.format(
    method="pre_mutate", action='flow.add_decorator(trigger, deco_kwargs={"event": "drink"})'
).strip()
ADD_TRIGGER_BY_THE_INSTANCE = (
    MUTATOR.format(
        method="__init__",
        action="""super().__init__(*_)
        self.pre_mutate = lambda flow: flow.add_decorator(trigger, deco_kwargs={"event": "drink"})
""",
    )
    .replace("(self, flow)", "(self, *_)")
    .strip()
)
REPLACE_TRIGGER = """{}
        mutable.flow.add_decorator(
            trigger, deco_kwargs={{"event": "drink"}}, duplicates=mutable.flow.OVERRIDE
        )"""
OTHER_BRANCH = MUTATOR.format(
    method="mutate", action='current._update_env({"branch_name": "test.other"})'
).strip()
EXAMPLE = """Write --config-value project '{"branch": "bar", "production": true}'"""
EITHER = 'Write @namespaced_trigger(event="food") or @namespaced_trigger(events=["food", "drink"])'
ONE_TRIGGER = (
    "beside @namespaced_trigger, and Argo keeps one trigger for a flow. Name all events in one "
    "@namespaced_trigger."
)
IN_THE_CONFIG = (
    "must be left out: a flow with @namespaced_trigger takes its branch from its config."
)
AN_EVENT = (
    'An event must be "food", a function, or a dict with the keys name, parameters, project, '
    "project_branch, not"
)
A_MAPPING = (
    'parameters must be {"flow_parameter": "payload_key"} or ["name_of_both"] (letters, digits, '
    "_), not"
)
CRON = "cron must be five valid fields (minute, hour, day, month, weekday), not"
ON_THE_STEP = """
class on_the_step(StepMutator):
    def pre_mutate(self, mutable):
        {action}

    def mutate(self, mutable):
        pass
""".strip()


@dataclass
class Mistake:
    """A flow, how it is called, and the message that the user gets."""

    message: str
    arguments: str = 'event="food"'
    above: str = ""
    project: str = PROJECT
    config: str = CONFIG
    start: str = ""
    value: str | None = None
    flags: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


MISTAKES = {
    "no name anywhere": Mistake(
        'This flow has no project. Put @project(name="my_project") on it, or a name into its '
        """config. Write --config-value project '{"branch": "bar", "name": "my_project"}'""",
        project="",
        value='{"branch": "bar"}',
    ),
    "neither event nor events": Mistake(
        f"@namespaced_trigger needs exactly one of event and events, not neither. {EITHER}.",
        arguments="",
    ),
    "both event and events": Mistake(
        f"@namespaced_trigger needs exactly one of event and events, not both. {EITHER}.",
        arguments='event="food", events=["drink"]',
    ),
    "no events": Mistake(
        'events must be a list such as ["food", "drink"], not [].', arguments="events=[]"
    ),
    "an empty name": Mistake(
        "An event's name must be text with letters, for example \"food\", not ''.",
        arguments='event=""',
    ),
    "a name of nothing but other characters": Mistake(
        "for example \"food\", not 'é!'.", arguments='event="é!"'
    ),
    "a name of nothing but dots": Mistake(
        "for example \"food\", not '..'.", arguments='event=".."'
    ),
    "asterisks in a name": Mistake(
        "for example \"food\", not '\N{ASTERISK OPERATOR}\N{ASTERISK OPERATOR}'.",
        arguments='event="**"',
    ),
    "a config that is a list": Mistake(
        f"The config 'project' must be a mapping, not [1]. {EXAMPLE}", value="[1]"
    ),
    "a config that is a text": Mistake(
        f"The config 'project' must be a mapping, not 'bar'. {EXAMPLE}", value='"bar"'
    ),
    "a plain config that is a list": Mistake(
        "The config 'project' must be a mapping, not [1].",
        config='project = Config("project", plain=True)',
        value="[1]",
    ),
    "a plain config that is a number": Mistake(
        "The config 'project' must be a mapping, not 5.",
        config='project = Config("project", plain=True)',
        value="5",
    ),
    "a plain config that a parser makes a list": Mistake(
        "The config 'project' must be a mapping, not ['bar'].",
        config='project = Config("project", plain=True, parser=str.split)',
        value="bar",
    ),
    "a parsed config that is a list": Mistake(
        "The config 'project' must be a mapping, not ['bar']. Set branch to 'bar', production to "
        "True in it.",
        config='project = Config("project", parser=str.split)',
        value="bar",
    ),
    "a parsed config with a tuple for a key": Mistake(
        "The config 'project' cannot be read (TypeError: keys must be str",
        config='project = Config("project", parser=lambda text: {(1, 2): 3})',
        value="bar",
    ),
    "a config that a named parser makes a list": Mistake(
        "The config 'project' must be a mapping, not [1].",
        config='project = Config("project", parser="json.loads")',
        value="[1]",
    ),
    "a config that is not JSON": Mistake(
        "The config 'project' cannot be read (JSONDecodeError: Expecting value: line 1 column 1 "
        f"(char 0)), it is 'bar'. {EXAMPLE}",
        value="bar",
    ),
    "production as text": Mistake(
        "production must be true or false, without quotes, not 'false'.",
        value='{"production": "false"}',
    ),
    "production as a number": Mistake(
        "production must be true or false, without quotes, not 1.", value='{"production": 1}'
    ),
    "a branch that @project rejects": Mistake(
        "@project rejects name='foo', branch='Feature-1': The branch name must contain only "
        "lowercase alphanumeric characters and underscores. Write name='foo', branch='feature_1'.",
        value='{"branch": "Feature-1"}',
    ),
    "a branch that is too long": Mistake(
        "Branch name is too long. The maximum is 128 characters. Write name='foo', "
        f"branch='{'b' * 128}'.",
        value=f'{{"branch": "{"b" * 129}"}}',
    ),
    "a branch that is a number": Mistake(
        'The branch must be text, for example "my_branch", not 5.', value='{"branch": 5}'
    ),
    "a name that @project rejects": Mistake(
        "@project rejects name='my-project', branch=None: The @project name must contain only "
        "lowercase alphanumeric characters and underscores. Write name='my_project', branch=None.",
        project='@project(name="my-project")',
    ),
    "a name that is a number": Mistake(
        'The project\'s name must be text, for example "my_project", not 5.',
        project="@project(name=5)",
    ),
    "a name that begins with a digit": Mistake(
        "Argo Events never hears '2fast.user.alice.food': the project's name must begin with a "
        'letter, for example "p2fast".',
        project='@project(name="2fast")',
    ),
    "a name that begins with an underscore": Mistake(
        "Argo Events never hears '_x.user.alice.food'", project='@project(name="_x")'
    ),
    "an expression without a value": Mistake(
        "The config expression 'project.name' in @project failed (AttributeError: name). Give the "
        "config a value for it.",
        project='@project(name=config_expr("project").name)',
    ),
    "an unpacked expression without a value": Mistake(
        "The config expression 'project.inner' in @project failed (AttributeError: inner).",
        project='@project(**config_expr("project.inner"))',
    ),
    "an unpacked expression that is no mapping": Mistake(
        "What is unpacked in @project must be a mapping, not 5.",
        project='@project(**config_expr("project.inner"))',
        value='{"inner": 5}',
    ),
    "an expression in a list": Mistake(
        "The config expression 'project.missing' in @namespaced_trigger failed",
        arguments='events=[{"name": config_expr("project").missing}]',
    ),
    "@trigger": Mistake(
        f"This flow has @trigger {ONE_TRIGGER}",
        project='@trigger(event="drink")\n@project(name="foo")',
    ),
    "@trigger_on_finish": Mistake(
        f"This flow has @trigger_on_finish {ONE_TRIGGER}",
        project='@trigger_on_finish(flow="Other")\n@project(name="foo")',
    ),
    "a second @namespaced_trigger": Mistake(
        f"This flow has a second @namespaced_trigger {ONE_TRIGGER}",
        project='@namespaced_trigger(event="drink")\n@project(name="foo")',
    ),
    "--branch": Mistake(
        f"""--branch {IN_THE_CONFIG} Write --config-value project '{{"branch": "bar"}}'""",
        flags=("--branch", "bar"),
    ),
    "--production": Mistake(
        f"--production {IN_THE_CONFIG} Write --config-value project "
        """'{"branch": "it'"'"'s", "production": true}' Keep the config's other keys.""",
        value="""{"team": "secret", "branch": "it's"}""",
        flags=("--production",),
    ),
    "both flags": Mistake(
        f"--branch and --production {IN_THE_CONFIG} {EXAMPLE}",
        flags=("--branch", "bar", "--production"),
    ),
    "a flag with a config that has its own parser": Mistake(
        f"--branch {IN_THE_CONFIG} Set branch to 'bar' in it.",
        config='project = Config("project", parser=lambda text: {}, default_value="")',
        flags=("--branch", "bar"),
    ),
    "an empty METAFLOW_BRANCH": Mistake(
        f"METAFLOW_BRANCH {IN_THE_CONFIG}", variables={"METAFLOW_BRANCH": ""}
    ),
    "METAFLOW_BRANCH": Mistake(
        f"METAFLOW_BRANCH {IN_THE_CONFIG} "
        """Write --config-value project '{"branch": "bar"}'""",
        value='{"branch": "baaz"}',
        variables={"METAFLOW_BRANCH": "bar"},
    ),
    "METAFLOW_FLOW_BRANCH": Mistake(
        f"METAFLOW_FLOW_BRANCH {IN_THE_CONFIG}", variables={"METAFLOW_FLOW_BRANCH": "bar"}
    ),
    **{
        f"{variable} without @project": Mistake(
            f"{variable} {IN_THE_CONFIG} "
            f"""Write --config-value project '{{"name": "foo", {advice}}}'""",
            project="",
            value='{"name": "foo"}',
            variables={variable: value},
        )
        for variable, value, advice in (
            ("METAFLOW_BRANCH", "bar", '"branch": "bar"'),
            ("METAFLOW_FLOW_BRANCH", "bar", '"branch": "bar"'),
            ("METAFLOW_PRODUCTION", "True", '"production": true'),
            ("METAFLOW_FLOW_PRODUCTION", "1", '"production": true'),
        )
    },
    "METAFLOW_PRODUCTION": Mistake(
        f"METAFLOW_PRODUCTION {IN_THE_CONFIG} "
        """Write --config-value project '{"production": true}'""",
        variables={"METAFLOW_PRODUCTION": "1"},
    ),
    "a flag without a Config": Mistake(
        'Add project = Config("project", default_value={}) to the flow. '
        """Write --config-value project '{"branch": "bar"}'""",
        config="",
        flags=("--branch", "bar"),
    ),
    "the same event twice": Mistake(
        "The flow must have the event 'foo.user.alice.food' only once.",
        arguments='events=["food", "food!"], show_warnings=False',
    ),
    "a decorator that changes the branch afterwards": Mistake(
        "Another decorator changed @project to foo.test.other, and this flow listens in "
        "foo.user.alice. Set the branch in the config alone.",
        above=OTHER_BRANCH,
        project='@other\n@project(name="foo")',
    ),
    "a @trigger that a decorator above adds": Mistake(
        f"This flow has @trigger {ONE_TRIGGER}", above=f"{ADD_TRIGGER}\n@other"
    ),
    "a @trigger that a decorator below adds": Mistake(
        f"This flow has @trigger {ONE_TRIGGER}",
        above=ADD_TRIGGER,
        project='@other\n@project(name="foo")',
    ),
    "a @trigger that a pre_mutate of the instance adds": Mistake(
        f"This flow has @trigger {ONE_TRIGGER}",
        above=ADD_TRIGGER_BY_THE_INSTANCE,
        project='@other\n@project(name="foo")',
    ),
    **{
        f"a step's mutator that {what} the trigger": Mistake(
            f"This flow has a change of @trigger by another decorator {ONE_TRIGGER}",
            above=ON_THE_STEP.format(action=action),
            start="@on_the_step",
        )
        for what, action in (
            ("removes", 'mutable.flow.remove_decorator("trigger")'),
            ("replaces", REPLACE_TRIGGER.format("pass")),
            (
                "removes and adds",
                REPLACE_TRIGGER.format('mutable.flow.remove_decorator("trigger")'),
            ),
            (
                "adds @trigger_on_finish to",
                'mutable.flow.add_decorator(trigger_on_finish, deco_kwargs={"flow": "Other"})',
            ),
        )
    },
    "a parser that fails": Mistake(
        "The config 'project' cannot be read (ZeroDivisionError: division by zero), it is 'bar'. "
        "Set branch to 'bar', production to True in it.",
        config='project = Config("project", parser=lambda text: 1 / 0)',
        value="bar",
    ),
    "a parser that is not there": Mistake(
        "The config 'project' cannot be read (ModuleNotFoundError: No module named 'nowhere'), it "
        "is '{}'.",
        config='project = Config("project", parser="nowhere.loads")',
        value="{}",
    ),
    **{
        f"parameters={parameters}": Mistake(
            f"{A_MAPPING} {shown}.",
            arguments=f'event={{"name": "food", "parameters": {parameters}}}',
        )
        for parameters, shown in (
            ('"path"', "'path'"),
            ('{"path"}', "{'path'}"),
            ('{"path": 5}', "{'path': 5}"),
            ('{"path": "key\\n"}', "{'path': 'key\\n'}"),
            ('{"path": "key "}', "{'path': 'key '}"),
            ('{"path\\n": "key"}', "{'path\\n': 'key'}"),
            ('[("path",)]', "[['path']]"),
            ("[5]", "[5]"),
        )
    },
    "a parameter twice": Mistake(
        "parameters must name 'Path' only once.",
        arguments='event={"name": "food", "parameters": ["path", ("Path", "key")]}',
    ),
    "a Parameter with a capital letter": Mistake(
        "The name of a Parameter must be lowercase ('modelname') to be set by an event, not "
        "'ModelName'.",
        config=CONFIG + '\nmodel = Parameter("ModelName", default="x")',
    ),
    "a mapped Parameter with a capital letter": Mistake(
        "must be lowercase ('modelname')",
        arguments='events=["drink", {"name": "food", "parameters": {"modelname": "key"}}]',
        config=CONFIG + '\nmodel = Parameter("ModelName", default="x")',
    ),
    "a mistake beside a function": Mistake(
        f"{AN_EVENT} 5.", arguments='events=[lambda context: "food", 5]'
    ),
    "a typo in the options": Mistake(
        "options must be a dict with the key reset_at, not {'reset': {'cron': '0 0 ",
        arguments='event="food", options={"reset": {"cron": "0 0 * * *"}}',
    ),
    **{
        f"the cron {cron}": Mistake(
            f"{CRON} {shown}.",
            arguments=f'event="food", options={{"reset_at": {{"cron": {cron}}}}}',
        )
        for cron, shown in (
            ('"@daily"', "'@daily'"),
            ("5", "5"),
            ('""', "''"),
            ('"60 0 1 1 0"', "'60 0 1 1 0'"),
            ('"0 0 1 1 7"', "'0 0 1 1 7'"),
            ('"0 0 9-5 1 0"', "'0 0 9-5 1 0'"),
            ('"0 0 1/0 1 0"', "'0 0 1/0 1 0'"),
            ('"0 0 1 foo 0"', "'0 0 1 foo 0'"),
            ('"0 0 1 1 0 2026"', "'0 0 1 1 0 2026'"),
        )
    },
    "no cron": Mistake(f"{CRON} None.", arguments='event="food", options={"reset_at": {}}'),
    "a typo in reset_at": Mistake(
        'options["reset_at"] must be a dict with the keys cron and timezone, not',
        arguments='event="food", options={"reset_at": {"crn": "0 0 1 1 0"}}',
    ),
    **{
        f"the timezone {timezone}": Mistake(
            f'timezone must be a timezone, for example "Europe/Berlin", not {shown}.',
            arguments='event="food", options={"reset_at": {"cron": "0 0 1 1 0", "timezone": '
            f"{timezone}}}}}",
        )
        for timezone, shown in (
            ('"Europe/Berln"', "'Europe/Berln'"),
            ("5", "5"),
            ('""', "''"),
            ('"../x"', "'../x'"),
        )
    },
    "the namespace of another branch": Mistake(
        "The event 'foo.prod.food' has a namespace already. Write what follows it. For another "
        'namespace, write {"name": "food", "project_branch": "prod"} in the decorator and '
        'raise_event("food", production=True) in a step.',
        arguments='event="foo.prod.food"',
    ),
    "events as a text": Mistake(
        'events must be a list such as ["food", "drink"], not \'food\'.',
        arguments='events="food"',
    ),
    "events as a set": Mistake(
        'events must be a list such as ["food", "drink"], not {\'food\'}.',
        arguments='events={"food"}',
    ),
    "a number": Mistake(f"{AN_EVENT} 5.", arguments="event=5"),
    "a list as event": Mistake(f"{AN_EVENT} ['food'].", arguments='event=["food"]'),
    "a dict without a name": Mistake(
        f"{AN_EVENT} {{'parameters': {{}}}}.", arguments='event={"parameters": {}}'
    ),
    "an unknown key of an event": Mistake(
        f"{AN_EVENT} {{'name': 'food', 'other': 1, 'params': {{}}}}.",
        arguments='event={"name": "food", "params": {}, "other": 1}',
    ),
    "a name that is no text": Mistake(
        'An event\'s name must be text with letters, for example "food", not 5.',
        arguments='event={"name": 5}',
    ),
    "another project that @project rejects": Mistake(
        "@project rejects name='Other'",
        arguments='event={"name": "food", "project": "Other"}',
    ),
    "another branch that @project does not make": Mistake(
        'project_branch must be "prod", "prod.bar", "test.bar" or "user.jane", not \'bar\'.',
        arguments='event={"name": "food", "project_branch": "bar"}',
    ),
    "another branch that @project rejects": Mistake(
        "branch='B-1'", arguments='event={"name": "food", "project_branch": "test.B-1"}'
    ),
    "another user's branch without a letter": Mistake(
        "The user's name must have a letter (a to z), digit or underscore, not '李'.",
        arguments='event={"name": "food", "project_branch": "user.李"}',
    ),
    "a namespace twice": Mistake(
        "The event 'foo.user.alice.food' has a namespace already. Write what follows it.",
        arguments='event="foo.user.alice.food"',
    ),
    "options that are no dict": Mistake(
        "options must be a dict with the key reset_at, not 'midnight'.",
        arguments='event="food", options="midnight"',
    ),
    "options that are no dict of dicts": Mistake(
        "options[\"reset_at\"] must be a dict with the keys cron and timezone, not 'midnight'.",
        arguments='event="food", options={"reset_at": "midnight"}',
    ),
    "a switch that is a text": Mistake(
        "show_warnings must be true or false, without quotes, not 'no'.",
        arguments='event="food", show_warnings="no"',
    ),
    "a config_name that is no name": Mistake(
        'config_name must be text, for example "project", not None.',
        arguments='event="food", config_name=None',
    ),
    "an empty config_name": Mistake(
        "config_name must be text, for example \"project\", not ''.",
        arguments='event="food", config_name=""',
    ),
    "an argument without a value": Mistake(
        "The config expression 'project.event' in @namespaced_trigger failed (AttributeError: "
        "event). Give the config a value for it.",
        arguments='event=config_expr("project").event',
    ),
    "no argument's name": Mistake(
        f"@namespaced_trigger: too many positional arguments. {EITHER}; the other arguments are "
        "options, config_name and show_warnings.",
        arguments='"food"',
    ),
    "an unknown argument": Mistake(
        "@namespaced_trigger: got an unexpected keyword argument 'evnt'.", arguments='evnt="food"'
    ),
    "an owner without a name": Mistake(
        "The user's name must have a letter (a to z), digit or underscore, not ''. Set "
        "METAFLOW_OWNER, or give a branch.",
        variables={"METAFLOW_OWNER": ""},
    ),
    "an owner without a letter": Mistake(
        "not '李'. Set METAFLOW_OWNER, or give a branch.", variables={"METAFLOW_OWNER": "李"}
    ),
    "a user without a letter": Mistake(
        "not '王'. Set METAFLOW_USER, or give a branch.", variables={"METAFLOW_USER": "王"}
    ),
}


def refused(bench: Workbench, mistake: Mistake, *command: str) -> Result:
    """Make a mistake; return the one message that it gives, which reaches no cluster."""
    decorator = f"@namespaced_trigger({mistake.arguments})"
    steps = TWO_STEPS.format(start="    pass", end="    pass")
    flow = bench.flow(
        above=f"{mistake.above}\n{decorator}\n{mistake.project}",
        body=mistake.config,
        steps=f"{mistake.start}\n{steps}",
    )
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
    if VERSION == (2, 16, 6) and "OVERRIDE" in mistake.above:
        pytest.skip("OVERRIDE is an internal error in this Metaflow")
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
    mistake = Mistake(f"This flow has @trigger {ONE_TRIGGER}", above=f"{late}\n\n{adding}\n@other")
    refused(bench, mistake, "argo-workflows", "create")


def test_the_decorator_without_arguments_says_what_to_write(bench: Workbench) -> None:
    flow = bench.flow(above=f"@namespaced_trigger\n{PROJECT}")
    result = bench.run(flow, "show")
    assert result.status == 1
    assert f"exactly one of event and events, not neither. {EITHER}." in result.message


AT_DEPLOYMENT = {
    "event=lambda context: 5": f"{AN_EVENT} 5.",
    'event={"name": lambda context: ""}': "An event's name must be text with letters",
    'events=lambda context: ["food", "food"]': "The flow must have the event",
    'events=lambda context: "food"': "events must be a list such as",
    'events=["food", lambda context: "food"]': "'foo.user.alice.food' only once.",
    'event={"name": "food", "parameters": lambda context: 7}': f"{A_MAPPING} 7.",
    "event=lambda context: len": (
        "What the function '<lambda>' returns must be a value, not <built-in function len>."
    ),
    "event=lambda context: 1 / 0": (
        "The function '<lambda>' in @namespaced_trigger raised ZeroDivisionError: division by zero "
        "("
    ),
    "events=lambda context: context.nothing": "raised AttributeError:",
    'event=lambda: "food"': (
        "The function '<lambda>' in @namespaced_trigger raised TypeError: <lambda>() takes 0 "
        "positional arguments but 1 was given. It must take one argument, the context."
    ),
    'event=__import__("metaflow").namespaced_event_name("food")': (
        "The event 'mfns.foo.user.alice.food' has a namespace already."
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
        f"@namespaced_trigger belongs above the class of a flow, not above {name!r}.\n"
    )
