"""The sensor: decides, as Argo Events does, which event starts which workflow.

The rules are those of argo-events v1.9.11 for what Metaflow compiles from `@trigger`
and `@trigger_on_finish`. Whatever else a Sensor may contain is refused by name: a
rehearsal that guesses is worth nothing.
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

MAX_EVENT_BYTES = 1024 * 1024  # the webhook's limit

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING_OR_SPACE = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')
# encoding/json of Go writes these five so, unless it is told not to.
_HTML = {character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

_EQUALS = re.compile(r"(\w+) == '([^'\\]*)'")
_PATH = re.compile(r"body\.payload\.([A-Za-z0-9_-]+)")
_DESTINATION = re.compile(r"spec\.arguments\.parameters\.#\(name=([^()]+)\)\.value")

# What Metaflow before 2.18 says of an argoWorkflow trigger, which does the same.
_ACTION = {"group": "argoproj.io", "version": "v1alpha1", "resource": "workflows"}

# Where and how the sensor itself runs, which decides nothing about events.
_OF_THE_SENSOR_S_POD = (
    "eventBusName",
    "loggingFields",
    "replicas",
    "revisionHistoryLimit",
    "template",
)

_TEMPLATE = re.compile(
    r'\{\{ if \(hasKey \$\.Input\.body\.payload "(?P<key>[^"\\]+)"\) \}\}(?P<value>.*)'
    r'\{\{- else -\}\}\{\{ \(fail "use-default-instead"\) \}\}\{\{- end -\}\}'
)
_TO_JSON = '{{- (get $.Input.body.payload "KEY" | toRawJson) -}}'
_TO_QUOTED_JSON = '{{- (get $.Input.body.payload "KEY" | toRawJson | squote) -}}'
_TO_JSON_TEXT = (
    '{{- $pv:=(get $.Input.body.payload "KEY") -}}{{ if kindIs "string" $pv }}'
    "{{- $pv | toRawJson -}}{{- else -}}{{ $pv | toRawJson | toRawJson }}{{- end -}}"
)


class NotAnEvent(ValueError):
    """A body that the webhook does not take."""


class UnknownToSensor(ValueError):
    """Something in a Sensor or an event that this evaluator does not know."""


@dataclass(frozen=True)
class Event:
    """The body of a POST to the webhook."""

    payload: Mapping[str, Any]
    raw_payload: str

    @classmethod
    def parse(cls, body: bytes) -> Event:
        """Return the event in a body, as a sensor sees it."""
        if len(body) > MAX_EVENT_BYTES:
            raise NotAnEvent(f"the body has {len(body)} bytes, and at most {MAX_EVENT_BYTES} pass")
        try:
            text = body.decode()
            content = json.loads(text, object_pairs_hook=_first_wins, parse_constant=_refuse)
        except ValueError as error:
            raise NotAnEvent(f"the body is not JSON: {error}") from error
        except RecursionError as error:
            raise UnknownToSensor("a body that is nested so deeply") from error
        payload = content.get("payload") if isinstance(content, dict) else None
        if not isinstance(payload, dict):
            return cls({}, "null")
        return cls(payload, _compact(_member(text, "payload")))

    @property
    def name(self) -> Any:
        """The name that sensors filter on; it can be anything."""
        return self.payload.get("name")


@dataclass(frozen=True)
class Filter:
    """One expression on one field of the payload; `value` is None for mere presence."""

    key: str
    value: str | None

    @classmethod
    def parse(cls, expression: Mapping[str, Any]) -> Filter:
        """Return the filter that an entry of `exprs` describes."""
        _only(expression, {"expr", "fields"}, "a filter")
        text, fields = expression["expr"], expression["fields"]
        path = _PATH.fullmatch(fields[0]["path"]) if len(fields) == 1 else None
        equals = _EQUALS.fullmatch(text)
        if path and text == "true == true":
            return cls(path[1], None)
        if path and equals and equals[1] == fields[0]["name"]:
            return cls(path[1], equals[2])
        raise UnknownToSensor(f"the filter {json.dumps(expression)}")

    def passes(self, event: Event) -> bool:
        """Whether the field is there, and has the value that is asked for."""
        if self.key not in event.payload:
            return False
        return self.value is None or event.payload[self.key] == self.value

    def __str__(self) -> str:
        return f"{self.key} is there" if self.value is None else f"{self.key} == {self.value!r}"

    def explain(self, event: Event) -> str:
        """Return the filter, and what it finds in an event."""
        if self.key not in event.payload:
            return f"{self}, and the event has no {self.key}"
        return f"{self}, and in the event it is {event.payload[self.key]!r}"


@dataclass(frozen=True)
class Dependency:
    """An event that a sensor waits for."""

    name: str
    filters: tuple[Filter, ...]

    @classmethod
    def parse(cls, dependency: Mapping[str, Any]) -> Dependency:
        """Return the dependency that an entry of `dependencies` describes."""
        _only(dependency, {"name", "eventName", "eventSourceName", "filters"}, "a dependency")
        filters = dependency.get("filters") or {}
        _only(filters, {"exprs"}, "filters")
        return cls(dependency["name"], tuple(map(Filter.parse, filters.get("exprs") or ())))

    @property
    def event_name(self) -> str | None:
        """The name of the event, as `@trigger` has it."""
        return next((f.value for f in self.filters if f.key == "name"), None)

    @property
    def label(self) -> str:
        """What to call it: the name of its event, else its own."""
        return self.event_name or self.name

    @property
    def is_heard(self) -> bool:
        """Whether Argo takes the name for a variable; where not, it never subscribes."""
        return bool(re.match(r"[A-Za-z]", self.name))

    def failing(self, event: Event) -> list[Filter]:
        """Return the filters that drop the event."""
        return [each for each in self.filters if not each.passes(event)]


@dataclass(frozen=True)
class Parameter:
    """A value that a trigger takes out of an event and puts into the Workflow."""

    dependency: str
    argument: str
    default: str
    key: str | None  # None for the whole payload
    conversion: str

    @classmethod
    def parse(cls, parameter: Mapping[str, Any]) -> Parameter:
        """Return the parameter that an entry of a trigger's `parameters` describes."""
        _only(parameter, {"src", "dest"}, "a parameter")
        source = parameter["src"]
        _only(
            source,
            {"dependencyName", "dataKey", "dataTemplate", "value", "useRawData"},
            "a parameter's source",
        )
        destination = _DESTINATION.fullmatch(parameter["dest"])
        if not destination or source.get("useRawData"):
            raise UnknownToSensor(f"the parameter {json.dumps(parameter)}")
        common = (source["dependencyName"], destination[1], source.get("value") or "")
        if not source.get("dataTemplate"):
            if source.get("dataKey") != "body.payload":
                raise UnknownToSensor(f"the data key {source.get('dataKey')!r}")
            return cls(*common, key=None, conversion="payload")
        template = _TEMPLATE.fullmatch(source["dataTemplate"])
        if template:
            value = template["value"].replace(f'"{template["key"]}"', '"KEY"')
            for conversion in (_TO_JSON, _TO_QUOTED_JSON, _TO_JSON_TEXT):
                if value == conversion:
                    return cls(*common, key=template["key"], conversion=conversion)
        raise UnknownToSensor(f"the template {source['dataTemplate']!r}")

    def value(self, event: Event) -> str:
        """Return the text that the Workflow's argument gets."""
        if self.key is None:
            return event.raw_payload
        if self.key not in event.payload:
            return self.default
        value = event.payload[self.key]
        try:
            text = to_go_json(value)
        except RecursionError as error:
            raise UnknownToSensor("a value that is nested so deeply") from error
        if self.conversion == _TO_QUOTED_JSON:
            return f"'{text}'"
        if self.conversion == _TO_JSON_TEXT and not isinstance(value, str):
            return to_go_json(text)
        return text


@dataclass(frozen=True)
class Decision:
    """What one event did to a sensor."""

    satisfied: list[str]
    workflow: dict[str, Any] | None
    events: list[Event]
    waiting_for: list[str]

    @property
    def arguments(self) -> dict[str, str | None] | None:
        """The arguments of the Workflow, None where none is created."""
        if self.workflow is None:
            return None
        parameters = self.workflow["spec"]["arguments"]["parameters"]
        return {each["name"]: each.get("value") for each in parameters}


@dataclass
class Sensor:
    """A Sensor and what it has heard so far."""

    name: str
    dependencies: tuple[Dependency, ...]
    resource: dict[str, Any]
    parameters: tuple[Parameter, ...]
    unsupported: tuple[str, ...]
    heard: dict[str, Event] = field(default_factory=dict)

    @classmethod
    def parse(cls, manifest: Mapping[str, Any]) -> Sensor:
        """Return the sensor that a manifest describes, or refuse what is not known.

        Raises
        ------
        UnknownToSensor
            With the name of the thing.
        """
        try:
            return cls._parse(manifest)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise UnknownToSensor(
                f"this Sensor, which is not one that Metaflow compiles "
                f"({type(error).__name__}: {error})"
            ) from error

    @classmethod
    def _parse(cls, manifest: Mapping[str, Any]) -> Sensor:
        spec = manifest["spec"]
        _only(
            spec,
            {"dependencies", "triggers", *_OF_THE_SENSOR_S_POD},
            "a Sensor's spec",
        )
        if len(spec["triggers"]) != 1:
            raise UnknownToSensor(f"a Sensor with {len(spec['triggers'])} triggers")
        _only(spec["triggers"][0], {"template"}, "a trigger")
        template = spec["triggers"][0]["template"]
        _only(template, {"name", "k8s", "argoWorkflow", "conditionsReset"}, "a trigger's template")
        action = template.get("k8s") or template.get("argoWorkflow") or {}
        details = {key: value for key, value in action.items() if _ACTION.get(key) != value}
        _only(details, {"operation", "source", "parameters"}, "a trigger's action")
        if action.get("operation", "create") not in ("create", "submit"):
            raise UnknownToSensor(f"the operation {action['operation']!r}")
        reset = template.get("conditionsReset")
        for each in reset or ():
            if not _is_cron(each["byTime"]["cron"]):
                raise UnknownToSensor(f"the cron expression {each['byTime']['cron']!r}")
        return cls(
            name=manifest["metadata"]["name"],
            dependencies=tuple(map(Dependency.parse, spec["dependencies"])),
            resource=action["source"]["resource"],
            parameters=tuple(map(Parameter.parse, action.get("parameters") or ())),
            unsupported=(f"conditionsReset {json.dumps(reset)}",) if reset else (),
        )

    @property
    def deployment(self) -> str:
        """The WorkflowTemplate that it starts."""
        return str(self.resource["spec"]["workflowTemplateRef"]["name"])

    @property
    def event_names(self) -> list[str]:
        """The names of the events that it waits for."""
        return [each.label for each in self.dependencies]

    @property
    def subscribes(self) -> bool:
        """Whether Argo's sensor hears anything at all."""
        return all(dependency.is_heard for dependency in self.dependencies)

    @property
    def waiting_for(self) -> list[str]:
        """The names of the events that it has not heard yet."""
        return [each.label for each in self.dependencies if each.name not in self.heard]

    def satisfied_by(self, event: Event) -> list[str]:
        """Return the names of the dependencies that an event satisfies."""
        return [each.name for each in self.dependencies if not each.failing(event)]

    def reason_to_drop(self, event: Event) -> str:
        """Return why it does not take an event that it waits for, "" where it does."""
        if not self.subscribes:
            return "is dead"
        if self.satisfied_by(event):
            return ""
        waiting = [each for each in self.dependencies if each.event_name in (event.name, None)]
        failing = [each for dependency in waiting for each in dependency.failing(event)]
        return f"asks that {', '.join(map(str, failing))}"

    def receive(self, event: Event) -> Decision:
        """Take an event, and say what it satisfied and which Workflow it starts.

        The latest event of each dependency counts; all are forgotten when the
        sensor fires.

        Raises
        ------
        UnknownToSensor
            Where Argo's value of a parameter is not known.
        """
        satisfied = self.satisfied_by(event)
        if not self.subscribes:
            return Decision(satisfied, None, [], [])
        self.heard.update(dict.fromkeys(satisfied, event))
        waiting_for = self.waiting_for
        if not satisfied or waiting_for:
            return Decision(satisfied, None, [], waiting_for)
        heard, self.heard = self.heard, {}
        events = list({id(event): event for event in heard.values()}.values())
        return Decision(satisfied, self._workflow(heard), events, [])

    def _workflow(self, heard: Mapping[str, Event]) -> dict[str, Any]:
        workflow = copy.deepcopy(self.resource)
        arguments = {
            argument["name"]: argument for argument in workflow["spec"]["arguments"]["parameters"]
        }
        for parameter in self.parameters:
            if parameter.argument not in arguments:
                raise UnknownToSensor(f"the destination {parameter.argument!r}")
            arguments[parameter.argument]["value"] = parameter.value(heard[parameter.dependency])
        return workflow


class Sensors:
    """The sensors of a cluster, found by the event that they wait for."""

    def __init__(self) -> None:
        self._by_name: dict[str, Sensor] = {}
        # Names of sensors, in the order of their deployment. Under None are those
        # that do not ask for the name of an event.
        self._by_event: dict[str | None, dict[str, None]] = {}

    def __iter__(self) -> Iterator[Sensor]:
        return iter(list(self._by_name.values()))

    def __getitem__(self, name: str) -> Sensor:
        return self._by_name[name]

    def add(self, sensor: Sensor) -> None:
        """Add a sensor, or put it in the place of the one with its name.

        One that waits for the same keeps what has been heard.
        """
        old = self.remove(sensor.name)
        if old and old.dependencies == sensor.dependencies:
            sensor.heard = old.heard
        self._by_name[sensor.name] = sensor
        for dependency in sensor.dependencies:
            self._by_event.setdefault(dependency.event_name, {})[sensor.name] = None

    def remove(self, name: str) -> Sensor | None:
        """Remove a sensor and return it, None where it is not there."""
        sensor = self._by_name.pop(name, None)
        for dependency in sensor.dependencies if sensor else ():
            self._by_event[dependency.event_name].pop(name, None)
        return sensor

    def waiting_for(self, event: Event) -> list[Sensor]:
        """Return the sensors that the event may satisfy."""
        name = event.name if isinstance(event.name, str) else None
        found = {**self._by_event.get(name, {}), **self._by_event.get(None, {})}
        return [self._by_name[each] for each in found]


def to_go_json(value: Any) -> str:
    """Return JSON as Go writes a decoded value: sorted keys, every number a float64."""
    if isinstance(value, Mapping):
        members = (f"{to_go_json(key)}:{to_go_json(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(to_go_json, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _go_number(value)
    text = json.dumps(value, ensure_ascii=False)
    # Half of a surrogate pair is no character, and Go decodes it to U+FFFD.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _go_number(value: float) -> str:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise UnknownToSensor("a number that does not fit a 64-bit float")
    in_full = number == 0 or 1e-6 <= abs(number) < 1e21
    return format(Decimal(repr(number)).normalize(), "f" if in_full else "e")


# The lowest and the highest of each field, and its names.
_CRON_FIELDS = (
    (0, 59, ""),
    (0, 23, ""),
    (1, 31, ""),
    (1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    (0, 6, "sun mon tue wed thu fri sat"),
)


def _is_cron(text: Any) -> bool:
    """Whether Argo Events parses it: five fields, no "@daily"."""
    fields = text.lower().split() if isinstance(text, str) else ()
    return len(fields) == len(_CRON_FIELDS) and all(map(_is_cron_field, fields, _CRON_FIELDS))


def _is_cron_field(field: str, limits: tuple[int, int, str]) -> bool:
    lowest, highest, names = limits
    numbers = {name: lowest + index for index, name in enumerate(names.split())}
    for part in field.split(","):
        match = re.fullmatch(r"(?:[*?]|(\w+)(?:-(\w+))?)(?:/0*[1-9]\d*)?", part, re.ASCII)
        given = [end for end in match.groups() if end] if match else [""]
        ends = [numbers.get(end, int(end) if end.isdigit() else -1) for end in given]
        if ends != sorted(ends) or any(not lowest <= end <= highest for end in ends):
            return False
    return True


def _only(mapping: Mapping[str, Any], known: set[str], what: str) -> None:
    unknown = sorted(key for key, value in mapping.items() if key not in known and value)
    if unknown:
        raise UnknownToSensor(f"{', '.join(map(repr, unknown))} in {what}")


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _refuse(constant: str) -> Any:
    raise ValueError(f"it has {constant}")


def _member(text: str, wanted: str) -> str:
    """Return the text of an object's first member of that name, as it was written."""
    decoder = json.JSONDecoder()

    def skip(position: int) -> int:
        match = _SPACE.match(text, position)
        assert match is not None  # the pattern matches the empty text
        return match.end()

    position = skip(0) + 1
    while True:
        key, position = decoder.raw_decode(text, skip(position))
        start = skip(skip(position) + 1)
        _, position = decoder.raw_decode(text, start)
        if key == wanted:
            return text[start:position]
        position = skip(position) + 1


def _compact(text: str) -> str:
    """Return JSON without spaces and with the characters escaped that Go escapes."""

    def replace(match: re.Match[str]) -> str:
        if not match[0].startswith('"'):
            return ""
        return re.sub("[<>&\u2028\u2029]", lambda found: _HTML[found[0]], match[0])

    return _STRING_OR_SPACE.sub(replace, text)
