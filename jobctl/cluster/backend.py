"""KubernetesBackend: a job is a Helm release, and what the API server has of it under the chart's labels."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from jobctl.backend import Event, LogLine, Record, Release, claim_of
from jobctl.cluster import logs, progress, records, release
from jobctl.cluster.api import Api, connect
from jobctl.cluster.changes import Changes
from jobctl.cluster.place import find_place
from jobctl.cluster.reader import PodReader
from jobctl.errors import JobctlError, NotFoundError, RefusedError, UnreachableError, nearest
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

    def render(self, name: str, values: Mapping[str, Any]) -> Release:
        """What submit would send: with the cluster's own versions, and the revision that Helm would give it."""
        revision, manifest = self.helm.render(name, values)
        return Release(name, revision, dict(values), manifest)

    def submit(self, release_: Release) -> int:
        """Install or upgrade; returns the revision. A first install that fails leaves nothing behind."""
        first = self._first_install(release_.name)
        release.try_out(self.api, release_)
        try:
            return self.helm.upgrade(release_.name, release_.values)
        except JobctlError:
            if first:
                with contextlib.suppress(JobctlError):  # the first error is the one to tell
                    self.api.version()  # where that gets no answer, Helm would only wait for one once more
                    self._remove(release_.name)
            raise

    def records(self) -> list[Record]:
        jobs = records.newest_jobs(self.api.find("jobs", labelSelector=records.JOBS))
        if not jobs:
            self._see_namespace()
            return []
        pods = self.api.find("pods", labelSelector=records.JOBS)
        maps = {one["metadata"]["name"]: one for one in self.api.find("configmaps", labelSelector=records.JOBS)}
        waiting = any(records.needs_events(job, _own(pods, job)) for job in jobs.values())
        events = self._events() if waiting else []
        return [
            records.record_of(job, pods, records.config_of(maps.get(records.config_name_of(job) or "")), events)
            for _, job in sorted(jobs.items())
        ]

    def record(self, name: str) -> Record:
        job = self._job(name)
        pods = self.api.find("pods", labelSelector=_selector(name))
        config_map = None
        with contextlib.suppress(NotFoundError):
            config_map = self.api.get("configmaps", records.config_name_of(job) or job["metadata"]["name"])
        events = self._events() if records.needs_events(job, _own(pods, job)) else []
        return records.record_of(job, pods, records.config_of(config_map), events)

    def values(self, name: str) -> dict[str, Any]:
        """The newest revision's values as they were given; from the job's config where Helm has forgotten them."""
        try:
            return self.helm.values(name)
        except NotFoundError:
            return self.record(name).values

    def suspend(self, name: str) -> None:
        self._set(name, True, {})

    def resume(self, name: str) -> None:
        self._set(name, False, {records.CANCELLED: None})

    def cancel(self, name: str) -> None:
        self._set(name, True, {records.CANCELLED: datetime.now(UTC).isoformat(timespec="seconds")})

    def delete(self, name: str) -> None:
        """Uninstall, then remove by label what Helm has forgotten. Claims and what is on them stay."""
        known = self.helm.is_ours(name)
        if not self._remove(name) and not known:
            raise self._not_found(name)

    def logs(self, name: str, index: int | None, follow: bool) -> Iterator[LogLine]:
        completions = int(self._job(name)["spec"].get("completions") or 1)
        if index is not None and not 0 <= index < completions:
            raise NotFoundError(f"Job {name} has no replica {index}, only 0 to {completions - 1}.")
        return logs.stream(
            self.api, lambda: self._look(name), index, follow, lambda pods: self._older(name, pods), self.note
        )

    def reader(self, claim: str, record: Record | None, image: str | None = None) -> PodReader:
        """A pod with the job's own image; where the job is gone, with this one or the chart's default."""
        if claim not in self._readers:
            image = records.image_of(record.job) if record else image or f"jobctl-worker:{__version__}"
            pod_spec = records.pod_spec_of(record.job) if record else None
            self._readers[claim] = PodReader(self.api, claim, image, pod_spec)
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
        """Everything of this name but its data; whether Helm left anything.

        What Helm can't remove is removed here, too, or the missing right is named: Helm doesn't.
        """
        failed = False
        try:
            self.helm.uninstall(name)
        except UnreachableError:
            raise
        except JobctlError:
            failed = True
        left = [(plural, one) for plural in PARTS for one in self.api.find(plural, labelSelector=_selector(name))]
        for plural, one in left:
            with contextlib.suppress(NotFoundError):
                self.api.delete(plural, one["metadata"]["name"])
        if failed:
            for secret in self.api.find("secrets", labelSelector=f"owner=helm,name={name}"):
                self.api.delete("secrets", secret["metadata"]["name"])
        return bool(left)

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

    def _set(self, name: str, suspend: bool, annotations: dict[str, str | None]) -> None:
        job = self._job(name)
        conditions = (job.get("status") or {}).get("conditions") or []
        if any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in conditions):
            raise RefusedError(f"Job {name} has ended: `jobctl retry {name}` runs it again.")
        self.api.patch(
            "jobs", job["metadata"]["name"], {"metadata": {"annotations": annotations}, "spec": {"suspend": suspend}}
        )

    def _first_install(self, name: str) -> bool:
        """Whether Helm has no release of this name, or only the rest of one. RefusedError: another chart has it."""
        secrets = self.api.find("secrets", labelSelector=f"owner=helm,name={name}")
        if not secrets:
            return True
        self.helm.is_ours(name)
        repair = release.repair(secrets, time.time())
        for secret in repair.forget:
            self.api.delete("secrets", secret)
        if repair.uninstall:
            self.helm.uninstall(name)
        return repair.uninstall


def _own(pods: list[Object], job: Object) -> list[Object]:
    uid = records.uid_of(job)
    return [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(records.UID_LABEL) == uid]


def _selector(name: str) -> str:
    return f"{records.JOBS},{records.RELEASE_LABEL}={name}"
