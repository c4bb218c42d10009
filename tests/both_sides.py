"""Draws deployments, and compares what their two sides make of them.

The listener's name is the one in the `@trigger` of the flow, after Metaflow has loaded
it. The publisher's is the one that a webhook receives. Run by
test_both_sides.py, in a process of its own: python both_sides.py EXAMPLES
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace
from typing import Any

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

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from metaflow import Config, FlowSpec, decorators, flowspec, project, step  # noqa: E402
from metaflow.exception import MetaflowException  # noqa: E402
from metaflow.parameters import flow_context  # noqa: E402
from metaflow.user_configs.config_parameters import ConfigValue  # noqa: E402

from namespaced_trigger import namespaced_trigger  # noqa: E402


class BaseFlow(FlowSpec):
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


def listen(name: str, branch: str | None, production: bool, event: str) -> str:
    class ListenerFlow(BaseFlow):
        settings = Config("project", default_value={})

    decorate: Any = namespaced_trigger(event=event, show_warnings=False)
    flow = decorate(project(name=name)(ListenerFlow))
    loaded = load(flow, {"branch": branch, "production": production})
    return str(loaded._flow_decorators["trigger"][0].triggers[0]["name"])


def publish(name: str, branch: str | None, production: bool, event: str) -> str:
    class PublisherFlow(BaseFlow):
        pass

    load(project(name=name)(PublisherFlow), {}, branch=branch, production=production)
    published.clear()
    with contextlib.redirect_stderr(io.StringIO()):
        assert namespaced_trigger.raise_event(event, ignore_errors=False)
    return published[0]


def outcome(side: Callable[..., str], *arguments: Any) -> tuple[str | None, str]:
    try:
        return side(*arguments), ""
    except MetaflowException as refusal:
        return None, str(refusal)


EXAMPLES_OF_A_CASE = 10
# Texts of an alphabet are drawn much faster than those of a regular expression.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORD = st.text(f"{LETTERS}0123456789_", min_size=1, max_size=8)
PROJECT = WORD.map(lambda text: text.lstrip("0123456789_") or "p")
EVENT = st.text(f"{LETTERS}0123456789_.-").map(lambda text: f"e{text}")
ODD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
USER = st.one_of(st.text(f"{LETTERS}.@", min_size=1), ODD)
EXAMPLE = st.tuples(
    st.one_of(PROJECT, PROJECT, PROJECT, WORD, ODD.filter(bool)),
    st.one_of(st.none(), WORD, WORD, ODD),  # the branch
    st.booleans(),
    USER.filter(lambda text: text not in ("", "root")),
    st.one_of(st.none(), USER),  # the owner
    st.one_of(EVENT, ODD),
)


def both_sides_agree(
    name: str, branch: str | None, production: bool, user: str, owner: str | None, event: str
) -> None:
    os.environ["USER"] = user
    os.environ.pop("METAFLOW_OWNER", None)
    if owner is not None:
        os.environ["METAFLOW_OWNER"] = owner
    listened, refusal = outcome(listen, name, branch, production, event)
    sent, other_refusal = outcome(publish, name, branch, production, event)
    assert listened == sent, (listened, refusal, sent, other_refusal)
    if listened is None:
        # The publisher's @project refuses a name or a branch with Metaflow's own words.
        assert refusal == other_refusal or other_refusal in refusal, (refusal, other_refusal)
    else:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", listened)


# What Hypothesis does for each case takes longer than an example.
@settings(max_examples=int(sys.argv[1]) // EXAMPLES_OF_A_CASE, deadline=None, database=None)
@given(st.tuples(*[EXAMPLE] * EXAMPLES_OF_A_CASE))
def both_sides_always_agree(case: tuple[Any, ...]) -> None:
    for example in case:
        both_sides_agree(*example)


if __name__ == "__main__":
    for variable in ("METAFLOW_USER", "SUDO_USER", "USERNAME"):
        os.environ.pop(variable, None)
    both_sides_always_agree()
    print("agreed")
