"""A user's own flows in a rehearsal, with and without this library."""

from __future__ import annotations

import pytest
from conftest import VERSION, Rehearsal, Rehearse, Workbench
from flows import PROJECT


def publish(event: str, payload: dict[str, object] | None = None) -> str:
    return f"ArgoEvent({event!r}).safe_publish(payload={payload or {}})"


def triggered_by(*events: str) -> str:
    return f"@trigger(events={list(events)})"


def deploy_and_trigger(
    rehearse: Rehearse, *deployed: str, triggered: str = "Upstream", **variables: str
) -> Rehearsal:
    commands = [f"python {name}.py argo-workflows create" for name in (*deployed, triggered)]
    commands.append(f"python {triggered}.py argo-workflows trigger")
    return rehearse(" && ".join(commands), METAFLOW_USER="jane", **variables)


def output_of(rehearse: Rehearse, rehearsal: Rehearsal, flow: str) -> str:
    """Return what the steps of a flow's one run have printed."""
    (run,) = (run for run in rehearsal.report["runs"] if run["flow"] == flow)
    return "".join(path.read_text() for path in sorted((rehearse.folder / run["output"]).iterdir()))


def test_a_chain_of_plain_triggers_with_several_listeners_is_rehearsed(
    bench: Workbench, rehearse: Rehearse
) -> None:
    bench.flow("Upstream", above="", start=publish("food"))
    bench.flow("First", above=triggered_by("food"), start=publish("drink"))
    bench.flow("Second", above=triggered_by("food"))
    bench.flow("Last", above=triggered_by("drink"))
    rehearsal = deploy_and_trigger(rehearse, "First", "Second", "Last")
    assert rehearsal.status == 0, rehearsal.output
    started = {
        event["name"]: sorted(name.partition("-")[0] for name in event["started"])
        for event in rehearsal.report["events"]
    }
    assert started == {"food": ["first", "second"], "drink": ["last"]}


@pytest.mark.skipif(
    VERSION in ((2, 19, 10), (2, 19, 11)),
    reason="there Metaflow publishes true, and its own Sensors wait for 'True'",
)
def test_a_flow_starts_when_another_one_finishes(bench: Workbench, rehearse: Rehearse) -> None:
    bench.flow("Upstream")
    bench.flow(
        "Downstream",
        above=f'@trigger_on_finish(flow="Upstream")\n{PROJECT}',
        start="print('after', current.trigger.run.pathspec, current.trigger.run.successful)",
    )
    rehearsal = deploy_and_trigger(rehearse, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    (event,) = rehearsal.report["events"]
    assert event["name"] == "metaflow.foo.user.jane.Upstream.end"
    assert [name.partition("-")[0] for name in event["started"]] == ["foo.user.jane.downstream"]
    printed = output_of(rehearse, rehearsal, "Downstream")
    assert f"after Upstream/argo-{event['publisher']} " in printed


@pytest.mark.skipif(VERSION < (2, 19, 18), reason="namespaced_event_name came with 2.19.18")
def test_metaflow_s_own_namespaced_names_are_rehearsed(
    bench: Workbench, rehearse: Rehearse
) -> None:
    name = 'namespaced_event_name("food")'
    bench.flow("Upstream", start=f"ArgoEvent({name}).safe_publish()")
    bench.flow("Downstream", above=f"@trigger(event={name})\n{PROJECT}")
    rehearsal = deploy_and_trigger(rehearse, "Downstream")
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
"""
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
    bench: Workbench, rehearse: Rehearse, payload: dict[str, object], shown: str
) -> None:
    bench.flow("Upstream", above="", start=publish("food", payload))
    bench.flow("Downstream", above='@trigger(event="food")', body=PARAMETERS, start=SHOW)
    rehearsal = deploy_and_trigger(rehearse, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    assert f"{shown}\n" in output_of(rehearse, rehearsal, "Downstream")


@pytest.mark.parametrize(
    "mapping", ['{"count": "n", "other": "text"}', '[("count", "n"), ("other", "text"), "text"]']
)
def test_a_mapping_takes_the_keys_of_the_payload_that_it_names(
    bench: Workbench, rehearse: Rehearse, mapping: str
) -> None:
    published = publish("food", {"n": 7, "count": 1, "text": "x"})
    bench.flow(
        "Upstream", above="", start=f"{published}\n{publish('drink', {'n': 8, 'flag': True})}"
    )
    events = f'@trigger(events=[{{"name": "food", "parameters": {mapping}}}, "drink"])'
    bench.flow("Downstream", above=events, body=PARAMETERS, start=SHOW)
    rehearsal = deploy_and_trigger(rehearse, "Downstream")
    assert rehearsal.status == 0, rehearsal.output
    text = "x" if mapping.startswith("[") else "unset"
    printed = output_of(rehearse, rehearsal, "Downstream")
    assert f"'{text}' 7 0.5 False {{}} 'x'\n" in printed


def test_a_run_knows_the_events_that_started_it(bench: Workbench, rehearse: Rehearse) -> None:
    names = ("food", "drink")
    published = "\n".join(f"print('published', {name!r}, {publish(name)})" for name in names)
    bench.flow("Upstream", above="", start=published)
    show = """
        for event in current.trigger.events:
            print("heard", event.name, event.id, event.type)
            assert event.timestamp.year > 2000
    """
    bench.flow("Downstream", above=triggered_by(*names), start=show)
    rehearsal = deploy_and_trigger(rehearse, "Downstream")
    assert rehearsal.status == 0, rehearsal.output

    def words(flow: str, first: str) -> list[list[str]]:
        lines = output_of(rehearse, rehearsal, flow).splitlines()
        return sorted(line.split()[1:3] for line in lines if line.startswith(first))

    heard = words("Upstream", "published ")
    assert [name for name, _ in heard] == ["drink", "food"]
    assert words("Downstream", "heard ") == heard


BRANCHING = """
@step
def start(self):
    self.items = [1, 2, 3]
    self.next(self.each, foreach="items")

@step
def each(self):
    self.letters = ["a", "b"]
    self.next(self.nested, foreach="letters")

@step
def nested(self):
    self.word = f"{self.foreach_stack()[0][2]}{self.input}"
    self.next(self.join_letters)

@step
def join_letters(self, inputs):
    self.words = [each.word for each in inputs]
    self.next(self.join)

@step
def join(self, inputs):
    self.words = [word for each in inputs for word in each.words]
    self.next(self.split)

@step
def split(self):
    self.next(self.left, self.right)

@retry(times=2, minutes_between_retries=0)
@step
def left(self):
    assert current.retry_count == 1, "fails once"
    self.tries = current.retry_count
    self.next(self.both)

@catch(var="caught")
@retry(times=0)
@step
def right(self):
    raise RuntimeError("is caught")
    self.next(self.both)

@step
def both(self, inputs):
    self.words = inputs.left.words
    print("words", *self.words, inputs.left.tries, type(inputs.right.caught).__name__)
    self.next(self.{after_both})
{conditional}
@step
def end(self):
    pass
"""
CONDITIONAL = """
@step
def loop(self):
    self.rounds = getattr(self, "rounds", 0) + 1
    self.state = "again" if self.rounds < 3 else "enough"
    self.next({"again": self.loop, "enough": self.choose}, condition="state")

@step
def choose(self):
    self.kind = "known"
    self.next({"known": self.known, "unknown": self.unknown}, condition="kind")

@step
def known(self):
    self.chosen = "known"
    self.next(self.either)

@step
def unknown(self):
    self.chosen = "unknown"
    self.next(self.either)

@step
def either(self):
    print("chosen", self.chosen, "after", self.rounds)
    self.next(self.end)
"""


def test_foreach_split_join_retry_catch_switch_and_recursion_run_as_on_argo(
    bench: Workbench, rehearse: Rehearse
) -> None:
    has_switch = VERSION >= (2, 18)
    steps = BRANCHING.replace("{after_both}", "loop" if has_switch else "end")
    steps = steps.replace("{conditional}", CONDITIONAL if has_switch else "")
    bench.flow("Branching", above="", steps=steps)
    rehearsal = deploy_and_trigger(rehearse, triggered="Branching")
    assert rehearsal.status == 0, rehearsal.output
    printed = output_of(rehearse, rehearsal, "Branching")
    assert "words 1a 1b 2a 2b 3a 3b 1 MetaflowExceptionWrapper\n" in printed
    assert ("chosen known after 3\n" in printed) == has_switch
    (run,) = rehearsal.report["runs"]
    logs = sorted(path.name for path in (rehearse.folder / run["output"]).iterdir())
    assert {"left-0.txt", "left-1.txt", "nested.2.1-0.txt"} < set(logs)
    assert "unknown-0.txt" not in logs
