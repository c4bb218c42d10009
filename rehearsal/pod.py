"""The pod: loaded by a rehearsed run, for what only a pod has.

A run gets a copy of this file on its path and `--with rehearsal_pod.inside_pod`.
"""

from __future__ import annotations

import builtins
import os
from typing import Any

from metaflow import StepMutator
from metaflow.packaging_sys import distribution_support
from metaflow.plugins.argo import argo_workflows_decorator

# Decorators that move a step to a cluster. In a pod it has arrived there already.
MOVING_DECORATORS = ("kubernetes", "batch")


def _open(path: str, *args: Any) -> Any:
    name = os.path.basename(path)
    return builtins.open(os.path.join(os.environ["REHEARSAL_MNT_OUT"], name), *args)


# Metaflow's step decorator fills `current.trigger` and publishes the events that
# @trigger_on_finish hears. It also tells Argo what comes next, in /mnt/out, a volume
# that its pods have; nothing else in that module opens a file.
setattr(argo_workflows_decorator, "open", _open)  # noqa: B010 (the module has no such name)

# `run` makes a code package of its own, and fails where a module of this one is installed
# on this machine as well: it looks for the module's distribution. A pod has none.
distribution_support._cached_distributions = {}


class inside_pod(StepMutator):
    """Keep every step on this machine."""

    def mutate(self, mutable_step: Any) -> None:
        """Remove the decorators that would send the step to a cluster."""
        for name in MOVING_DECORATORS:
            mutable_step.remove_decorator(name)
