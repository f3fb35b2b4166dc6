"""The end of an index or of a run: results/INDEX.FENCE/result.json, and what later attempts conclude from it.

Standard library only (the supervisor imports this); `config` is a workers.config.Config.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workers import __version__, lease, storage
from workers.runtime import Runtime, run_directory

if TYPE_CHECKING:
    from workers.config import Config

SCHEMA = "jobctl.result/v1"
RESULT = "result.json"
VERSIONED = ("torch", "numpy", "zarr", "mujoco", "gymnasium", "safetensors", "scikit-learn")
Scope = Literal["index", "run"]


@dataclass(frozen=True)
class Job:
    """The part of a config that names a result."""

    run: str
    kind: str
    task: str
    spec_hash: str


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
    """Publish results/INDEX.FENCE (or results/run.FENCE); `files(directory)` adds plots and reports beside result.json.

    `figures`: flat name -> number; `tables`: name -> {"columns": [...], "rows": [[...]]}, and "detail": true in one
    that is for the report rather than a terminal. Idempotent: what is already published under this name stays.
    Numbers that are not finite become null: JSON has none.
    """
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

    name = f"{runtime.index if scope == 'index' else 'run'}.{runtime.fence:06d}"
    final = run_directory(runtime.volume, config.run) / "results" / name
    with contextlib.suppress(FileExistsError):
        storage.publish(final, write)
    return final


def read_result(run_dir: Path, scope: int | Literal["run"]) -> dict[str, Any] | None:
    """The newest sound result of an index, or of the run; None if there is none or a later lease superseded it."""
    wanted = str(scope)
    limits = lease.adopted_limits(run_dir / "lease" / ("0" if scope == "run" else wanted))
    candidates = [(fence, path) for stem, fence, path in storage.fenced(run_dir / "results") if stem == wanted]
    for fence, path in sorted(candidates, reverse=True):
        if fence < limits.newest:
            continue
        with contextlib.suppress(storage.CorruptError, FileNotFoundError):
            storage.verify(path)
            return storage.read_json(path / RESULT)
    return None


def finished(run_dir: Path, index: int, spec_hash: str, job_uid: str) -> int | None:
    """The exit code that an attempt repeats without working: 0 for the same spec, other codes for the same Job only."""
    result = read_result(run_dir, index)
    if result is None or result["specHash"] != spec_hash:
        return None
    code = int(result["exitCode"])
    return code if code == 0 or result["jobUid"] == job_uid else None


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
