"""Events of Metaflow flows that stay inside one project and branch.

`@namespaced_trigger(event="food")` on a flow listens to `<project>.<branch>.food`, and
`namespaced_trigger.raise_event("food")` in a step of another flow publishes it. Both take
the name from one function, `namespaced_trigger.event_name`.

It is one file, so that people can copy it beside their flows.
"""

# Metaflow's own types are incomplete.
# mypy: allow-subclassing-any, allow-untyped-calls, disable-error-code="attr-defined, name-defined"

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import io
import json
import math
import os
import pkgutil
import re
import reprlib
import shlex
import sys
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from metaflow.user_configs.config_parameters import UNPACK_KEY, DelayEvaluator  # noqa: E402
from metaflow.util import get_username  # noqa: E402

__all__ = ["NamespacedTriggerException", "namespaced_trigger"]

# The Config that a flow has unless config_name says otherwise, and the keys that it and
# @project share.
CONFIG_NAME = "project"
PROJECT_KEYS = ("name", "branch", "production")

# A config key this similar to one of PROJECT_KEYS is probably a typo, as "nmae" is.
SIMILARITY_OF_A_TYPO = 0.75

# Metaflow rejects every other character in the name of an event (argo_workflows.py).
NOT_IN_EVENT_NAMES = re.compile(r"[^A-Za-z0-9_.-]")

# Argo Events parses the name of a dependency as a variable: if it begins with a digit or
# an underscore, the sensor starts and never subscribes.
HEARD_BY_ARGO = re.compile(r"[A-Za-z]")

# The four forms of a branch, as `current.branch_name` and @trigger_on_finish have them.
PROJECT_BRANCH = re.compile(r"prod|(?:prod|test)\.(?P<branch>.+)|user\..+")

# What a dict in `event` or `events` may have; the last two as @trigger_on_finish has them.
EVENT_KEYS = ("name", "parameters", "project", "project_branch")

# Metaflow tests it with a pattern that lets a newline at the end pass (argo_workflows.py).
PAYLOAD_KEY = re.compile(r"[A-Za-z0-9_]+")

# The fields of a cron expression, as Argo Events parses it: "@daily" and "7" for Sunday fail.
CRON_FIELDS = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    (0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)

# ArgoEvent merges the payload over these keys, so a "name" would reach other listeners.
ENVELOPE_KEYS = ("name", "id", "timestamp", "utc_date", "generated-by-metaflow")

# A payload travels to the pod in one environment variable, and Linux takes 128 KiB.
LARGE_PAYLOAD_BYTES = 100_000

# Half of a pair, which Go replaces by U+FFFD.
SURROGATE = re.compile("[\ud800-\udfff]")

# The shell of the listener's pod reads a mapped text between double quotes.
READ_BY_A_SHELL = re.compile(r"`|\$[\w({@*#?$!-]")

EITHER = '@namespaced_trigger(event="food") or @namespaced_trigger(events=["food", "drink"])'

# What an event may be: a name, a dict of EVENT_KEYS, or a function that returns one.
Event = str | Mapping[str, Any] | Callable[..., Any]
Flow = TypeVar("Flow", bound=type)


class NamespacedTriggerException(MetaflowException):
    """A mistake that `namespaced_trigger` rejects, in one message."""

    headline = "Namespaced trigger error"

    def __init__(self, text: str = "") -> None:
        # Metaflow prints `message`, and drops asterisks as its markup (still in 2.19.39).
        super().__init__(text.replace("*", "\N{ASTERISK OPERATOR}"))
        self._text = text

    def __str__(self) -> str:
        return self._text


# ---------------------------------------------------------------------------- checks


def _must_be(what: str, expected: str, value: Any) -> NamespacedTriggerException:
    """Return the rejection of a value."""
    return NamespacedTriggerException(f"{what} must be {expected}, not {reprlib.repr(value)}.")


def _check_text(what: str, example: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise _must_be(what, f'text, for example "{example}"', value)


def _check_bool(what: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise _must_be(what, "true or false, without quotes", value)


def _check_options(options: Any) -> None:
    """Reject what `@trigger` would ignore, or Argo Events could not parse."""
    if not isinstance(options, Mapping) or set(options) - {"reset_at"}:
        raise _must_be("options", "a dict with the key reset_at", options)
    reset = options.get("reset_at", {"cron": "0 0 * * *"})
    if not isinstance(reset, Mapping) or set(reset) - {"cron", "timezone"}:
        raise _must_be('options["reset_at"]', "a dict with the keys cron and timezone", reset)
    cron, timezone = reset.get("cron"), reset.get("timezone", "UTC")
    fields = cron.lower().split() if isinstance(cron, str) else ()
    if len(fields) != len(CRON_FIELDS) or not all(map(_is_cron_field, fields, CRON_FIELDS)):
        raise _must_be("cron", "five valid fields (minute, hour, day, month, weekday)", cron)
    if not _is_timezone(timezone):
        raise _must_be("timezone", 'a timezone, for example "Europe/Berlin"', timezone)


def _is_cron_field(field: str, limits: tuple[int, int, Sequence[str]]) -> bool:
    lowest, highest, names = limits
    numbers = {name: lowest + index for index, name in enumerate(names)}
    for part in field.split(","):
        match = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/0*[1-9]\d*)?", part, re.ASCII)
        given = [end for end in match.groups() if end] if match else [""]
        ends = [numbers.get(end, int(end) if end.isdigit() else -1) for end in given]
        if ends != sorted(ends) or any(not lowest <= end <= highest for end in ends):
            return False
    return True


def _is_timezone(name: Any) -> bool:
    import zoneinfo  # few need it

    try:
        return bool(name and zoneinfo.ZoneInfo(name))
    except (TypeError, ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        # Some systems know no timezone at all.
        return isinstance(name, str) and not zoneinfo.available_timezones()


# -------------------------------------------------------------------------- the name


class _Namespace(NamedTuple):
    """A project and its branch, spelled as `current` has them (`prod.bar`)."""

    project: str
    branch: str

    @classmethod
    def of(cls, project: Any, branch: Any, production: Any, user: Any = None) -> _Namespace:
        """Return the namespace that `@project` gives a flow with these arguments."""
        _check_text("The project's name", "my_project", project)
        if branch is not None:
            _check_text("The branch", "my_branch", branch)
        _check_bool("production", production)
        if user is not None and (branch or production):
            raise NamespacedTriggerException("user= must be given without branch= and production=.")
        if user is not None:
            _check_text("user", "jane", user)
            _check_user(f"user.{user}")
        try:
            # METAFLOW_OWNER replaces the user's name in format_name; one that was
            # asked for by name is not replaced.
            _, project_branch = format_name(
                "flow", project, production or user is not None, branch, get_username()
            )
        except MetaflowException as error:
            raise NamespacedTriggerException(
                f"@project rejects name={project!r}, branch={branch!r}: {error} Write "
                f"name={_valid_part(project)!r}, branch={_valid_part(branch)!r}."
            ) from error
        return cls(project, f"user.{user}" if user else _check_user(project_branch))

    @classmethod
    def of_running_flow(cls) -> _Namespace:
        """Return the namespace that `@project` gave the flow that is running."""
        project = metaflow.current.get("project_name")
        if not project:
            raise NamespacedTriggerException(
                "No flow with a project is running. Put "
                '@project(name="my_project") on the flow; outside of a flow, give '
                'project="my_project" with branch="my_branch" or production=True.'
            )
        branch: Any = metaflow.current.get("branch_name")
        return cls(project, _check_user(branch))

    @classmethod
    def to_publish_in(cls, project: Any, branch: Any, production: Any, user: Any) -> _Namespace:
        """Return the namespace of an event that is published here."""
        if branch is not None or production is not False or user is not None:
            name = cls.of_running_flow().project if project is None else project
            return cls.of(name, branch, production, user)
        if project is None or metaflow.current.get("project_name"):
            running = cls.of_running_flow()
            _warn_of_an_unused_config(getattr(current_flow, "flow_cls", None), running)
            return running.other(project, None)
        if os.environ.get("ARGO_WORKFLOW_TEMPLATE"):
            # A process that a task spawned, or an exit hook: METAFLOW_OWNER is set.
            raise NamespacedTriggerException(
                f"The branch of {project!r} is not known in this process of a deployed workflow. "
                "Give branch=, production= or user= as well."
            )
        return cls.of(project, None, False)

    def other(self, project: Any, project_branch: Any) -> _Namespace:
        """Return another namespace; each part that is None stays as it is here."""
        if project is not None:
            _Namespace.of(project, None, True)
        if project_branch is not None:
            match = PROJECT_BRANCH.fullmatch(str(project_branch))
            if not match:
                forms = '"prod", "prod.bar", "test.bar" or "user.jane"'
                raise _must_be("project_branch", forms, project_branch)
            _Namespace.of(project or self.project, match["branch"], True)
            _check_user(project_branch)
        return _Namespace(project or self.project, project_branch or self.branch)

    def __str__(self) -> str:
        return f"{self.project}.{self.branch}"

    def event_name(self, event: Any, warn: Callable[[str], None]) -> str:
        """Return the event's name in this namespace: `<project>.<branch>.<event>`."""
        if not isinstance(event, str) or not re.search(r"[A-Za-z0-9]", event):
            raise _must_be("An event's name", 'text with letters, for example "food"', event)
        own, cleaned = (NOT_IN_EVENT_NAMES.sub("", text) for text in (str(self), event))
        given, name = f"{self}.{event}", f"{own}.{cleaned}"
        rest = f".{cleaned}".rpartition(f".{own}.")[2]
        branches = tuple(f"{self.project}.{kind}." for kind in ("prod", "test", "user"))
        # Those of Metaflow's namespaced_event_name begin with mfns.
        if rest != f".{cleaned}" or cleaned.removeprefix("mfns.").startswith(branches):
            raise NamespacedTriggerException(
                f"The event {event!r} has a namespace already. Write what follows it. For another "
                'namespace, write {"name": "food", "project_branch": "prod"} in the decorator and '
                'raise_event("food", production=True) in a step.'
            )
        if name != given:
            warn(f"{given!r} has characters that event names cannot have; the event is {name!r}.")
        if not HEARD_BY_ARGO.match(name):
            raise NamespacedTriggerException(
                f"Argo Events never hears {name!r}: the project's name must begin with a letter, "
                f'for example "p{self.project}".'
            )
        return name


def _check_user(project_branch: str) -> str:
    """Return the branch, or reject that of users whom an event's name cannot tell apart."""
    user = project_branch.removeprefix("user.")
    # Metaflow writes None for a user that it cannot find.
    if user != project_branch and (user == "None" or not re.search(r"[A-Za-z0-9_]", user)):
        is_owner = os.environ.get("METAFLOW_OWNER") == user
        raise NamespacedTriggerException(
            f"The user's name must have a letter (a to z), digit or underscore, not {user!r}. Set "
            f"{'METAFLOW_OWNER' if is_owner else 'METAFLOW_USER'}, or give a branch."
        )
    return project_branch


def _valid_part(text: str | None) -> str | None:
    """Return the nearest text that `@project` takes as a name or a branch."""
    return text and re.sub(r"[^a-z0-9_]+", "_", text.lower())[:128]


# ------------------------------------------------------------------------ the trigger


def _listened(event: Any, own: _Namespace, warn: Callable[[str], None]) -> Any:
    """Return what `@trigger` takes for an event, or a function of the context that does."""
    if callable(event):
        return lambda context: _listened(_call(event, context), own, warn)
    if isinstance(event, str):
        return {"name": own.event_name(event, warn)}
    if not isinstance(event, Mapping) or "name" not in event or set(event) - set(EVENT_KEYS):
        expected = f'"food", a function, or a dict with the keys {", ".join(EVENT_KEYS)}'
        raise _must_be("An event", expected, event)
    namespace = own.other(event.get("project"), event.get("project_branch"))
    functions = [key for key in ("name", "parameters") if callable(event.get(key))]
    if functions:
        return lambda context: _listened(
            {**event, **{key: _call(event[key], context) for key in functions}}, own, warn
        )
    listened = {"name": namespace.event_name(event["name"], warn)}
    return {**listened, "parameters": _mapping(event.get("parameters"))}


def _mapping(parameters: Any) -> dict[str, str]:
    """Return which parameter of the flow takes which key of the payload."""
    pairs: list[Any] = [] if parameters is None else [None]
    if isinstance(parameters, Mapping):
        pairs = list(parameters.items())
    elif isinstance(parameters, (list, tuple)):
        pairs = [(each, each) if isinstance(each, str) else each for each in parameters]
    mapping: dict[str, str] = {}
    for pair in pairs:
        is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2
        if not is_pair or not all(isinstance(p, str) and PAYLOAD_KEY.fullmatch(p) for p in pair):
            expected = '{"flow_parameter": "payload_key"} or ["name_of_both"]'
            raise _must_be("parameters", f"{expected} (letters, digits, _)", parameters)
        if pair[0].lower() in map(str.lower, mapping):
            raise NamespacedTriggerException(f"parameters must name {pair[0]!r} only once.")
        mapping[pair[0]] = pair[1]
    return mapping


def _check_events(events: Any) -> list[Any]:
    if not isinstance(events, (list, tuple)) or not events:
        raise _must_be("events", 'a list such as ["food", "drink"]', events)
    return list(events)


def _check_triggers(triggers: Sequence[dict[str, Any]], parameters: Iterable[str]) -> None:
    """Reject two triggers of one name, and what Metaflow fails on (still in 2.19.39)."""
    names = [trigger["name"] for trigger in triggers]
    for name in names:
        if names.count(name) > 1:
            raise NamespacedTriggerException(f"The flow must have the event {name!r} only once.")
    mapped = {key.lower() for trigger in triggers for key in trigger.get("parameters") or ()}
    for parameter in parameters:
        # With one event and no mapping, Metaflow maps every parameter.
        is_mapped = parameter.lower() in mapped or (len(triggers) == 1 and not mapped)
        if is_mapped and parameter != parameter.lower():
            expected = f"lowercase ({parameter.lower()!r}) to be set by an event"
            raise _must_be("The name of a Parameter", expected, parameter)


def _call(function: Callable[[Any], Any], context: Any) -> Any:
    """Return what a user's function returns, or reject what it raises."""
    name = getattr(function, "__name__", function)
    try:
        value = function(context)
    except Exception as error:  # it can raise anything
        _, *theirs = traceback.extract_tb(error.__traceback__)
        place = f" ({theirs[0].filename}, line {theirs[0].lineno})" if theirs else ""
        raise NamespacedTriggerException(
            f"The function {name!r} in @namespaced_trigger raised {type(error).__name__}: "
            f"{error}{place}. It must take one argument, the context."
        ) from error
    if callable(value):
        raise _must_be(f"What the function {name!r} returns", "a value", value)
    return value


# ------------------------------------------------------------------------ the payload


def _payload(payload: Any) -> dict[str, Any]:
    """Return a copy of the payload, or reject what would not arrive as it was given."""
    if payload is not None and not isinstance(payload, Mapping):
        raise _must_be("The payload", 'a dict, for example {"path": "s3://bucket/key"}', payload)
    warnings: dict[str, str] = {}  # one of each kind
    try:
        content: dict[str, Any] = _copy(payload or {}, None, warnings)
        size = len(json.dumps(content))
    except MetaflowException:
        raise
    except Exception as error:  # RecursionError, and whatever a user's mapping raises
        problem = f"{type(error).__name__}: {error}"
        raise NamespacedTriggerException(f"The payload cannot be sent ({problem}).") from error
    for key in ENVELOPE_KEYS:
        if key in content:
            raise NamespacedTriggerException(
                f"The payload must not have the key {key!r}, which is the event's own. Rename it, "
                f'for example to "my_{key}".'
            )
    if size > LARGE_PAYLOAD_BYTES:
        warnings["size"] = (
            f"the payload has {size:,} bytes, and more than 128 KiB cannot reach a pod. Put the "
            "data into a file, and its path into the payload."
        )
    for warning in warnings.values():
        _warn(warning)
    return content


def _copy(value: Any, trail: Any, warnings: dict[str, str]) -> Any:
    """Return plain JSON, or reject with its path what is none.

    The trail is that of the value that has this one, and this one's key.
    """
    if isinstance(value, str):
        if not value.isascii() and SURROGATE.search(value):
            raise _must_be(_path(trail), "text that is valid Unicode", value)
        if READ_BY_A_SHELL.search(value):
            warnings["shell"] = (
                f"{_path(trail)} has a '$' or a backtick. If a listener maps it to a parameter, a "
                "shell in its pod runs it as a command."
            )
    elif isinstance(value, bool) or value is None:
        pass
    elif isinstance(value, int):
        try:
            if float(value) != value:
                warnings["integer"] = (
                    f"{_path(trail)} is {value}, which arrives rounded. Send it as text."
                )
        except OverflowError as error:
            raise NamespacedTriggerException(f"{_path(trail)} must fit a 64-bit float.") from error
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _must_be(_path(trail), "finite", value)
    elif isinstance(value, Mapping):
        copied = {}
        for key, each in value.items():
            if not isinstance(key, str) or (not key.isascii() and SURROGATE.search(key)):
                raise _must_be(f"A key of {_path(trail)}", "text that is valid Unicode", key)
            copied[key] = _copy(each, (trail, key), warnings)
        return copied
    elif isinstance(value, (list, tuple)):
        return [_copy(each, (trail, index), warnings) for index, each in enumerate(value)]
    else:
        raise _must_be(_path(trail), "text, a number, true, false, null, a list or a dict", value)
    return value


def _path(trail: Any) -> str:
    return f"{_path(trail[0])}[{json.dumps(trail[1])}]" if trail else "payload"


# ------------------------------------------------------------------------ the webhook


def _publish(name: str, payload: Mapping[str, Any], ignore_errors: bool) -> str | None:
    """Publish an event by way of Metaflow, and return its id."""
    # Metaflow loads its integrations when they are first used, not on import.
    from metaflow.integrations import ArgoEvent
    from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_AUTH as AUTH
    from metaflow.metaflow_config import ARGO_EVENTS_WEBHOOK_URL as URL
    from metaflow.metaflow_config import SERVICE_HEADERS

    host = ""
    try:
        url = _check_url(URL)
        host = f" to {urlsplit(url).netloc}"
        _check_headers(SERVICE_HEADERS if AUTH == "service" else {})
        _reject_redirects(url)
        with contextlib.redirect_stderr(_stderr()):  # it prints what it has published
            # Metaflow and ob-metaflow differ in what they do with an error by default.
            published: str | None = ArgoEvent(name, url=url).publish(payload, ignore_errors=False)
        if published is None:
            raise NamespacedTriggerException("METAFLOW_SERVICE_RETRY_COUNT must be at least 1.")
    except MetaflowException as error:
        message = f"Event {name!r} was not published{host}: {error.__context__ or error}"
        if not ignore_errors:
            raise NamespacedTriggerException(message) from error
        print(message, file=_stderr(), flush=True)
        return None
    return published


def _check_url(given: str | None) -> str:
    """Return the webhook's URL without blanks around it, or reject it."""
    url = (given or "").strip()
    try:
        parts = urlsplit(url)
        is_valid = bool(parts.scheme in ("http", "https") and parts.hostname) and parts.port != 0
    except ValueError:  # an address or a port that is none
        is_valid = False
    if not is_valid or "@" in parts.netloc:
        expected = "an http or https URL with a host and without a password"
        shown = re.sub("//.*@", "//...@", url)
        raise _must_be("METAFLOW_ARGO_EVENTS_WEBHOOK_URL", expected, shown)
    return url


def _check_headers(headers: Mapping[str, Any]) -> None:
    """Reject headers that cannot be sent; urllib's own message would show their values."""
    for key, value in headers.items():
        if not re.fullmatch(r"[!-9;-~]+", key) or not re.fullmatch("[\t -~\xa0-\xff]*", str(value)):
            raise NamespacedTriggerException(
                "The keys and values of METAFLOW_SERVICE_HEADERS must be text of one line, not "
                f"those of {key!r}."
            )


class _RedirectHandler(urllib.request.BaseHandler):
    """Fails an event that the webhook redirects.

    urllib would send a GET to the new place. If that is a login page, its answer is
    200, and ArgoEvent takes the event for published.
    """

    handler_order = 100  # before urllib's own, which has 500

    def __init__(self, url: str) -> None:
        self.url = url

    def http_error_302(self, request: Any, body: Any, code: int, text: str, headers: Any) -> None:
        if request.full_url == self.url and request.get_method() == "POST":
            reason = f"{text}, redirected to {headers.get('Location')}"
            raise urllib.error.HTTPError(self.url, code, reason, headers, body)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _reject_redirects(url: str) -> None:
    """Let urllib, which ArgoEvent uses, reject redirects of events from now on."""
    opener: Any = getattr(urllib.request, "_opener", None) or urllib.request.build_opener()
    handlers = getattr(opener, "handlers", None)  # a user's own opener may have none
    if handlers is not None and not any(isinstance(h, _RedirectHandler) for h in handlers):
        opener.add_handler(_RedirectHandler(url))
        urllib.request.install_opener(opener)


def _first(*values: Any) -> Any:
    """Return the first value that is present."""
    return next((value for value in values if value is not None and value != ""), None)


def _stderr() -> Any:
    return io.StringIO() if sys.stderr is None or sys.stderr.closed else sys.stderr


def _warn(message: str) -> None:
    print(f"Namespaced trigger warning: {message}", file=_stderr(), flush=True)


@functools.cache  # once is enough
def _warn_of_an_unused_config(flow: Any, running: _Namespace) -> None:
    """Warn if the config of the flow that is running names another branch than its own.

    A listener takes its branch from there. A publisher that is deployed in the same way
    does not, and would publish where nobody listens.
    """
    config = flow and _flow_configs(flow).get(CONFIG_NAME)
    mutators = flow and _flow_state(flow, "FLOW_MUTATORS")
    if not isinstance(config, Mapping) or any(isinstance(m, namespaced_trigger) for m in mutators):
        return
    branch, production = config.get("branch") or None, config.get("production") or False
    flags = [f"--branch {branch}"] * bool(branch) + ["--production"] * bool(production)
    with contextlib.suppress(NamespacedTriggerException):  # nothing reads it here, so it is right
        meant = _Namespace.of(running.project, branch, production)
        if flags and meant != running:
            _warn(
                f"the config {CONFIG_NAME!r} names {meant}, but sets the branch of flows with "
                f"@namespaced_trigger only: this one publishes in {running}. Deploy it with "
                f"{' '.join(flags)}."
            )


# -------------------------------------------------------------- Metaflow's internals


def _flow_state(flow: Any, item: str) -> Any:
    """Return what Metaflow keeps of a flow class, which MutableFlow does not show."""
    # Metaflow 2.19.10 renamed the enumeration, which older ones may lack: for them.
    items: Any = getattr(flowspec, "FlowStateItems", None) or flowspec._FlowState
    return flow._flow_state.get(items[item], {})


def _decorators(flow: Any, name: str) -> list[Any]:
    """Return the flow's decorators of this name, in the order in which Metaflow runs them."""
    # Metaflow 2.19.10 moved them, and made this a property of the instance: for older ones.
    is_old = isinstance(vars(flow).get("_flow_decorators"), dict)
    found = flow._flow_decorators if is_old else _flow_state(flow, "FLOW_DECORATORS")
    return list(found.get(name, ()))


def _flow_configs(flow: Any) -> dict[str, Any]:
    """Return the flow's configs by name, None for one without a value."""
    # MutableFlow.configs fails on one without a value: for Metaflow before 2.19. From
    # 2.19.10 on a value has a flag beside it, whether it is plain.
    return {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in _flow_state(flow, "CONFIGS").items()
    }


def _config_key(name: str) -> str:
    """Return the key under which Metaflow keeps a config: before 2.19.10 without capitals."""
    return name if hasattr(flowspec, "FlowStateItems") else name.lower()


def _evaluate(what: str, value: Any) -> Any:
    """Return a decorator's argument with its config expressions evaluated."""
    if isinstance(value, DelayEvaluator):
        try:
            return value()
        except Exception as error:  # it can raise anything
            expression = ".".join(map(str, [value._config_expr, *(value._access or ())]))
            raise NamespacedTriggerException(
                f"The config expression {expression!r} in {what} failed ({type(error).__name__}: "
                f"{error}). Give the config a value for it."
            ) from error
    if isinstance(value, dict):
        return {key: _evaluate(what, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_evaluate(what, each) for each in value]
    return value


def _unpack(what: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a decorator's arguments with `**config_expr(...)` unpacked, then evaluated."""
    evaluated: dict[str, Any] = {}
    for key, value in arguments.items():
        inner = _evaluate(what, value)
        if key.startswith(UNPACK_KEY):
            if not isinstance(inner, Mapping):
                raise _must_be(f"What is unpacked in {what}", "a mapping", inner)
            evaluated.update(inner)
        else:
            evaluated[key] = inner
    return evaluated


def _project_arguments(decorator: Any) -> dict[str, Any]:
    """Return what a `@project` says, for as much as Metaflow takes of it."""
    if decorator is None:
        return {}
    # Those that are no "user defined" attributes do not count.
    ignored = {"branch", "production"} - decorator._user_defined_attributes
    given = {key: each for key, each in decorator.attributes.items() if key not in ignored}
    return _unpack("@project", given)


def _is_last(flow: Any, mutator: Any) -> bool:
    """Whether no mutator comes after this one; otherwise it gets another turn at the end.

    MutableFlow.add_decorator drops a decorator that is there already, so a `@trigger` that
    a later mutator adds would be dropped without a message. Metaflow walks its list of
    mutators while they append to it.
    """
    mutators = _flow_state(flow, "FLOW_MUTATORS")
    turns = [index for index, each in enumerate(mutators) if each is mutator]
    turn = turns[-1] if mutator._has_another_turn else turns[0]
    # Metaflow up to 2.19.9 lists what a grandparent has twice.
    mutators[turn + 1 :] = [each for each in mutators[turn + 1 :] if each is not mutator]
    # Two that both want to be the last must come to an end.
    mutator._has_another_turn = any(each not in mutators[:turn] for each in mutators[turn + 1 :])
    if mutator._has_another_turn:
        mutators.append(mutator)
    elif turn != turns[0]:
        del mutators[turn]
    return not mutator._has_another_turn


class _RejectedName(DeployTimeField):
    """An event's name that is rejected at deployment, when Metaflow asks for it.

    What a function raises then, Metaflow shows as a traceback (still in 2.19.39); this is
    shown as it is.
    """

    def __init__(self, error: NamespacedTriggerException) -> None:
        super().__init__("event_name", str, None, None, False, print_representation="rejected")
        self._error = error

    def __call__(self, deploy_time: bool = False) -> Any:
        raise self._error


def _guard_configs(flow: Any, config_name: Any) -> None:
    """Let a Config of this name reject what is no mapping, in a flow and its subclasses.

    Metaflow fails on such a value before any decorator runs (still in 2.19.39).
    """
    own = vars(flow).get("__init_subclass__")

    def init_subclass(cls: Any, /, **arguments: Any) -> None:
        (own.__get__(None, cls) if own else super(flow, cls).__init_subclass__)(**arguments)
        _guard_configs(cls, config_name)

    for value in (value for base in flow.__mro__ for value in vars(base).values()):
        if not isinstance(value, metaflow.Config) or value.name != config_name:
            continue
        # Metaflow 2.19.10 brought plain: without a parser it is a text, which is parsed later.
        is_text = value.kwargs.get("plain") and hasattr(flowspec, "FlowStateItems")
        is_guarded = getattr(value.parser, "func", None) is _parse_config
        if not is_guarded and not (is_text and value.parser is None):
            value.parser = functools.partial(_parse_config, config_name, value.parser)
    flow.__init_subclass__ = classmethod(init_subclass)


def _parse_config(config_name: str, parser: Any, text: str) -> Any:
    """Return the mapping that a config's text has, {} for null."""
    what = f"The config {config_name!r}"
    how = _how_to_set(config_name, {"branch": "bar", "production": True}, parser)
    shown = reprlib.repr(text)
    try:
        if isinstance(parser, str):  # where Metaflow imports it from
            parser = pkgutil.resolve_name("metaflow" * parser.startswith(".") + parser)
        value = (parser or json.loads)(text)
        if value is None:
            return {}
        if isinstance(value, Mapping):
            json.dumps(_plain(value), default=str)  # as the code package has it
            return value if type(value) is dict else _plain(value)
    except Exception as error:  # a user's parser can raise anything
        raise NamespacedTriggerException(
            f"{what} cannot be read ({type(error).__name__}: {error}), it is {shown}. {how}"
        ) from error
    raise NamespacedTriggerException(f"{what} must be a mapping, not {reprlib.repr(value)}. {how}")


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as a dict, with the keys that it has by other spellings."""
    known = {key: config[key] for key in PROJECT_KEYS if key in config}
    return {**dict(config), **known}


def _own_parser(flow: Any, config_name: str) -> Any:
    """Return the parser that a user gave a Config, None if there is none."""
    for _, config in _flow_state(flow, "SET_CONFIG_PARAMETERS"):
        if config.name == config_name and config.parser is not None:
            return config.parser.args[1]
    return None


def _command() -> Any:
    """Return the context of the command, None in a Runner's or Deployer's own process."""
    context = click.get_current_context(silent=True)
    return context if context is not None and context.parent is None else None


def _how_to_set(config_name: str, values: dict[str, Any], parser: Any) -> str:
    """Return how to set values of a config, in the language of who reads it."""
    command = _command()
    if parser is not None:
        return f"Set {', '.join(f'{key} to {value!r}' for key, value in values.items())} in it."
    if command is None:
        return f"Write config_value=[({config_name!r}, {values!r})]."
    if getattr(command, "saved_args", None) and command.saved_args[0] == "resume":
        return "resume takes the config of the run that it resumes: use run."
    value = shlex.quote(json.dumps(values, default=str))
    return f"Write --config-value {_config_key(config_name)} {value}"


def _flag(command: Any, key: str) -> tuple[str, Any]:
    """Return a flag of the command, or what it would be on a flow with `@project`."""
    names = (f"METAFLOW_FLOW_{key.upper()}", f"METAFLOW_{key.upper()}")
    variable = next((name for name in names if name in os.environ), "")
    value: Any = os.environ.get(variable)
    if key == "production":  # what click takes for true
        value = str(value).lower() in ("1", "true", "t", "yes", "y", "on")
    given = command.params.get(key, value)
    return (variable if variable and given == value else f"--{key}"), given


# ---------------------------------------------------------------------- the decorator


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
        `event` and `events` must be given.
    events : list, tuple or callable, optional
        Several of them, or a function that returns them; the flow starts when all
        have been published.
    options : dict, optional
        Passed to `@trigger`: `{"reset_at": {"cron": "0 0 * * *"}}`, perhaps with a
        `"timezone"`, forgets at midnight which of several events were published.
    config_name : str, default "project"
        Name of the flow's Config with the keys `name`, `branch` and `production`.
    show_warnings : bool, default True
        Whether this decorator's warnings are printed to stderr.

    Raises
    ------
    NamespacedTriggerException
        On every command that loads the flow, if the flow could not be deployed or
        would listen to an event that nobody publishes.

    Examples
    --------
    >>> from metaflow import Config, FlowSpec, project
    >>> @namespaced_trigger(event="food")
    ... @project(name="foo")
    ... class HelloFlowDownstream(FlowSpec):
    ...     project = Config("project", default_value={})
    """

    _namespace: _Namespace | None = None
    _trigger: Any = None
    _has_another_turn = False

    def __call__(self, flow_spec: Flow | None = None) -> Flow:
        """Decorate the flow."""
        is_flow = flow_spec is None or isinstance(flow_spec, metaflow.FlowMutator)
        if isinstance(flow_spec, type):
            is_flow = issubclass(flow_spec, metaflow.FlowSpec)
        if not is_flow:
            # Nothing would catch an exception while the flow is being imported.
            raise SystemExit(
                "@namespaced_trigger belongs above the class of a flow, not above "
                f"{getattr(flow_spec, '__name__', flow_spec)!r}."
            )
        flow: Flow = super().__call__(flow_spec)
        _guard_configs(flow, self._kwargs.get("config_name", CONFIG_NAME))
        return flow

    def external_init(self) -> None:
        """Leave the arguments to `pre_mutate`, which every version of Metaflow calls."""

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Replace `@project` by the config's values and add `@trigger`."""
        flow = mutable_flow._flow_cls
        mutators = {id(each): each for each in _flow_state(flow, "FLOW_MUTATORS")}.values()
        if sum(isinstance(mutator, namespaced_trigger) for mutator in mutators) > 1:
            raise self._other_trigger("a second @namespaced_trigger")
        if not _is_last(flow, self):
            return
        self._take_arguments()
        for name in ("trigger", "trigger_on_finish"):
            if _decorators(flow, name):
                raise self._other_trigger(f"@{name}")
        values = self._project_values(flow)
        self._namespace = _Namespace.of(values["name"], values["branch"], values["production"])
        self._warn_of_another_owner(self._namespace)
        # add_decorator(duplicates=OVERRIDE) leaves the old @project in place, and its
        # tag on the runs (Netflix/metaflow#2739); removing it first does not.
        mutable_flow.remove_decorator("project")
        mutable_flow.add_decorator(metaflow.project, deco_kwargs=values)
        arguments = {"events": self._triggers(mutable_flow, self._namespace)}
        if self._options is not None:
            arguments["options"] = _evaluate("", dict(self._options))
        mutable_flow.add_decorator(metaflow.trigger, deco_kwargs=arguments)
        self._trigger = _decorators(flow, "trigger")

    def mutate(self, mutable_flow: Any) -> None:
        """Check that what `pre_mutate` did is still there; a step's mutator comes after it."""
        current: Any = metaflow.current
        actual = _Namespace(current.get("project_name"), current.get("branch_name"))
        if actual != self._namespace:
            raise NamespacedTriggerException(
                f"Another decorator changed @project to {actual}, and this flow listens in "
                f"{self._namespace}. Set the branch in the config alone."
            )
        flow = mutable_flow._flow_cls
        if _decorators(flow, "trigger") != self._trigger or _decorators(flow, "trigger_on_finish"):
            raise self._other_trigger("a change of @trigger by another decorator")

    def _take_arguments(self) -> None:
        arguments = _unpack("@namespaced_trigger", self._kwargs)
        try:
            inspect.signature(self._take).bind(*self._args, **arguments)
        except TypeError as error:
            raise NamespacedTriggerException(
                f"@namespaced_trigger: {error}. Write {EITHER}; the other arguments are options, "
                "config_name and show_warnings."
            ) from error
        self._take(**arguments)

    def _take(
        self,
        *,
        event: Event | None = None,
        events: Sequence[Event] | Callable[..., Sequence[Event]] | None = None,
        options: Mapping[str, Any] | None = None,
        config_name: str = CONFIG_NAME,
        show_warnings: bool = True,
    ) -> None:
        if (event is None) == (events is None):
            given = "neither" if event is None else "both"
            raise NamespacedTriggerException(
                f"@namespaced_trigger needs exactly one of event and events, not {given}. "
                f"Write {EITHER}."
            )
        if options is not None:
            _check_options(options)
        _check_text("config_name", "project", config_name)
        _check_bool("show_warnings", show_warnings)
        self._events: Any = [event] if events is None else events
        if not callable(self._events):
            _check_events(self._events)
        self._options, self._config_name, self._show_warnings = options, config_name, show_warnings

    if TYPE_CHECKING:  # Metaflow calls it in other ways as well

        def __init__(
            self,
            *,
            event: Event | None = None,
            events: Sequence[Event] | Callable[..., Sequence[Event]] | None = None,
            options: Mapping[str, Any] | None = None,
            config_name: str = CONFIG_NAME,
            show_warnings: bool = True,
        ) -> None: ...

    __signature__ = inspect.Signature(list(inspect.signature(_take).parameters.values())[1:])

    @staticmethod
    def _other_trigger(other: str) -> NamespacedTriggerException:
        return NamespacedTriggerException(
            f"This flow has {other} beside @namespaced_trigger, and Argo keeps one trigger for "
            "a flow. Name all events in one @namespaced_trigger."
        )

    def _project_values(self, flow: Any) -> dict[str, Any]:
        """Return name, branch and production for `@project`, each from the first that has it."""
        config, how = self._config(flow)
        # OVERRIDE leaves the old @project in place from Metaflow 2.19.10 on: Metaflow checks
        # them all, and the last one is what holds.
        *others, arguments = map(_project_arguments, _decorators(flow, "project") or [None])
        for other in others:
            _Namespace.of(other["name"], _first(other.get("branch")), True)
        self._warn_of_typos({**config, **arguments})
        name = _first(arguments.get("name"), config.get("name"))
        if name is None:
            raise NamespacedTriggerException(
                'This flow has no project. Put @project(name="my_project") on it, or a name into '
                f"its config. {how({'name': 'my_project'})}"
            )
        if _first(config.get("name"), name) != name:
            self._warn(
                f"@project says name={name!r} and the config {self._config_name!r} says "
                f"{config['name']!r}; @project's is used."
            )
        values = {
            "name": name,
            "branch": _first(config.get("branch"), arguments.get("branch")),
            "production": _first(config.get("production"), arguments.get("production"), False),
        }
        self._reject_flags(values, how)
        return values

    def _config(self, flow: Any) -> tuple[dict[str, Any], Callable[[dict[str, Any]], str]]:
        """Return the flow's config, and what says how to set a value of it."""
        configs, name = _flow_configs(flow), self._config_name
        if _config_key(name) not in configs:
            other = next((f', or write config_name="{each}"' for each in configs), "")
            add = f'add project = Config("{name}", default_value={{}}) to the flow'
            self._warn(f"there is no Config {name!r} to set the branch: {add}{other}.")
            return {}, lambda values: f"A{add[1:]}. {_how_to_set(name, values, None)}"
        parser = _own_parser(flow, name)
        config = configs[_config_key(name)]
        if isinstance(config, str) and config:  # what a Config with plain=True is
            config = _parse_config(name, parser, config)
        config = _plain(config or {})
        known = {key: config[key] for key in PROJECT_KEYS if key in config}
        if config and not known:
            self._warn(f"the config {name!r} has none of the keys {', '.join(PROJECT_KEYS)}.")
        others = "" if len(known) == len(config) else " Keep the config's other keys."
        return config, lambda values: _how_to_set(name, {**known, **values}, parser) + others

    def _warn_of_typos(self, keys: Iterable[Any]) -> None:
        for key in {key for key in keys if isinstance(key, str)} - set(PROJECT_KEYS):
            for meant in difflib.get_close_matches(
                key.lower(), PROJECT_KEYS, n=1, cutoff=SIMILARITY_OF_A_TYPO
            ):
                # "names" and "rename" are words, and "products" is another one.
                is_word = meant in key.lower() and meant != key.lower()
                if meant not in keys and not is_word and abs(len(key) - len(meant)) < 2:
                    self._warn(f"the config's key {key!r} is ignored, perhaps a typo of {meant!r}.")

    def _reject_flags(self, values: Mapping[str, Any], how: Callable[..., str]) -> None:
        """Reject --branch and --production, or their variables, that say otherwise."""
        command = _command()
        if command is None:  # the command that a Runner or Deployer starts is checked
            return
        flags = {key: _flag(command, key) for key in ("branch", "production")}
        other = {
            key: value
            for key, (_, value) in flags.items()
            if value not in (None, False, values[key])
        }
        if not other:
            return
        given = " and ".join(flags[key][0] for key in other)
        advice = "" if other.get("branch") == "" else " " + how(other)
        raise NamespacedTriggerException(
            f"{given} must be left out: a flow with @namespaced_trigger takes its branch from its "
            f"config.{advice}"
        )

    def _warn_of_another_owner(self, namespace: _Namespace) -> None:
        owner, user = os.environ.get("METAFLOW_OWNER"), get_username()
        is_deployed = "ARGO_WORKFLOW_TEMPLATE" in os.environ  # and METAFLOW_OWNER is who did it
        if namespace.branch == f"user.{owner}" and owner != user and not is_deployed:
            # argo_workflows.py: the pods get the user's name as METAFLOW_OWNER.
            self._warn(
                f"METAFLOW_OWNER makes this the branch of {owner!r}, but the pods that you deploy "
                f"publish in that of {user!r}. Set METAFLOW_USER={owner} as well."
            )

    def _triggers(self, mutable_flow: Any, namespace: _Namespace) -> Any:
        """Return what `@trigger` takes for all events: a function if it takes one of theirs."""
        parameters = [parameter.name for _, parameter in mutable_flow.parameters]

        def decide(events: Sequence[Any]) -> list[Any]:
            return [_listened(event, namespace, self._warn) for event in events]

        def at_deployment(context: Any) -> list[dict[str, Any]]:
            try:
                events = self._events
                triggers = list(now)
                if callable(events):
                    triggers = decide(_check_events(_call(events, context)))
                for index, trigger in enumerate(triggers):
                    while callable(trigger):
                        trigger = triggers[index] = trigger(context)
                _check_triggers(triggers, parameters)
            except NamespacedTriggerException as error:
                return [{"name": _RejectedName(error)}]
            return [dict(trigger) for trigger in triggers]

        # What no function decides is rejected on every command, not at deployment alone.
        now = [] if callable(self._events) else decide(self._events)
        decided = [trigger for trigger in now if not callable(trigger)]
        is_decided = bool(now) and len(decided) == len(now)
        _check_triggers(decided, parameters if is_decided else ())
        return decided if is_decided else at_deployment

    def _warn(self, message: str) -> None:
        context = click.get_current_context(silent=True)
        # Metaflow starts its tasks with --quiet, and the command of a Runner or Deployer
        # warns, not its own process, which has no context.
        root = context and context.find_root()
        if self._show_warnings and root and not root.params.get("quiet"):
            _warn(message)

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
        """Return the full name of an event, `<project>.<branch>.<event>`.

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
            Whose branch it is, `user.jane` for `jane`. If none of the last three is given,
            it is the branch of the flow that is running, else the user's, as `@project`
            has it (METAFLOW_OWNER, else METAFLOW_USER, else the login).

        Returns
        -------
        str
            The name that the event has in Argo.

        Raises
        ------
        NamespacedTriggerException
            If the project or branch is not known, or Metaflow or Argo rejects the name.

        Examples
        --------
        >>> namespaced_trigger.event_name("food", project="foo", branch="bar", production=True)
        'foo.prod.bar.food'
        """
        namespace = _Namespace.to_publish_in(project, branch, production, user)
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
        user: str | None = None,
    ) -> str | None:
        """Publish an event, in the namespace of the flow that is running or in a given one.

        Parameters
        ----------
        event_name : str
            Name of the event, without the namespace.
        payload : dict, optional
            Values for the parameters of the flows that listen: text keys, and values
            that are valid JSON. A warning says what would not arrive as it is.
        safe_publish : bool, default False
            Whether to publish inside a deployed workflow only, so that a local run
            starts nothing.
        ignore_errors : bool, default True
            Whether a step goes on if the event could not be published; the reason is
            printed to stderr.
        project, branch, production, user : optional
            The namespace, as in `event_name`. If none of them is given, it is that of the
            flow that is running.

        Returns
        -------
        str or None
            The id of the event, None if nothing was published. An id says that Argo
            Events took the event, not that a flow starts.

        Raises
        ------
        NamespacedTriggerException
            If there is no project, if the name or the payload could not arrive, and with
            `ignore_errors=False` if publishing failed.

        Examples
        --------
        >>> namespaced_trigger.raise_event(
        ...     "food", {"path": "s3://x"}, safe_publish=True, project="foo", production=True
        ... )
        """
        _check_bool("safe_publish", safe_publish)
        _check_bool("ignore_errors", ignore_errors)
        name = cls.event_name(
            event_name, project=project, branch=branch, production=production, user=user
        )
        content = _payload(payload)
        if safe_publish and not os.environ.get("ARGO_WORKFLOW_TEMPLATE"):
            print(
                f"Event {name!r} was not published: safe_publish=True, and this is a local run.",
                file=_stderr(),
            )
            return None
        return _publish(name, content, ignore_errors)
