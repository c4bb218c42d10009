"""Events of Metaflow flows that stay inside one project and branch.

`@namespaced_trigger(event="food")` on a flow listens to `<project>.<branch>.food`,
and `namespaced_trigger.raise_event("food")` in a step of another flow publishes it.
Both take the name from one function, `namespaced_trigger.event_name`.

This is one module on purpose: Metaflow puts a module into the code package of a
deployment only where it lies beside the flow or defines a FlowMutator.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import os
import re
import reprlib
import shlex
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import metaflow

OLDEST_METAFLOW = (2, 16, 6)  # the first in which a FlowMutator can add a decorator
if [int(part) for part in re.findall(r"\d+", metaflow.__version__)[:3]] < [*OLDEST_METAFLOW]:
    # Nothing would catch an exception while the flow is being imported.
    raise SystemExit(
        f"namespaced_trigger needs Metaflow {'.'.join(map(str, OLDEST_METAFLOW))} or newer, and "
        f"this is {metaflow.__version__}. Write: pip install --upgrade metaflow"
    )

# These are not in every Metaflow that is too old, so they come after the check.
from metaflow import flowspec  # noqa: E402
from metaflow._vendor import click  # noqa: E402
from metaflow.exception import MetaflowException  # noqa: E402
from metaflow.parameters import DeployTimeField, current_flow  # noqa: E402
from metaflow.plugins.project_decorator import format_name  # noqa: E402
from metaflow.user_configs.config_parameters import (  # noqa: E402
    resolve_delayed_evaluator,
    unpack_delayed_evaluator,
)
from metaflow.util import get_username  # noqa: E402

__all__ = ["NamespacedTriggerException", "namespaced_trigger"]

# Metaflow refuses every other character in the name of an event (argo_workflows.py).
NOT_IN_EVENT_NAMES = re.compile(r"[^A-Za-z0-9_.-]")

# Argo Events parses the name of a dependency as a variable: where it begins with a
# digit or an underscore, the sensor starts and never subscribes.
HEARD_BY_ARGO = re.compile(r"[A-Za-z]")

# The four forms of a branch, as `current.branch_name` and @trigger_on_finish have them.
PROJECT_BRANCH = re.compile(r"prod|(?:prod|test)\.(?P<branch>.+)|user\..+")

# The Config that a flow has unless the decorator's config_name says otherwise.
CONFIG_NAME = "project"

# The keys that @project and the config share.
PROJECT_KEYS = ("name", "branch", "production")

# A config key this similar to one of PROJECT_KEYS is taken for a slip of the finger:
# "prodution" and "nmae" are above it, "product" is too short, "region" is below it.
SIMILARITY_OF_A_SLIP = 0.75
LENGTH_OF_A_SLIP = 2

# ArgoEvent merges the payload over these keys of its envelope, so that a payload's
# "name" sends the event to somebody else's listeners.
ENVELOPE_KEYS = ("name", "timestamp", "utc_date", "generated-by-metaflow")

# What a dict in `event` or `events` may say; the last two as @trigger_on_finish has them.
EVENT_KEYS = ("name", "parameters", "project", "project_branch")

# The one key of `options` that @trigger reads; it ignores others.
RESET_OPTION = "reset_at"

WRITE_EVENTS = '@namespaced_trigger(events=["food", "drink"])'
WRITE_EVENT = f'Write @namespaced_trigger(event="food") or {WRITE_EVENTS}.'
EXAMPLE_CONFIG = {"branch": "bar", "production": True}

# Commands that Metaflow starts for each task: the command that the user typed has
# warned already.
TASK_COMMANDS = (["init"], ["step"], ["spin-step"], ["kubernetes", "step"], ["batch", "step"])

# What click takes for true in the variable of a flag.
TRUE_TEXTS = ("1", "true", "t", "yes", "y", "on")

# A payload travels to the pod in one environment variable, and Linux takes 128 KiB.
LARGE_PAYLOAD_BYTES = 100_000

# NaN and Infinity are no JSON, and json.dumps writes them all the same.
STRICT_JSON = json.JSONEncoder(allow_nan=False)

# Argo Events passes the numbers of a payload through a 64-bit float.
LARGEST_EXACT_INTEGER = 2**53


class NamespacedTriggerException(MetaflowException):
    """What `namespaced_trigger` refuses, with the value and what to write instead."""

    headline = "Namespaced trigger error"


class _Namespace(NamedTuple):
    """A project and its branch, spelled as `current` has them (`prod.bar`)."""

    project: str
    branch: str

    @classmethod
    def of(cls, project: Any, branch: Any, production: Any, user: str | None = None) -> _Namespace:
        """Return the namespace that `@project` gives a flow with these arguments."""
        if not isinstance(project, str) or not project:
            raise NamespacedTriggerException(
                f"A project's name is text, and {project!r} is not. Write, for example, "
                '"my_project".'
            )
        if branch is not None and (not isinstance(branch, str) or not branch):
            raise NamespacedTriggerException(
                f"A branch is text, and {branch!r} is not. Write, for example, "
                f'"{_valid_part(str(branch)) or "my_branch"}", or leave it out.'
            )
        if not isinstance(production, bool):
            raise NamespacedTriggerException(
                f"production is either true or false, and {production!r} is neither. "
                "Write true or false (in Python True or False), without quotes."
            )
        if user is not None and (not isinstance(user, str) or not user):
            raise NamespacedTriggerException(
                f'A user\'s name is text, and {user!r} is none. Write, for example, "jane".'
            )
        if user is not None and (branch or production):
            raise NamespacedTriggerException(
                f"user={user!r} names a user's branch, and "
                f"{f'branch={branch!r}' if branch else 'production=True'} names another. Give one "
                "of them."
            )
        try:
            # METAFLOW_OWNER replaces the user's name in format_name; one that was
            # asked for by name is not replaced.
            _, project_branch = format_name(
                "flow", project, production or user is not None, branch, get_username()
            )
        except MetaflowException as refusal:
            raise NamespacedTriggerException(
                f"@project does not take {_describe(project, branch)}: {refusal} "
                f"Write {_describe(_valid_part(project), _valid_part(branch))}."
            ) from refusal
        return cls(project, f"user.{user}" if user else _check_user(project_branch))

    @classmethod
    def of_running_flow(cls) -> _Namespace:
        """Return the namespace that `@project` gave the flow that is running."""
        project = metaflow.current.get("project_name")
        branch = metaflow.current.get("branch_name")
        if not project:
            raise NamespacedTriggerException(
                "No flow with a project is running here, and an event without a project "
                'would start the listeners of every branch. Put @project(name="my_project") '
                'on the flow; outside of a flow, give project="my_project" with '
                'branch="my_branch", production=True or both.'
            )
        return cls(project, _check_user(branch))

    def other(self, project: Any, project_branch: Any) -> _Namespace:
        """Return another namespace; each part that is None stays as it is here."""
        if project is not None:
            _Namespace.of(project, None, True)
        if project_branch is not None:
            match = PROJECT_BRANCH.fullmatch(str(project_branch))
            if not match:
                raise NamespacedTriggerException(
                    f"The project_branch {project_branch!r} is not one that @project makes. "
                    'Write "prod", "prod.bar", "test.bar" or "user.jane".'
                )
            _Namespace.of(project or self.project, match["branch"], True)
        return _Namespace(project or self.project, project_branch or self.branch)

    def __str__(self) -> str:
        return f"{self.project}.{self.branch}"

    def event_name(self, event: Any, warn: Callable[[str], None]) -> str:
        """Return the event's name in this namespace: `<project>.<branch>.<event>`."""
        if not isinstance(event, str):
            raise NamespacedTriggerException(
                f'The name of an event is text, and {event!r} is not. Write, for example, "food".'
            )
        if not re.search(r"[A-Za-z0-9]", event):
            raise NamespacedTriggerException(
                f"The name of an event is empty: {event!r}. Use letters, digits, "
                '"_", "-" and ".", for example "food".'
            )
        own, cleaned = (NOT_IN_EVENT_NAMES.sub("", text) for text in (str(self), event))
        given, name = f"{self}.{event}", f"{own}.{cleaned}"
        own_name = f".{cleaned}".rpartition(f".{own}.")[2]
        if own_name != f".{cleaned}":
            raise NamespacedTriggerException(
                f"The event {event!r} has its namespace already, which would be added once more. "
                f"Write {own_name!r}."
            )
        branches = tuple(f"{self.project}.{kind}." for kind in ("prod", "test", "user"))
        if cleaned.removeprefix("mfns.").startswith(branches):  # Metaflow's own begin with mfns.
            raise NamespacedTriggerException(
                f"The event {event!r} has a namespace already, and would become {name!r}. Write "
                'the part behind it. For another namespace, write {"name": "food", '
                '"project_branch": "prod"} in the decorator, and raise_event("food", '
                "production=True) in a step."
            )
        if name != given:
            warn(f"{given!r} has characters that event names cannot have; the event is {name!r}.")
        if not HEARD_BY_ARGO.match(name):
            raise NamespacedTriggerException(
                f"Argo Events would never hear {name!r}: the name of an event must begin "
                f"with a letter, and the project {self.project!r} does not. Rename the "
                f'project, for example to "p{self.project}".'
            )
        return name


def _check_user(project_branch: str) -> str:
    """Return the branch, or refuse the one that `@project` gives an unknown user."""
    if project_branch == "user.":
        raise NamespacedTriggerException(
            "The branch is that of the user, and METAFLOW_OWNER is ''. Unset it, or give a branch."
        )
    if project_branch == "user.None":
        raise NamespacedTriggerException(
            "The branch is that of the user, and Metaflow does not know who that is. Set "
            "METAFLOW_USER, or give a branch."
        )
    return project_branch


def _valid_part(text: str | None) -> str | None:
    """Return the nearest text that `@project` takes as a name or a branch."""
    return text and re.sub(r"[^a-z0-9_]+", "_", text.lower())[:128]


def _describe(project: str | None, branch: str | None) -> str:
    return f'the name "{project}"' + (f' with the branch "{branch}"' if branch else "")


def _warn(message: str) -> None:
    print(f"Namespaced trigger warning: {message}", file=sys.stderr, flush=True)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise NamespacedTriggerException(
            f"{name} is either True or False, and {value!r} is neither. Write {name}=True or "
            f"{name}=False."
        )


def _is_absent(value: Any) -> bool:
    return value is None or value == ""


def _first_present(*values: Any) -> Any:
    return next((value for value in values if not _is_absent(value)), None)


def _evaluate(decorator: str, arguments: dict[Any, Any]) -> dict[Any, Any]:
    """Return a decorator's arguments with their config expressions evaluated."""
    try:
        unpacked, _ = unpack_delayed_evaluator(arguments)
        evaluated: dict[Any, Any] = resolve_delayed_evaluator(unpacked)
    except Exception as error:  # an expression can raise anything
        raise NamespacedTriggerException(
            f"An argument of {decorator} is a config expression that cannot be evaluated "
            f"({type(error).__name__}: {error}). Give the config a value for it."
        ) from error
    return evaluated


class _RedirectRefuser(urllib.request.BaseHandler):
    """Fails an event that the webhook redirects.

    urllib would send a GET to the new place. Where that is a login page, its answer is
    200, and ArgoEvent takes the event for published.
    """

    handler_order = 100  # before urllib's own, which has 500

    def __init__(self, url: str) -> None:
        self.url = url

    def http_error_302(self, request: Any, body: Any, code: int, text: str, headers: Any) -> None:
        if request.full_url == self.url and request.get_method() == "POST":
            reason = f"{text}, redirected to {headers.get('Location')}"
            raise urllib.error.HTTPError(self.url, code, reason, headers, body)

    http_error_301 = http_error_303 = http_error_302


def _refuse_redirects(url: str) -> None:
    """Let urllib, which ArgoEvent uses, refuse redirects of events from now on."""
    opener: Any = getattr(urllib.request, "_opener", None) or urllib.request.build_opener()
    if not any(isinstance(each, _RedirectRefuser) for each in opener.handlers):
        opener.add_handler(_RedirectRefuser(url))
        urllib.request.install_opener(opener)


@functools.cache
def _webhook_host(url: str | None) -> str:
    """Return the webhook's host and port, or refuse a URL that has none."""
    variable = "METAFLOW_ARGO_EVENTS_WEBHOOK_URL"
    if not url:
        raise NamespacedTriggerException(f"{variable} is not set")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if parts.username is not None:
            raise NamespacedTriggerException(
                f"{variable} has a user's name or password in it, which Metaflow cannot send; "
                "METAFLOW_SERVICE_HEADERS can carry them"
            )
        if host:
            return parts.netloc
    except ValueError:  # an address or a port that is none
        pass
    raise NamespacedTriggerException(f"{variable} is {url!r}, which has no host")


def _payload(name: str, payload: Any) -> dict[str, Any]:
    """Return the payload, or refuse what would not arrive as it was given."""
    if payload is None:
        return {}
    if not isinstance(payload, Mapping):
        raise _not_a_payload(payload)
    for key in ENVELOPE_KEYS:
        if key in payload:
            raise NamespacedTriggerException(
                f"The payload has the key {key!r}, which would replace the event's own. "
                f'Rename it, for example to "my_{key}".'
            )
    content = dict(payload)
    try:
        size = len(STRICT_JSON.encode(content))
        rounded = list(_rounded_integers(content))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise NamespacedTriggerException(
            f"The payload of {name!r} cannot be sent: {error}. Use text, numbers, true, false, "
            "null, lists and dicts."
        ) from error
    if size > LARGE_PAYLOAD_BYTES:
        _warn(
            f"the payload of {name!r} has {size:,} bytes. One of more than 128 KiB cannot reach "
            "the pod; put the data into a file, and its path into the payload."
        )
    for number in rounded:
        _warn(
            f"the payload of {name!r} has the integer {number}, which arrives rounded (Argo "
            "Events keeps 53 bits). Send it as text."
        )
    return content


def _not_a_payload(value: Any) -> NamespacedTriggerException:
    return NamespacedTriggerException(
        f"The payload is a dict with text keys, and {reprlib.repr(value)} is not. Write, for "
        'example, {"path": "s3://bucket/key"}.'
    )


def _rounded_integers(value: Any) -> Iterator[int]:
    """Return the integers of a payload that do not arrive as they are."""
    if isinstance(value, int):
        if abs(value) > LARGEST_EXACT_INTEGER:
            float(value)  # raises where Argo Events could not take it at all
            yield value
    elif isinstance(value, (dict, list, tuple)):
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            raise _not_a_payload(value)
        for each in value.values() if isinstance(value, dict) else value:
            yield from _rounded_integers(each)


class _RefusedName(DeployTimeField):
    """The name of an event that is refused at deployment, when Metaflow asks for it.

    What a function raises then, Metaflow shows as a traceback; this is shown as it is.
    """

    def __init__(self, refusal: NamespacedTriggerException) -> None:
        super().__init__("event_name", str, None, None, False, print_representation="refused")
        self._refusal = refusal

    def __call__(self, deploy_time: bool = False) -> Any:
        raise self._refusal


def _call(function: Callable[[Any], Any], context: Any) -> Any:
    """Return what a user's function returns, or refuse what it raises."""
    try:
        return function(context)
    except Exception as error:  # it can raise anything
        _, *theirs = traceback.extract_tb(error.__traceback__)
        place = f" ({theirs[0].filename}, line {theirs[0].lineno})" if theirs else ""
        raise NamespacedTriggerException(
            f"The function {getattr(function, '__name__', function)!r} in @namespaced_trigger "
            f"raised {type(error).__name__}: {error}{place}. It is called with one argument, the "
            "context, when the flow is deployed."
        ) from error


def _parameters(parameters: Any) -> dict[Any, Any] | list[Any]:
    """Return what `@trigger` takes for a mapping of parameters; it drops what it does not know."""
    if parameters is None:
        return {}
    if isinstance(parameters, Mapping):
        return dict(parameters)
    if isinstance(parameters, (list, tuple)):
        return [tuple(each) if isinstance(each, list) else each for each in parameters]
    raise NamespacedTriggerException(
        f"The parameters of an event are a dict or a list, and {parameters!r} is neither. Write "
        'them as {"flow_parameter": "payload_key"}, or as ["name_of_both"].'
    )


class _MappingParser:
    """A Config's parser that refuses what is not a mapping, in one message.

    Without it Metaflow fails on such a value before any decorator runs.
    """

    def __init__(self, config_name: str, parser: Callable[[str], Any] | str) -> None:
        self._config_name = config_name
        self._parser = parser

    def __call__(self, text: str) -> Any:
        parser = self._parser
        try:
            if isinstance(parser, str):  # where it can be imported from, as Metaflow has it
                module, _, function = parser.rpartition(".")
                prefix = "metaflow" if module.startswith(".") else ""
                parser = getattr(importlib.import_module(prefix + module), function)
            value = parser(text)
        except json.JSONDecodeError as error:
            raise NamespacedTriggerException(
                f"The config {self._config_name!r} is not valid JSON ({error}): {text!r}. "
                f"Write, for example, {_config_value(self._config_name, EXAMPLE_CONFIG)}"
            ) from error
        except Exception as error:  # a user's parser can raise anything
            raise NamespacedTriggerException(
                f"The parser of the config {self._config_name!r} failed with {text!r} "
                f"({type(error).__name__}: {error}). Correct the value, or the parser."
            ) from error
        if value is None:  # null; Metaflow takes it from itself, not from a parser
            return {}
        _check_mapping(self._config_name, value)
        return value


def _config_value(config_name: str, config: Mapping[str, Any]) -> str:
    """Return the option that sets a config, as it is typed in a shell."""
    value = shlex.quote(json.dumps(dict(config), default=str))
    return f"--config-value {_config_key(config_name)} {value}"


def _check_mapping(config_name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise NamespacedTriggerException(
            f"The config {config_name!r} is a mapping with the keys name, branch and "
            f"production, and {value!r} is not. Write, for example, "
            f"{_config_value(config_name, EXAMPLE_CONFIG)}"
        )


def _check_list(events: Any) -> list[Any]:
    if not isinstance(events, (list, tuple)) or not events:
        raise NamespacedTriggerException(
            f"events is a list, and {events!r} is not one with an event in it. {WRITE_EVENT}"
        )
    return list(events)


def _flow_state(flow: Any, item: str) -> Any:
    """Return what Metaflow keeps of a flow class and does not show in MutableFlow."""
    # Metaflow 2.19.10 renamed the enumeration of the items, and keeps the case of configs.
    items = getattr(flowspec, "FlowStateItems", None) or flowspec._FlowState
    return flow._flow_state.get(items[item], {})


def _flow_configs(flow: Any) -> dict[str, Any]:
    """Return the flow's configs by name, None for one without a value."""
    # Before Metaflow 2.19 a config without a value makes MutableFlow.configs fail. From
    # 2.19.10 on a value has a flag beside it, whether it is plain.
    return {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in _flow_state(flow, "CONFIGS").items()
    }


@functools.cache  # once is enough
def _warn_of_an_unused_config(flow: Any, running: _Namespace) -> None:
    """Warn where the config of the flow that is running names another branch than its own.

    A listener takes its branch from there. A publisher that is deployed in the same way
    does not, and would publish where nobody listens.
    """
    config = flow and _flow_configs(flow).get(CONFIG_NAME)
    if not isinstance(config, Mapping):
        return
    branch, production = config.get("branch"), config.get("production")
    if not branch and not production:
        return
    flags = " ".join([f"--branch {branch}"] * bool(branch) + ["--production"] * bool(production))
    try:
        meant = _Namespace.of(running.project, branch or None, production or False)
    except NamespacedTriggerException:  # nothing reads it here, so nothing is wrong with it
        return
    if meant != running:
        _warn(
            f"the config {CONFIG_NAME!r} names {meant}, and this flow publishes in {running}: the "
            "config sets the branch of a flow with @namespaced_trigger only. Deploy this one "
            f"with {flags}."
        )


def _config_key(name: str) -> str:
    """Return the key under which Metaflow keeps a config."""
    return name if hasattr(flowspec, "FlowStateItems") else name.lower()


# What an event may be: a name, a dict of EVENT_KEYS, or a function that returns one.
Event = str | Mapping[str, Any] | Callable[..., Any]
Flow = TypeVar("Flow", bound=type)


class namespaced_trigger(metaflow.FlowMutator):
    """Start this flow when an event of its own project and branch is published.

    The flow gets Metaflow's `@trigger` with `<project>.<branch>.<event>`, and its
    `@project` gets the branch that the config names.

    Parameters
    ----------
    event : str, dict or callable, optional
        What `@trigger` takes, with the name of the event without the namespace: a
        name, a dict with `name` and `parameters`, or a function that returns one of
        them at deployment. A dict may also have `project` and `project_branch`
        (`"prod"`, `"test.bar"`), to listen in another namespace. Exactly one of
        `event` and `events` is given.
    events : list or callable, optional
        Several of them, or a function that returns the list; the flow starts when
        all have been published.
    options : dict, optional
        Handed to `@trigger`, for example `{"reset_at": {"cron": "@daily"}}`.
    config_name : str, default "project"
        Name of the flow's Config with the keys `name`, `branch` and `production`.
    show_warnings : bool, default True
        Whether this decorator's warnings are printed to stderr.

    Raises
    ------
    NamespacedTriggerException
        On every command that loads the flow, where the flow could not be deployed
        or would listen to an event that nobody publishes.

    Examples
    --------
    >>> from metaflow import Config, FlowSpec, project
    >>> @namespaced_trigger(event="food")
    ... @project(name="foo")
    ... class HelloFlowDownstream(FlowSpec):
    ...     project = Config("project", default_value={})
    """

    _namespace: _Namespace | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            event: Event | None = None,
            events: list[Event] | Callable[..., list[Event]] | None = None,
            options: Mapping[str, Any] | None = None,
            config_name: str = CONFIG_NAME,
            show_warnings: bool = True,
        ) -> None: ...

    def __call__(self, flow_spec: Flow | None = None) -> Flow:
        """Decorate the flow."""
        if isinstance(flow_spec, type):
            is_flow = issubclass(flow_spec, metaflow.FlowSpec)
        else:
            is_flow = flow_spec is None or isinstance(flow_spec, metaflow.FlowMutator)
        if not is_flow:
            # Nothing would catch an exception while the flow is being imported.
            raise SystemExit(
                "@namespaced_trigger stands above the class of a flow, and "
                f"{getattr(flow_spec, '__name__', flow_spec)!r} is none. Move it there."
            )
        flow: Flow = super().__call__(flow_spec)
        config_name = self._kwargs.get("config_name", CONFIG_NAME)
        for value in (value for base in flow.__mro__ for value in vars(base).values()):
            if not isinstance(value, metaflow.Config) or value.name != config_name:
                continue
            if not value.kwargs.get("plain") and not isinstance(value.parser, _MappingParser):
                value.parser = _MappingParser(config_name, value.parser or json.loads)
        return flow

    def external_init(self) -> None:
        """Leave the arguments to `pre_mutate`, which every version of Metaflow calls."""

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Do the work once all other mutators of the flow have done theirs.

        `MutableFlow.add_decorator` ignores a decorator that is there already. Were this
        one not the last, a `@trigger` that another mutator adds would be lost unsaid.
        """
        mutators = _flow_state(mutable_flow._flow_cls, "FLOW_MUTATORS")
        if sum(isinstance(mutator, namespaced_trigger) for mutator in mutators) > 1:
            raise self._other_trigger("a second @namespaced_trigger")
        self._namespace_flow_after(self, mutable_flow)

    def _namespace_flow_after(self, done: Any, mutable_flow: Any) -> None:
        last = _flow_state(mutable_flow._flow_cls, "FLOW_MUTATORS")[-1]
        if last is done:
            self._namespace_flow(mutable_flow)
            return

        def pre_mutate_both(flow: Any) -> None:
            del last.pre_mutate
            last.pre_mutate(flow)  # which may add another mutator
            self._namespace_flow_after(last, mutable_flow)

        last.pre_mutate = pre_mutate_both

    def _namespace_flow(self, mutable_flow: Any) -> None:
        """Replace `@project` by the config's values and add `@trigger`."""
        self._take_arguments()
        self._refuse_other_triggers(mutable_flow)
        config = self._config(mutable_flow)
        values = self._project_values(config or {}, self._own_project(mutable_flow))
        self._namespace = _Namespace.of(values["name"], values["branch"], values["production"])
        self._refuse_flags(config, values)
        self._warn_of_another_owner(self._namespace)
        self._place_project(mutable_flow, values)
        self._place_trigger(mutable_flow, self._namespace)

    def mutate(self, mutable_flow: Any) -> None:
        """Check that `@project` gave the flow the namespace that it listens in."""
        actual = _Namespace(
            metaflow.current.get("project_name"), metaflow.current.get("branch_name")
        )
        if actual != self._namespace:
            raise NamespacedTriggerException(
                f"This flow listens in the namespace {self._namespace}, and @project made "
                f"it {actual}: another decorator changed @project afterwards. Set the "
                "branch in the config alone."
            )

    def _take_arguments(self) -> None:
        given = {**dict(enumerate(self._args)), **self._kwargs}
        arguments = _evaluate("@namespaced_trigger", given)
        positional = [arguments.pop(index) for index in range(len(self._args))]
        if positional:
            raise NamespacedTriggerException(
                f"@namespaced_trigger takes its arguments by name, and got {positional[0]!r} "
                f"without one. {WRITE_EVENT}"
            )
        known = list(inspect.signature(self._take).parameters)
        for name in arguments:
            if name not in known:
                meant = difflib.get_close_matches(name, known, n=1)
                raise NamespacedTriggerException(
                    f"@namespaced_trigger has no argument {name!r}. "
                    + (f"Write {meant[0]}=. " if meant else "")
                    + f"It takes {', '.join(known)}."
                )
        self._take(**arguments)

    def _take(
        self,
        event: Any = None,
        events: Any = None,
        options: Any = None,
        config_name: Any = CONFIG_NAME,
        show_warnings: Any = True,
    ) -> None:
        if (event is None) == (events is None):
            raise NamespacedTriggerException(
                "@namespaced_trigger takes exactly one of event and events, and got "
                + ("neither" if event is None else f"event={event!r} and events={events!r}")
                + f". {WRITE_EVENT}"
            )
        if events is not None and not callable(events):
            _check_list(events)
        if not isinstance(config_name, str) or not config_name:
            raise NamespacedTriggerException(
                f"config_name is the name of a Config, and {config_name!r} is not. Write, for "
                'example, config_name="project".'
            )
        if options is not None and not (
            isinstance(options, Mapping) and isinstance(options.get(RESET_OPTION, {}), Mapping)
        ):
            raise NamespacedTriggerException(
                f"options is a dict of dicts, and {options!r} is not. Write, for example, "
                'options={"reset_at": {"cron": "@daily"}}.'
            )
        for key in options or ():
            if key != RESET_OPTION and difflib.get_close_matches(
                str(key), [RESET_OPTION], cutoff=SIMILARITY_OF_A_SLIP
            ):
                raise NamespacedTriggerException(
                    f"options has the key {key!r}, which @trigger would ignore. Write "
                    f"{RESET_OPTION!r}."
                )
        _check_flag("show_warnings", show_warnings)
        self._events: Any = events if event is None else [event]
        self._options: Mapping[str, Any] | None = options
        self._config_name: str = config_name
        self._show_warnings: bool = show_warnings
        self._warned: set[str] = set()

    def _refuse_other_triggers(self, mutable_flow: Any) -> None:
        for name, *_ in mutable_flow.decorator_specs:
            if name in ("trigger", "trigger_on_finish"):
                raise self._other_trigger(f"@{name}")

    @staticmethod
    def _other_trigger(other: str) -> NamespacedTriggerException:
        return NamespacedTriggerException(
            f"This flow has {other} beside @namespaced_trigger, and Argo keeps one trigger for "
            f"a flow. Remove it, and name all events in one decorator: {WRITE_EVENTS}."
        )

    def _config(self, mutable_flow: Any) -> Mapping[str, Any] | None:
        """Return the flow's Config, None where the flow has no Config of that name."""
        configs = _flow_configs(mutable_flow._flow_cls)
        name = self._config_name
        if _config_key(name) not in configs:
            others = " or ".join(f'config_name="{other}"' for other in configs)
            others = others and f", or write {others} in the decorator"
            self._warn(
                f"The flow has no Config named {name!r}, so its branch can only be the one in "
                "@project. To set the branch at deployment, add this line to the flow: "
                f'project = Config("{name}", default_value={{}}){others}'
            )
            return None
        config: Any = configs[_config_key(name)]
        if _is_absent(config):
            return {}
        if isinstance(config, str):  # what a Config with plain=True is
            config = _MappingParser(name, json.loads)(config)
        _check_mapping(name, config)
        values: dict[str, Any] = dict(config)
        for key in values:
            self._refuse_slip(key)
        if values and not set(values) & set(PROJECT_KEYS):
            self._warn(
                f"The config {name!r} has none of the keys name, branch and production; its keys "
                f"({', '.join(map(str, values))}) say nothing about the namespace."
            )
        return values

    def _refuse_slip(self, key: Any) -> None:
        if key in PROJECT_KEYS or not isinstance(key, str):
            return
        for meant in difflib.get_close_matches(
            key.lower(), PROJECT_KEYS, n=1, cutoff=SIMILARITY_OF_A_SLIP
        ):
            if abs(len(key) - len(meant)) <= LENGTH_OF_A_SLIP:
                raise NamespacedTriggerException(
                    f"The config {self._config_name!r} has the key {key!r}, which would be "
                    f"ignored. Write {meant!r}, or choose a name that is less like it."
                )

    def _own_project(self, mutable_flow: Any) -> dict[str, Any]:
        """Return what the flow's own `@project` says, config expressions evaluated."""
        for name, _, _, attributes in mutable_flow.decorator_specs:
            if name == "project":
                return _evaluate("@project", attributes)
        return {}

    def _project_values(
        self, config: Mapping[str, Any], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return name, branch and production, each from the first that has it."""
        name = _first_present(arguments.get("name"), config.get("name"))
        if name is None:
            raise NamespacedTriggerException(
                "This flow has no project, so its events would not be kept apart. Put "
                '@project(name="my_project") on the flow, or a name into the config: '
                f"{_config_value(self._config_name, {**config, 'name': 'my_project'})}"
            )
        if _first_present(config.get("name"), name) != name:
            self._warn(
                f"@project says name={name!r} and the config {self._config_name!r} says "
                f"{config['name']!r}; @project's is used."
            )
        return {
            "name": name,
            "branch": _first_present(config.get("branch"), arguments.get("branch")),
            "production": _first_present(
                config.get("production"), arguments.get("production"), False
            ),
        }

    def _refuse_flags(self, config: Mapping[str, Any] | None, values: Mapping[str, Any]) -> None:
        """Refuse --branch and --production, or their variables, that say otherwise."""
        context = click.get_current_context(silent=True)
        if context is None or context.parent is not None:
            # A Runner's or Deployer's own process, or a step that uses one: the command
            # that it starts is checked.
            return
        flags = {
            "branch": context.params.get("branch", os.environ.get("METAFLOW_BRANCH")),
            "production": context.params.get(
                "production", os.environ.get("METAFLOW_PRODUCTION", "").lower() in TRUE_TEXTS
            ),
        }
        if context.params.get("branch") == "":
            raise NamespacedTriggerException(
                "--branch (or METAFLOW_BRANCH) is ''. Leave it out: the branch of a flow with "
                "@namespaced_trigger is set in its config alone."
            )
        other = {key: flag for key, flag in flags.items() if flag and flag != values[key]}
        if not other:
            return
        spelled = [f"--branch {flags['branch']}"] * ("branch" in other)
        spelled += ["--production"] * ("production" in other)
        first = (
            f'Add project = Config("{self._config_name}", default_value={{}}) to the flow. '
            if config is None
            else ""
        )
        raise NamespacedTriggerException(
            f"{' '.join(spelled)} (or METAFLOW_{', METAFLOW_'.join(map(str.upper, other))}) is "
            "not what the config says, and the branch of a flow with @namespaced_trigger is "
            f"set in its config alone. {first}Write this instead: "
            f"{_config_value(self._config_name, {**(config or {}), **other})}"
        )

    def _warn_of_another_owner(self, namespace: _Namespace) -> None:
        owner, user = os.environ.get("METAFLOW_OWNER"), get_username()
        is_deployed = "ARGO_WORKFLOW_TEMPLATE" in os.environ  # and METAFLOW_OWNER is who did it
        if namespace.branch == f"user.{owner}" and owner != user and not is_deployed:
            # argo_workflows.py: the pods get the user's name as METAFLOW_OWNER.
            self._warn(
                f"METAFLOW_OWNER makes this the branch of {owner!r}, but the pods that you deploy "
                f"publish in the branch of {user!r}: this flow does not hear them. To deploy for "
                f"{owner!r}, set METAFLOW_USER={owner} as well."
            )

    def _place_project(self, mutable_flow: Any, values: dict[str, Any]) -> None:
        # add_decorator(duplicates=OVERRIDE) leaves the old @project in place, and its
        # tag on the runs (Netflix/metaflow#2739); removing it first does not.
        mutable_flow.remove_decorator("project")
        mutable_flow.add_decorator(
            metaflow.project, deco_kwargs=values, duplicates=mutable_flow.ERROR
        )

    def _place_trigger(self, mutable_flow: Any, namespace: _Namespace) -> None:
        def at_deployment(context: Any) -> Any:
            try:
                return self._listen_to_all(namespace, context)
            except NamespacedTriggerException as refusal:
                return [{"name": _RefusedName(refusal)}]

        # What no function decides is refused on every command, not at deployment alone.
        arguments: dict[str, Any] = {
            "events": self._listen_to_all(namespace, None) or at_deployment
        }
        if self._options is not None:
            arguments["options"] = dict(self._options)
        mutable_flow.add_decorator(
            metaflow.trigger, deco_kwargs=arguments, duplicates=mutable_flow.ERROR
        )

    def _listen_to_all(self, namespace: _Namespace, context: Any) -> list[Any] | None:
        """Return what `@trigger` takes for all events, their names in their namespaces.

        Without a context it is not deployment yet: None where a function has to be called.
        """
        events = self._events
        if callable(events):
            if context is None:
                return None
            events = _check_list(_call(events, context))
        names: set[str] = set()  # to find the same name twice
        listened = [self._listen(event, namespace, names, context) for event in events]
        return None if None in listened else listened

    def _listen(self, event: Any, own: _Namespace, names: set[str], context: Any) -> Any:
        """Return what `@trigger` takes for an event, None as above."""
        if callable(event):
            if context is None:
                return None
            event = _call(event, context)
        if isinstance(event, str):
            return self._listen_to_name(event, own, names)
        if not isinstance(event, Mapping):
            raise NamespacedTriggerException(
                f"An event is a name, a dict with a name, or a function that returns one of them, "
                f"and {event!r} is none. {WRITE_EVENT}"
            )
        unknown = [key for key in event if key not in EVENT_KEYS]
        if unknown or "name" not in event:
            problem = f"the key {unknown[0]!r}" if unknown else "no name"
            raise NamespacedTriggerException(
                f"The event {dict(event)!r} has {problem}. An event has a name, and may "
                f'have {", ".join(EVENT_KEYS[1:])}: {{"name": "food", "parameters": '
                '{"flow_parameter": "payload_key"}}.'
            )
        namespace = own.other(event.get("project"), event.get("project_branch"))
        listened = {key: event[key] for key in EVENT_KEYS[:2] if key in event}
        functions = [key for key, value in listened.items() if callable(value)]
        if functions and context is None:
            return None
        listened.update((key, _call(listened[key], context)) for key in functions)
        listened["name"] = self._listen_to_name(listened["name"], namespace, names)
        if "parameters" in listened:
            listened["parameters"] = _parameters(listened["parameters"])
        return listened

    def _listen_to_name(self, event: Any, namespace: _Namespace, names: set[str]) -> str:
        name = namespace.event_name(event, self._warn)
        if name in names:
            raise NamespacedTriggerException(
                f"Two events of this flow are the same, {name!r} (one is {event!r}). Leave "
                "one out, or rename it."
            )
        names.add(name)
        return name

    def _warn(self, message: str) -> None:
        context = click.get_current_context(silent=True)
        # Without a context this is a Runner's or Deployer's own process: the command
        # that it starts warns.
        command = getattr(context and context.find_root(), "saved_args", None)
        if self._show_warnings and command is not None and command[:1] not in TASK_COMMANDS:
            if message not in self._warned:  # names beside a function are made twice
                _warn(message)
            self._warned.add(message)

    @classmethod
    def event_name(
        cls,
        event: str,
        *,
        project: str | None = None,
        branch: str | None = None,
        production: bool = False,
        user: str | None = None,
    ) -> str:
        """Return the full name of an event: `<project>.<branch>.<event>`.

        The decorator makes its names in the same place.

        Parameters
        ----------
        event : str
            Name of the event, without the namespace.
        project : str, optional
            Name of the project. The default is that of the flow that is running.
        branch : str, optional
            The branch, as in `--branch`: `bar` gives `test.bar`.
        production : bool, default False
            Whether it is production, as in `--production`: `prod`, or `prod.bar`.
        user : str, optional
            Whose branch it is, `user.jane` for `jane`.

        Where none of the last three is given, the branch is that of the flow that is
        running. Outside of a flow it is that of the user, as `@project` has it
        (METAFLOW_OWNER, else METAFLOW_USER, else the login).

        Returns
        -------
        str
            The name that the event has in Argo.

        Raises
        ------
        NamespacedTriggerException
            Where Metaflow or Argo would not take the name, or where there is neither
            a project nor a running flow.

        Examples
        --------
        >>> namespaced_trigger.event_name("food", project="foo", branch="bar", production=True)
        'foo.prod.bar.food'
        >>> namespaced_trigger.event_name("food", project="foo", user="jane")
        'foo.user.jane.food'
        """
        is_branch_given = branch is not None or production is not False or user is not None
        if not is_branch_given and (project is None or metaflow.current.get("project_name")):
            running = _Namespace.of_running_flow()
            _warn_of_an_unused_config(getattr(current_flow, "flow_cls", None), running)
            namespace = running.other(project, None)
        else:
            if project is None:
                project = _Namespace.of_running_flow().project
            namespace = _Namespace.of(project, branch, production, user)
        return namespace.event_name(event, _warn)

    @classmethod
    def raise_event(
        cls,
        event_name: str,
        payload: Mapping[str, Any] | None = None,
        safe_publish: bool = False,
        *,
        ignore_errors: bool = True,
        project: str | None = None,
        branch: str | None = None,
        production: bool = False,
    ) -> str | None:
        """Publish an event, in the namespace of the flow that is running or in a given one.

        Parameters
        ----------
        event_name : str
            Name of the event, without the namespace.
        payload : dict, optional
            Values for the parameters of the flows that listen: text keys, and values
            that are valid JSON. A payload of more than 100 kB warns, since it cannot
            reach the pod, and so does an integer beyond 2**53, which arrives rounded.
        safe_publish : bool, default False
            Whether to publish inside a deployed workflow only, so that a local run
            starts nothing.
        ignore_errors : bool, default True
            Whether a step goes on where the event could not be published; the reason
            is printed to stderr.
        project, branch, production : optional
            The namespace, as in `event_name`. Where none of them is given, it is that of
            the flow that is running.

        Returns
        -------
        str or None
            The id of the event, None where nothing was published. An id says that
            Argo Events took the event, not that a flow starts.

        Raises
        ------
        NamespacedTriggerException
            Where there is no project, where the name or the payload could not arrive,
            and with `ignore_errors=False` where publishing failed.

        Notes
        -----
        Metaflow tries again where the webhook cannot be reached: five times, which
        takes 15 seconds on a dead port. It does not try again after an answer, nor
        after the 60 seconds that it waits for one.

        Examples
        --------
        Outside of a deployed workflow this publishes nothing, and says so on stderr:

        >>> namespaced_trigger.raise_event(
        ...     "food", {"path": "s3://x"}, safe_publish=True, project="foo", production=True
        ... )
        """
        name = cls.event_name(event_name, project=project, branch=branch, production=production)
        content = _payload(name, payload)
        _check_flag("safe_publish", safe_publish)
        _check_flag("ignore_errors", ignore_errors)
        if safe_publish and not os.environ.get("ARGO_WORKFLOW_TEMPLATE"):
            print(
                f"Event {name!r} was not published: this run is not a deployed workflow, "
                "and safe_publish=True publishes in those only.",
                file=sys.stderr,
            )
            return None

        # Metaflow loads its integrations when they are first used, not on import.
        from metaflow.integrations import ArgoEvent
        from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_URL as URL

        host = ""
        try:
            host = f" to {_webhook_host(URL)}"
            _refuse_redirects(URL)
            # Metaflow and ob-metaflow differ in what they do with an error by default.
            published: str | None = ArgoEvent(name).publish(payload=content, ignore_errors=False)
        except MetaflowException as error:
            message = f"Event {name!r} was not published{host}: {error.__context__ or error}"
            if not ignore_errors:
                raise NamespacedTriggerException(message) from error
            print(message, file=sys.stderr)
            return None
        return published
