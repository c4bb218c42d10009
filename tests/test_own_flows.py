"""A user's own flows in a rehearsal, with and without this library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import VERSION, Once, Rehearsal, Rehearse, Workbench
from flows import PROJECT, flow

TELLS_ITS_END = VERSION not in ((2, 19, 10), (2, 19, 11))
HAS_NAMES = VERSION >= (2, 19, 18)
PARAMETERS = """
text = Parameter("text", default="unset")
count = Parameter("count", type=int, required=True)
ratio = Parameter("ratio", default=0.5)
flag = Parameter("flag", default=False)
data = Parameter("data", type=JSONType, default="{}")
other = Parameter("other", default="default")
"""
SHOW = "print(*map(repr, (self.text, self.count, self.ratio, self.flag, self.data, self.other)))"
ALL_TYPES = {"text": 'a "b" c', "count": 41, "ratio": 2.5, "flag": True, "data": {"k": [1]}}
HEARD = """
for event in current.trigger.events:
    print("heard", event.name, event.id, event.type)
    assert event.timestamp.year > 2000
"""


def publish(event: str, **payload: object) -> str:
    return f"print('published', {event!r}, ArgoEvent({event!r}).safe_publish(payload={payload}))"


def listens(*events: object) -> str:
    return f"@trigger(events={list(events)})"


def mapped(parameters: object) -> str:
    return listens({"name": "mapped", "parameters": parameters}, "extra")


UPSTREAM = [
    *(publish("food"), publish("drink"), publish("typed", **ALL_TYPES)),
    publish("partly", count=3.0, other="5", data=[]),
    *(publish("mapped", n=7, count=1, text="x"), publish("extra", n=8, flag=True)),
]
NAME = 'namespaced_event_name("named")'
WITH_PARAMETERS = {"body": PARAMETERS, "start": SHOW}
FLOWS: dict[str, dict[str, str]] = {
    "First": {"above": listens("food"), "start": publish("snack")},
    "Second": {"above": listens("food")},
    "Last": {"above": listens("snack")},
    "Both": {"above": listens("food", "drink"), "start": HEARD},
    "AllTypes": {"above": '@trigger(event="typed")', **WITH_PARAMETERS},
    "Defaults": {"above": '@trigger(event="partly")', **WITH_PARAMETERS},
    "ByDict": {"above": mapped({"count": "n", "other": "text"}), **WITH_PARAMETERS},
    "ByList": {"above": mapped([("count", "n"), ("other", "text"), "text"]), **WITH_PARAMETERS},
}
if TELLS_ITS_END:
    FLOWS["After"] = {
        "above": f'@trigger_on_finish(flow="Upstream")\n{PROJECT}',
        "start": "print('after', current.trigger.run.pathspec)",
    }
if HAS_NAMES:
    UPSTREAM.append(f"ArgoEvent({NAME}).safe_publish()")
    FLOWS["Named"] = {"above": f"@trigger(event={NAME})\n{PROJECT}"}
FLOWS["Upstream"] = {"start": "\n".join(UPSTREAM)}


@dataclass
class Outcome:
    """What came of a rehearsal in a folder."""

    folder: Path
    rehearsal: Rehearsal

    def started(self, event: str) -> list[str]:
        """Return the flows that an event has started."""
        flows = {run["name"]: run["flow"] for run in self.rehearsal.report["runs"]}
        (found,) = (each for each in self.rehearsal.report["events"] if each["name"] == event)
        return sorted(flows[name] for name in found["started"])

    def run_of(self, flow: str) -> dict[str, Any]:
        (run,) = (run for run in self.rehearsal.report["runs"] if run["flow"] == flow)
        return dict(run)

    def printed(self, flow: str) -> str:
        """Return what the steps of a flow's one run have printed."""
        folder = self.folder / self.run_of(flow)["output"]
        return "".join(path.read_text() for path in sorted(folder.iterdir()))


def deploy_and_trigger(rehearse: Rehearse, *names: str) -> Outcome:
    """Rehearse flows, the last of which is triggered."""
    commands = [f"python {name}.py argo-workflows create" for name in names]
    commands.append(f"python {names[-1]}.py argo-workflows trigger")
    return Outcome(rehearse.folder, rehearse(" && ".join(commands), METAFLOW_USER="jane"))


@pytest.fixture(scope="session")
def outcome(once: Once, python_for_rehearsals: Path) -> Outcome:
    """All flows above, rehearsed together."""

    def fill(folder: Path) -> None:
        for name, parts in FLOWS.items():
            (folder / f"{name}.py").write_text(flow(name, **{"above": PROJECT, **parts}))
        own = deploy_and_trigger(Rehearse(folder, python_for_rehearsals), *FLOWS)
        (folder / "output.txt").write_text(own.rehearsal.output)
        (folder / "status.txt").write_text(str(own.rehearsal.status))

    folder = once("own-flows", fill)
    status, output = ((folder / f"{name}.txt").read_text() for name in ("status", "output"))
    report = json.loads((folder / "report.json").read_text())
    return Outcome(folder, Rehearsal(int(status), output, report))


def test_a_chain_of_plain_triggers_with_several_listeners_is_rehearsed(outcome: Outcome) -> None:
    assert outcome.rehearsal.status == 0, outcome.rehearsal.output
    assert outcome.started("food") == ["Both", "First", "Second"]
    assert outcome.started("snack") == ["Last"]
    assert outcome.started("drink") == ["Both"]


@pytest.mark.skipif(
    not TELLS_ITS_END, reason="Metaflow publishes true, and its own Sensors wait for 'True'"
)
def test_a_flow_starts_when_another_one_finishes(outcome: Outcome) -> None:
    assert outcome.started("metaflow.foo.user.jane.Upstream.end") == ["After"]
    upstream = outcome.run_of("Upstream")["name"]
    assert f"after Upstream/argo-{upstream}\n" in outcome.printed("After")


@pytest.mark.skipif(not HAS_NAMES, reason="namespaced_event_name came with 2.19.18")
def test_metaflow_s_own_namespaced_names_are_rehearsed(outcome: Outcome) -> None:
    assert outcome.started("mfns.foo.user.jane.named") == ["Named"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("AllTypes", """'a "b" c' 41 2.5 True {'k': [1]} 'default'"""),
        ("Defaults", "'unset' 3 0.5 False [] '5'"),
    ],
)
def test_mapped_parameters_arrive_with_their_types(outcome: Outcome, name: str, shown: str) -> None:
    assert f"{shown}\n" in outcome.printed(name)


@pytest.mark.parametrize(("name", "text"), [("ByDict", "unset"), ("ByList", "x")])
def test_a_mapping_takes_the_keys_of_the_payload_that_it_names(
    outcome: Outcome, name: str, text: str
) -> None:
    assert f"'{text}' 7 0.5 False {{}} 'x'\n" in outcome.printed(name)


def test_a_run_knows_the_events_that_started_it(outcome: Outcome) -> None:
    def words(flow: str, first: str) -> list[list[str]]:
        lines = outcome.printed(flow).splitlines()
        return sorted(line.split()[1:3] for line in lines if line.startswith(first))

    published = [each for each in words("Upstream", "published ") if each[0] in ("food", "drink")]
    assert [name for name, _ in published] == ["drink", "food"]
    assert words("Both", "heard ") == published


BRANCHING = """
@step
def start(self):
    self.items = [1, 2]
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
    outcome = deploy_and_trigger(rehearse, "Branching")
    assert outcome.rehearsal.status == 0, outcome.rehearsal.output
    printed = outcome.printed("Branching")
    assert "words 1a 1b 2a 2b 1 MetaflowExceptionWrapper\n" in printed
    assert ("chosen known after 3\n" in printed) == has_switch
    logs = sorted(
        path.name for path in (outcome.folder / outcome.run_of("Branching")["output"]).iterdir()
    )
    assert {"left-0.txt", "left-1.txt", "nested.1.1-0.txt"} < set(logs)
    assert "unknown-0.txt" not in logs
