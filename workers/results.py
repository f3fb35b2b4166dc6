"""The end of an index or of a run: results/INDEX.FENCE/result.json, and what later attempts conclude from it.

Standard library only (the supervisor imports this); `config` is a workers.config.Config.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workers import __version__, lease, storage, untrusted
from workers.errors import BadConfigError, BadDataError, InterruptedRun
from workers.room import when_there_is_room
from workers.runtime import Runtime, lease_directory, run_directory

if TYPE_CHECKING:
    from workers.config import Config

SCHEMA = "jobctl.result/v1"
RESULT = "result.json"
VERSIONED = ("torch", "numpy", "zarr", "mujoco", "gymnasium", "safetensors", "scikit-learn")
Scope = Literal["index", "run"]
_FIELDS: dict[str, untrusted.Types] = {
    "kind": str,
    "specHash": str,
    "jobUid": str,
    "fence": int,
    "exitCode": int,
    "reason": str,
}


@dataclass(frozen=True)
class Job:
    """The part of a config that names a result."""

    run: str
    kind: str
    task: str
    spec_hash: str
    data: str | None = None


def publish_result(
    runtime: Runtime,
    config: "Config | Job",
    *,
    scope: Scope,
    code: int,
    reason: str,
    figures: Mapping[str, float] | None = None,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    files: Callable[[Path], None] | None = None,
) -> Path:
    """Publish results/INDEX.FENCE; `files(directory)` adds plots and reports beside result.json.

    The run's own, results/run.NUMBER, has the next number: leases of different indexes count on their own. It is made
    once for each Job and code. `figures`: flat name -> number; `tables`: name -> {"columns": [...], "rows": [[...]]},
    and "detail": true in one that is for the report rather than a terminal. Idempotent: what is already published under
    this name stays. Numbers that are not finite become null: JSON has none. Raises InterruptedRun if a newer attempt
    holds the lease.
    """
    run_dir = run_directory(runtime.volume, config.run)
    record = {
        "schema": SCHEMA,
        "run": config.run,
        "kind": config.kind,
        "task": config.task,
        "specHash": config.spec_hash,
        "jobUid": runtime.job_uid,
        "podUid": runtime.pod_uid,
        "index": runtime.index if scope == "index" else None,
        "fence": runtime.fence,
        "exitCode": code,
        "reason": reason,
        "figures": dict(figures or {}),
        "tables": {name: dict(table) for name, table in (tables or {}).items()},
        "startedAt": iso(runtime.started_at),
        "finishedAt": iso(time.time()),
        "seconds": round(time.monotonic() - runtime.started_monotonic, 3),
        "provenance": provenance(),
    }

    def write(directory: Path) -> None:
        (directory / RESULT).write_text(json.dumps(finite(record), indent=1) + "\n")
        if files is not None:
            files(directory)
        _require_lease(runtime, config)  # a moment before it is published

    if scope == "index":
        final = run_dir / "results" / f"{runtime.index}.{runtime.fence:06d}"
        with contextlib.suppress(FileExistsError):
            storage.publish(final, write)
        return final
    while (known := _same_end(run_dir, record)) is None:
        # First the number, then the look at the lease: whoever takes it in between gets this number or a later one, so
        # that a late writer's end is never the newest.
        record["fence"] = _next_number(run_dir)
        with contextlib.suppress(FileExistsError):  # another was first: what it says may be the same
            return storage.publish(run_dir / "results" / f"run.{record['fence']:06d}", write)
    return known


def publish_with_room(runtime: Runtime, config: "Config", **end: Any) -> Path:
    """As `publish_result`, for a loop: a full disk is waited for, with signs of life, until somebody says stop."""
    return when_there_is_room(lambda: publish_result(runtime, config, **end), runtime, "the result")


def read_result(
    run_dir: Path,
    scope: int | Literal["run"],
    on_corrupt: Callable[[untrusted.CorruptError], None] = lambda error: None,
) -> dict[str, Any] | None:
    """The newest sound result of an index, or of the run; None if there is none or a later lease superseded it.

    `on_corrupt` hears of each damaged one that was passed over.
    """
    found = _newest(run_dir, scope, on_corrupt)
    return found[1] if found else None


def _newest(
    run_dir: Path,
    scope: int | Literal["run"],
    on_corrupt: Callable[[untrusted.CorruptError], None] = lambda error: None,
) -> tuple[Path, dict[str, Any]] | None:
    return next(_sound(run_dir, scope, on_corrupt), None)


def _sound(
    run_dir: Path, scope: int | Literal["run"], on_corrupt: Callable[[untrusted.CorruptError], None]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The results that verify and that no later lease superseded, newest first."""
    wanted = str(scope)
    limits = lease.adopted_limits(run_dir / "lease" / ("0" if scope == "run" else wanted))
    candidates = [(fence, path) for stem, fence, path in storage.fenced(run_dir / "results") if stem == wanted]
    for fence, path in sorted(candidates, reverse=True):
        if fence < limits.newest and scope != "run":
            continue
        try:
            yield path, _read(run_dir, path)
        except untrusted.CorruptError as error:
            if path.exists():
                on_corrupt(error)


def _read(run_dir: Path, path: Path) -> dict[str, Any]:
    """A published result. Raises CorruptError."""
    storage.verify(path, root=run_dir)
    try:
        return untrusted.read_record(path / RESULT, _FIELDS, root=run_dir, limit=untrusted.MAX_JSON_BYTES)
    except FileNotFoundError:
        raise untrusted.CorruptError(path / RESULT, "it is missing") from None


def _same_end(run_dir: Path, record: Mapping[str, Any]) -> Path | None:
    """The run's newest result, if it is of the same spec, Job and code."""
    newest = _newest(run_dir, "run")
    told = ("specHash", "jobUid", "exitCode")
    return newest[0] if newest and all(newest[1][name] == record[name] for name in told) else None


def _next_number(run_dir: Path) -> int:
    return 1 + max((number for stem, number, _ in storage.fenced(run_dir / "results") if stem == "run"), default=0)


def _require_lease(runtime: Runtime, config: "Config | Job") -> None:
    """What a late writer publishes could only mislead: its successor's word counts."""
    index = 0 if config.kind == "train" else runtime.index
    directory = lease_directory(runtime.volume, config.kind, config.run, config.data, index)
    if max(lease.numbers(directory), default=0) > runtime.fence:
        raise InterruptedRun(f"a newer attempt has taken the lease {directory}: this one publishes no result")


def finished(run_dir: Path, index: int, spec_hash: str, job_uid: str) -> int | None:
    """The exit code that an attempt repeats without working: 0 for the same spec, other codes for the same Job only."""
    result = read_result(run_dir, index)
    if result is None or result["specHash"] != spec_hash:
        return None
    code: int = result["exitCode"]
    return code if code == 0 or result["jobUid"] == job_uid else None


def finished_training(run_dir: Path, on_corrupt: Callable[[untrusted.CorruptError], None] = lambda error: None) -> bool:
    """Whether a training has ended with success. A later one that was refused (64, 65) takes nothing of that back."""
    for _, result in _sound(run_dir, 0, on_corrupt):
        if result["exitCode"] not in (BadConfigError.code, BadDataError.code):
            return bool(result["kind"] == "train" and result["exitCode"] == 0)
    return False


def highest_fence(run_dir: Path) -> int:
    """The highest number in the name of anything that indexes have published; 0 if they have nothing.

    The next lease is above it also where the leases are gone: a run that was copied, or moved back.
    """
    places = ("checkpoints", "best", "predictions", "results")
    found = [(stem, fence) for place in places for stem, fence, _ in storage.fenced(run_dir / place)]
    return max((fence for stem, fence in found if stem != "run"), default=0)


def provenance() -> dict[str, Any]:
    """Versions and platform that made a result."""
    import importlib.metadata  # 20 ms that the supervisor's start does without

    versions = {"workers": __version__, "python": platform.python_version()}
    for name in VERSIONED:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "versions": versions,
        "platform": platform.platform(),
        "device": os.environ.get("JOBCTL_DEVICE", "cpu"),
        "image": os.environ.get("JOBCTL_IMAGE"),
    }


def finite(value: Any) -> Any:
    """A copy in which numbers without a JSON form (nan, inf) are None and numpy numbers are plain."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
