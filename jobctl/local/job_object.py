"""The batch/v1 Job object that others read, kept by the supervisor."""

import copy
import json
import os
from collections.abc import Sequence
from typing import Any

from jobctl.local.jobs import Condition, JobState, index_strings
from jobctl.local.kubelet import LivePod
from jobctl.local.plan import LocalJob
from jobctl.local.pods import Owner
from jobctl.local.state import timestamp
from jobctl.objects import true_conditions

BACKOFF = "jobctl.dev/backoff"
BACKOFF_SCALE = "jobctl.dev/backoff-scale"
CANCELLED = "jobctl.dev/cancelled"
VERBS = ("suspend", "cancel", "resume")  # what apply_verb knows


class JobObject:
    """Wraps the document; the fields of `status` change as those of a cluster do."""

    def __init__(self, document: dict[str, Any], owner: Owner) -> None:
        self.document = document
        self.owner = owner

    @classmethod
    def of(cls, release: dict[str, Any], job: LocalJob) -> "JobObject":
        """The manifest's Job with what an API server adds."""
        document = copy.deepcopy(next(item for item in release["manifest"] if item and item["kind"] == "Job"))
        metadata = document["metadata"]
        metadata.update(namespace=job.namespace, uid=release["job_uid"], creationTimestamp=release["created_at"])
        metadata["labels"] = metadata.get("labels") or {}
        metadata["annotations"] = {
            **(metadata.get("annotations") or {}),
            BACKOFF_SCALE: f"{release['backoff_scale']:g}",
        }
        document["spec"]["suspend"] = job.suspend
        document["status"] = {"conditions": []}
        return cls(document, Owner(job.name, release["job_uid"], os.uname().nodename))

    def load(self, document: dict[str, Any]) -> None:
        self.document = document

    @property
    def suspended(self) -> bool:
        return bool(self.document["spec"].get("suspend"))

    @property
    def finished(self) -> bool:
        return self.has("Complete") or self.has("Failed")

    def has(self, kind: str) -> bool:
        return is_true(self.document, kind)

    def apply(self, verb: str) -> None:
        apply_verb(self.document, verb)

    def set_condition(self, condition: Condition) -> None:
        conditions = self.document["status"]["conditions"]
        new = {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": condition.message,
            "lastProbeTime": timestamp(),
            "lastTransitionTime": timestamp(),
        }
        conditions[:] = [old for old in conditions if old["type"] != condition.type] + [new]

    def mark_suspended(self, suspended: bool) -> None:
        """Suspending clears startTime; starting or resuming sets it."""
        status = self.document["status"]
        if suspended:
            status.pop("startTime", None)
            self.set_condition(Condition("Suspended", "JobSuspended", "Job suspended"))
            return
        status["startTime"] = timestamp()
        if self.has("Suspended"):
            self.set_condition(Condition("Suspended", "JobResumed", "Job resumed", status="False"))

    def finish(self, condition: Condition) -> None:
        self.set_condition(condition)
        if condition.type == "Complete":
            self.document["status"]["completionTime"] = timestamp()

    def refresh(
        self, job: LocalJob, state: JobState, live: Sequence[LivePod], waits: Sequence[tuple[int, float, float]]
    ) -> None:
        """Recount. waits: (index, Unix seconds until which it waits, length of the wait in seconds)."""
        active = [pod for pod in live if "deletionTimestamp" not in pod.object["metadata"]]
        self.document["status"].update(
            active=len(active),
            ready=sum(pod.object["status"]["phase"] == "Running" for pod in active),
            terminating=len(live) - len(active),
            succeeded=len(state.succeeded),
            failed=state.failed_pods,
            **index_strings(job, state),
        )
        rows = [{"index": i, "until_unix_seconds": round(until, 3), "seconds": wait} for i, until, wait in waits]
        self.document["metadata"]["annotations"][BACKOFF] = json.dumps(rows)


def is_true(document: dict[str, Any], kind: str) -> bool:
    return kind in true_conditions(document)


def apply_verb(document: dict[str, Any], verb: str) -> None:
    """suspend, cancel and resume as edits of a Job's document."""
    annotations = document["metadata"].setdefault("annotations", {})
    document["spec"]["suspend"] = verb != "resume"
    if verb == "cancel":
        annotations[CANCELLED] = "true"
    if verb == "resume":
        annotations.pop(CANCELLED, None)
