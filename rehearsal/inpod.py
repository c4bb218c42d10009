"""Inside of a pod: what a Python there has to know, beside its environment.

It is loaded in each Python of a pod, by its fork server or as its sitecustomize, and
imports nothing of Metaflow.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

# The volume through which a pod tells Argo what comes next.
VOLUME = "/mnt/out/"
FOLDER_VARIABLE = "REHEARSAL_MNT_OUT"
# What each pod has of its own, though Metaflow reads it while it is imported.
OWN_SETTING = "METAFLOW_SERVICE_HEADERS"


def open_in_volume(file: Any, *args: Any, **kwargs: Any) -> Any:
    """Open a file, one of the volume in the folder that stands for it."""
    if isinstance(file, str) and file.startswith(VOLUME):
        file = os.path.join(os.environ[FOLDER_VARIABLE], file[len(VOLUME) :])
    return io.open(file, *args, **kwargs)  # noqa: UP020 (open is this function)


def prepare() -> None:
    """Make this Python one of a pod."""
    builtins.open = open_in_volume


def prepare_server() -> Callable[[], None]:
    """Return what makes a fork of a Python that has imported Metaflow one of a pod.

    The code package has the same Metaflow, else there is no fork. So its files are those
    that Metaflow finds, and what is imported from now on comes from there.
    """
    metaflow = sys.modules["metaflow"]
    installed = os.path.dirname(metaflow.__file__ or "")
    own = [(name, each) for name, each in sys.modules.items() if name.startswith("metaflow")]
    paths: list[Any] = [each.__path__ for _, each in own if hasattr(each, "__path__")]

    def prepare_fork() -> None:
        prepare()
        config = sys.modules["metaflow.metaflow_config"]
        config.SERVICE_HEADERS.update(json.loads(os.environ[OWN_SETTING]))
        package = next(filter(os.path.isdir, map(_metaflow_in, sys.path)), "")
        if not package or package == installed:
            return  # what comes before the code package is there
        for module in (metaflow, sys.modules["metaflow.util"]):
            module.__file__ = package + (module.__file__ or "")[len(installed) :]
        for path in paths:
            path[:] = [package + each[len(installed) :] for each in path]
        # What Metaflow has looked for beside its modules while they were elsewhere.
        content = sys.modules["metaflow.packaging_sys"].MetaflowCodeContent
        content._cached_mfcontent_info.clear()

    return prepare_fork


def _metaflow_in(folder: str) -> str:
    return os.path.join(folder or os.getcwd(), "metaflow")


if __name__ == "sitecustomize":
    prepare()
