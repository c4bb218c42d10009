"""A user's own flows in a rehearsal, with and without this library."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from conftest import VERSION, Rehearsal, rehearse

FLOW = """
from metaflow import *
from metaflow.integrations import ArgoEvent
{above}
class {name}(FlowSpec):
    {body}
    @step
    def start(self):
{start}
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    {name}()
"""
PUBLISH = "ArgoEvent({!r}).safe_publish(payload={})"


def write(folder: Path, name: str, above: str = "", body: str = "", start: str = "pass") -> None:
    start = textwrap.indent(textwrap.dedent(start), " " * 8)
    text = FLOW.format(name=name, above=above, body=body, start=start)
    (folder / f"{name}.py").write_text(text)


def deploy_and_trigger(folder: Path, *deployed: str, triggered: str = "Upstream") -> Rehearsal:
    commands = [f"python {name}.py argo-workflows create" for name in deployed]
    commands += [
        f"python {triggered}.py argo-workflows create",
        f"python {triggered}.py argo-workflows trigger",
    ]
    return rehearse(folder, " && ".join(commands), METAFLOW_USER="jane")


def output_of(rehearsal: Rehearsal, flow: str) -> str:
    (run,) = (run for run in rehearsal.report["runs"] if run["flow"] == flow)
    return Path(run["output"]).read_text()


def test_a_chain_of_plain_triggers_with_several_listeners_is_rehearsed(tmp_path: Path) -> None:
    write(tmp_path, "Upstream", start=PUBLISH.format("food", {}))
    for name in ("FirstListener", "SecondListener"):
        start = PUBLISH.format("drink", {}) if name == "FirstListener" else "pass"
        write(tmp_path, name, above='@trigger(event="food")', start=start)
    write(tmp_path, "Last", above='@trigger(event="drink")')
    rehearsal = deploy_and_trigger(tmp_path, "FirstListener", "SecondListener", "Last")
    assert rehearsal.status == 0, rehearsal.output
    started = {
        event["name"]: sorted(name.partition("-")[0] for name in event["started"])
        for event in rehearsal.report["events"]
    }
    assert started == {"food": ["firstlistener", "secondlistener"], "drink": ["last"]}


@pytest.mark.skipif(
    VERSION in ((2, 19, 10), (2, 19, 11)),
    reason="there Metaflow publishes true, and its own Sensors wait for 'True'",
)
def test_a_flow_starts_when_another_one_finishes(tmp_path: Path) -> None:
    above = '@project(name="foo")\n'
    write(tmp_path, "Upstream", above=above)
    write(
        tmp_path,
        "Downstream",
        above=above + '@trigger_on_finish(flow="Upstream")',
        start="print('after', current.trigger.run.pathspec)",
    )
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    (event,) = rehearsal.report["events"]
    assert event["name"] == "metaflow.foo.user.jane.Upstream.end"
    assert [name.partition("-")[0] for name in event["started"]] == ["foo.user.jane.downstream"]


@pytest.mark.skipif(VERSION < (2, 19, 18), reason="namespaced_event_name came with 2.19.18")
def test_metaflow_s_own_namespaced_names_are_rehearsed(tmp_path: Path) -> None:
    above = 'from metaflow import namespaced_event_name\n{}@project(name="foo")'
    name = 'namespaced_event_name("food")'
    write(tmp_path, "Upstream", above.format(""), start=f"ArgoEvent({name}).safe_publish()")
    write(tmp_path, "Downstream", above.format(f"@trigger(event={name})\n"))
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    (event,) = rehearsal.report["events"]
    assert event["name"] == "mfns.foo.user.jane.food"
    assert len(event["started"]) == 1


PARAMETERS = """
    text = Parameter("text", default="unset")
    count = Parameter("count", type=int, required=True)
    ratio = Parameter("ratio", default=0.5)
    flag = Parameter("flag", default=False)
    data = Parameter("data", type=JSONType, default="{}")
    other = Parameter("other", default="default")
""".strip()
SHOW = "print(*map(repr, (self.text, self.count, self.ratio, self.flag, self.data, self.other)))"


@pytest.mark.parametrize(
    ("payload", "shown"),
    [
        (
            {"text": 'a "b" c', "count": 41, "ratio": 2.5, "flag": True, "data": {"k": [1]}},
            """'a "b" c' 41 2.5 True {'k': [1]} 'default'""",
        ),
        ({"count": 3.0, "other": "5", "data": []}, "'unset' 3 0.5 False [] '5'"),
    ],
)
def test_mapped_parameters_arrive_with_their_types(
    tmp_path: Path, payload: dict[str, object], shown: str
) -> None:
    write(tmp_path, "Upstream", start=PUBLISH.format("food", payload))
    write(tmp_path, "Downstream", '@trigger(event="food")', PARAMETERS, SHOW)
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    assert f" {shown}\n" in output_of(rehearsal, "Downstream")


@pytest.mark.parametrize(
    "mapping", ['{"count": "n", "other": "text"}', '[("count", "n"), ("other", "text"), "text"]']
)
def test_a_mapping_takes_the_keys_of_the_payload_that_it_names(
    tmp_path: Path, mapping: str
) -> None:
    publish = PUBLISH.format("food", {"n": 7, "count": 1, "text": "x"}) + "\n"
    write(tmp_path, "Upstream", start=publish + PUBLISH.format("drink", {"n": 8, "flag": True}))
    events = f'@trigger(events=[{{"name": "food", "parameters": {mapping}}}, "drink"])'
    write(tmp_path, "Downstream", events, PARAMETERS, SHOW)
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    text = "x" if mapping.startswith("[") else "unset"
    assert f" '{text}' 7 0.5 False {{}} 'x'\n" in output_of(rehearsal, "Downstream")


def test_an_event_without_a_required_parameter_starts_nothing(tmp_path: Path) -> None:
    write(tmp_path, "Upstream", start=PUBLISH.format("food", {"text": "x"}))
    write(tmp_path, "Downstream", '@trigger(event="food")', PARAMETERS, SHOW)
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    assert rehearsal.status == 1
    assert "Orphan: nobody heard food; downstream asks that count is there\n" in rehearsal.output


def test_a_run_knows_the_events_that_started_it(tmp_path: Path) -> None:
    publish = "\n".join(
        f"print('published', {name!r}, {PUBLISH.format(name, {})})" for name in ("food", "drink")
    )
    write(tmp_path, "Upstream", start=publish)
    show = """
        for event in current.trigger.events:
            print("heard", event.name, event.id, event.type)
            assert event.timestamp.year > 2000
    """
    write(tmp_path, "Downstream", '@trigger(events=["food", "drink"])', start=show)
    rehearsal = deploy_and_trigger(tmp_path, "Downstream")
    assert rehearsal.status == 0, rehearsal.output

    def words(flow: str, first: str) -> list[list[str]]:
        lines = output_of(rehearsal, flow).splitlines()
        return sorted(line.partition(first)[2].split()[:2] for line in lines if first in line)

    published = words("Upstream", "] published ")
    assert [name for name, _ in published] == ["drink", "food"]
    assert words("Downstream", "] heard ") == published


BRANCHING_FLOW = """
from metaflow import *

class Branching(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2, 3]
        self.next(self.each, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def each(self):
        if current.retry_count == 0:
            raise ValueError("fails once")
        self.squared = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.squared for each in inputs)
        self.next(self.split)

    @step
    def split(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.both)

    @step
    def right(self):
        self.next(self.both)

    @step
    def both(self, inputs):
        print("total", inputs.left.total)
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    Branching()
"""


def test_foreach_branches_joins_and_retries_run_as_under_run(tmp_path: Path) -> None:
    (tmp_path / "Branching.py").write_text(BRANCHING_FLOW)
    rehearsal = deploy_and_trigger(tmp_path, triggered="Branching")
    assert rehearsal.status == 0, rehearsal.output
    output = output_of(rehearsal, "Branching")
    assert " total 14\n" in output
    assert output.count("ValueError: fails once") == 3
