"""The other ways into a flow: Runner, Deployer, resume, spin, --only-json, the pod."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import VERSION, Workbench
from flows import CONFIG, config, listening

VALUES = {"branch": "bar", "production": True}
OPTIONS = config(**VALUES)


@pytest.fixture
def flow(bench: Workbench) -> Path:
    return bench.flow(
        **listening('event="fo od"'),
        start="print('in', current.project_name, current.branch_name, current.is_production)",
    )


def test_two_deployers_of_a_flow_in_one_process_deploy_two_namespaces(
    bench: Workbench, flow: Path
) -> None:
    result = bench.script(
        f"""
        from metaflow import Deployer
        for config in ({VALUES}, {{"branch": "baaz"}}):
            deployer = Deployer({str(flow)!r}, config_value=[("project", config)])
            print("deployed", deployer.argo_workflows().create().name)
        """
    )
    assert result.status == 0, result.output
    assert "deployed foo.prod.bar.demoflow" in result.stdout
    assert "deployed foo.test.baaz.demoflow" in result.stdout
    names = {each.event_name for s in bench.sensors.values() for each in s.dependencies}
    assert names == {"foo.prod.bar.food", "foo.test.baaz.food"}


def test_flows_with_a_base_class_in_common_keep_their_own_projects(bench: Workbench) -> None:
    bench.flow("BaseFlow", above='@namespaced_trigger(event="food")', body=CONFIG)
    for name, project in {
        "FirstFlow": "name='foo'",
        "SecondFlow": "name='foo', branch='bar'",
    }.items():
        above = f"from BaseFlow import BaseFlow\n@project({project})"
        bench.flow(name, above=above, base="BaseFlow")
    result = bench.script(
        """
        from metaflow import Deployer
        for name, config in (("FirstFlow", {"branch": "bar"}), ("SecondFlow", {})):
            deployer = Deployer(name + ".py", config_value=[("project", config)])
            deployer.argo_workflows().create()
        """
    )
    assert result.status == 0, result.output
    assert sorted(bench.sensors) == ["foo-test-bar-firstflow", "foo-test-bar-secondflow"]


def test_a_runner_runs_in_the_namespace_of_its_config_and_warns_once(
    bench: Workbench, flow: Path
) -> None:
    result = bench.script(
        f"""
        from metaflow import Runner
        config = [("project", {VALUES})]
        with Runner({str(flow)!r}, datastore="local", config_value=config).run() as running:
            print("tags", *(tag for tag in running.run.tags if "branch" in tag))
        """
    )
    assert result.status == 0, result.output
    assert "in foo prod.bar True" in result.output
    assert "tags project_branch:prod.bar" in result.stdout
    assert result.output.count("Namespaced trigger warning:") == 1


def test_a_step_deploys_into_a_namespace_that_is_not_its_own(bench: Workbench, flow: Path) -> None:
    deploy = f"""
        deployer = Deployer({str(flow)!r}, config_value=[("project", {VALUES})],
                            env={{"METAFLOW_BRANCH": "bar"}})
        print("deployed", deployer.argo_workflows().create().name)
    """
    parent = bench.flow("ParentFlow", start=deploy)
    bench.variables["METAFLOW_BRANCH"] = "baaz"
    result = bench.run_locally(parent)
    assert result.status == 0, result.output
    assert "deployed foo.prod.bar.demoflow" in result.stdout


def test_a_runner_gets_the_refusal_of_its_config(bench: Workbench, flow: Path) -> None:
    result = bench.script(
        f"""
        from metaflow import Runner
        Runner({str(flow)!r}, config_value=[("project", {{"production": "yes"}})]).run()
        """
    )
    assert result.status == 1
    assert "production must be true or false, without quotes, not 'yes'." in result.output


@pytest.mark.skipif(VERSION < (2, 19, 9), reason="older ones leave configs to their commands")
@pytest.mark.parametrize("api", ["Runner", "Deployer"])
def test_advice_to_a_runner_or_deployer_is_in_its_own_language(bench: Workbench, api: str) -> None:
    flow = bench.flow(**listening(project=""))
    result = bench.script(
        f"""
        from metaflow import {api}
        flow = {api}({str(flow)!r})
        flow.run() if hasattr(flow, "run") else flow.argo_workflows().create()
        """
    )
    assert result.status == 1
    assert "Write config_value=[('project', {'name': 'my_project'})]." in result.output


def test_resume_gets_no_advice_that_it_does_not_take(bench: Workbench, flow: Path) -> None:
    assert bench.run_locally(flow, *OPTIONS).status == 0
    bench.variables["METAFLOW_BRANCH"] = "other"
    result = bench.run(flow, "--datastore", "local", "resume", "start")
    assert result.status == 1
    assert "resume takes the config of the run that it resumes: use run." in result.message
    assert "--config-value" not in result.message


def test_the_signature_of_the_decorator_is_that_of_its_arguments(bench: Workbench) -> None:
    result = bench.script(
        """
        import inspect, pydoc
        from namespaced_trigger import namespaced_trigger
        print(inspect.signature(namespaced_trigger))
        print(pydoc.render_doc(namespaced_trigger))
        """
    )
    signature = (
        "(*, event: 'Event | None' = None, events: 'Sequence[Event] | Callable[..., "
        "Sequence[Event]] | None' = None, options: 'Mapping[str, Any] | None' = None, config_name: "
        "'str' = 'project', show_warnings: 'bool' = True)"
    )
    assert result.stdout.startswith(f"{signature}\n")
    assert result.stdout.count(signature) > 1


def test_a_resumed_run_keeps_its_namespace(bench: Workbench, flow: Path) -> None:
    assert bench.run_locally(flow, *OPTIONS).status == 0
    result = bench.run(flow, "--datastore", "local", "resume", "start")
    assert result.status == 0, result.output
    assert "in foo prod.bar True" in result.output


@pytest.mark.skipif(VERSION < (2, 19, 0), reason="spin came with Metaflow 2.19")
def test_a_spun_step_runs_in_its_namespace(bench: Workbench, flow: Path) -> None:
    assert bench.run_locally(flow, *OPTIONS).status == 0
    result = bench.run(flow, *OPTIONS, "--datastore", "local", "spin", "start")
    assert result.status == 0, result.output
    assert "in foo prod.bar True" in result.output


def test_only_json_has_the_namespace_and_reaches_no_cluster(bench: Workbench, flow: Path) -> None:
    result = bench.run(flow, *OPTIONS, "argo-workflows", "create", "--only-json")
    assert result.status == 0, result.output
    template = json.loads(result.stdout)
    assert template["metadata"]["annotations"]["metaflow/branch_name"] == "prod.bar"
    triggers = json.loads(template["metadata"]["annotations"]["metaflow/triggers"])
    assert triggers == [{"name": "foo.prod.bar.food", "type": "event"}]
    assert not bench.templates()


def test_a_pod_sees_the_namespace_of_the_deployment(bench: Workbench, flow: Path) -> None:
    assert bench.deploy(flow).status == 0
    (template,) = bench.templates()
    (container,) = (
        each["container"] for each in template["spec"]["templates"] if each.get("name") == "start"
    )
    pod = {each["name"]: each["value"] for each in container["env"] if each.get("value")}
    assert pod["METAFLOW_USER"] == "argo-workflows"
    # The command that Metaflow compiled, with `show` for the step that it would run.
    script = container["command"][-1].split("then ")[-1]
    command = re.search(r"python (DemoFlow\.py .*?) init ", script)
    assert command is not None
    options = command[1].replace("--quiet ", "")

    (bench.folder / "job.tar").write_bytes(bench.packages[pod["METAFLOW_CODE_URL"]])
    bench.variables.update({name: str(value) for name, value in pod.items()})
    shown = bench.shell(
        "mkdir pod; cd pod; tar -xzf ../job.tar; "
        f"PYTHONPATH=.mf_code METAFLOW_EXTRACTED_ROOT=. python {options} show"
    )
    assert shown.status == 0, shown.output
    assert "Project: foo, Branch: user.alice" in shown.output


def test_a_metaflow_that_is_too_old_is_told_in_one_message(bench: Workbench, flow: Path) -> None:
    old = bench.folder / "old"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(old)]
    assert bench.run(*install, "metaflow==2.16.5").status == 0
    bench.variables["PYTHONPATH"] = f"{old}:{bench.environment()['PYTHONPATH']}"
    result = bench.run(flow, "show")
    assert result.status == 1
    assert result.stderr == (
        "namespaced_trigger needs Metaflow 2.16.6 or newer, and this is 2.16.5. "
        "Write: pip install --upgrade metaflow\n"
    )
