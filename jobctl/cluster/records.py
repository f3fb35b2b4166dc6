"""From the API server's objects to Records: which Job is a release's newest, its pods, and what they wait for. Pure."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from jobctl.backend import Event, Record
from jobctl.cluster.backoff import backoffs
from jobctl.cluster.refusals import Place, refusal_in
from jobctl.objects import (
    BACKOFF_ANNOTATION,
    WAITING_ANNOTATION,
    by_index,
    completions_of,
    condition_of,
    one_line,
    parse_time,
    true_conditions,
)
from jobctl.untrusted import MOST_INDEXES, mapping, object_or_none, text, whole
from jobctl.values import with_environment

Object = dict[str, Any]

RELEASE_LABEL = "app.kubernetes.io/instance"
JOBS = "app.kubernetes.io/name=jobctl"
UID_LABEL = "batch.kubernetes.io/controller-uid"
CANCELLED = "jobctl.dev/cancelled"
# Event reasons that say why nothing goes on, most telling first.
TELLING = (
    "FailedCreate", "FailedScheduling", "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "Failed",
)  # fmt: skip
# What a container waits for where the kubelet's own word needs explaining.
WAITING_MEANINGS: dict[str, str] = {
    "ErrImagePull": "the image can't be pulled",
    "ImagePullBackOff": "the image can't be pulled",
    "InvalidImageName": "the image's name is wrong",
    "ErrImageNeverPull": "the image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "the container can't be set up",
    "CreateContainerError": "the container can't be created",
}
# How the scheduler ends its reasons: "... . no new claims to deallocate, preemption: 0/3 nodes are available: ..."
_PREEMPTION = re.compile(r"\.? *(no new claims to deallocate,?|not found,?)? *(preemption: .*)?$")


def release_of(job: Object) -> str:
    return str((job["metadata"].get("labels") or {}).get(RELEASE_LABEL) or job["metadata"]["name"])


def revision_of(job: Object) -> int:
    """The revision that the Job's name ends in; 1 where it ends in none. After a rollback, the one rolled back to."""
    match = re.search(r"-r([0-9]+)$", job["metadata"]["name"])
    return int(match[1]) if match else 1


def newest_jobs(jobs: Iterable[Object]) -> dict[str, Object]:
    """Each release's newest Job: one that is being deleted only where there is no other, then the youngest.

    Not the highest name: a rollback makes a Job under an old name again.
    """
    found: dict[str, Object] = {}
    for job in sorted(jobs, key=_age):
        found[release_of(job)] = job
    return found


def _age(job: Object) -> tuple[bool, str, int]:
    metadata = job["metadata"]
    return "deletionTimestamp" not in metadata, metadata.get("creationTimestamp") or "", revision_of(job)


def record_of(
    job: Object, pods: Sequence[Object], config: Object | None = None, events: Sequence[Object] = ()
) -> Record:
    """The record of a Job and those of these pods that are its own; `config` is the worker's, from its ConfigMap."""
    job = copy.deepcopy(job)
    own = [copy.deepcopy(pod) for pod in pods if (pod["metadata"].get("labels") or {}).get(UID_LABEL) == uid_of(job)]
    annotations = job["metadata"].setdefault("annotations", {}) or {}
    job["metadata"]["annotations"] = annotations
    if waits := backoffs(job, own):
        annotations[BACKOFF_ANNOTATION] = json.dumps(waits)
    by_object = _newest_events(events)
    if said := by_object.get(uid_of(job)):
        annotations[WAITING_ANNOTATION] = _refused(said, job["metadata"].get("namespace") or "")
    for pod in own:
        if said := waiting_for(pod, by_object.get(uid_of(pod))):
            pod["metadata"].setdefault("annotations", {})[WAITING_ANNOTATION] = said
    suspended = bool(job["spec"].get("suspend"))
    conditions = true_conditions(job).keys()
    return Record(
        name=release_of(job),
        revision=revision_of(job),
        values=values_of(job, config),
        job=job,
        pods=own,
        suspended=suspended,
        cancelled=suspended and CANCELLED in annotations,  # where somebody else has let it go on, it is not
        controller="finished" if conditions & {"Complete", "Failed"} else "alive",
        created_at=parse_time(job["metadata"].get("creationTimestamp")) or datetime.now(UTC),
    )


def uid_of(thing: Object) -> str:
    return str(thing["metadata"].get("uid") or "")


def needs_events(job: Object, pods: Iterable[Object]) -> bool:
    """Whether something of it waits, so that events may say for what."""
    if true_conditions(job).keys() & {"Complete", "Failed"}:
        return False
    if job["spec"].get("suspend"):
        return False
    phases = [(pod.get("status") or {}).get("phase") for pod in pods]
    return "Pending" in phases or "Running" not in phases or len(by_index(pods)) < _wanted(job)


def _wanted(job: Object) -> int:
    """How many indexes have a pod, or have had one, when the Job controller could make them all."""
    return min(whole(job, "spec", "parallelism") or MOST_INDEXES, completions_of(job))


def _refused(said: str, namespace: str) -> str:
    """Why the Job controller could make no pod, as submit would have said it."""
    known = refusal_in(said, Place("", "", namespace))
    return one_line(str(known)) or said if known else said


def waiting_for(pod: Object, event: str | None) -> str | None:
    """What a pending pod waits for: the container's state, the scheduler's word, or the newest telling event."""
    status = pod.get("status") or {}
    if status.get("phase") != "Pending":
        return None
    state = ((status.get("containerStatuses") or [{}])[0].get("state") or {}).get("waiting") or {}
    reason = state.get("reason")
    if reason in WAITING_MEANINGS:
        return f"{WAITING_MEANINGS[reason]}: {one_line(state.get('message')) or _image(pod)}"
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unscheduled(one_line(scheduled.get("message")) or "", pod) or event
    return event


def _unscheduled(said: str, pod: Object) -> str:
    """The scheduler's reason without its thoughts on preemption; where it is a claim, which one."""
    if "unbound immediate PersistentVolumeClaims" in said:
        claims = [
            (volume.get("persistentVolumeClaim") or {}).get("claimName")
            for volume in (pod.get("spec") or {}).get("volumes") or []
        ]
        name = next(filter(None, claims), "its claim")
        return f"the claim {name} is not bound to a volume yet (`kubectl describe pvc {name}` says why)"
    return one_line(_PREEMPTION.sub("", said)) or ""


def values_of(job: Object, config: Object | None) -> dict[str, Any]:
    """The values that make this job again: the normalised spec in its config, else what the Job itself tells."""
    if spec := mapping(config, "spec"):
        fresh = text(config, "freshToken")
        return {**with_environment(spec, job), **({"planned": {"freshToken": fresh}} if fresh else {})}
    labels = job["metadata"].get("labels") or {}
    values: dict[str, Any] = {
        key: labels[f"jobctl.dev/{key}"] for key in ("kind", "task", "gpu") if f"jobctl.dev/{key}" in labels
    }
    values["replicas"] = job["spec"].get("completions") or 1
    for volume in pod_spec_of(job).get("volumes") or []:
        if claim := (volume.get("persistentVolumeClaim") or {}).get("claimName"):
            values["volume"] = {"claim": claim}
    return values


def config_name_of(job: Object) -> str | None:
    """The ConfigMap that its pods mount."""
    for volume in pod_spec_of(job).get("volumes") or []:
        if volume.get("configMap"):
            return str(volume["configMap"].get("name"))
    return None


def config_of(config_map: Object | None) -> Object | None:
    """The worker's config in a ConfigMap; None where it holds none."""
    return object_or_none(text(config_map, "data", "config.json") or "")


def pod_spec_of(job: Object) -> Object:
    return dict(((job.get("spec") or {}).get("template") or {}).get("spec") or {})


def image_of(job: Object) -> str:
    return str((pod_spec_of(job).get("containers") or [{}])[0].get("image") or "")


def _image(pod: Object) -> str:
    return str(((pod.get("spec") or {}).get("containers") or [{}])[0].get("image") or "its image")


def event_time(event: Mapping[str, Any]) -> str:
    """When an event was last seen, RFC 3339: events have carried that in three places."""
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp") or ""
    )  # fmt: skip


def is_about(event: Object, name: str) -> bool:
    """Whether it is about a Job or pod of this release: NAME-r3, NAME-r3-0-abcde."""
    about = event.get("involvedObject") or {}
    return about.get("kind") in ("Job", "Pod") and bool(
        re.fullmatch(rf"{re.escape(name)}-r\d+(-\d+-[a-z0-9]+)?", str(about.get("name")))
    )


def event_of(event: Object) -> Event:
    about = event.get("involvedObject") or {}
    return Event(
        time=event_time(event),
        type=str(event.get("type") or "Normal"),
        object=f"{about.get('kind')}/{about.get('name')}",
        reason=str(event.get("reason") or ""),
        message=one_line(event.get("message")) or "",
        count=whole(event, "series", "count") or whole(event, "count") or 1,
    )


def _newest_events(events: Iterable[Object]) -> dict[str, str]:
    """uid → the newest warning that tells why nothing goes on."""
    found: dict[str, str] = {}
    for event in sorted(events, key=event_time):
        if event.get("type") == "Warning" and event.get("reason") in TELLING:
            found[str((event.get("involvedObject") or {}).get("uid"))] = one_line(event.get("message")) or ""
    return {uid: said for uid, said in found.items() if said}
