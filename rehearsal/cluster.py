"""The cluster: its objects, its event bus, and what one does to the other."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import jobset, workflow
from .objects import ApiError, Objects
from .sensor import Event, NotAnEvent, Sensor, Sensors, UnknownToSensor

NAMESPACE = "default"
# Metaflow publishes an event after each step, for @trigger_on_finish, and says so in it.
_AUTOMATIC_KEY = "auto-generated-by-metaflow"


class EventRefused(Exception):
    """An event that the webhook answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class Publication:
    """An event that the webhook took, and what became of it."""

    event: Event
    publisher: str | None  # the Workflow that published it, None for the command
    listeners: list[str] = field(default_factory=list)  # sensors that heard it
    dropped: dict[str, str] = field(default_factory=dict)  # sensors that wait for its name, why
    started: list[str] = field(default_factory=list)  # Workflows that it started
    lost: dict[str, str] = field(default_factory=dict)  # sensors that could not start one, why


class Observer:
    """What happens in a cluster; the rehearsal acts on it."""

    def deployed(self, template: Mapping[str, Any], sensor: Sensor | None) -> None:
        """Take note of a WorkflowTemplate and its Sensor."""

    def created(self, item: dict[str, Any], publications: list[Publication]) -> None:
        """Run a Workflow that a person triggered, or that events started."""

    def changed(self, item: dict[str, Any]) -> None:
        """Suspend, resume or end a Workflow, as its spec says now."""

    def status(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return the `status` of a Workflow as it is now."""
        status: dict[str, Any] = item["status"]
        return status

    def published(self, publication: Publication) -> None:
        """Take note of an event, before it starts anything."""

    def settled(self, publication: Publication) -> None:
        """Take note of what an event has come to."""

    def refused(self, event: str, publisher: str | None, reason: str) -> None:
        """Take note of an event that the webhook did not take, and why."""


@dataclass
class Faults:
    """What goes wrong on purpose."""

    webhook_status: int | None = None  # what the webhook answers to every event
    creations: int = 0  # how many of the next Workflows that events start cannot be created


class Cluster:
    """The custom objects and the event bus of a rehearsal."""

    def __init__(self, observer: Observer, faults: Faults) -> None:
        self.faults = faults
        self.observer = observer
        self.token = secrets.token_hex(16)  # of the command; each Workflow has its own
        self.objects = Objects(self._check, self._act)
        self.publications: list[Publication] = []
        self.sensors = Sensors()
        self._publishers: dict[str, str] = {}  # the Workflows by their tokens
        self._publication_of: dict[int, Publication] = {}  # by the id() of the event
        self._lock = threading.RLock()

    def clear(self) -> None:
        """Forget all objects and events, as a new cluster would."""
        with self._lock:
            self.objects.clear()
            self.publications.clear()
            self.sensors = Sensors()
            self._publication_of.clear()

    def read(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        """Return an object as it is now."""
        item = self.objects.get(namespace, plural, name)
        return {**item, "status": self.observer.status(item)} if plural == "workflows" else item

    def token_of(self, name: str) -> str:
        """Return a new token, by which a Workflow is known as a publisher."""
        token = secrets.token_hex(16)
        self._publishers[token] = name
        return token

    def publisher(self, token: str) -> str | None:
        """Return the Workflow with a token, None for the command."""
        return self._publishers.get(token)

    def knows(self, token: str) -> bool:
        """Whether a token is one of this cluster's."""
        return secrets.compare_digest(token.encode(), self.token.encode()) or (
            token in self._publishers
        )

    def publish(self, body: bytes, publisher: str | None) -> None:
        """Give an event to each sensor, and create the Workflows that it starts.

        Raises
        ------
        EventRefused
            If the webhook does not take it.
        """
        try:
            event = Event.parse(body)
        except (NotAnEvent, UnknownToSensor) as problem:
            self.observer.refused("an event", publisher, str(problem))
            raise EventRefused(400, str(problem)) from problem
        publication = Publication(event, publisher)
        to_create: list[tuple[Sensor, dict[str, Any], list[Publication]]] = []
        with self._lock:
            waiting = self.sensors.waiting_for(event)
            is_asked_for = waiting or _AUTOMATIC_KEY not in event.payload
            if status := self.faults.webhook_status:
                reason = f"the webhook answered {status}, on purpose"
                if is_asked_for:
                    self.observer.refused(str(event.name), publisher, reason)
                raise EventRefused(status, reason)
            if not is_asked_for:
                return
            self._publication_of[id(event)] = publication
            for sensor in waiting:
                if reason := sensor.reason_to_drop(event):
                    publication.dropped[sensor.name] = reason
                    continue
                publication.listeners.append(sensor.name)
                try:
                    decision = sensor.receive(event)
                except UnknownToSensor as unknown:
                    publication.lost[sensor.name] = f"the rehearsal does not support {unknown}"
                    continue
                if decision.workflow is not None:
                    causes = [self._publication_of[id(cause)] for cause in decision.events]
                    to_create.append((sensor, decision.workflow, causes))
            self.publications.append(publication)
        self.observer.published(publication)
        for sensor, item, causes in to_create:
            try:
                self._fail_on_purpose()
                self._create_workflow(item, causes)
            except ApiError as refused:
                publication.lost[sensor.name] = str(refused)  # as in Argo, the event is gone
        self.observer.settled(publication)

    def _create_workflow(self, item: dict[str, Any], causes: list[Publication]) -> None:
        with self._lock:
            self._causes = causes
            self.objects.create(item["metadata"]["namespace"], "workflows", item)

    _causes: list[Publication] | None = None

    def _fail_on_purpose(self) -> None:
        with self._lock:
            if self.faults.creations:
                self.faults.creations -= 1
                raise ApiError(
                    500, "InternalError", "the Workflow could not be created, on purpose"
                )

    def _check(self, plural: str, item: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
        """Reject an object that the rehearsal cannot treat as Argo does."""
        if item is None:
            return
        name = item["metadata"]["name"]
        try:
            if plural == "sensors":
                Sensor.parse(item)
            elif plural == "workflowtemplates":
                workflow.check(item)
                jobset.check(item)
        except (UnknownToSensor, workflow.UnknownTemplate) as unknown:
            kind = plural.removesuffix("s").capitalize()
            message = f"the rehearsal does not support {unknown} ({kind} {name})"
            raise ApiError(422, "Invalid", message) from unknown
        if plural == "workflows" and old is None:
            reference = item["spec"]["workflowTemplateRef"]["name"]
            namespace = item["metadata"]["namespace"]
            template = self.objects.get(namespace, "workflowtemplates", reference)
            # Argo copies these from the template; Metaflow reads them back.
            metadata = template["spec"].get("workflowMetadata", {})
            item["metadata"]["annotations"] = {
                **metadata.get("annotations", {}),
                **item["metadata"].get("annotations", {}),
            }
            item["status"] = {"phase": "Pending", "finishedAt": None}

    def _act(self, plural: str, item: dict[str, Any] | None, old: dict[str, Any] | None) -> None:
        if plural == "workflowtemplates" and item:
            self.observer.deployed(item, None)
        elif plural == "sensors" and item:
            sensor = Sensor.parse(item)
            self.sensors.add(sensor)
            self.observer.deployed(item, sensor)
        elif plural == "sensors" and old:
            self.sensors.remove(old["metadata"]["name"])
        elif plural == "workflows" and item and old:
            self.observer.changed(item)
        elif plural == "workflows" and item:
            causes, self._causes = self._causes or [], None
            for publication in causes:
                publication.started.append(item["metadata"]["name"])
            self.observer.created(item, causes)
