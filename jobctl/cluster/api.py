"""The API server: requests that never hang, answers as dictionaries, errors as one sentence."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from jobctl.backend import kubeconfig_files
from jobctl.cluster.place import IN_CLUSTER
from jobctl.cluster.refusals import (
    GoneError,
    Place,
    error_of,
    login_failed,
    tls_failed,
    unreachable,
    unusable_kubeconfig,
)

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
# How long a request may be told to come back later (429, or 503 with Retry-After) before it counts as refused.
PATIENCE_SECONDS = 10.0
PAGE = 500
MOST_ERROR_BYTES = 64 * 1024  # of what is said with an error: that of a proxied pod is its own choice
_BLOCK_BYTES = 64 * 1024

# plural → the API that has it
GROUPS: dict[str, str] = {
    "jobs": "apis/batch/v1",
    "pods": "api/v1",
    "configmaps": "api/v1",
    "services": "api/v1",
    "serviceaccounts": "api/v1",
    "secrets": "api/v1",
    "events": "api/v1",
    "persistentvolumeclaims": "api/v1",
    "nodes": "api/v1",
    "namespaces": "api/v1",
    "selfsubjectaccessreviews": "apis/authorization.k8s.io/v1",
    "customresourcedefinitions": "apis/apiextensions.k8s.io/v1",
}
CLUSTER_SCOPED = frozenset({"nodes", "namespaces", "selfsubjectaccessreviews", "customresourcedefinitions"})


class Api:
    """One API server, one namespace. Every method raises the errors of refusals.py; none waits without an end."""

    def __init__(self, client: ApiClient, place: Place) -> None:
        self.client, self.place = client, place
        self.served = dict(GROUPS)  # plural → its API; what not every cluster has is added once it is found

    def path(self, plural: str, name: str = "", sub: str = "") -> str:
        """/apis/batch/v1/namespaces/NS/jobs/NAME/status."""
        scope = "" if plural in CLUSTER_SCOPED else f"/namespaces/{self.place.namespace}"
        return f"/{self.served[plural]}{scope}/{plural}" + (f"/{name}" if name else "") + (f"/{sub}" if sub else "")

    def get(self, plural: str, name: str) -> Object:
        return self._json("GET", self.path(plural, name), f"read {plural} {name}")

    def find(self, plural: str, **query: str) -> list[Object]:
        """All objects that match labelSelector or fieldSelector, over all pages."""
        return self.find_with_version(plural, **query)[0]

    def find_with_version(self, plural: str, **query: str) -> tuple[list[Object], str]:
        """All objects, and the resourceVersion that a watch can go on from."""
        try:
            return self._pages(plural, query | {"limit": str(PAGE)})
        except GoneError:  # a page's token lives for minutes only: all at once, then
            return self._pages(plural, query)

    def create(self, plural: str, body: Object, *, dry_run: bool = False, sub: str = "", name: str = "") -> Object:
        what = f"create {plural} {body.get('metadata', {}).get('name', '')}".strip()
        return self._json("POST", self.path(plural, name, sub), what, body, {"dryRun": "All"} if dry_run else {})

    def patch(self, plural: str, name: str, body: Object) -> Object:
        """A JSON merge patch: null removes a key."""
        return self._json("PATCH", self.path(plural, name), f"change {plural} {name}", body)

    def delete(self, plural: str, name: str, *, uid: str | None = None, grace_seconds: int | None = None) -> None:
        """Also what it owns, in the background. Raises ConflictError where the object of this name has another uid."""
        body: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        self._json("DELETE", self.path(plural, name), f"delete {plural} {name}", body)

    def version(self) -> Object:
        return self._json("GET", "/version", "read the version")

    def groups(self) -> set[str]:
        """The API groups that the server knows."""
        return {group["name"] for group in self._json("GET", "/apis", "read the API groups").get("groups") or []}

    def preferred(self, group: str) -> str:
        """The API of a group in the version that the server prefers: apis/GROUP/v1. Raises NotFoundError."""
        found = self._json("GET", f"/apis/{group}", f"read the API group {group}")
        return f"apis/{found['preferredVersion']['groupVersion']}"

    def watch(self, plural: str, seconds: int, **query: str) -> Iterator[Object]:
        """Events {type, object} from `resourceVersion` on, for so many seconds. Raises GoneError on 410."""
        asked = {"watch": "true", "timeoutSeconds": str(seconds), **query}
        with self.open("GET", self.path(plural), f"watch {plural}", query=asked, read_seconds=seconds + 5) as response:
            for line in lines_of(response):
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    status = event.get("object") or {}
                    raise error_of(int(status.get("code") or 500), json.dumps(status), self.place, f"watch {plural}")
                yield event

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        what: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        read_seconds: float | None = None,
        patience_seconds: float | None = None,
    ) -> Iterator[Any]:
        """A response (urllib3's) that is read as it comes. Raises where it isn't 2xx, or the server doesn't answer.

        `patience_seconds`: how long it is asked again, where it says that it may be.
        """
        import urllib3

        try:
            patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
            response = self._ask(method, path, what, body, query or {}, read_seconds or READ_SECONDS, patience)
            with closing(response):
                yield response
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise unreachable(self.place, _why(error)) from error

    def _ask(
        self,
        method: str,
        path: str,
        what: str,
        body: Object | None,
        query: Mapping[str, str],
        read_seconds: float,
        patience_seconds: float,
    ) -> Any:
        from kubernetes.client.exceptions import ApiException

        url = self.client.configuration.host.rstrip("/") + path + (f"?{urlencode(query)}" if query else "")
        deadline = time.monotonic() + patience_seconds
        while True:
            try:
                response = self.client.rest_client.request(
                    method, url, headers=self.headers(method), body=body,
                    _request_timeout=(CONNECT_SECONDS, read_seconds),
                ).response  # fmt: skip
            except ApiException as error:  # status 0: TLS
                raise tls_failed(self.place, " ".join(str(error.reason).split())) from error
            if 200 <= response.status < 300:
                return response
            with closing(response):
                said = read_some(response, MOST_ERROR_BYTES, read_seconds).decode("utf-8", "replace")
            wait = retry_after_seconds(response.status, response.headers)
            if wait is None or time.monotonic() + wait > deadline:
                raise error_of(response.status, said, self.place, what)
            time.sleep(wait)

    def headers(self, method: str = "GET") -> dict[str, str]:
        """Credentials (renewed where the kubeconfig's plugin does so) and content types."""
        headers = {"Accept": "application/json", "User-Agent": "jobctl"}
        if method == "PATCH":
            headers["Content-Type"] = "application/merge-patch+json"
        elif method != "GET":
            headers["Content-Type"] = "application/json"
        with _login(self.place):
            self.client.update_params_for_auth(headers, [], ["BearerToken"], "", method, None)
        return headers

    def _json(
        self, method: str, path: str, what: str, body: Object | None = None, query: Mapping[str, str] | None = None
    ) -> Object:
        with self.open(method, path, what, body, query) as response:
            return dict(json.loads(response.read() or b"{}"))

    def _pages(self, plural: str, query: Mapping[str, str]) -> tuple[list[Object], str]:
        found: list[Object] = []
        token = ""
        while True:
            asked = {**query, **({"continue": token} if token else {})}
            page = self._json("GET", self.path(plural), f"list {plural}", query=asked)
            found += page.get("items") or []
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found, str((page.get("metadata") or {}).get("resourceVersion") or "")


def connect(place: Place) -> Api:
    """A client for that place; sends nothing yet. Raises UsageError where the kubeconfig can't be used."""
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration()
    try:
        if place.context == IN_CLUSTER:
            load_incluster_config(client_configuration=configuration)
        else:
            files = os.pathsep.join(str(path) for path in kubeconfig_files(os.environ))
            with _login(place):
                load_kube_config(config_file=files, context=place.context, client_configuration=configuration)
    except ConfigException as error:
        raise unusable_kubeconfig(str(error)) from error
    configuration.retries = False  # our own rule for 429; everything else is said at once
    return Api(ApiClient(configuration), replace(place, server=configuration.host))


@contextmanager
def _login(place: Place) -> Iterator[None]:
    """Raises RefusedError where the kubeconfig's login program gives no credentials.

    The client only logs that, on the root logger, and would go on as nobody.
    """
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(lambda record: record.name == "root")
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    if said:
        raise login_failed(place, said[-1])


def retry_after_seconds(status: int, headers: Mapping[str, str]) -> float | None:
    """How long to wait before asking again, where the server says that it may be asked again; else None."""
    after = headers.get("Retry-After")
    if status not in (429, 503) or (after is None and status != 429):
        return None
    try:
        seconds = max(0.0, float(after or 1))
    except ValueError:  # a date: the API server never sends one
        seconds = 1.0
    return seconds + random.uniform(0, 0.2)  # noqa: S311 - so that clients don't come back in step


def read_some(response: Any, most_bytes: int, seconds: float) -> bytes:
    """A response's body as far as it comes in time (and in the time that its next block takes), up to a size."""
    said, until = b"", time.monotonic() + seconds
    while len(said) < most_bytes and time.monotonic() < until:
        block = response.read1(_BLOCK_BYTES, decode_content=False)
        if not block:
            break
        said += block
    return said[:most_bytes]


def lines_of(response: Any) -> Iterator[bytes]:
    """Whole lines of a streamed response, as they come, without their ends; a last torn line is left out."""
    rest = b""
    while chunk := response.read1():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines


def _why(error: Exception) -> str:
    """The innermost reason in plain words."""
    import urllib3

    refused = isinstance(error, urllib3.exceptions.NewConnectionError)  # which urllib3 also calls a timeout
    if isinstance(error, urllib3.exceptions.TimeoutError | TimeoutError) and not refused:
        return "no answer in time"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection was cut"
    if isinstance(error, urllib3.exceptions.NameResolutionError):
        return "its name is not known here"
    cause = getattr(error, "reason", None) or error
    text = re.sub(r"^\[Errno -?\d+\] ", "", str(cause).rpartition(": ")[2] or str(cause))
    return text.rstrip(".") or type(error).__name__
