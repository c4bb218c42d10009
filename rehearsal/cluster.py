"""The cluster: a stand-in on 127.0.0.1 for what Metaflow talks to.

One server speaks the Kubernetes API (custom objects of argoproj.io), S3 (the code
packages) and the webhook of Argo Events. What it holds, it holds in memory.
"""

from __future__ import annotations

import hmac
import json
import random
import re
import secrets
import string
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .sensor import Event, NotAnEvent, Sensor, Sensors, UnknownToSensor

BUCKET = "rehearsal"
NAMESPACE = "default"
WEBHOOK_PATH = "/metaflow-event"  # the names of Metaflow's own Argo stack
PUBLISHER_HEADER = "X-Rehearsal-Workflow"

_API = re.compile(
    r"/apis/argoproj\.io/v1alpha1/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<plural>workflowtemplates|workflows|sensors|cronworkflows)(?:/(?P<name>[^/]+))?"
)
_XML_UPLOAD = (
    b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
)
_XML_COMPLETE = b"<CompleteMultipartUploadResult/>"
_XML_NO_KEY = b"<Error><Code>NoSuchKey</Code></Error>"
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")  # an RFC 1123 subdomain
# Metaflow publishes an event after each step, for @trigger_on_finish, and says so in it.
_AUTOMATIC_KEY = "auto-generated-by-metaflow"
_NAME_SUFFIX = string.ascii_lowercase + string.digits


class Refused(Exception):
    """A request that Kubernetes answers with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class EventRefused(Exception):
    """An event that the webhook answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
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

    def created(self, workflow: dict[str, Any], publications: list[Publication]) -> None:
        """Run a Workflow that a person triggered, or that events started."""

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
    """The custom objects, code packages and sensors of a rehearsal."""

    def __init__(self, observer: Observer, faults: Faults) -> None:
        self.faults = faults
        self.token = secrets.token_hex(16)
        self.observer = observer
        self.packages: dict[str, bytes] = {}
        self.publications: list[Publication] = []
        self.sensors = Sensors()
        self._publication_of: dict[int, Publication] = {}  # by the id() of the event
        self._objects: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._version = 0
        self._lock = threading.RLock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.cluster = self

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Answer requests for the time of the context."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def clear(self) -> None:
        """Forget all objects, events and code packages, as a new cluster would."""
        with self._lock:
            self.packages.clear()
            self.publications.clear()
            self.sensors = Sensors()
            self._publication_of.clear()
            self._objects.clear()

    def get(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        """Return a custom object, or refuse with 404 where there is none."""
        with self._lock:
            try:
                return self._objects[namespace, plural, name]
            except KeyError:
                raise Refused(404, "NotFound", f'{plural}.argoproj.io "{name}" not found') from None

    def list_all(self, namespace: str, plural: str) -> list[dict[str, Any]]:
        """Return all objects of a kind."""
        with self._lock:
            return [
                item
                for (space, kind, _), item in self._objects.items()
                if (space, kind) == (namespace, plural)
            ]

    def create(
        self,
        namespace: str,
        plural: str,
        item: dict[str, Any],
        publications: list[Publication] | None = None,
    ) -> dict[str, Any]:
        """Add an object; a Workflow starts, a Sensor subscribes."""
        metadata = item.setdefault("metadata", {})
        with self._lock:
            if "name" not in metadata:
                suffix = "".join(random.choices(_NAME_SUFFIX, k=5))
                metadata["name"] = metadata["generateName"] + suffix
            name = metadata["name"]
            if not _OBJECT_NAME.fullmatch(name):
                raise Refused(
                    422, "Invalid", f'{plural}.argoproj.io "{name}" has a name that is not valid'
                )
            if (namespace, plural, name) in self._objects:
                raise Refused(409, "AlreadyExists", f'{plural}.argoproj.io "{name}" already exists')
            if plural == "workflows":
                reference = item["spec"]["workflowTemplateRef"]["name"]
                template = self.get(namespace, "workflowtemplates", reference)
                # Argo copies these from the template; Metaflow reads them back.
                metadata["annotations"] = {
                    **template["spec"].get("workflowMetadata", {}).get("annotations", {}),
                    **metadata.get("annotations", {}),
                }
                item["status"] = {"phase": "Pending", "finishedAt": None}
                for publication in publications or []:
                    publication.started.append(name)
            self._store(namespace, plural, item)
        if plural == "workflows":
            self.observer.created(item, publications or [])
        return item

    def replace(
        self, namespace: str, plural: str, name: str, item: dict[str, Any]
    ) -> dict[str, Any]:
        """Replace an object, which must be the one that the caller has read."""
        _refuse_change(plural, name)
        with self._lock:
            present = self.get(namespace, plural, name)["metadata"]["resourceVersion"]
            if item["metadata"].get("resourceVersion") != present:
                raise Refused(
                    409, "Conflict", f'{plural}.argoproj.io "{name}" has been changed meanwhile'
                )
            item["metadata"]["name"] = name
            return self._store(namespace, plural, item)

    def patch(
        self, namespace: str, plural: str, name: str, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge changes into an object."""
        _refuse_change(plural, name)
        with self._lock:
            merged = _merge(self.get(namespace, plural, name), changes)
            return self._store(namespace, plural, merged)

    def delete(self, namespace: str, plural: str, name: str) -> dict[str, Any]:
        """Remove an object; a Sensor hears nothing any more."""
        _refuse_change(plural, name)
        with self._lock:
            item = self.get(namespace, plural, name)
            del self._objects[namespace, plural, name]
            if plural == "sensors":
                self.sensors.remove(name)
            return item

    def publish(self, body: bytes, publisher: str | None) -> None:
        """Give an event to each sensor, and create the Workflows that it starts.

        Raises
        ------
        EventRefused
            Where the webhook does not take it.
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
                    publication.lost[sensor.name] = f"the rehearsal cannot act out {unknown}"
                    continue
                if decision.workflow is not None:
                    causes = [self._publication_of[id(cause)] for cause in decision.events]
                    to_create.append((sensor, decision.workflow, causes))
            self.publications.append(publication)
        self.observer.published(publication)
        for sensor, workflow, causes in to_create:
            try:
                self._fail_on_purpose()
                self.create(workflow["metadata"]["namespace"], "workflows", workflow, causes)
            except Refused as refused:
                publication.lost[sensor.name] = str(refused)  # as in Argo, the event is gone
        self.observer.settled(publication)

    def _fail_on_purpose(self) -> None:
        with self._lock:
            if self.faults.creations:
                self.faults.creations -= 1
                raise Refused(500, "InternalError", "the Workflow could not be created, on purpose")

    def _store(self, namespace: str, plural: str, item: dict[str, Any]) -> dict[str, Any]:
        name = item["metadata"]["name"]
        if plural == "sensors":
            try:
                self.sensors.add(Sensor.parse(item))
            except UnknownToSensor as unknown:
                raise Refused(
                    422, "Invalid", f"the rehearsal cannot act out {unknown} (Sensor {name})"
                ) from unknown
        self._version += 1
        item["metadata"].update(namespace=namespace, resourceVersion=str(self._version))
        self._objects[namespace, plural, name] = item
        if plural == "workflowtemplates":
            self.observer.deployed(item, None)
        elif plural == "sensors":
            reference = item["spec"]["triggers"][0]["template"]["name"]
            template = self._objects.get((NAMESPACE, "workflowtemplates", reference), item)
            self.observer.deployed(template, self.sensors[name])
        return item


def _refuse_change(plural: str, name: str) -> None:
    if plural == "workflows":
        raise Refused(
            422, "Invalid", f"the rehearsal cannot act out a change of a Workflow ({name})"
        )


def _merge(item: Any, changes: Any) -> Any:
    if not isinstance(item, Mapping) or not isinstance(changes, Mapping):
        return changes
    merged = {key: value for key, value in item.items() if changes.get(key, 0) is not None}
    merged.update(
        (key, _merge(item.get(key), value)) for key, value in changes.items() if value is not None
    )
    return merged


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    cluster: Cluster


class _Handler(BaseHTTPRequestHandler):
    """Routes a request to the part of the stand-in that it is for."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing: the rehearsal reports what happened, not the requests."""

    def _route(self) -> None:
        url = urlsplit(self.path)
        body = self._body()
        if not self._is_authorized():
            self._answer(401, b"unauthorized")
        elif api := _API.fullmatch(url.path):
            self._kubernetes(body, **api.groupdict())
        elif url.path.startswith(f"/{BUCKET}/"):
            self._s3(unquote(url.path), dict(parse_qsl(url.query, keep_blank_values=True)), body)
        elif url.path == WEBHOOK_PATH:
            self._webhook(body)
        else:
            self._answer(404, b"404 page not found")

    do_DELETE = do_GET = do_HEAD = do_PATCH = do_POST = do_PUT = _route

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _is_authorized(self) -> bool:
        """Whether the request carries the rehearsal's token, as a bearer or an S3 key."""
        given = self.headers.get("Authorization", "")
        bearer = given.removeprefix("Bearer ")
        s3_key = re.search(r"Credential=(\w+)/", given)
        return hmac.compare_digest(s3_key[1] if s3_key else bearer, self.server.cluster.token)

    def _answer(self, status: int, body: bytes, content_type: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # Metaflow's S3 client reads these two of every object.
        self.send_header("ETag", '"rehearsal"')
        self.send_header("Last-Modified", self.date_time_string())
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _answer_json(self, status: int, content: Any) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json")

    def _kubernetes(self, body: bytes, namespace: str, plural: str, name: str | None) -> None:
        try:
            self._answer_kubernetes(body, namespace, plural, name)
        except Refused as refused:
            self._answer_refusal(refused)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            problem = f"the object is not one that Metaflow makes ({type(error).__name__}: {error})"
            self._answer_refusal(Refused(400, "BadRequest", problem))

    def _answer_kubernetes(
        self, body: bytes, namespace: str, plural: str, name: str | None
    ) -> None:
        cluster = self.server.cluster
        if self.command == "GET" and name is None:
            items = cluster.list_all(namespace, plural)
            self._answer_json(200, {"kind": "List", "metadata": {}, "items": items})
        elif self.command == "GET" and name:
            self._answer_json(200, cluster.get(namespace, plural, name))
        elif self.command == "POST" and name is None:
            self._answer_json(201, cluster.create(namespace, plural, json.loads(body)))
        elif self.command == "PUT" and name:
            item = cluster.replace(namespace, plural, name, json.loads(body))
            self._answer_json(200, item)
        elif self.command == "PATCH" and name:
            self._answer_json(200, cluster.patch(namespace, plural, name, json.loads(body)))
        elif self.command == "DELETE" and name:
            self._answer_json(200, cluster.delete(namespace, plural, name))
        else:
            raise Refused(405, "MethodNotAllowed", f"{self.command} {self.path}")

    def _answer_refusal(self, refused: Refused) -> None:
        self._answer_json(
            refused.status,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": refused.reason,
                "message": str(refused),
                "code": refused.status,
            },
        )

    def _webhook(self, body: bytes) -> None:
        if self.command != "POST":
            self._answer(400, b"http method not allowed")
            return
        try:
            self.server.cluster.publish(body, self.headers.get(PUBLISHER_HEADER))
        except EventRefused as refused:
            self._answer(refused.status, str(refused).encode())
        else:
            self._answer(200, b"success")

    def _s3(self, key: str, query: Mapping[str, str], body: bytes) -> None:
        packages = self.server.cluster.packages
        # A large package comes in parts, numbered from 1, and is put together at the end.
        part = f"{key}?part={query.get('partNumber', '')}"
        if self.command == "PUT":
            packages[part if "partNumber" in query else key] = body
            self._answer(200, b"")
        elif self.command == "POST" and "uploads" in query:
            self._answer(200, _XML_UPLOAD, "application/xml")
        elif self.command == "POST" and "uploadId" in query:
            parts = sorted(map(int, re.findall(rb"<PartNumber>(\d+)<", body)))
            packages[key] = b"".join(packages.pop(f"{part}{number}") for number in parts)
            self._answer(200, _XML_COMPLETE, "application/xml")
        elif self.command in ("GET", "HEAD") and key in packages:
            self._answer(200, packages[key], "application/octet-stream")
        elif self.command in ("GET", "HEAD"):
            self._answer(404, _XML_NO_KEY, "application/xml")
        else:
            self._answer(405, b"")
