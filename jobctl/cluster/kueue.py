"""Jobs with `scheduling.queue`: Kueue starts what it has admitted, whatever the Job's own `suspend` says.

Whether such a job may run is said by its Workload (`spec.active`), an object of Kueue's that the Job owns.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from jobctl.backend import Record
from jobctl.cluster.api import Api
from jobctl.cluster.refusals import ForbiddenError
from jobctl.errors import NotFoundError
from jobctl.objects import WAITING_ANNOTATION, one_line

Object = dict[str, Any]

GROUP = "kueue.x-k8s.io"
QUEUE_LABEL = f"{GROUP}/queue-name"
WORKLOAD_SECONDS = 5.0  # Kueue makes a Job's Workload well within a second
AGAIN_SECONDS = 0.2


def queue_of(job: Object) -> str | None:
    """The LocalQueue that the job was submitted to."""
    return (job["metadata"].get("labels") or {}).get(QUEUE_LABEL)


def workload_of(job: Object, workloads: Iterable[Object]) -> Object | None:
    """The one of these Workloads that the Job owns."""
    uid = job["metadata"].get("uid")
    owned = (one for one in workloads if any(o.get("uid") == uid for o in one["metadata"].get("ownerReferences") or []))
    return next(owned, None)


def is_active(workload: Object) -> bool:
    return bool((workload.get("spec") or {}).get("active", True))


def visible(api: Api, jobs: Iterable[Object]) -> list[Object] | None:
    """The Workloads of the namespace; None where none of the jobs has a queue, without Kueue, and without the right."""
    try:
        return _workloads(api) if any(map(queue_of, jobs)) else None
    except ForbiddenError:
        return None


def governing(api: Api, job: Object) -> Object | None:
    """The Workload that says whether this Job may run, or None where Kueue doesn't manage it.

    Raises ForbiddenError where the Job has a queue and its Workload may not be seen.
    """
    deadline = time.monotonic() + WORKLOAD_SECONDS
    while queue_of(job) and (workloads := _workloads(api)) is not None:
        workload = workload_of(job, workloads)
        if workload is not None or time.monotonic() > deadline:
            return workload
        time.sleep(AGAIN_SECONDS)  # the job has only just been submitted
    return None


def set_active(api: Api, workload: Object, active: bool) -> None:
    """Let Kueue stop the job, or put it into its queue again."""
    api.patch("workloads", workload["metadata"]["name"], {"spec": {"active": active}})


def in_queue(record: Record, workloads: Iterable[Object] | None) -> Record:
    """The record as users mean it: a job that waits in its queue is held by Kueue, suspended by nobody.

    Kueue makes the Workload of a Job a moment after the Job, which it holds from the beginning.
    """
    queue = queue_of(record.job)
    if workloads is None or queue is None or not record.suspended:
        return record
    workload = workload_of(record.job, workloads)
    has_started = bool((record.job.get("status") or {}).get("startTime"))
    if has_started if workload is None else not is_active(workload):
        return record
    why = _waits_for(workload) if workload else None
    record.job["metadata"]["annotations"][WAITING_ANNOTATION] = f"in the queue {queue}" + (f": {why}" if why else "")
    return replace(record, suspended=False, cancelled=False)


def _waits_for(workload: Object) -> str | None:
    """Kueue's own reason, as far as it has looked at the Workload since that was changed."""
    generation = workload["metadata"].get("generation", 0)
    conditions = {
        one.get("type"): one
        for one in (workload.get("status") or {}).get("conditions") or []
        if one.get("observedGeneration", generation) >= generation
    }
    for kind in ("QuotaReserved", "Admitted"):
        if (conditions.get(kind) or {}).get("status") == "False":
            return one_line(conditions[kind].get("message"))
    return None


def _workloads(api: Api) -> list[Object] | None:
    """None where the cluster has no Kueue."""
    try:
        if "workloads" not in api.served:
            api.served["workloads"] = api.preferred(GROUP)
        return api.find("workloads")
    except NotFoundError:
        return None
