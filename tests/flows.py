"""The flows of the tests."""

from __future__ import annotations

import json
import textwrap

TEMPLATE = """\
from metaflow import *
from metaflow.integrations import ArgoEvent
from namespaced_trigger import namespaced_trigger

{above}
class {name}({base}):
{body}
{steps}

if __name__ == "__main__":
    {name}()
"""
TWO_STEPS = """\
@step
def start(self):
{start}
    self.next(self.end)

@step
def end(self):
{end}
"""
CONFIG = 'project = Config("project", default_value={})'
PROJECT = '@project(name="foo")'


def flow(
    name: str = "DemoFlow",
    *,
    above: str = PROJECT,
    body: str = "",
    start: str = "pass",
    end: str = "pass",
    steps: str = "",
    base: str = "FlowSpec",
) -> str:
    """Return the source of a flow.

    `above` are its decorators, `body` its parameters and configs. It has two steps, of
    which `start` and `end` are what they do, or the `steps` that are given.
    """
    steps = steps or TWO_STEPS.format(start=block(start), end=block(end))
    return TEMPLATE.format(
        name=name,
        base=base,
        above=textwrap.dedent(above).strip("\n"),
        body=block(body),
        steps=block(steps),
    )


def listening(
    arguments: str = 'event="food"', project: str = PROJECT, config: str = CONFIG
) -> dict[str, str]:
    """Return the parts of a flow that listens."""
    return {"above": f"@namespaced_trigger({arguments})\n{project}", "body": config}


def config(**values: object) -> tuple[str, ...]:
    """Return the options that set the config."""
    return ("--config-value", "project", json.dumps(values))


def publishing(call: str = '"food", safe_publish=True') -> str:
    """Return what a step does to publish."""
    return f"namespaced_trigger.raise_event({call})"


def block(text: str) -> str:
    """Return lines as the body of something."""
    return textwrap.indent(textwrap.dedent(text).strip("\n") or "pass", "    ")
