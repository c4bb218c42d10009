"""The expressions of a WorkflowTemplate: tags, what stands behind `=`, `when` and `depends`.

Argo Workflows v4.0.5 has three small languages: `{{name}}` is replaced by a value,
`{{=expression}}` and `depends` are expressions of expr-lang, `when` is one of govaluate.
Here is what Metaflow compiles of them; anything else is rejected by name.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

_TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+)|'(?P<single>[^'\\]*)'|\"(?P<double>[^\"\\]*)\""
    r"|(?P<word>[A-Za-z_][\w]*)|(?P<operator>\?\.|\?\?|==|!=|&&|\|\||[?:!()\[\].,]))"
)
_NAMES_OF_TASKS = re.compile(r"([A-Za-z0-9][\w-]*)\.(\w+)")
# What `depends` may ask of a task, and the phase that it means.
RESULTS = {
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Errored": "Error",
    "Skipped": "Skipped",
    "Omitted": "Omitted",
    "Daemoned": "Daemoned",  # which no task is
}
# Not there when a template is first read: what has them waits for a later replacement.
_KNOWN_LATER = ("item", "retries", "workflow.status", "workflow.failures")


class UnknownExpression(ValueError):
    """An expression that is not in the language that Metaflow compiles to."""


class CannotEvaluate(ValueError):
    """An expression that has no value, since something that it names is not there."""


class _Names:
    """The part of the flat names (`tasks.a.status`) that begins with a prefix."""

    def __init__(self, names: Mapping[str, Any], prefix: str) -> None:
        self.names = names
        self.prefix = prefix

    def member(self, name: str) -> Any:
        path = f"{self.prefix}.{name}"
        if path in self.names:
            return self.names[path]
        if any(each.startswith(f"{path}.") for each in self.names):
            return _Names(self.names, path)
        return None


def _to_base64(text: Any) -> str:
    if not isinstance(text, str):
        raise CannotEvaluate("toBase64 of what is no text")
    return base64.b64encode(text.encode()).decode()


def _to_int(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise CannotEvaluate(f"{value!r} is no number") from error


def _get(of: Any, name: str) -> Any:
    return of.member(name) if isinstance(of, _Names) else None


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "toBase64": _to_base64,
    "asInt": _to_int,
    "sprig.int": _to_int,
    "sprig.sub": lambda first, second: _to_int(first) - _to_int(second),
    "get": _get,
}


class _Parser:
    """Evaluates while it parses; both sides of a condition are parsed, one counts."""

    def __init__(self, text: str, names: Mapping[str, Any]) -> None:
        self.text = text
        self.names = names
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if not match or not match.lastgroup:
                raise UnknownExpression(f"the expression {text!r}")
            kind = {"single": "text", "double": "text"}.get(match.lastgroup, match.lastgroup)
            self.tokens.append((kind, match[match.lastgroup]))
            position = match.end()
        self.tokens.append(("end", ""))

    def evaluate(self) -> Any:
        value = self.ternary()()
        self.expect("")
        return value

    def take(self, *operators: str) -> str:
        kind, text = self.tokens[0]
        if kind == "operator" and text in operators:
            del self.tokens[0]
            return text
        return ""

    def expect(self, operator: str) -> None:
        if self.tokens[0][1] != operator:
            raise UnknownExpression(f"the expression {self.text!r}")
        if operator:
            del self.tokens[0]

    # Each of these returns a function that gives the value, so that a side that does not
    # count may name what is not there.

    def ternary(self) -> Callable[[], Any]:
        condition = self.either()
        if not self.take("?"):
            return condition
        yes = self.ternary()
        self.expect(":")
        no = self.ternary()
        return lambda: yes() if condition() else no()

    def either(self) -> Callable[[], Any]:
        left = self.both()
        while self.take("||"):
            left = (lambda first, second: lambda: first() or second())(left, self.both())
        return left

    def both(self) -> Callable[[], Any]:
        left = self.comparison()
        while self.take("&&"):
            left = (lambda first, second: lambda: first() and second())(left, self.comparison())
        return left

    def comparison(self) -> Callable[[], Any]:
        left = self.fallback()
        operator = self.take("==", "!=")
        if not operator:
            return left
        right = self.fallback()
        return lambda: (left() == right()) == (operator == "==")

    def fallback(self) -> Callable[[], Any]:
        values = [self.unary()]
        while self.take("??"):
            values.append(self.unary())

        def first_that_is_there() -> Any:
            return next((value for each in values if (value := each()) is not None), None)

        return first_that_is_there if len(values) > 1 else values[0]

    def unary(self) -> Callable[[], Any]:
        if self.take("!"):
            operand = self.unary()
            return lambda: not operand()
        return self.path()

    def path(self) -> Callable[[], Any]:
        kind, text = self.tokens.pop(0)
        if kind == "number":
            return lambda: int(text)
        if kind == "text":
            return lambda: text
        if (kind, text) == ("operator", "("):
            value = self.ternary()
            self.expect(")")
            return self.members(value)
        if kind != "word":
            raise UnknownExpression(f"the expression {self.text!r}")
        if text in ("true", "false", "nil"):
            return lambda: {"true": True, "false": False}.get(text)
        if text == "sprig" and self.take("."):
            text = f"sprig.{self.tokens.pop(0)[1]}"
        if self.take("("):
            return self.members(self.call(text))
        return self.members(lambda: self.name(text))

    def name(self, text: str) -> Any:
        if text in self.names:
            return self.names[text]
        return _Names(self.names, text)

    def call(self, name: str) -> Callable[[], Any]:
        if name not in _FUNCTIONS:
            raise UnknownExpression(f"the function {name!r}")
        arguments = []
        while not self.take(")"):
            arguments.append(self.ternary())
            self.take(",")
        return lambda: _FUNCTIONS[name](*(each() for each in arguments))

    def members(self, value: Callable[[], Any]) -> Callable[[], Any]:
        while operator := self.take(".", "?.", "["):
            kind, name = self.tokens.pop(0)
            if kind not in ("word", "text"):
                raise UnknownExpression(f"the expression {self.text!r}")
            if operator == "[":
                self.expect("]")
            value = self.member(value, name, is_optional=operator == "?.")
        return value

    def member(self, of: Callable[[], Any], name: str, *, is_optional: bool) -> Callable[[], Any]:
        def get() -> Any:
            value = of()
            if value is None and is_optional:
                return None
            if not isinstance(value, _Names):
                raise CannotEvaluate(f"{self.text!r} asks for {name!r} of what is not there")
            return value.member(name)

        return get


def evaluate(text: str, names: Mapping[str, Any]) -> Any:
    """Return the value of an expr-lang expression.

    Parameters
    ----------
    text : str
        The expression, for example `tasks['a'].status == 'Succeeded'`.
    names : mapping of str
        What it may name, flat: `tasks.a.status`.

    Raises
    ------
    UnknownExpression
        If it is not in the language that Metaflow compiles to.
    CannotEvaluate
        If something that it needs is not there.
    """
    value = _Parser(text, names).evaluate()
    return None if isinstance(value, _Names) else value


def replace(item: Any, names: Mapping[str, str], required: tuple[str, ...] = ()) -> Any:
    """Return an object with the tags in its texts replaced; unknown ones stay.

    Raises
    ------
    CannotEvaluate
        If a tag begins with one of the prefixes that are required and is not known.
    """

    def value(match: re.Match[str]) -> str:
        tag = match[1].strip()
        if tag in names:
            return names[tag]
        if tag.startswith("="):
            return _replacement(match[0], tag[1:], names)
        if tag.startswith(required) and required:
            raise CannotEvaluate(f"failed to resolve {match[0]}")
        return match[0]

    if isinstance(item, str):
        return _TAG.sub(value, item) if "{{" in item else item
    if isinstance(item, Mapping):
        return {key: replace(each, names, required) for key, each in item.items()}
    if isinstance(item, list):
        return [replace(each, names, required) for each in item]
    return item


def _replacement(tag: str, expression: str, names: Mapping[str, str]) -> str:
    if any(word in expression and word not in names for word in _KNOWN_LATER):
        return tag
    try:
        value = evaluate(expression, names)
    except CannotEvaluate:
        return tag
    if value is None:
        return tag
    return value if isinstance(value, str) else json.dumps(value)


def tags(item: Any) -> list[str]:
    """Return all tags in the texts of an object, without their brackets."""
    if isinstance(item, str):
        return [each.strip() for each in _TAG.findall(item)]
    values = item.values() if isinstance(item, Mapping) else item
    return [tag for each in values for tag in tags(each)] if isinstance(item, (dict, list)) else []


def is_true(condition: str) -> bool:
    """Return whether a `when`, its tags replaced, holds; a bare word is a text there."""

    class _Words(dict[str, str]):
        def __missing__(self, name: str) -> str:
            return name

        def __contains__(self, name: object) -> bool:
            return True

    value = evaluate(condition, _Words())
    if not isinstance(value, bool):
        raise CannotEvaluate(f"Expected boolean evaluation for '{condition}'. Got {value}")
    return value


def dependencies(depends: str) -> list[str]:
    """Return the names of the tasks that a `depends` asks about."""
    return list(dict.fromkeys(name for name, _ in _NAMES_OF_TASKS.findall(depends)))


def depends_holds(depends: str, phases: Mapping[str, str]) -> bool:
    """Return whether a `depends` holds, given the phases of the tasks that it names."""
    names = {
        f"{task.replace('-', '_')}.{result}": phases[task] == phase
        for task in phases
        for result, phase in RESULTS.items()
    }
    for _, result in _NAMES_OF_TASKS.findall(depends):
        if result not in RESULTS:
            raise UnknownExpression(f"{result!r} in depends")
    return evaluate(_NAMES_OF_TASKS.sub(_with_underscores, depends), names) is True


def _with_underscores(match: re.Match[str]) -> str:
    return match[0].replace("-", "_")
