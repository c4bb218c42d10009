"""The server: what Metaflow talks to, on 127.0.0.1.

It speaks the Kubernetes API (custom objects of argoproj.io), the webhook of Argo Events,
and, by moto, the API of AWS (the datastore is in its S3).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import flask
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from werkzeug.serving import BaseWSGIServer, make_server

from .cluster import Cluster, EventRefused
from .objects import ApiError
from .secret import Secrets

BUCKET = "rehearsal"
REGION = "us-east-1"
WEBHOOK_PATH = "/metaflow-event"  # the names of Metaflow's own Argo stack
_KINDS = "workflowtemplates|workflows|sensors|cronworkflows"
_OWN_PATH = re.compile(rf"/apis(/.*)?|/version|{WEBHOOK_PATH}")
_S3_KEY = re.compile(r"Credential=(\w+)[/%]")

Environ = dict[str, Any]
StartResponse = Callable[..., Any]


class Server:
    """An HTTP server for a cluster, which listens as soon as it is made."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._own = _own_app(cluster)
        self._aws = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self._secrets = secretsmanager_backends[DEFAULT_ACCOUNT_ID][REGION]
        self._s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        if BUCKET not in self._s3.buckets:  # moto keeps them for the whole process
            self._s3.create_bucket(BUCKET, REGION)

    @property
    def url(self) -> str:
        """Where it listens."""
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
            self.close()
            thread.join()

    def close(self) -> None:
        """Stop listening."""
        self._server.server_close()

    def objects(self) -> dict[str, bytes]:
        """Return what is in the S3 of this server, by its URL."""
        keys = self._s3.buckets[BUCKET].keys
        return {f"s3://{BUCKET}/{name}": key.value for name, key in keys.items()}

    def read(self, url: str) -> bytes:
        """Return the object of S3 at a URL."""
        content: bytes = self._s3.buckets[BUCKET].keys[url.removeprefix(f"s3://{BUCKET}/")].value
        return content

    def keep(self, secrets: Secrets) -> None:
        """Put secrets into AWS Secrets Manager, each as a JSON object."""
        for name, variables in secrets.items():
            self._secrets.create_secret(
                name=name,
                secret_string=json.dumps(dict(variables)),
                secret_binary=None,
                description=None,
                tags=None,
                kms_key_id=None,
                client_request_token=None,
                replica_regions=[],
                force_overwrite=True,  # moto keeps them for the whole process
            )

    def clear(self) -> None:
        """Empty S3."""
        self._s3.buckets[BUCKET].keys.clear()

    def _answer(self, environ: Environ, start: StartResponse) -> Iterable[bytes]:
        token = _token(environ)
        if not self._cluster.knows(token):
            start("401 UNAUTHORIZED", [("Content-Type", "text/plain"), ("Connection", "close")])
            return [b"unauthorized"]
        if _OWN_PATH.fullmatch(environ["PATH_INFO"]):
            environ["rehearsal.publisher"] = self._cluster.publisher(token)
            return self._own(environ, start)
        answer: Iterable[bytes] = self._aws(environ, start)
        return answer


class _Handler(MotoRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing: the rehearsal reports what happened, not the requests."""


def _token(environ: Environ) -> str:
    """Return the token that a request carries, as a bearer or as the key of an AWS account."""
    given: str = environ.get("HTTP_AUTHORIZATION", "")
    key = _S3_KEY.search(given) or _S3_KEY.search(environ.get("QUERY_STRING", ""))
    return key[1] if key else given.removeprefix("Bearer ")


def _own_app(cluster: Cluster) -> flask.Flask:
    """Return the application that speaks the Kubernetes API and takes events."""
    app = flask.Flask("rehearsal")
    path = (
        f"/apis/argoproj.io/v1alpha1/namespaces/<namespace>/<any({_KINDS.replace('|', ',')}):kind>"
    )

    def body() -> Any:
        return json.loads(flask.request.get_data())

    @app.get(path)
    def list_objects(namespace: str, kind: str) -> Any:
        items = cluster.objects.list_all(namespace, kind)
        items = [cluster.read(namespace, kind, each["metadata"]["name"]) for each in items]
        return {"kind": "List", "metadata": {}, "items": items}

    @app.post(path)
    def create(namespace: str, kind: str) -> Any:
        return cluster.objects.create(namespace, kind, body()), 201

    @app.get(f"{path}/<name>")
    def get(namespace: str, kind: str, name: str) -> Any:
        return cluster.read(namespace, kind, name)

    @app.put(f"{path}/<name>")
    def replace(namespace: str, kind: str, name: str) -> Any:
        return cluster.objects.replace(namespace, kind, name, body())

    @app.patch(f"{path}/<name>")
    def patch(namespace: str, kind: str, name: str) -> Any:
        return cluster.objects.patch(namespace, kind, name, body())

    @app.delete(f"{path}/<name>")
    def delete(namespace: str, kind: str, name: str) -> Any:
        return cluster.objects.delete(namespace, kind, name)

    @app.post(WEBHOOK_PATH)
    def publish() -> Any:
        publisher = flask.request.environ["rehearsal.publisher"]
        try:
            cluster.publish(flask.request.get_data(), publisher)
        except EventRefused as refused:
            return str(refused), refused.status
        return "success"

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Any:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "reason": error.reason,
            "message": str(error),
            "code": error.status,
        }, error.status

    @app.errorhandler(AttributeError)
    @app.errorhandler(KeyError)
    @app.errorhandler(TypeError)
    @app.errorhandler(ValueError)
    def bad_request(error: Exception) -> Any:
        problem = f"the object is not one that Metaflow makes ({type(error).__name__}: {error})"
        return api_error(ApiError(400, "BadRequest", problem))

    @app.errorhandler(405)
    def wrong_method(_: Any) -> Any:
        if flask.request.path == WEBHOOK_PATH:
            return "http method does not match", 400
        request = f"{flask.request.method} {flask.request.path}"
        return api_error(ApiError(405, "MethodNotAllowed", request))

    @app.errorhandler(404)
    def not_found(_: Any) -> Any:
        return "404 page not found", 404

    return app
