from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import Workbench

from namespaced_trigger import NamespacedTriggerException, namespaced_trigger

event_name = namespaced_trigger.event_name


@pytest.fixture(autouse=True)
def alice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAFLOW_OWNER", "alice")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"branch": "bar", "production": True}, "foo.prod.bar.food"),
        ({"branch": "bar"}, "foo.test.bar.food"),
        ({"production": True}, "foo.prod.food"),
        ({"user": "jane"}, "foo.user.jane.food"),
        ({}, "foo.user.alice.food"),
    ],
)
def test_a_name_is_the_namespace_of_project_and_the_event(
    arguments: dict[str, Any], name: str
) -> None:
    assert event_name("food", project="foo", **arguments) == name


def test_characters_that_names_cannot_have_go_with_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = event_name("frésh food/v2.1-a_b\n", project="foo", production=True)
    assert name == "foo.prod.frshfoodv2.1-a_b"
    assert capsys.readouterr().err == (
        "Namespaced trigger warning: 'foo.prod.frésh food/v2.1-a_b\\n' has characters that event "
        "names cannot have; the event is 'foo.prod.frshfoodv2.1-a_b'.\n"
    )


@pytest.mark.parametrize(
    ("event", "arguments", "message"),
    [
        (
            "food",
            {"project": ""},
            "The project's name must be text, for example \"my_project\", not ''.",
        ),
        ("food", {"project": "Foo"}, "@project rejects name='Foo'"),
        (
            "food",
            {"project": "2fast", "production": True},
            "Argo Events never hears '2fast.prod.food'",
        ),
        (
            "",
            {"project": "foo"},
            "An event's name must be text with letters, for example \"food\", not ''.",
        ),
        (5, {"project": "foo"}, 'for example "food", not 5.'),
        (
            "food",
            {"project": "foo", "production": "yes"},
            "production must be true or false, without quotes, not 'yes'.",
        ),
        (
            "food",
            {"project": "foo", "branch": ""},
            "The branch must be text, for example \"my_branch\", not ''.",
        ),
        (
            "food",
            {"project": "foo", "branch": "a", "user": "jane"},
            "user= must be given without branch= and production=.",
        ),
        (
            "food",
            {"project": "foo", "production": True, "user": "jane"},
            "user= must be given without branch= and production=.",
        ),
        (
            "food",
            {"project": "foo", "user": ""},
            "user must be text, for example \"jane\", not ''.",
        ),
        *(
            (
                "food",
                {"project": "foo", "user": user},
                f"The user's name must have a letter (a to z), digit or underscore, not {user!r}.",
            )
            for user in ("李", "..-", "é@")
        ),
        ("food", {"project": "foo", "user": " "}, "digit or underscore, not ' '."),
        ("food", {}, "No flow with a project is running."),
    ],
)
def test_what_could_not_be_heard_has_no_name(
    event: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(NamespacedTriggerException) as refusal:
        event_name(event, **arguments)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("event", "namespace", "message"),
    [
        ("foo.prod.bar.food", {"branch": "bar", "production": True}, "has a namespace already."),
        ("foo.user.janex.com.food", {"user": "jane@x.com"}, "Write what follows it."),
        ("foo.prod.bar.food", {"branch": "bar"}, "The event 'foo.prod.bar.food' has a"),
        ("mfns.foo.user.jane.food", {"production": True}, "has a namespace already."),
    ],
)
def test_an_event_with_a_namespace_of_its_project_gets_no_other(
    event: str, namespace: dict[str, Any], message: str
) -> None:
    with pytest.raises(NamespacedTriggerException, match=re.escape(message)):
        event_name(event, project="foo", **namespace)


@pytest.mark.parametrize("event", ["foo.food", "prod.food", "other.prod.food", "x.foo.prod.food"])
def test_an_event_may_have_dots(event: str) -> None:
    assert event_name(event, project="foo", branch="bar") == f"foo.test.bar.{event}"


def test_without_a_project_the_name_is_that_of_the_running_flow(bench: Workbench) -> None:
    flow = bench.flow(
        start="""
        from metaflow.exception import MetaflowException

        name = namespaced_trigger.event_name
        print(name("food"), name("food", branch="other"), name("food", user="jane"))
        print(name("food", project="other"), name("food", project="foo", production=True))
        for given in ({"user": ""}, {"branch": ""}, {"production": None}):
            try:
                name("food", **given)
            except MetaflowException as refusal:
                print("refused", given)
        """
    )
    result = bench.run_locally(flow, "--branch", "bar", "--production")
    for line in (
        "foo.prod.bar.food foo.test.other.food foo.user.jane.food",
        "other.prod.bar.food foo.prod.food",
        "refused {'user': ''}",
        "refused {'branch': ''}",
        "refused {'production': None}",
    ):
        assert f" {line}\n" in result.stdout


def test_the_current_user_is_needed_for_a_user_branch_alone(bench: Workbench) -> None:
    for name in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"):
        bench.variables[name] = "(unset)"
    result = bench.script(
        """
        from namespaced_trigger import namespaced_trigger as t
        print(t.event_name("food", project="foo", user="jane"))
        t.event_name("food", project="foo")
        """
    )
    assert result.stdout == "foo.user.jane.food\n"
    assert "Set METAFLOW_USER, or give a branch." in result.stderr
