"""What a namespace needs for jobs, checked one by one: each line says ok, warn or fail, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from jobctl import helm, profiles
from jobctl.cluster import kueue, rights
from jobctl.cluster.api import Api
from jobctl.cluster.refusals import ForbiddenError
from jobctl.cluster.release import making_a_claim
from jobctl.errors import JobctlError, NotFoundError

Object = dict[str, Any]
Level = Literal["ok", "warn", "fail"]

OLDEST = tuple(int(part) for part in helm.OLDEST_KUBERNETES.split("."))[:2]
PRODUCT = "nvidia.com/gpu.product"
FAKE_GPU = "jobctl.dev/fake-gpu"  # the annotation by which `make cluster` marks them
CLUSTER_ROLE = "the optional ClusterRole in docs/rbac.md shows it"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it isn't as it should be."""

    check: str
    level: Level
    said: str
    advice: str | None = None


def examine(api: Api, claim: str, image: str) -> list[Finding]:
    """All checks, in order. Raises UnreachableError, RefusedError where the API server can't be asked at all."""
    findings = [_version(api.version(), api.place.server), _helm()]
    checks: Sequence[Callable[[], Iterator[Finding]]] = (
        lambda: _rights(api),
        lambda: _namespace(api),
        lambda: _claim(api, claim),
        lambda: _nodes(api, image),
        lambda: _metrics(api),
        lambda: _queues(api),
    )
    for check in checks:
        findings += check()
    return findings


def _version(version: Object, server: str) -> Finding:
    said = f"Kubernetes {version.get('gitVersion')} at {server}"
    found = tuple(int(re.sub(r"\D", "", str(version.get(key))) or 0) for key in ("major", "minor"))
    if found < OLDEST:
        return Finding(
            "API server", "fail", said, f"jobctl needs {OLDEST[0]}.{OLDEST[1]} or newer: use another cluster"
        )
    return Finding("API server", "ok", said)


def _helm() -> Finding:
    try:
        program = helm.find_helm()
        return Finding("Helm", "ok", f"{helm.check_version(program)} at {program}")
    except JobctlError as error:
        return Finding("Helm", "fail", str(error))


def _rights(api: Api) -> Iterator[Finding]:
    """Every right of the documented Role, asked for one by one: a review of rules may be incomplete."""
    needed = rights.needed()
    if missing := _missing(api, needed):
        said = f"you may not {', '.join(str(right) for right in missing)} in namespace {api.place.namespace}"
        yield Finding("rights", "fail", said, "have the Role in docs/rbac.md bound to you")
    else:
        yield Finding("rights", "ok", f"all {len(needed)} that jobctl needs in namespace {api.place.namespace}")


def _missing(api: Api, needed: Sequence[rights.Right]) -> list[rights.Right]:
    with ThreadPoolExecutor(8) as workers:
        allowed = list(workers.map(lambda right: _may(api, right), needed))
    return [right for right, is_allowed in zip(needed, allowed, strict=True) if not is_allowed]


def _may(api: Api, right: rights.Right) -> bool:
    attributes = {
        "namespace": api.place.namespace,
        "verb": right.verb,
        "group": right.group,
        "resource": right.resource,
        "subresource": right.subresource,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    return bool((api.create("selfsubjectaccessreviews", body).get("status") or {}).get("allowed"))


def _namespace(api: Api) -> Iterator[Finding]:
    name = api.place.namespace
    try:
        labels = api.get("namespaces", name)["metadata"].get("labels") or {}
    except NotFoundError:
        yield Finding("namespace", "fail", f"there is no namespace {name}", f"kubectl create namespace {name}")
        return
    except ForbiddenError:
        yield Finding("namespace", "warn", f"the labels of {name} are not visible", CLUSTER_ROLE)
        return
    level = labels.get("pod-security.kubernetes.io/enforce")
    if level == "restricted":
        yield Finding("namespace", "ok", f"{name} has Pod Security level restricted, which every job fits")
    else:
        yield Finding(
            "namespace", "warn", f"{name} has Pod Security level {level or 'privileged (none is set)'}",
            f"jobs fit a stricter one: kubectl label namespace {name} pod-security.kubernetes.io/enforce=restricted",
        )  # fmt: skip


def _claim(api: Api, name: str) -> Iterator[Finding]:
    try:
        claim = api.get("persistentvolumeclaims", name)
    except NotFoundError:
        advice = f"{making_a_claim(api.place)}, or name yours: --claim, volume.claim"
        yield Finding("claim", "fail", f"there is no claim {name} in namespace {api.place.namespace}", advice)
        return
    except ForbiddenError as error:
        yield Finding("claim", "fail", str(error), "have the Role in docs/rbac.md bound to you")
        return
    status = claim.get("status") or {}
    phase = status.get("phase")
    modes = status.get("accessModes") or claim["spec"].get("accessModes") or []
    said = (
        f"{name} is {phase}, {' and '.join(modes)}, {(status.get('capacity') or {}).get('storage', 'of no size yet')}"
    )
    if phase == "Lost":
        yield Finding("claim", "fail", said, "its volume is gone: make another claim")
    elif "ReadWriteMany" not in modes:
        yield Finding("claim", "warn", said, "jobs of several replicas on several nodes need ReadWriteMany")
    elif phase == "Pending":
        yield Finding(
            "claim", "warn", said, f"kubectl -n {api.place.namespace} describe pvc {name} says what it waits for"
        )
    else:
        yield Finding("claim", "ok", said)


def _nodes(api: Api, image: str) -> Iterator[Finding]:
    try:
        nodes = api.find("nodes")
    except ForbiddenError:
        yield Finding("nodes", "warn", "the nodes are not visible", CLUSTER_ROLE)
        return
    ready = [node for node in nodes if _is_ready(node)]
    for profile in profiles.load_all():
        yield _profile(profile, ready)
    taking = [node for node in ready if any(fits(profile, node) for profile in profiles.load_all())]
    having = [node for node in taking if _has_image(node, image)]
    where = f"{image} is on {len(having)} of {len(taking)} nodes that take jobs, as far as nodes tell"
    if having:
        yield Finding("image", "ok", where)
    else:
        yield Finding(
            "image", "warn", where, "the first pod on a node pulls it: have it where the nodes can pull it from"
        )


def _profile(profile: profiles.Profile, nodes: Sequence[Object]) -> Finding:
    fitting = [node for node in nodes if fits(profile, node)]
    check = f"profile {profile.name}"
    if profile.device != "cuda":
        if fitting:
            return Finding(check, "ok", _nodes_of(len(fitting)))
        return Finding(check, "fail", "no node is ready and may be scheduled to", "kubectl get nodes")
    gpus = sum(int((node.get("status") or {}).get("allocatable", {}).get("nvidia.com/gpu", 0)) for node in fitting)
    products = sorted({(node["metadata"].get("labels") or {}).get(PRODUCT, "any") for node in fitting})
    fake = any(FAKE_GPU in (node["metadata"].get("annotations") or {}) for node in fitting)
    said = f"{_nodes_of(len(fitting))} ({', '.join(products)}) with {gpus} {'fake ' if fake else ''}GPUs"
    if not fitting:
        advice = "jobs with it would wait for one: label nodes by GPU feature discovery, or choose another --gpu"
        return Finding(check, "warn", f"no node is labelled {PRODUCT}={' or '.join(profile.products)}", advice)
    if gpus == 0:
        return Finding(check, "warn", said, "the nodes advertise no nvidia.com/gpu: install NVIDIA's device plugin")
    return Finding(check, "ok", said, "no device is behind them: submit with --allow-cpu" if fake else None)


def fits(profile: profiles.Profile, node: Object) -> bool:
    """Whether pods of this profile may be scheduled to the node, its free room aside."""
    spec = node.get("spec") or {}
    tolerated = {"nvidia.com/gpu"} if profile.device == "cuda" else set()
    taints = [taint for taint in spec.get("taints") or [] if taint.get("effect") != "PreferNoSchedule"]
    if spec.get("unschedulable") or any(taint.get("key") not in tolerated for taint in taints):
        return False
    labels = node["metadata"].get("labels") or {}
    return not profile.products or labels.get(PRODUCT) in profile.products


def _is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _has_image(node: Object, image: str) -> bool:
    """Nodes tell of their 50 largest images at most, by full names: docker.io/library/x:1 for x:1."""
    images = (node.get("status") or {}).get("images") or []
    known = {name for one in images for name in one.get("names") or []}
    return bool(known & {image, f"docker.io/{image}", f"docker.io/library/{image}"})


def _metrics(api: Api) -> Iterator[Finding]:
    try:
        groups = api.groups()
    except JobctlError as error:
        yield Finding("metrics", "warn", str(error))
        return
    if "monitoring.coreos.com" in groups:
        yield Finding("metrics", "ok", "the Prometheus Operator's resources are there")
    else:
        yield Finding(
            "metrics", "warn", "the Prometheus Operator's resources (PodMonitor) are not there",
            "jobs run without; for metrics install kube-prometheus-stack, then jobctl-platform again",
        )  # fmt: skip


def _queues(api: Api) -> Iterator[Finding]:
    """Says nothing where there is no Kueue, or where that can't be asked: metrics says so then."""
    with suppress(JobctlError):
        if kueue.GROUP not in api.groups():
            return
        if missing := _missing(api, rights.needed("kueue")):
            said = f"Kueue is there, and you may not {', '.join(map(str, missing))} in namespace {api.place.namespace}"
            yield Finding(
                "queues", "warn", said, "for scheduling.queue have the rules in docs/rbac.md in your Role, too"
            )
        else:
            yield Finding("queues", "ok", "Kueue is there, and you have the rights that scheduling.queue needs")


def _nodes_of(number: int) -> str:
    return f"{number} node" if number == 1 else f"{number} nodes"
