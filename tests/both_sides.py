"""Draws deployments, and compares what their two sides make of them.

The listener's name is the one in the `@trigger` of the flow, after Metaflow has loaded
it. The publisher's is the one that a webhook receives. Both have the same decorators in
the same order, on the flow or on its bases, some of which change its `@project`; so may a
mutator of a step. Run by test_both_sides.py, in a process of its own, or with more of them
by hand: python both_sides.py EXAMPLES
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any, NamedTuple

published: list[str] = []


class Webhook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        published.append(body["payload"]["name"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


server = HTTPServer(("127.0.0.1", 0), Webhook)
Thread(target=server.serve_forever, daemon=True).start()
# Metaflow reads it on import.
os.environ["METAFLOW_ARGO_EVENTS_WEBHOOK_URL"] = f"http://127.0.0.1:{server.server_port}/"

from hypothesis import Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from metaflow import (  # noqa: E402
    Config,
    FlowMutator,
    FlowSpec,
    StepMutator,
    decorators,
    flowspec,
    project,
    step,
    trigger,
)
from metaflow import __version__ as version  # noqa: E402
from metaflow.exception import MetaflowException  # noqa: E402
from metaflow.parameters import flow_context  # noqa: E402
from metaflow.user_configs.config_parameters import ConfigValue  # noqa: E402

from namespaced_trigger import namespaced_trigger  # noqa: E402

# What a mutator may do, and with which values for @project.
Change = tuple[str, dict[str, Any]]
of_the_step: list[Change] = []


def change(mutable_flow: Any, how: str, values: dict[str, Any]) -> None:
    if how == "replace":
        mutable_flow.remove_decorator("project")
        mutable_flow.add_decorator(project, deco_kwargs=values)
    elif how == "replace by name":
        mutable_flow.remove_decorator("project")
        mutable_flow.add_decorator("project", deco_kwargs=values)
    elif how == "override":
        duplicates = mutable_flow.OVERRIDE
        mutable_flow.add_decorator(project, deco_kwargs=values, duplicates=duplicates)
    elif how == "add":
        mutable_flow.add_decorator(project, deco_kwargs=values)
    elif how == "trigger":
        mutable_flow.add_decorator(trigger, deco_kwargs={"event": "drink"})
    elif how == "override the trigger":
        mutable_flow.add_decorator(
            trigger, deco_kwargs={"event": "drink"}, duplicates=mutable_flow.OVERRIDE
        )
    elif how == "remove the trigger":
        mutable_flow.remove_decorator("trigger")


class changing(FlowMutator):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.how, self.values = self._args[:2]

    def external_init(self) -> None:
        pass

    def pre_mutate(self, mutable_flow: Any) -> None:
        change(mutable_flow, self.how, self.values)


class changing_by_itself(changing):
    """The same, by an attribute of the instance."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.__dict__["pre_mutate"] = lambda flow: change(flow, self.how, self.values)


class changing_step(StepMutator):
    def pre_mutate(self, mutable_step: Any) -> None:
        for each in of_the_step:
            change(mutable_step.flow, *each)


class Steps(FlowSpec):
    @changing_step
    @step  # type: ignore[untyped-decorator]  # Metaflow has no types
    def start(self) -> None:
        self.next(self.end)

    @step  # type: ignore[untyped-decorator]  # Metaflow has no types
    def end(self) -> None:
        pass


def load(flow_class: Any, config: dict[str, Any], **flags: Any) -> Any:
    """Take a flow through Metaflow, in the order in which its command line does."""
    items = getattr(flowspec, "FlowStateItems", None) or flowspec._FlowState
    with flow_context(flow_class):
        is_renamed = hasattr(flowspec, "FlowStateItems")
        flow_class._flow_state[items.CONFIGS] = {
            "project": (config, False) if is_renamed else config
        }
        flow_class._process_config_decorators({"project": ConfigValue(config)})
        flow = flow_class(use_cli=False)
        metadata = SimpleNamespace(add_sticky_tags=lambda **_: None)
        quiet = lambda *_, **__: None  # noqa: E731
        arguments = (flow, flow._graph, None, None)
        decorators._init_flow_decorators(*arguments, metadata, quiet, quiet, flags)
        decorators._init_step_decorators(*arguments, quiet)
    return flow


def decorate(flow: Any, decorators: Sequence[Any]) -> Any:
    for each in decorators:
        flow = each(flow)
    return flow


def classes(levels: Sequence[Sequence[Any]]) -> Any:
    """Return a flow whose grandparent and parent have decorators of their own."""

    class GrandparentFlow(Steps):
        pass

    class ParentFlow(decorate(GrandparentFlow, levels[0])):  # type: ignore[misc]
        pass

    class DrawnFlow(decorate(ParentFlow, levels[1])):  # type: ignore[misc]
        settings = Config("project", default_value={})

    return decorate(DrawnFlow, levels[2])


class Case(NamedTuple):
    """What is drawn: a deployment, and what else is above its flow."""

    name: str
    branch: str | None
    production: bool
    user: str
    owner: str | None
    event: str
    changes: list[tuple[type, Change]]
    by_step: Change | None
    order: int  # where the listener's decorator is
    level: int  # on which class what is below @project is

    def levels(self, listener: Any) -> list[list[Any]]:
        mutators = [
            functools.partial(lambda kind, change, flow: kind(*change)(flow), kind, change)
            for kind, change in self.changes
        ]
        decorators = [project(name=self.name), *mutators]
        if listener is not None:
            decorators.insert(min(self.order, len(decorators)), listener)
        # @project on a grandparent is an internal error in Metaflow up to 2.19.9.
        above = [listener] if self.level == 2 and listener is not None else []
        rest = [each for each in decorators if each not in above]
        split = 1 if self.level == 1 else 0
        return [above, rest[:split], rest[split:]]

    @property
    def has_own_branch(self) -> bool:
        """Whether flags would contradict @project, which Metaflow rejects."""
        return any(len(values) > 1 for _, (_, values) in self.changes)


def listen(case: Case) -> str:
    decorator: Any = namespaced_trigger(event=case.event, show_warnings=False)
    values = {} if case.has_own_branch else {"branch": case.branch, "production": case.production}
    loaded = load(classes(case.levels(decorator)), values)
    return str(loaded._flow_decorators["trigger"][0].triggers[0]["name"])


def publish(case: Case) -> str:
    flags: dict[str, Any] = {"branch": None, "production": False}
    if not case.has_own_branch:
        flags = {"branch": case.branch, "production": case.production}
    load(classes(case.levels(None)), {}, **flags)
    published.clear()
    with contextlib.redirect_stderr(io.StringIO()):
        assert namespaced_trigger.raise_event(case.event, ignore_errors=False)
    return published[0]


def outcome(side: Callable[[Case], str], case: Case) -> tuple[str | None, str]:
    try:
        return side(case), ""
    except MetaflowException as error:
        return None, str(error)


EXAMPLES_OF_A_CASE = 10
VERSION = tuple(map(int, re.findall(r"\d+", version)[:3]))
HOWS = ["add", "replace", "replace by name"]
TRIGGERS = ["trigger", "remove the trigger"]
TRIGGERS_OF_A_STEP = [*TRIGGERS, "override the trigger"]
if VERSION > (2, 16, 6):
    HOWS.append("override")
else:  # it is an internal error in Metaflow 2.16.6
    TRIGGERS_OF_A_STEP.pop()
# Texts of an alphabet are drawn much faster than those of a regular expression.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = st.text(f"{LETTERS}0123456789_", min_size=1, max_size=8)
PROJECT = WORD.map(lambda text: text.lstrip("0123456789_") or "p")
EVENT = st.text(f"{LETTERS}0123456789_.-").map(lambda text: f"e{text}")
ODD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NAMED = st.text(f"{LETTERS}.@").map(lambda text: f"u{text}")
USER = st.one_of(NAMED, NAMED, NAMED, ODD)
OTHERS = st.fixed_dictionaries(
    {"name": PROJECT},
    optional={"branch": st.one_of(st.none(), WORD), "production": st.booleans()},
)
CHANGE = st.tuples(st.sampled_from(8 * HOWS + TRIGGERS), OTHERS)
BY_STEP = st.tuples(st.sampled_from(HOWS + TRIGGERS_OF_A_STEP), OTHERS)
EXAMPLE = st.builds(
    Case,
    st.one_of(*[PROJECT] * 12, WORD, ODD.filter(bool)),
    st.one_of(st.none(), *[WORD] * 10, ODD),  # the branch
    st.booleans(),
    USER.filter(lambda text: text not in ("", "root")),
    st.one_of(st.none(), USER),  # the owner
    st.one_of(EVENT, EVENT, EVENT, ODD),
    st.one_of(
        st.just([]),
        st.lists(st.tuples(st.sampled_from([changing, changing_by_itself]), CHANGE), max_size=2),
    ),
    st.one_of(*[st.none()] * 7, BY_STEP),
    st.integers(0, 3),
    st.integers(0, 2),
)
counts: Counter[str] = Counter()


def both_sides_agree(case: Case) -> None:
    os.environ["USER"] = case.user
    os.environ.pop("METAFLOW_OWNER", None)
    if case.owner is not None:
        os.environ["METAFLOW_OWNER"] = case.owner
    of_the_step[:] = [case.by_step] if case.by_step else []
    listened, error = outcome(listen, case)
    sent, other_error = outcome(publish, case)
    hows = {how for _, (how, _) in case.changes}
    is_late = case.by_step is not None and case.by_step[0] != "add"
    if listened is None and (is_late or hows & {"trigger"}):
        # A publisher has no trigger, and follows what a step does to its @project.
        counts["rejected for another trigger, or for what a step does"] += 1
        return
    assert listened == sent, (listened, error, sent, other_error, case)
    if listened is None:
        counts["rejected on both sides"] += 1
        # The publisher's @project rejects a name or a branch with Metaflow's own words.
        assert error == other_error or other_error in error, (error, other_error, case)
    else:
        counts["the same name"] += 1
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", listened)


# What Hypothesis does for each case takes longer than an example.
@settings(
    max_examples=int(sys.argv[1]) // EXAMPLES_OF_A_CASE,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what fails is shown at once, and in full
)
@given(st.tuples(*[EXAMPLE] * EXAMPLES_OF_A_CASE))
def both_sides_always_agree(case: tuple[Any, ...]) -> None:
    for example in case:
        both_sides_agree(example)


if __name__ == "__main__":
    for variable in ("METAFLOW_USER", "SUDO_USER", "USERNAME"):
        os.environ.pop(variable, None)
    both_sides_always_agree()
    print("agreed:", ", ".join(f"{number} {what}" for what, number in counts.items()))
