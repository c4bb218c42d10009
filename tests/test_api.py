"""The other ways into a flow: Runner, Deployer, resume, spin, --only-json, the pod."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import VERSION, Workbench

SOURCE = """
@namespaced_trigger(event="fo od")
@project(name="foo")
class DemoFlow(FlowSpec):
    project = Config("project", default_value={})
"""
START = "print('in', current.project_name, current.branch_name, current.is_production)"
CONFIG = {"branch": "bar", "production": True}
OPTIONS = ("--config-value", "project", json.dumps(CONFIG))


@pytest.fixture
def flow(bench: Workbench) -> Path:
    return bench.flow(SOURCE, START)


def script(bench: Workbench, text: str) -> Any:
    (bench.folder / "script.py").write_text(text)
    return bench.run("script.py")


def test_two_deployers_of_a_flow_in_one_process_deploy_two_namespaces(
    bench: Workbench, flow: Path
) -> None:
    result = script(
        bench,
        "from metaflow import Deployer\n"
        f"for config in ({CONFIG}, {{'branch': 'baaz'}}):\n"
        f"    deployer = Deployer({str(flow)!r}, config_value=[('project', config)])\n"
        "    print('deployed', deployer.argo_workflows().create().name)\n",
    )
    assert result.status == 0, result.output
    assert "deployed foo.prod.bar.demoflow" in result.stdout
    assert "deployed foo.test.baaz.demoflow" in result.stdout
    names = {each.event_name for s in bench.sensors.values() for each in s.dependencies}
    assert names == {"foo.prod.bar.food", "foo.test.baaz.food"}


def test_flows_with_a_base_class_in_common_keep_their_own_projects(bench: Workbench) -> None:
    base = (
        "from metaflow import *\nfrom namespaced_trigger import namespaced_trigger\n"
        "@namespaced_trigger(event='food')\nclass BaseFlow(FlowSpec):\n"
        "    project = Config('project', default_value={})\n"
        "    @step\n    def start(self):\n        self.next(self.end)\n"
        "    @step\n    def end(self):\n        pass\n"
    )
    (bench.folder / "base.py").write_text(base)
    flow = "from metaflow import *\nfrom base import BaseFlow\n@project({})\n"
    flow += "class {}(BaseFlow):\n    pass\nif __name__ == '__main__':\n    {}()\n"
    first = flow.format("name='foo'", "FirstFlow", "FirstFlow")
    second = flow.format("name='foo', branch='bar'", "SecondFlow", "SecondFlow")
    (bench.folder / "first.py").write_text(first)
    (bench.folder / "second.py").write_text(second)
    result = script(
        bench,
        "from metaflow import Deployer\n"
        "for name, config in (('first', {'branch': 'bar'}), ('second', {})):\n"
        "    deployer = Deployer(name + '.py', config_value=[('project', config)])\n"
        "    deployer.argo_workflows().create()\n",
    )
    assert result.status == 0, result.output
    assert sorted(bench.sensors) == ["foo-test-bar-firstflow", "foo-test-bar-secondflow"]


def test_a_runner_runs_in_the_namespace_of_its_config_and_warns_once(
    bench: Workbench, flow: Path
) -> None:
    result = script(
        bench,
        "from metaflow import Runner\n"
        f"runner = Runner({str(flow)!r}, datastore='local', config_value=[('project', {CONFIG})])\n"
        "with runner.run() as running:\n"
        "    print('tags', *(tag for tag in running.run.tags if 'branch' in tag))\n",
    )
    assert result.status == 0, result.output
    assert "in foo prod.bar True" in result.output
    assert "tags project_branch:prod.bar" in result.stdout
    assert result.output.count("Namespaced trigger warning:") == 1


def test_a_step_deploys_into_a_namespace_that_is_not_its_own(bench: Workbench, flow: Path) -> None:
    deploy = f"""
        deployer = Deployer({str(flow)!r}, config_value=[("project", {CONFIG})],
                            env={{"METAFLOW_BRANCH": "bar"}})
        print("deployed", deployer.argo_workflows().create().name)
    """
    source = '@project(name="foo")\nclass DemoFlow(FlowSpec):\n    pass'
    parent = bench.flow(source, start=deploy, name="parent.py")
    bench.variables["METAFLOW_BRANCH"] = "baaz"
    result = bench.run(parent, "--datastore", "local", "run")
    assert result.status == 0, result.output
    assert "deployed foo.prod.bar.demoflow" in result.stdout


def test_a_runner_gets_the_refusal_of_its_config(bench: Workbench, flow: Path) -> None:
    result = script(
        bench,
        "from metaflow import Runner\n"
        f"Runner({str(flow)!r}, config_value=[('project', {{'production': 'yes'}})]).run()\n",
    )
    assert result.status == 1
    assert "production is either true or false, and 'yes' is neither." in result.output


def test_a_resumed_run_keeps_its_namespace(bench: Workbench, flow: Path) -> None:
    assert bench.run(flow, *OPTIONS, "--datastore", "local", "run").status == 0
    result = bench.run(flow, "--datastore", "local", "resume", "start")
    assert result.status == 0, result.output
    assert "in foo prod.bar True" in result.output


@pytest.mark.skipif(VERSION < (2, 19, 0), reason="spin came with Metaflow 2.19")
def test_a_spun_step_runs_in_its_namespace(bench: Workbench, flow: Path) -> None:
    assert bench.run(flow, *OPTIONS, "--datastore", "local", "run").status == 0
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
    assert not bench.stage.cluster.list_all("default", "workflowtemplates")


def test_a_pod_sees_the_namespace_of_the_deployment(bench: Workbench, flow: Path) -> None:
    bench.variables["METAFLOW_USER"] = "jane"
    assert bench.deploy(flow).status == 0
    (template,) = bench.stage.cluster.list_all("default", "workflowtemplates")
    (container,) = (
        each["container"] for each in template["spec"]["templates"] if each.get("name") == "start"
    )
    pod = {each["name"]: each["value"] for each in container["env"] if each.get("value")}
    assert pod["METAFLOW_USER"] == "argo-workflows"
    # The command that Metaflow compiled, with `show` for the step that it would run.
    script = container["command"][-1].split("then ")[-1]
    command = re.search(r"python (flow\.py .*?) init ", script)
    assert command is not None
    options = command[1].replace("--quiet ", "")

    location = pod["METAFLOW_CODE_URL"].removeprefix("s3:/")
    (bench.folder / "pod").mkdir()
    (bench.folder / "pod" / "job.tar").write_bytes(bench.stage.cluster.packages[location])
    unpack = "cd pod && tar -xzf job.tar && export PYTHONPATH=.mf_code METAFLOW_EXTRACTED_ROOT=."
    (bench.folder / "pod.py").write_text(
        "import subprocess, sys\n"
        f"command = {unpack!r} + ' && ' + sys.executable + {f' {options} show'!r}\n"
        "sys.exit(subprocess.call(['bash', '-c', command]))\n"
    )
    bench.variables.update({name: str(value) for name, value in pod.items()})
    shown = bench.run("pod.py")
    assert shown.status == 0, shown.output
    assert "Project: foo, Branch: user.jane" in shown.output


def test_a_metaflow_that_is_too_old_is_told_in_one_message(bench: Workbench, flow: Path) -> None:
    old = bench.folder / "old"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(old)]
    assert bench.run(*install, "metaflow==2.16.5").status == 0
    bench.variables["PYTHONPATH"] = f"{old}:{bench.environment()['PYTHONPATH']}"
    result = bench.run(flow, "show")
    assert result.status == 1
    assert result.stderr == (
        "namespaced_trigger needs Metaflow 2.16.6 or newer, and this is 2.16.5. "
        "Write: pip install --upgrade metaflow\n"
    )
