"""`--secret NAME=FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from rehearsal import secret


def test_a_file_has_a_variable_in_each_line(tmp_path: Path) -> None:
    file = tmp_path / "file=1"
    file.write_text("# A=0\n\n  A=1\nB= two = 2 # too\nC=\n")
    read = secret.read(f"name={file}")
    assert (read.name, dict(read)) == ("name", {"A": "1", "B": " two = 2 # too", "C": ""})
    assert repr(read) == "<the secret 'name'>"


@pytest.mark.parametrize("text", ["", "name", "name=", "=file"])
def test_what_is_no_name_and_file_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be NAME=FILE"):
        secret.read(text)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "the file of name cannot be read: No such file or directory"),
        (b"A=\xff", "the file of name cannot be read: it is not UTF-8"),
        (b"A=1\nhush\n", "line 2 of the file of name must be KEY=VALUE, where KEY has letters"),
        (b"export HUSH=hush", "line 1 of the file of name must be KEY=VALUE"),
        (b"=hush", "line 1 of the file of name must be KEY=VALUE"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_without_a_value(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "hush"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(argparse.ArgumentTypeError, match=problem) as refused:
        secret.read(f"name={file}")
    assert "hush" not in str(refused.value).lower()


def test_a_name_is_given_once() -> None:
    one, other = secret.Secret("a", {}), secret.Secret("b", {"A": "1"})
    assert secret.named([one, other]) == {"a": {}, "b": {"A": "1"}}
    with pytest.raises(ValueError, match="--secret a must be given once"):
        secret.named([one, secret.Secret("a", {})])


def test_a_container_has_the_variables_of_its_secrets_and_a_later_one_wins() -> None:
    container = {"envFrom": [{"secretRef": {"name": name}} for name in ("a", "b", "none")]}
    secrets = {"a": {"A": "1", "B": "1"}, "b": {"B": "2"}, "c": {"C": "3"}}
    assert secret.variables(container, secrets) == {"A": "1", "B": "2"}
    assert secret.variables({}, secrets) == {}
