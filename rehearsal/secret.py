"""The secrets: what `--secret NAME=FILE` gives to the pods that refer to it.

Nothing here, nor anything that is said of it, shows a value.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Secrets = Mapping[str, Mapping[str, str]]

_KEY = re.compile(r"[-._a-zA-Z0-9]+")  # of a Secret of Kubernetes


class Secret(dict[str, str]):
    """The variables of a secret, which has a name."""

    def __init__(self, name: str, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.name = name

    def __repr__(self) -> str:
        return f"<the secret {self.name!r}>"


def read(text: str) -> Secret:
    """Read what `NAME=FILE` says: a secret, whose file has lines KEY=VALUE.

    Values are literal, as `kubectl create secret --from-env-file` takes them.

    Raises
    ------
    argparse.ArgumentTypeError
        If there is no secret in it.
    """
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError("it must be NAME=FILE, with a name and a file")
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        # Without its path, which may be a value by mistake.
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise argparse.ArgumentTypeError(f"the file of {name} cannot be read: {reason}") from None
    variables = {}
    for number, line in enumerate(map(str.lstrip, lines), 1):
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not _KEY.fullmatch(key):  # which may be a part of a value
            raise argparse.ArgumentTypeError(
                f"line {number} of the file of {name} must be KEY=VALUE, where KEY has letters, "
                "digits, _, - and . only"
            )
        variables[key] = value
    return Secret(name, variables)


def named(secrets: Sequence[Secret]) -> Secrets:
    """Return secrets by their names.

    Raises
    ------
    ValueError
        If two have the same.
    """
    by_name = {each.name: each for each in secrets}
    for each in secrets:
        if by_name[each.name] is not each:
            raise ValueError(f"--secret {each.name} must be given once, not more than once")
    return by_name


def names(container: Mapping[str, Any]) -> Iterator[str]:
    """Return the names of the secrets that a container takes its variables from."""
    for source in container.get("envFrom") or ():
        yield source["secretRef"]["name"]


def variables(container: Mapping[str, Any], secrets: Secrets) -> dict[str, str]:
    """Return the variables that a container takes from secrets; a later one wins."""
    return {key: value for name in names(container) for key, value in secrets.get(name, {}).items()}
