"""Reading the volume of a cluster: a short-lived pod that mounts the claim read-only and runs `python -m workers read`.

It is made for the first question, answers all of this command's, and is removed at its end; where jobctl is killed, its
deadline ends it. It needs no token and fits Pod Security level restricted.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from jobctl.cluster import records
from jobctl.cluster.api import Api
from jobctl.cluster.refusals import ROLE, ForbiddenError, error_of, message_of, refusal_in, unreachable
from jobctl.errors import JobctlError, NotFoundError, RefusedError
from jobctl.objects import phase_of
from jobctl.untrusted import UnreadableError, at, mapping, mappings, object_or_none, parse_object, text, whole
from jobctl.volume import Checkpoint, Published, Result, failure_of

Object = dict[str, Any]

SCHEMA = "jobctl.read/v1"
READER = "jobctl-reader"
LIFE_SECONDS = 600
START_SECONDS = 60.0
POLL_SECONDS = 0.25
SILENCE_SECONDS = 30.0  # of an answer that has begun
MOST_BYTES = 64 * 1024 * 1024  # of an answer that is one document
MOST_COMPLAINT_BYTES = 64 * 1024
COMMAND = ("python", "-m", "workers", "read")
PUBLISHED = re.compile(r"(?:results|best|checkpoints)/[A-Za-z0-9][A-Za-z0-9._-]*")
TMP = "/tmp"  # noqa: S108 - the pod's own, empty at its start
STDOUT, STDERR, OUTCOME = 1, 2, 3  # channels of the exec protocol


class PodReader:
    """Implements jobctl.volume.VolumeReader for one claim."""

    def __init__(self, api: Api, claim: str, image: str, pod_spec: Object | None = None) -> None:
        self.api, self.claim, self.image = api, claim, image
        self.start_seconds = START_SECONDS
        self._pod_spec = pod_spec or {}
        self._documents: dict[str, Object | None] = {}
        self._pod: str | None = None

    # ---- VolumeReader

    def place(self, run: str, path: str = "") -> str:
        return f"runs/{run}{'/' if path else ''}{path} on the claim {self.claim}"

    def exists(self, run: str) -> bool:
        return self._document(run) is not None

    def metrics(self, run: str) -> list[list[Object]]:
        return [mappings(lines) for lines in mapping(self._document(run), "metrics").values()]

    def results(self, run: str) -> list[Result]:
        found = mappings(self._document(run), "results")
        return [Result.of(name, at(one, "files"), data=mapping(one, "data")) for one in found if (name := _named(one))]

    def attempts(self, run: str) -> list[str]:
        return list(mapping(self._document(run), "attempts"))

    def weights(self, run: str) -> Published | None:
        found = mapping(self._document(run), "weights")
        name = _named(found)
        return Published.of(name, at(found, "files")) if name else None

    def checkpoint(self, run: str) -> Checkpoint | None:
        return Checkpoint.of(mapping(self._document(run), "checkpoint"))

    def read(self, run: str, path: str) -> Generator[bytes, None, None]:
        yield from self._exec([*COMMAND, run, "--file", path])

    def ask_worker(self, arguments: Sequence[str]) -> bytes:
        return self._answer(["python", "-m", "workers", *arguments])

    # ---- what else the cluster's backend asks

    def logs(self, run: str) -> list[str]:
        """Paths below runs/NAME of the attempts' logs."""
        logs = at(self._document(run), "logs")
        return [path for path in logs if text(path)] if isinstance(logs, list) else []

    def attempt_records(self, run: str) -> dict[str, Object]:
        """INDEX.PODUID → its record."""
        return mapping(self._document(run), "attempts")

    def forget(self) -> None:
        """Ask anew next time."""
        self._documents.clear()

    def close(self) -> None:
        if self._pod is not None:
            name, self._pod = self._pod, None
            try:
                self.api.delete("pods", name, grace_seconds=0)
            except NotFoundError:
                return

    # ---- the pod

    def _document(self, run: str) -> Object | None:
        """What `workers read RUN` says; None where the volume has no such run."""
        if run not in self._documents:
            self._documents[run] = self._ask(run)
        return self._documents[run]

    def _ask(self, run: str) -> Object | None:
        try:
            said = self._answer([*COMMAND, run])
        except NotFoundError:
            return None
        try:
            document = parse_object(said, MOST_BYTES)
        except UnreadableError as error:
            raise JobctlError(
                f"The reader pod gave no answer about {run} ({error}): is {self.image} a worker's image?"
            ) from error
        if document.get("schema") != SCHEMA:
            raise JobctlError(f"The image {self.image} answers in another form than {SCHEMA}: it is another version's.")
        return document

    def _answer(self, command: list[str]) -> bytes:
        """All that a command prints. Raises JobctlError where it doesn't end."""
        said = bytearray()
        with contextlib.closing(self._exec(command)) as chunks:
            for chunk in chunks:
                said += chunk
                if len(said) > MOST_BYTES:
                    raise JobctlError(
                        f"The reader pod answers with more than {MOST_BYTES:,} bytes: is {self.image} a worker's image?"
                    )
        return bytes(said)

    def _exec(self, command: list[str]) -> Generator[bytes, None, None]:
        """Standard output of a command in the reader pod, in chunks. Raises NotFoundError where it exits with 64."""
        complaint, outcome = b"", b""
        for channel, data in self._frames(self._running_pod(), command):
            if channel == STDOUT:
                yield data
            elif channel == STDERR:
                complaint = (complaint + data)[-MOST_COMPLAINT_BYTES:]
            elif channel == OUTCOME:
                outcome = (outcome + data)[:MOST_COMPLAINT_BYTES]
        code = exit_code_of(outcome)
        if code != 0:
            raise failure_of(code, complaint, f"the claim {self.claim}")

    def _frames(self, pod: str, command: list[str]) -> Iterator[tuple[int, bytes]]:
        """(channel, bytes) of an exec over a WebSocket, as they come."""
        import websocket
        from kubernetes.client.exceptions import ApiException
        from kubernetes.stream.ws_client import create_websocket, get_websocket_url

        query = [("container", "reader"), ("stdout", "true"), ("stderr", "true"), *(("command", c) for c in command)]
        url = self.api.client.configuration.host + self.api.path("pods", pod, "exec") + "?" + urlencode(query)
        try:
            socket = create_websocket(
                self.api.client.configuration, get_websocket_url(url), self.api.headers("CONNECT")
            )
        except websocket.WebSocketBadStatusException as error:
            raise self._refused(error.status_code, error.resp_body) from error
        except (websocket.WebSocketException, ApiException, OSError) as error:
            raise unreachable(self.api.place, str(error)) from error
        try:
            socket.settimeout(SILENCE_SECONDS)
            while True:
                code, frame = socket.recv_data_frame(True)
                if code == websocket.ABNF.OPCODE_CLOSE:
                    return
                if code in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) and frame.data:
                    yield frame.data[0], bytes(frame.data[1:])
        except (websocket.WebSocketException, OSError) as error:
            raise unreachable(self.api.place, f"reading {self.claim} was cut off ({error})") from error
        finally:
            socket.close(timeout=1)

    def _refused(self, status: int, body: bytes | str | None) -> JobctlError:
        said = body.decode("utf-8", "replace") if isinstance(body, bytes) else body or ""
        namespace = self.api.place.namespace
        if status == 403 and refusal_in(message_of(said), self.api.place) is None:  # it does not always name the right
            return ForbiddenError(f"You may not create pods/exec in namespace {namespace}: {ROLE}.")
        return error_of(status, said, self.api.place, f"read the claim {self.claim}")

    def _running_pod(self) -> str:
        """The reader pod's name; made and awaited the first time."""
        if self._pod is None:
            self._sweep()
            self._pod = self.api.create("pods", self.manifest)["metadata"]["name"]
            try:
                self._await(self._pod)
            except BaseException:
                self.close()
                raise
        return self._pod

    def _sweep(self) -> None:
        """Remove readers that a killed jobctl has left: their deadline has ended them."""
        for pod in self.api.find("pods", labelSelector=f"app.kubernetes.io/name={READER}"):
            if phase_of(pod) in ("Failed", "Succeeded"):
                with contextlib.suppress(NotFoundError):
                    self.api.delete("pods", pod["metadata"]["name"], grace_seconds=0)

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + self.start_seconds
        while True:
            pod = self.api.get("pods", name)
            phase = phase_of(pod)
            if phase == "Running":
                return
            why = records.waiting_for(pod, None)
            hopeless = why is not None and why.startswith(tuple(records.WAITING_MEANINGS.values()))
            if phase in ("Failed", "Succeeded") or hopeless or time.monotonic() > deadline:
                raise RefusedError(
                    f"The pod that reads the claim {self.claim} does not start in namespace "
                    f"{self.api.place.namespace}: {why or phase}. (--image names another image for it.)"
                )
            time.sleep(POLL_SECONDS)

    @cached_property
    def manifest(self) -> Object:
        """Restricted, without a token, near the job's nodes' kind only as far as taints ask for it."""
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "generateName": "jobctl-reader-",
                "labels": {"app.kubernetes.io/name": READER, "app.kubernetes.io/managed-by": "jobctl"},
            },
            "spec": {
                "restartPolicy": "Never",
                "activeDeadlineSeconds": LIFE_SECONDS,
                "terminationGracePeriodSeconds": 0,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": self._pod_spec.get("securityContext")
                or {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
                **{key: self._pod_spec[key] for key in ("tolerations", "imagePullSecrets") if key in self._pod_spec},
                "containers": [
                    {
                        "name": "reader",
                        "image": self.image,
                        "command": ["sleep", str(LIFE_SECONDS)],
                        "env": [{"name": "JOBCTL_VOLUME", "value": "/shared"}, {"name": "HOME", "value": TMP}],
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"cpu": "1", "memory": "512Mi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "volumeMounts": [
                            {"name": "shared", "mountPath": "/shared", "readOnly": True},
                            {"name": "tmp", "mountPath": TMP},
                        ],
                    }
                ],
                "volumes": [
                    {"name": "shared", "persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}},
                    {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
                ],
            },
        }


def exit_code_of(outcome: bytes) -> int:
    """The exit code in the Status that ends an exec; 1 where it names none."""
    status = object_or_none(outcome)
    if text(status, "status") == "Success":
        return 0
    codes = (
        whole(cause, "message") for cause in mappings(status, "details", "causes") if cause.get("reason") == "ExitCode"
    )
    return next((code for code in codes if code is not None), 1)


def _named(published: Object) -> str | None:
    """The directory of a publication, as it is below runs/NAME."""
    directory = text(published, "directory") or ""
    return directory if PUBLISHED.fullmatch(directory) else None
