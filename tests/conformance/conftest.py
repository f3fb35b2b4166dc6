"""One small interface to whatever runs Jobs, so that the same statements hold for every backend."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobctl.backend import Record, Release
from jobctl.errors import NotFoundError
from jobctl.local.backend import LocalBackend

Dict = dict[str, Any]
BACKOFF_SCALE = 0.01


def job_manifest(script: str, completions: int = 1, **spec: Any) -> Dict:
    """An Indexed Job that runs a shell script. Keys of `container` and `pod` are merged into those parts."""
    container = spec.pop("container", {})
    pod = spec.pop("pod", {})
    template = spec.pop("template", {})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "PLACEHOLDER"},
        "spec": {
            "completionMode": "Indexed",
            "completions": completions,
            "parallelism": completions,
            "podReplacementPolicy": "Failed",
            **spec,
            "template": {
                **template,
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 5,
                    "containers": [
                        {
                            "name": "worker",
                            "image": "python:3.11-slim-bookworm",
                            "command": ["sh", "-c", script],
                            **container,
                        }
                    ],
                    **pod,
                },
            },
        },
    }


class LocalCluster:
    """The local backend in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.backend = LocalBackend(home)
        self.backoff_scale = BACKOFF_SCALE

    def submit(self, name: str, job: Dict, *others: Dict, revision: int = 1) -> None:
        job = json.loads(json.dumps(job))
        job["metadata"]["name"] = f"{name}-r{revision}"
        self.backend.submit(Release(name, revision, {"kind": "train"}, [*others, job]))

    def record(self, name: str) -> Record:
        return self.backend.record(name)

    def wait(self, name: str, holds: Callable[[Record], bool], seconds: float = 20) -> Record:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            record = self.backend.record(name)
            if holds(record):
                return record
            time.sleep(0.02)
        raise AssertionError(f"did not happen within {seconds} s: {json.dumps(record.job['status'])} {record.pods}")

    def end(self, name: str, seconds: float = 20) -> Record:
        return self.wait(name, lambda record: record.controller == "finished", seconds)

    def running(self, name: str, count: int = 1) -> Record:
        return self.wait(name, lambda record: record.job["status"]["ready"] == count)

    def log(self, name: str, index: int | None = None) -> list[str]:
        return [line.text for line in self.backend.logs(name, index, follow=False)]

    def said(self, name: str, text: str) -> None:
        """Wait until a pod has printed a line."""
        self.wait(name, lambda _: text in self.log(name))

    def evict(self, name: str, index: int) -> None:
        self.backend.evict(name, index)

    def volume(self, claim: str) -> Path:
        return self.backend.volume(claim)

    def alive(self) -> list[int]:
        """Processes that belong to this home: their command or environment names it."""
        marker = str(self.home).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if marker in text:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Delete what is left, and hold that no process stays."""
        for record in self.backend.records():
            try:
                self.backend.delete(record.name)
            except NotFoundError:
                continue
        deadline = time.monotonic() + 10
        while (left := self.alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"processes left behind: {left}"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", str(BACKOFF_SCALE))
    cluster = LocalCluster(tmp_path / "home")
    yield cluster
    cluster.close()


@pytest.fixture
def manifest() -> Callable[..., Dict]:
    return job_manifest
