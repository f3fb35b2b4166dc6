"""KubernetesBackend: a job is a Helm release, and what the API server has of it under the chart's labels."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from jobctl.backend import Event, LogLine, Record, Release, claim_of, live
from jobctl.cluster import kueue, logs, progress, records, release
from jobctl.cluster.api import Api, connect
from jobctl.cluster.changes import Changes
from jobctl.cluster.place import find_place
from jobctl.cluster.reader import PodReader
from jobctl.cluster.refusals import ConflictError
from jobctl.errors import JobctlError, NotFoundError, OvertakenError, RefusedError, UnreachableError, nearest
from jobctl.version import __version__

Object = dict[str, Any]

# What a release consists of; also what Helm may have forgotten of it.
PARTS = ("jobs", "configmaps", "services", "serviceaccounts")


class KubernetesBackend:
    """Jobs of one namespace. Nothing is asked of the cluster before a method needs it."""

    name = "kubernetes"

    def __init__(
        self, context: str | None = None, namespace: str | None = None, note: Callable[[str], None] = print
    ) -> None:
        """`note` is told, while something is watched, what people should know beside the answer."""
        self.note = note
        self.place = find_place(context, namespace)
        self.helm = release.Helm(self.place)
        self._readers: dict[str, PodReader] = {}
        self._changes: dict[str, Changes] = {}

    @cached_property
    def api(self) -> Api:
        return connect(self.place)

    # ---- Backend

    def submit(self, release_: Release) -> int:
        """Install or upgrade as that revision. A first install that fails leaves nothing behind.

        Raises OvertakenError where the release has changed since it was looked at.
        """
        if self.settle(release_.name) != release_.revision:
            raise release.overtaken(release_.name)
        release.try_out(self.api, release_)
        token = secrets.token_hex(8)
        try:
            self.helm.upgrade(release_.name, release_.values, release_.revision, token)
        except OvertakenError:
            raise
        except (JobctlError, KeyboardInterrupt):
            with contextlib.suppress(JobctlError):  # the first error is the one to tell
                self._take_back(release_.name, token)
            raise
        return release_.revision

    def settle(self, name: str) -> int:
        """Put in order what an interrupted Helm left of a release; the revision that comes next.

        Raises OvertakenError while another call is at work on it, RefusedError where another chart has the name.
        """
        found = self._secrets(name)
        if not found:
            return 1
        self.helm.is_ours(name)
        repair = release.repair(found, time.time())
        if repair.busy:
            raise release.overtaken(name)
        for secret in repair.forget:
            self.api.delete("secrets", secret)
        if repair.uninstall:
            self.helm.uninstall(name)
        kept = [release.revision_of(one) for one in found if one["metadata"]["name"] not in repair.forget]
        return 1 if repair.uninstall else max(kept) + 1

    def records(self) -> list[Record]:
        jobs = records.newest_jobs(self.api.find("jobs", labelSelector=records.JOBS))
        if not jobs:
            self._see_namespace()
            return []
        pods = self.api.find("pods", labelSelector=records.JOBS)
        maps = {one["metadata"]["name"]: one for one in self.api.find("configmaps", labelSelector=records.JOBS)}
        waiting = any(records.needs_events(job, _own(pods, job)) for job in jobs.values())
        events = self._events() if waiting else []
        workloads = kueue.visible(self.api, jobs.values())
        found = (
            records.record_of(job, pods, records.config_of(maps.get(records.config_name_of(job) or "")), events)
            for _, job in sorted(jobs.items())
        )
        return [kueue.in_queue(record, workloads) for record in found]

    def record(self, name: str) -> Record:
        job = self._job(name)
        pods = self.api.find("pods", labelSelector=_selector(name))
        config_map = None
        with contextlib.suppress(NotFoundError):
            config_map = self.api.get("configmaps", records.config_name_of(job) or job["metadata"]["name"])
        events = self._events() if records.needs_events(job, _own(pods, job)) else []
        record = records.record_of(job, pods, records.config_of(config_map), events)
        return kueue.in_queue(record, kueue.visible(self.api, [job]))

    def values(self, name: str) -> dict[str, Any]:
        """The newest revision's values as they were given; from the job's config where Helm has forgotten them."""
        try:
            return self.helm.values(name)
        except NotFoundError:
            return self.record(name).values

    def suspend(self, name: str) -> None:
        self._let_run(name, False, {})

    def resume(self, name: str) -> None:
        self._let_run(name, True, {records.CANCELLED: None})

    def cancel(self, name: str) -> None:
        self._let_run(name, False, {records.CANCELLED: datetime.now(UTC).isoformat(timespec="seconds")})

    def delete(self, name: str) -> int:
        """Uninstall, then remove by label what Helm has forgotten. Claims and what is on them stay."""
        known = self.helm.is_ours(name)
        if not self._remove(name) and not known:
            raise self._not_found(name)
        return len(live(self.api.find("pods", labelSelector=_selector(name))))

    def logs(self, name: str, index: int | None, follow: bool) -> Iterator[LogLine]:
        completions = int(self._job(name)["spec"].get("completions") or 1)
        if index is not None and not 0 <= index < completions:
            raise NotFoundError(f"Job {name} has no replica {index}, only 0 to {completions - 1}.")
        return logs.stream(
            self.api, lambda: self._look(name), index, follow, lambda pods: self._older(name, pods), self.note
        )

    def reader(
        self, claim: str, record: Record | None, image: str | None = None, patience_seconds: float | None = None
    ) -> PodReader:
        """A pod with the job's own image; where the job is gone, with this one or the chart's default."""
        if claim not in self._readers:
            image = records.image_of(record.job) if record else image or f"jobctl-worker:{__version__}"
            pod_spec = records.pod_spec_of(record.job) if record else None
            self._readers[claim] = PodReader(self.api, claim, image, pod_spec)
        if patience_seconds is not None:
            self._readers[claim].start_seconds = patience_seconds
        return self._readers[claim]

    def events(self, name: str) -> list[Event]:
        """Those of its Job and pods, also of pods and revisions that are gone."""
        self._job(name)
        found = [event for event in self.api.find("events") if records.is_about(event, name)]
        return [records.event_of(event) for event in sorted(found, key=records.event_time)]

    def metrics(self, record: Record) -> list[list[Object]]:
        return progress.metrics_lines(self.api, record.job, record.pods, time.time())

    def wait_for_change(self, name: str, seconds: float) -> None:
        if name not in self._changes:
            self._changes[name] = Changes(self.api, _selector(name))
        self._changes[name].wait(seconds)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    # ---- objects

    def _remove(self, name: str) -> bool:
        """Everything of this name but its data; whether anything was there beside what Helm knows.

        What Helm can't remove is removed here, too, or the missing right is named: Helm doesn't. Only what is there now
        goes: a job that is submitted meanwhile under this name stays.
        """
        parts, secrets_ = self._parts(name), self._secrets(name)
        failed = False
        try:
            self.helm.uninstall(name)
        except UnreachableError:
            raise
        except JobctlError:
            failed = True
        for plural, one in parts:
            self._delete(plural, one)
        if failed:
            for secret in secrets_:
                self._delete("secrets", secret)
        return bool(parts)

    def _take_back(self, name: str, token: str) -> None:
        """Remove what the failed first install with this token has made, and nothing else.

        Its Secret goes last: as long as it is there, nobody else can install under this name.
        """
        found = self._secrets(name)
        if len(found) != 1 or (found[0]["metadata"].get("labels") or {}).get(release.CALL_LABEL) != token:
            return
        since = str(found[0]["metadata"].get("creationTimestamp"))
        for plural, one in self._parts(name):
            if str(one["metadata"].get("creationTimestamp")) >= since:
                self._delete(plural, one)
        self._delete("secrets", found[0])

    def _parts(self, name: str) -> list[tuple[str, Object]]:
        """(plural, object) of all that a release of this name consists of."""
        return [(plural, one) for plural in PARTS for one in self.api.find(plural, labelSelector=_selector(name))]

    def _secrets(self, name: str) -> list[Object]:
        """The Secrets in which Helm keeps the revisions of a release."""
        return self.api.find("secrets", labelSelector=f"owner=helm,name={name}")

    def _delete(self, plural: str, one: Object) -> None:
        """Delete this object, not another one that has its name by now."""
        with contextlib.suppress(NotFoundError, ConflictError):
            self.api.delete(plural, one["metadata"]["name"], uid=records.uid_of(one))

    def _job(self, name: str) -> Object:
        jobs = records.newest_jobs(self.api.find("jobs", labelSelector=_selector(name)))
        if name not in jobs:
            raise self._not_found(name)
        return jobs[name]

    def _not_found(self, name: str) -> NotFoundError:
        known = records.newest_jobs(self.api.find("jobs", labelSelector=records.JOBS))
        if not known:
            self._see_namespace()
        hint = nearest(name, known) if known else " (there are no jobs)"
        return NotFoundError(f"There is no job {name!r} in namespace {self.place.namespace}{hint}.")

    def _see_namespace(self) -> None:
        """Raises NotFoundError where there is no such namespace: lists of it are empty, too. Needs no right."""
        with contextlib.suppress(RefusedError):  # who may not see it has to take the empty list for what it is
            self.api.get("namespaces", self.place.namespace)

    def _look(self, name: str) -> tuple[list[Object], bool]:
        """Its pods, and whether no more will come and none writes any more."""
        job = self._job(name)
        pods = _own(self.api.find("pods", labelSelector=_selector(name)), job)
        status = job.get("status") or {}
        final = any(
            c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in status.get("conditions") or []
        )
        cancelled = records.CANCELLED in (job["metadata"].get("annotations") or {})
        return pods, final or (cancelled and not status.get("active"))

    def _older(self, name: str, pods: Sequence[Object]) -> Iterator[LogLine]:
        """Lines of the attempts whose pods are gone, from the volume: of evicted pods, and of older revisions."""
        record = self.record(name)
        if record.revision == 1 and not logs.some_are_gone(pods):
            return iter(())
        return logs.from_volume(self.reader(claim_of(record.values), record), name, pods)

    def _events(self) -> list[Object]:
        return self.api.find("events", fieldSelector="type=Warning")

    def _let_run(self, name: str, may_run: bool, annotations: dict[str, str | None]) -> None:
        """Have its Job suspended or resumed: by Kueue, where that manages it, as it would undo what others do."""
        job = self._job(name)
        conditions = (job.get("status") or {}).get("conditions") or []
        if any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions):
            raise RefusedError(f"Job {name} has ended: `jobctl retry {name}` runs it again.")
        change: Object = {"metadata": {"annotations": annotations}}
        workload = kueue.governing(self.api, job)
        if workload is None:
            change["spec"] = {"suspend": not may_run}
        else:
            kueue.set_active(self.api, workload, may_run)
        self.api.patch("jobs", job["metadata"]["name"], change)


def _own(pods: list[Object], job: Object) -> list[Object]:
    uid = records.uid_of(job)
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(records.UID_LABEL) == uid]


def _selector(name: str) -> str:
    return f"{records.JOBS},{records.RELEASE_LABEL}={name}"
