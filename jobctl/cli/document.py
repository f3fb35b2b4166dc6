"""The documents that reading commands print: pure, from a JobView and what the volume says."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from jobctl.cli.output import duration
from jobctl.objects import Backoff, ReplicaView
from jobctl.progress import Progress
from jobctl.status import JobView
from jobctl.volume import Result, Run

# What to type next, by state.
NEXT: dict[str, tuple[str, ...]] = {
    "pending": ("jobctl wait {name}",),
    "starting": ("jobctl logs -f {name}",),
    "running": ("jobctl logs -f {name}", "jobctl wait {name}"),
    "recovering": ("jobctl logs {name}", "jobctl retry {name}"),
    "suspended": ("jobctl resume {name}",),
    "cancelled": ("jobctl resume {name}", "jobctl delete {name}"),
    "interrupted": ("jobctl retry {name}",),
    "succeeded": ("jobctl results {name}",),
    "failed": ("jobctl logs {name}", "jobctl retry {name}"),
    "unknown": ("jobctl logs {name}", "jobctl retry {name}", "jobctl delete {name}"),
}
# What a kind counts.
UNITS = {"train": "step", "collect": "episode", "eval": "episode"}


def job_summary(job: JobView, progress: Progress | None) -> dict[str, Any]:
    """One job as `list` shows it."""
    return {
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "kind": job.kind,
        "task": job.task,
        "gpu": job.gpu,
        "replicas": job.completions,
        "revision": job.revision,
        "specHash": job.spec_hash,
        "progress": progress_document(progress),
        "createdAt": time_text(job.created_at),
        "startedAt": time_text(job.started_at),
        "finishedAt": time_text(job.finished_at),
    }


def job_document(
    job: JobView, run: Run, progress: Progress | None, attempts: dict[int, int] | None, result: Result | None
) -> dict[str, Any]:
    """One job as `status` shows it: its summary and all that belongs to it."""
    return {
        **job_summary(job, progress),
        "controller": job.controller,
        "replicaStatuses": [_replica(replica, attempts) for replica in job.replicas],
        "backoffs": [_backoff(wait) for wait in job.backoffs],
        "result": result_summary(run, result),
        "next": [command.format(name=job.name) for command in NEXT[job.state]],
    }


def result_summary(run: Run, result: Result | None) -> dict[str, Any] | None:
    """The end in short: where it lies and its figures."""
    if result is None:
        return None
    return {
        "exitCode": result.exit_code,
        "reason": result.reason,
        "figures": result.figures,
        "directory": run.place_of(result.directory),
        "plots": [run.place_of(path) for path in result.plots],
        "reports": [run.place_of(path) for path in result.reports],
    }


def progress_document(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "step": progress.step,
        "steps": progress.steps,
        "stepsPerSecond": progress.steps_per_second,
        "etaSeconds": progress.eta_seconds,
        "updatedUnixSeconds": progress.updated_unix_seconds,
        "figures": progress.figures,
    }


def progress_text(progress: dict[str, Any] | None, kind: str) -> str:
    """A progress document in one line: step 120/400 (30 %) · 85.3/s · loss 0.312 · 3 s left."""
    if progress is None:
        return "–"
    step, steps = progress["step"], progress["steps"]
    unit = UNITS.get(kind, "step")
    parts = [f"{unit} {step}" if not steps else f"{unit} {step}/{steps} ({100 * step // steps} %)"]
    if progress["stepsPerSecond"] is not None:
        parts.append(f"{progress['stepsPerSecond']:.3g}/s")
    parts += [
        f"{key} {progress['figures'][key]:.4g}" for key in ("loss", "validation_f1") if key in progress["figures"]
    ]
    if progress["etaSeconds"]:
        parts.append(f"{duration(progress['etaSeconds'])} left")
    return " · ".join(parts)


def time_text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _replica(replica: ReplicaView, attempts: dict[int, int] | None) -> dict[str, Any]:
    return {
        "index": replica.index,
        "pod": replica.pod,
        "phase": replica.phase,
        "exitCode": replica.exit_code,
        # Pods of this revision, and all attempts that the volume remembers; None where it wasn't looked at.
        "attempts": replica.attempts,
        "attemptsOnVolume": None if attempts is None else attempts.get(replica.index, 0),
        "pid": replica.pid,
        "address": replica.address,
        "metricsUrl": replica.metrics_url,
        "message": replica.message,
    }


def _backoff(wait: Backoff) -> dict[str, Any]:
    return {
        "index": wait.index,
        "secondsLeft": round(wait.seconds_left, 1),
        "seconds": wait.seconds,
        "scale": wait.scale,
    }
