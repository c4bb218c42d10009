"""setup_flow.sh, run in a copy of the project."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT, SetUp, has_traceback, set_up


@pytest.fixture
def own(tmp_path: Path) -> SetUp:
    return set_up(tmp_path)


def test_each_event_starts_the_child_of_its_own_namespace_only(rehearsed_setup: SetUp) -> None:
    output = rehearsed_setup.output
    assert rehearsed_setup.status == 0, output
    for event in ("foo.prod.bar.food", "foo.test.baaz.food", "foo.user.jane.food"):
        assert f"[rehearsal] published {event} by " in output
    assert len(rehearsed_setup.logs) == 12
    assert "Namespaced trigger warning" not in "".join(rehearsed_setup.logs)
    assert output.endswith(
        "\nEach of the three events started HelloFlowDownstream in its own namespace only.\n"
    )


def test_on_a_cluster_it_says_before_each_command_what_it_deploys(setup_on_cluster: SetUp) -> None:
    assert setup_on_cluster.status == 0, setup_on_cluster.output
    announced = re.findall(r"^About to (.*)\.\n\n\$ python", setup_on_cluster.output, re.MULTILINE)
    assert announced == [
        announcement
        for namespace in ("foo.prod.bar", "foo.test.baaz", "foo.user.jane")
        for announcement in (
            f"deploy HelloFlowUpstream, which will publish {namespace}.food",
            f"deploy HelloFlowDownstream, which will listen to {namespace}.food",
            f"start HelloFlowUpstream in {namespace}",
        )
    ]


def test_the_picture_of_the_docs_is_what_the_rehearsal_of_the_examples_draws(
    setup_on_cluster: SetUp,
) -> None:
    drawn = (setup_on_cluster.folder / "picture.svg").read_text()
    assert drawn == (ROOT / "docs" / "rehearsal.svg").read_text()


def test_a_cluster_that_is_not_there_is_told_before_anything_is_deployed(own: SetUp) -> None:
    own.run("bash", own.script, "--cluster", KUBECONFIG="/no/such/file")
    assert own.status == 1
    assert own.output.startswith("There is no Kubernetes cluster that Metaflow could reach.")
    assert not has_traceback(own.output)


def test_a_child_that_listens_across_namespaces_fails_and_is_named(own: SetUp) -> None:
    child = own.folder / "project" / "child_flow.py"
    decorator, everywhere = "@namespaced_trigger(", '@trigger(event="foo.prod.bar.food")\n# '
    text = child.read_text().replace(decorator, everywhere)
    child.write_text(text.replace("FlowSpec,", "FlowSpec, trigger,"))
    own.run("bash", own.script)
    assert own.status == 1
    assert (
        "Orphan: nobody heard foo.user.jane.food; the nearest name that somebody listens to is "
        "foo.prod.bar.food (foo.user.jane.helloflowdownstream)"
    ) in own.output
    assert "Each of the three events" not in own.output


def test_a_refused_command_ends_the_rehearsal_with_its_message(own: SetUp) -> None:
    child = own.folder / "project" / "child_flow.py"
    child.write_text(child.read_text().replace('name="foo"', 'name="Foo"'))
    own.run("bash", own.script)
    assert own.status == 1
    assert "Write name='foo', branch='bar'." in own.output
    assert not has_traceback(own.output)


@pytest.mark.parametrize(
    ("arguments", "status"), [(("--help",), 0), (("--clustr",), 2), (("--cluster", "--help"), 2)]
)
def test_the_usage_explains_both_ways(own: SetUp, arguments: tuple[str], status: int) -> None:
    own.run("bash", own.script, *arguments)
    assert own.status == status
    assert "rehearse all of it on this machine, without a cluster" in own.output
    assert "deploy and trigger on the Argo that your Metaflow is configured for" in own.output
