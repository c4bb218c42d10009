from __future__ import annotations

import json
import shlex

import pytest
from conftest import VERSION, Workbench
from flows import CONFIG, PROJECT, config, listening

PRINT_TAGS = """
from metaflow import Flow, namespace
namespace(None)
print(*(tag for tag in Flow("DemoFlow").latest_run.tags if "project" in tag))
"""


@pytest.mark.parametrize(
    ("arguments", "options", "listened"),
    [
        ('name="foo"', config(branch="bar", production=True), "foo.prod.bar.food"),
        ('name="foo"', config(branch="bar"), "foo.test.bar.food"),
        ('name="foo"', config(branch="bar", product="x", region="y"), "foo.test.bar.food"),
        ('name="foo"', config(production=True), "foo.prod.food"),
        ('name="foo"', (), "foo.user.alice.food"),
        ('name="foo", branch="bar"', (), "foo.test.bar.food"),
        ('name="foo", branch="bar"', config(production=True), "foo.prod.bar.food"),
        ('name="foo", branch="x", production=True', config(branch="bar"), "foo.prod.bar.food"),
        (
            'name="foo", branch="bar", production=True',
            config(production=False),
            "foo.test.bar.food",
        ),
        (
            'name="foo", branch="bar", production=True',
            config(branch=None, production=""),
            "foo.prod.bar.food",
        ),
        ('name="foo"', config(name="other"), "foo.user.alice.food"),
        ('branch="bar"', config(name="foo"), "foo.test.bar.food"),
        ('name=config_expr("project").name', config(name="foo"), "foo.user.alice.food"),
        ('**config_expr("project")', config(name="foo", branch="bar"), "foo.test.bar.food"),
    ],
)
def test_a_listener_takes_each_value_from_the_config_then_from_project(
    bench: Workbench, arguments: str, options: tuple[str, ...], listened: str
) -> None:
    flow = bench.flow(**listening(project=f"@project({arguments})"))
    assert bench.listened(flow, *options) == [listened]


def test_the_owner_of_a_deployment_names_the_user_branch(bench: Workbench) -> None:
    bench.variables["METAFLOW_OWNER"] = "jane.doe"
    flow = bench.flow(**listening())
    assert bench.listened(flow) == ["foo.user.jane.doe.food"]


def test_an_owner_other_than_the_user_warns_that_the_pods_publish_elsewhere(
    bench: Workbench,
) -> None:
    flow = bench.flow(**listening())
    bench.variables["METAFLOW_OWNER"] = "jane"
    assert (
        f"{WARNING} METAFLOW_OWNER makes this the branch of 'jane', but the pods that you deploy "
        "publish in that of 'alice'. Set METAFLOW_USER=jane as well.\n"
    ) in bench.deploy(flow).stderr
    (template,) = bench.templates()
    assert '"METAFLOW_OWNER", "value": "alice"' in json.dumps(template)

    assert WARNING not in bench.deploy(flow, *config(branch="bar")).stderr
    bench.variables["METAFLOW_OWNER"] = "alice"
    assert WARNING not in bench.deploy(flow).stderr


@pytest.mark.parametrize("above", [True, False])
def test_the_decorator_works_above_and_below_project(bench: Workbench, above: bool) -> None:
    decorators = ['@namespaced_trigger(events=["food", "drink"])', PROJECT]
    flow = bench.flow(
        above="\n".join(decorators if above else reversed(decorators)),
        body='project = Config("project")',
    )
    assert bench.listened(flow, *config(branch="bar")) == [
        "foo.test.bar.food",
        "foo.test.bar.drink",
    ]


def test_a_flow_without_project_gets_the_name_in_its_config(bench: Workbench) -> None:
    settings = 'Config("deployment", default_value={"name": "foo", "branch": "bar"})'
    flow = bench.flow(
        **listening('event="food", config_name="deployment"', "", f"settings = {settings}")
    )
    assert bench.listened(flow) == ["foo.test.bar.food"]


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ('project = Config("project")', ()),
        ('project = Config("project", default_value={})', ("--config-value", "project", "null")),
        ('project = Config("project", default_value={}); other = Config("other")', ()),
    ],
)
def test_a_config_without_a_value_says_nothing(
    bench: Workbench, body: str, options: tuple[str, ...]
) -> None:
    flow = bench.flow(**listening(config=body))
    assert bench.listened(flow, *options) == ["foo.user.alice.food"]


@pytest.mark.parametrize("name", ["my-project", "MyProject", "My-Project_2"])
def test_a_config_is_found_by_a_name_with_dashes_and_capitals(bench: Workbench, name: str) -> None:
    flow = bench.flow(
        **listening(
            f'event="food", config_name="{name}"',
            config=f"""
            project = Config("{name}", default_value={{"branch": "bar"}})
            other = Config("other")
            """,
        )
    )
    assert bench.listened(flow) == ["foo.test.bar.food"]


@pytest.mark.parametrize("name", ["my-project", "MyProject"])
def test_the_option_that_a_message_prints_works(bench: Workbench, name: str) -> None:
    flow = bench.flow(
        **listening(
            f'event="food", config_name="{name}"',
            config=f'project = Config("{name}", default_value={{}})',
        )
    )
    message = bench.run(flow, "--branch", "bar", "show").message
    options = shlex.split(message.partition("Write ")[2])
    assert bench.listened(flow, *options) == ["foo.test.bar.food"]


@pytest.mark.parametrize("parser", ["", ", parser=__import__('json').loads"])
def test_a_plain_config_counts(bench: Workbench, parser: str) -> None:
    flow = bench.flow(
        **listening(config=f'project = Config("project", plain=True{parser})'),
        start="print('seen as', type(self.project).__name__)",
    )
    assert bench.listened(flow, *config(branch="bar")) == ["foo.test.bar.food"]
    result = bench.run_locally(flow, *config(branch="bar"))
    seen = "ConfigValue" if VERSION < (2, 19, 10) else "dict" if parser else "str"
    assert f"seen as {seen}\n" in result.stdout


def test_options_are_handed_to_trigger(bench: Workbench) -> None:
    options = '{"reset_at": {"cron": "0 0 * * *"}}'
    flow = bench.flow(**listening(f'event="food", options={options}'))
    bench.listened(flow)
    (sensor,) = bench.sensors.values()
    assert "0 0 * * *" in sensor.unsupported[0]


def test_flags_that_say_what_the_config_says_pass(bench: Workbench) -> None:
    flow = bench.flow(**listening())
    options = ("--branch", "bar", "--production", *config(branch="bar", production=True))
    assert bench.listened(flow, *options) == ["foo.prod.bar.food"]


def test_the_config_decides_for_the_whole_flow(bench: Workbench) -> None:
    flow = bench.flow(
        **listening(),
        start="print(current.branch_name, current.is_production, current.project_flow_name)",
    )
    options = config(branch="bar", production=True)
    result = bench.run_locally(flow, *options)
    assert result.status == 0, result.output
    assert "prod.bar True foo.prod.bar.DemoFlow" in result.output
    assert result.output.count("Project: foo, Branch: prod.bar") == 1
    tags = bench.script(PRINT_TAGS).stdout.split()
    assert sorted(tags) == ["project:foo", "project_branch:prod.bar"]

    assert bench.deploy(flow, *options).status == 0
    names = [item["metadata"]["name"] for item in bench.templates()]
    assert names == ["foo.prod.bar.demoflow"]


WARNING = "Namespaced trigger warning:"
WARNED = [
    pytest.param(
        'event="food"',
        "",
        (),
        "there is no Config 'project' to set the branch: add "
        'project = Config("project", default_value={}) to the flow.',
        id="no Config",
    ),
    pytest.param(
        'event="food"',
        'settings = Config("settings", default_value={})',
        (),
        "there is no Config 'project' to set the branch: add "
        'project = Config("project", default_value={}) to the flow, or write '
        'config_name="settings".',
        id="another Config",
    ),
    pytest.param(
        'event="food"',
        'project = Config("project", default_value={"prod": True})',
        (),
        "the config 'project' has none of the keys name, branch, production.",
        id="other keys",
    ),
    *(
        pytest.param(
            'event="food"',
            f'project = Config("project", default_value={{"branch": "", {key!r}: "x"}})',
            (),
            f"the config's key {key!r} is ignored, perhaps a typo of {meant!r}.",
            id=f"the typo {key}",
        )
        for key, meant in (("prodution", "production"), ("Production", "production"))
    ),
    pytest.param(
        'event="food"',
        'project = Config("project")',
        config(name="other"),
        "@project says name='foo' and the config 'project' says 'other'; @project's is used.",
        id="two names",
    ),
    pytest.param(
        'event="fo od!"',
        CONFIG,
        (),
        "'foo.user.alice.fo od!' has characters that event names cannot have; the event is "
        "'foo.user.alice.food'.",
        id="characters",
    ),
]


@pytest.mark.parametrize(("arguments", "body", "options", "warning"), WARNED)
def test_a_warning_is_printed_once_for_a_command(
    bench: Workbench, arguments: str, body: str, options: tuple[str, ...], warning: str
) -> None:
    flow = bench.flow(**listening(arguments, config=body))
    result = bench.run_locally(flow, *options)
    assert result.status == 0, result.output
    assert result.stderr.count(f"{WARNING} {warning}\n") == 1
    assert result.output.count(WARNING) == 1
    assert bench.listened(flow, *options) == ["foo.user.alice.food"]

    silent = bench.flow(**listening(f"show_warnings=False, {arguments}", config=body))
    assert WARNING not in bench.run(silent, *options, "show").output


@pytest.mark.parametrize("key", ["names", "branches", "rename", "products", "region"])
def test_a_config_key_that_is_a_word_of_its_own_passes_without_a_warning(
    bench: Workbench, key: str
) -> None:
    flow = bench.flow(**listening())
    assert "arning" not in bench.run(flow, *config(branch="bar", **{key: "x"}), "show").output


def test_a_typo_in_what_project_unpacks_warns(bench: Workbench) -> None:
    flow = bench.flow(**listening(project='@project(**config_expr("project.inner"))'))
    result = bench.run(flow, *config(inner={"name": "foo", "brnach": "bar"}), "show")
    assert result.status == 0, result.output
    assert "the config's key 'brnach' is ignored, perhaps a typo of 'branch'." in result.stderr


def test_a_user_with_an_address_for_a_name_listens_to_what_is_left_of_it(
    bench: Workbench,
) -> None:
    bench.variables["METAFLOW_USER"] = "jane+x@example.com"
    flow = bench.flow(**listening())
    assert bench.listened(flow) == ["foo.user.janexexample.com.food"]
