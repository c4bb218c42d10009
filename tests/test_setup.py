"""setup_flow.sh, run in a copy of the project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SECONDS_FOR_A_COMMAND, copy_installed_project, has_traceback


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_installed_project(tmp_path)
    return tmp_path


def set_up(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(project.parent, "bash", project / "setup_flow.sh", *arguments, **variables)


def run(folder: Path, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "METAFLOW_USER": "jane", "TMPDIR": os.fspath(folder), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_FOR_A_COMMAND,
    )


def test_each_event_starts_the_child_of_its_own_namespace_only(project: Path) -> None:
    result = set_up(project, ON_CLUSTER="1")  # which is its own, not the user's
    assert result.returncode == 0, result.stdout
    for event in ("foo.prod.bar.food", "foo.test.baaz.food", "foo.user.jane.food"):
        assert f"[rehearsal] published {event} by " in result.stdout
    printed = [path.read_text() for path in project.parent.glob("rehearsal-logs-*/run-*.txt")]
    assert len(printed) == 6
    assert "Namespaced trigger warning" not in "".join(printed)
    assert result.stdout.endswith(
        "\nEach of the three events started HelloFlowDownstream in its own namespace only.\n"
    )


def test_on_a_cluster_it_says_before_each_command_what_it_deploys(project: Path) -> None:
    result = run(project, sys.executable, "-m", "rehearsal", "bash", "setup_flow.sh", "--cluster")
    assert result.returncode == 0, result.stdout
    announced = re.findall(r"^About to (.*)\.\n\n\$ python", result.stdout, re.MULTILINE)
    assert announced == [
        announcement
        for namespace in ("foo.prod.bar", "foo.test.baaz", "foo.user.jane")
        for announcement in (
            f"deploy HelloFlowUpstream, which will publish {namespace}.food",
            f"deploy HelloFlowDownstream, which will listen to {namespace}.food",
            f"start HelloFlowUpstream in {namespace}",
        )
    ]


def test_a_cluster_that_is_not_there_is_told_before_anything_is_deployed(project: Path) -> None:
    result = set_up(project, "--cluster", KUBECONFIG="/no/such/file")
    assert result.returncode == 1
    assert result.stdout.startswith("There is no Kubernetes cluster that Metaflow could reach.")
    assert not has_traceback(result.stdout)


def test_a_child_that_listens_to_another_event_fails_and_is_named(project: Path) -> None:
    child = project / "child_flow.py"
    child.write_text(child.read_text().replace('event="food"', 'event="foods"'))
    result = set_up(project)
    assert result.returncode == 1
    assert (
        "Orphan: nobody heard foo.prod.bar.food; the nearest name that somebody listens to is "
        "foo.prod.bar.foods (foo.prod.bar.helloflowdownstream)"
    ) in result.stdout


def test_a_child_that_listens_across_namespaces_fails(project: Path) -> None:
    child = project / "child_flow.py"
    own, everywhere = "@namespaced_trigger(", '@trigger(event="foo.prod.bar.food")\n# '
    text = child.read_text().replace(own, everywhere).replace("FlowSpec,", "FlowSpec, trigger,")
    child.write_text(text)
    result = set_up(project)
    assert result.returncode != 0
    assert "Each of the three events" not in result.stdout


def test_a_refused_command_ends_the_rehearsal_with_its_message(project: Path) -> None:
    child = project / "child_flow.py"
    child.write_text(child.read_text().replace('name="foo"', 'name="Foo"'))
    result = set_up(project)
    assert result.returncode == 1
    assert 'Write the name "foo" with the branch "bar".' in result.stdout
    assert not has_traceback(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--help",), 0), (("--clustr",), 2), (("--cluster", "--help"), 2)]
)
def test_the_usage_explains_both_ways(project: Path, arguments: tuple[str], status: int) -> None:
    result = set_up(project, *arguments)
    assert result.returncode == status
    assert "rehearse all of it on this machine, without a cluster" in result.stdout
    assert "deploy and trigger on the Argo that your Metaflow is configured for" in result.stdout
