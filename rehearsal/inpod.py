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


def prepare_fork() -> None:
    """Do the same in a fork of a Python that has imported Metaflow elsewhere.

    The code package has the same Metaflow, else there is no fork: so its modules are
    those of the package, and what is imported from now on comes from there.
    """
    prepare()
    config = sys.modules["metaflow.metaflow_config"]
    config.SERVICE_HEADERS.update(json.loads(os.environ[OWN_SETTING]))
    package = next(filter(os.path.isdir, map(_metaflow_in, sys.path)), "")
    installed = os.path.dirname(sys.modules["metaflow"].__file__ or "")
    if not package or package == installed:
        return  # what comes before the code package is there
    own = [module for name, module in sys.modules.items() if name.startswith("metaflow")]
    for module in own:
        file = getattr(module, "__file__", None)
        if file and file.startswith(installed):
            module.__file__ = package + file[len(installed) :]
            if hasattr(module, "__path__"):
                module.__path__ = [os.path.dirname(module.__file__)]
    # What Metaflow has looked for beside its modules while they were elsewhere.
    content = sys.modules["metaflow.packaging_sys"].MetaflowCodeContent
    content._cached_mfcontent_info.clear()


def _metaflow_in(folder: str) -> str:
    return os.path.join(folder or os.getcwd(), "metaflow")


if __name__ == "sitecustomize":
    prepare()
