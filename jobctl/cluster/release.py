"""The release of a job: Helm's upgrade and uninstall on a cluster, with everything tried first that can be tried."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobctl import helm
from jobctl.backend import Release
from jobctl.chart import chart_directory
from jobctl.cluster.place import IN_CLUSTER
from jobctl.cluster.refusals import Place, refusal_in, unreachable
from jobctl.errors import JobctlError, NotFoundError, OvertakenError, RefusedError, UsageError
from jobctl.values import for_one_call, without_call

if TYPE_CHECKING:
    from jobctl.cluster.api import Api

Object = dict[str, Any]

HELM_SECONDS = 30
RENDER_SECONDS = 8  # for what changes nothing, and can be had without the cluster too
ABANDONED_SECONDS = 120  # for a revision that is still pending
SETTLING_SECONDS = 15  # for a release that has just failed, or is being uninstalled: whoever did it tidies up
CHART = "jobctl"
_UNREACHABLE = (
    "cluster unreachable", "connection refused", "i/o timeout", "no such host", "TLS handshake timeout", "EOF",
    "context deadline exceeded", "no route to host", "no answer to", "tls: ",
)  # fmt: skip
# 'Error: kubernetes cluster unreachable: Get "https://…": ' before the reason itself
_AROUND_REASON = re.compile(r'^(?:.*?cluster unreachable: )?(?:Get "[^"]*": )?', re.IGNORECASE)
CALL_LABEL = "jobctl-submit"  # on the Secret of a revision: which call of submit made it
_EXPECTED = "planned.expectRevision is "  # how the chart begins to say that it is another revision
_BUSY = "another operation (install/upgrade/rollback) is in progress"
# What Helm says to the second of two calls that want to become the same revision, and where the first one has failed.
_OVERTAKEN = (
    _BUSY, "cannot re-use a name that is still in use", "cannot reuse a name that is still in use",
    "release: already exists", "has no deployed releases",
)  # fmt: skip
_OVERTAKEN_SECRET = re.compile(r'secrets "sh\.helm\.release\.v1\.[^"]+" already exists')


@dataclass(frozen=True)
class Repair:
    """What has to be done before Helm can upgrade: revisions to forget, the release to uninstall, or to wait."""

    uninstall: bool = False
    forget: tuple[str, ...] = ()
    busy: bool = False


class Helm:
    """Helm with the context and namespace that the API requests go to. Loads no Kubernetes client."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def render(
        self, name: str, values: Mapping[str, Any], meanwhile: Callable[[], object] = lambda: None
    ) -> tuple[int, list[Object]]:
        """The revision and the objects that an upgrade would bring, worked out with the cluster, changing nothing.

        `meanwhile` is called while Helm comes up. Raises RefusedError where the name is another chart's.
        """
        said = self._run(
            self._upgrade(name, "--dry-run=server", "--hide-notes", "--disable-openapi-validation"),
            values,
            RENDER_SECONDS,
            meanwhile,
        )
        release = json.loads(said)
        if int(release["version"]) > 1:
            self.is_ours(name)
        import yaml

        documents = yaml.load_all(release["manifest"], Loader=yaml.CSafeLoader)
        return int(release["version"]), [document for document in documents if document]

    def upgrade(self, name: str, values: Mapping[str, Any], revision: int, token: str) -> None:
        """helm upgrade --install as this revision and no other; its Secret bears the token.

        Raises OvertakenError, having changed nothing, where another call has made this revision or is about to.
        """
        marked = self._upgrade(name, "--cleanup-on-fail", "--labels", f"{CALL_LABEL}={token}")
        try:
            self._run(marked, for_one_call(values, revision, token))
        except UsageError as error:
            if _EXPECTED not in str(error):
                raise
            raise overtaken(name) from error

    def uninstall(self, name: str) -> None:
        """Remove the release, if there is one."""
        self._run(["uninstall", name, "--ignore-not-found"], None)

    def values(self, name: str) -> dict[str, Any]:
        """The values of the newest revision as they were given. Raises NotFoundError."""
        return without_call(json.loads(self._run(["get", "values", name, "-o", "json"], None)) or {})

    def is_ours(self, name: str) -> bool:
        """Whether there is a release of this name. Raises RefusedError where it is another chart's."""
        try:
            chart = str(json.loads(self._run(["get", "metadata", name, "-o", "json"], None))["chart"])
        except NotFoundError:
            return False
        if chart != CHART:
            raise RefusedError(
                f"The release {name} in namespace {self.place.namespace} belongs to the chart {chart}, which is "
                "not jobctl's: choose another --name."
            )
        return True

    def _upgrade(self, name: str, *more: str) -> list[str]:
        chart = str(chart_directory())
        return ["upgrade", name, chart, "--install", "--reset-values", "--values", "-", "-o", "json", *more]

    def _run(
        self,
        arguments: list[str],
        values: Mapping[str, Any] | None,
        seconds: float = HELM_SECONDS,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> str:
        where = ["--namespace", self.place.namespace]
        if self.place.context != IN_CLUSTER:
            where += ["--kube-context", self.place.context]
        stdin = "" if values is None else helm.to_yaml(values)
        try:
            return helm.run([*arguments, *where], stdin, seconds, meanwhile)
        except helm.HelmError as error:
            raise self._explained(error) from error

    def _explained(self, error: helm.HelmError) -> JobctlError:
        said = error.said
        known = refusal_in(said, self.place) or refusal_in(error.log.replace('\\"', '"'), self.place)
        if known is not None:
            return known
        if "release: not found" in said:
            return NotFoundError(f"Helm knows no such release in namespace {self.place.namespace}.")
        if any(words in said for words in _OVERTAKEN) or _OVERTAKEN_SECRET.search(said):
            return OvertakenError(
                "Helm says that another operation on this release is in progress: try again in a moment. If none is "
                "(one was killed), `jobctl delete` it and submit again: nothing that it wrote is lost."
            )
        if any(word in said for word in _UNREACHABLE):
            return unreachable(self.place, _AROUND_REASON.sub("", said).rstrip("."))
        return RefusedError(said)


def overtaken(name: str) -> OvertakenError:
    return OvertakenError(
        f"Another command changes {name} at this moment, or was killed while it did: `jobctl status {name}` shows what "
        "is there. Try again in two minutes at the latest: what a killed one left is mended then."
    )


def repair(secrets: Sequence[Object], now_unix_seconds: float) -> Repair:
    """What an interrupted Helm left of a release, judged from the Secrets that hold its revisions.

    A revision that has been pending for longer than Helm may take is nobody's; a release of which no revision was ever
    deployed, or that was being uninstalled, can only be uninstalled, once whoever works on it has had the time to.
    """
    labels = [one["metadata"].get("labels") or {} for one in secrets]
    statuses = {str(label.get("status")) for label in labels}
    ages = [now_unix_seconds - _changed_at(label) for label in labels]
    pending = [str(label.get("status")).startswith("pending-") for label in labels]
    dead = [
        one["metadata"]["name"]
        for one, is_pending, age in zip(secrets, pending, ages, strict=True)
        if is_pending and age > ABANDONED_SECONDS
    ]
    if len(dead) < sum(pending):
        return Repair(busy=True)
    if secrets and "deployed" not in statuses:
        settling = not dead and min(ages) < SETTLING_SECONDS
        return Repair(busy=settling, uninstall=not settling)
    return Repair(forget=tuple(dead))


def revision_of(secret: Object) -> int:
    """The revision that a Secret of Helm holds."""
    return int((secret["metadata"].get("labels") or {}).get("version") or 0)


def _changed_at(labels: Mapping[str, str]) -> float:
    text = str(labels.get("modifiedAt") or labels.get("createdAt") or "0")
    return float(text) if text.isdigit() else 0.0


def try_out(api: Api, release: Release) -> None:
    """Have the API server check the Job and one of its pods, admission and quota included; it keeps neither.

    Raises RefusedError: so nothing is left behind of a release that could not have run.
    """
    job = next(document for document in release.manifest if document["kind"] == "Job")
    spec = job["spec"]["template"]["spec"]
    metadata = {**job["metadata"], "name": f"{release.name}-try"}
    api.create("jobs", {**job, "metadata": metadata}, dry_run=True)
    _check_claim(api, job, spec)
    # The job's own service account comes with the release: it isn't there yet.
    pod_metadata = {**job["spec"]["template"].get("metadata", {}), "name": f"{release.name}-try"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": pod_metadata,
        "spec": {**spec, "serviceAccountName": "default"},
    }
    api.create("pods", pod, dry_run=True)


def making_a_claim(place: Place) -> str:
    """The command that gives a namespace the claim `shared`."""
    return f"helm upgrade --install platform {chart_directory('jobctl-platform')} -n {place.namespace}"


def _check_claim(api: Api, job: Object, pod_spec: Object) -> None:
    namespace = api.place.namespace
    for volume in pod_spec.get("volumes") or []:
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if not name:
            continue
        try:
            claim = api.get("persistentvolumeclaims", name)
        except NotFoundError as error:
            raise RefusedError(
                f"There is no claim {name} in namespace {namespace}: `{making_a_claim(api.place)}` makes one named "
                "shared, or name yours with --set volume.claim=NAME."
            ) from error
        modes = (claim.get("status") or {}).get("accessModes") or claim["spec"].get("accessModes") or []
        replicas = int(job["spec"].get("parallelism") or 1)
        pinned = "kubernetes.io/hostname" in (pod_spec.get("nodeSelector") or {})
        if replicas > 1 and "ReadWriteMany" not in modes and not (pinned and "ReadWriteOnce" in modes):
            raise RefusedError(
                f"The claim {name} is {' and '.join(modes) or 'of no access mode'}: {replicas} replicas may land on "
                "several nodes and need ReadWriteMany. Use such a claim, one replica, or pin them to one node "
                "(scheduling.nodeSelector kubernetes.io/hostname)."
            )
        if claim.get("status", {}).get("phase") == "Lost":
            raise RefusedError(f"The claim {name} in namespace {namespace} has lost its volume: make another one.")
