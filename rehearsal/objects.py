"""The custom objects of a cluster, as the Kubernetes API keeps them."""

from __future__ import annotations

import random
import re
import string
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from .workflow import timestamp

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # an RFC 1123 subdomain
_SUFFIX = string.ascii_lowercase + string.digits

# Called with the kind of an object, what it is now (None if it was deleted) and what it was.
Changed = Callable[[str, dict[str, Any] | None, dict[str, Any] | None], None]


class ApiError(Exception):
    """A request that the Kubernetes API answers with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Objects:
    """Objects by namespace, kind and name.

    Parameters
    ----------
    changing : callable
        Called before a change, which it may reject with an ApiError.
    changed : callable
        Called after a change.
    """

    def __init__(self, changing: Changed, changed: Changed) -> None:
        self._changing = changing
        self._changed = changed
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._version = 0
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget all objects."""
        with self._lock:
            self._objects.clear()

    def get(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        """Return an object; one that is not there is an ApiError with the status 404."""
        with self._lock:
            try:
                return self._objects[namespace, plural, name]
            except KeyError:
                message = f'{plural}.argoproj.io "{name}" not found'
                raise ApiError(404, "NotFound", message) from None

    def list_all(self, namespace: str | None, plural: str) -> list[dict[str, Any]]:
        """Return all objects of a kind, in one namespace or in all of them."""
        with self._lock:
            return [
                item
                for (space, kind, _), item in self._objects.items()
                if kind == plural and namespace in (None, space)
            ]

    def create(self, namespace: str, plural: str, item: dict[str, Any]) -> dict[str, Any]:
        """Add an object."""
        metadata = item.setdefault("metadata", {})
        with self._lock:
            if "name" not in metadata:
                metadata["name"] = metadata["generateName"] + "".join(random.choices(_SUFFIX, k=5))
            name = metadata["name"]
            if not _NAME.fullmatch(name):
                message = f'{plural}.argoproj.io "{name}" has a name that is not valid'
                raise ApiError(422, "Invalid", message)
            if (namespace, plural, name) in self._objects:
                message = f'{plural}.argoproj.io "{name}" already exists'
                raise ApiError(409, "AlreadyExists", message)
            metadata["uid"] = str(uuid.uuid4())
            metadata["creationTimestamp"] = timestamp(time.time())
            return self._store(namespace, plural, item, None)

    def replace(
        self, namespace: str, plural: str, name: str, item: dict[str, Any]
    ) -> dict[str, Any]:
        """Replace an object, which must be the one that the caller has read."""
        with self._lock:
            present = self.get(namespace, plural, name)
            if item["metadata"].get("resourceVersion") != present["metadata"]["resourceVersion"]:
                message = f'{plural}.argoproj.io "{name}" has been changed meanwhile'
                raise ApiError(409, "Conflict", message)
            for key in ("name", "uid", "creationTimestamp"):
                item["metadata"][key] = present["metadata"][key]
            return self._store(namespace, plural, item, present)

    def patch(
        self, namespace: str, plural: str, name: str, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge changes into an object."""
        with self._lock:
            present = self.get(namespace, plural, name)
            merged: dict[str, Any] = _merge(present, changes)
            return self._store(namespace, plural, merged, present)

    def delete(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        """Remove an object."""
        with self._lock:
            item = self.get(namespace, plural, name)
            self._changing(plural, None, item)
            del self._objects[namespace, plural, name]
        self._changed(plural, None, item)
        return item

    def _store(
        self, namespace: str, plural: str, item: dict[str, Any], old: dict[str, Any] | None
    ) -> dict[str, Any]:
        self._version += 1
        item["metadata"].update(namespace=namespace, resourceVersion=str(self._version))
        self._changing(plural, item, old)
        self._objects[namespace, plural, item["metadata"]["name"]] = item
        self._changed(plural, item, old)
        return item


def _merge(item: Any, changes: Any) -> Any:
    if not isinstance(item, Mapping) or not isinstance(changes, Mapping):
        return changes
    merged = {key: value for key, value in item.items() if changes.get(key, 0) is not None}
    merged.update(
        (key, _merge(item.get(key), value)) for key, value in changes.items() if value is not None
    )
    return merged
