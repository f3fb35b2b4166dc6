"""A home of its own for every test, and the promise that no process outlives it."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from jobctl.backend import Record, Release
from jobctl.errors import NotFoundError
from jobctl.local.backend import LocalBackend

Dict = dict[str, Any]


class Home:
    """A JOBCTL_HOME with its backend, and what a test asks of both."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.backend = LocalBackend(path)

    def submit(self, name: str, manifest: list[Dict], revision: int = 1) -> None:
        self.backend.submit(Release(name, revision, {"kind": "train", "gpu": "cpu"}, manifest))

    def wait(self, name: str, holds: Callable[[Record], bool], seconds: float = 20) -> Record:
        def found() -> Record | None:
            record = self.backend.record(name)
            return record if holds(record) else None

        return wait_for(f"{name} is so", found, seconds, lambda: self.backend.record(name))

    def end(self, name: str) -> Record:
        return self.wait(name, lambda record: record.controller == "finished")

    def gone(self, name: str) -> Record:
        return self.wait(name, lambda record: record.controller == "gone", seconds=5)

    def log(self, name: str, index: int | None = None) -> list[str]:
        return [line.text for line in self.backend.logs(name, index, follow=False)]

    def said(self, name: str, text: str) -> Record:
        """Wait until a pod has printed a line and the supervisor knows that pod."""
        return self.wait(name, lambda record: text in self.log(name) and record.job["status"]["ready"] > 0)

    def supervisor(self, name: str) -> int:
        return int(self.backend.supervisor_pid(name))

    def alive(self) -> list[int]:
        """Processes whose command or environment names this home."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if str(self.path).encode() in text:
                    found.append(int(entry.name))
        return found

    def until_empty(self, seconds: float = 10) -> None:
        """Wait until no process of this home is left."""
        wait_for("no process is left", lambda: not self.alive(), seconds, self.alive)

    def close(self) -> None:
        for record in self.backend.records():
            try:
                self.backend.delete(record.name)
            except NotFoundError:
                continue
        try:
            self.until_empty()
        finally:
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", "0.01")
    home = Home(tmp_path / "home")
    yield home
    home.close()


def manifest_of(script: str, completions: int = 1, **spec: Any) -> list[Dict]:
    container, pod = spec.pop("container", {}), spec.pop("pod", {})
    return [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "x-r1"},
            "spec": {
                "completionMode": "Indexed",
                "completions": completions,
                "parallelism": completions,
                **spec,
                "template": {
                    "spec": {
                        "restartPolicy": "Never",
                        "containers": [{"name": "worker", "command": ["sh", "-c", script], **container}],
                        **pod,
                    }
                },
            },
        }
    ]


@pytest.fixture
def manifest() -> Callable[..., list[Dict]]:
    return manifest_of
