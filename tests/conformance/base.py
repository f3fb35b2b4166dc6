"""What the statements of batch/v1 ask of whatever runs Jobs, as far as it is asked in the same way everywhere."""

from __future__ import annotations

import json
from collections.abc import Callable

from waiting import wait_for

from jobctl.backend import Backend, Record


class Cluster:
    """One test's Jobs behind a backend."""

    backend: Backend
    poll_seconds: float
    clock_seconds: float  # by how much its times may be too early
    patience = 1  # how many times longer things take here than with processes of this machine

    def record(self, name: str) -> Record:
        return self.backend.record(name)

    def wait(self, name: str, holds: Callable[[Record], bool], seconds: float = 20) -> Record:
        def found() -> Record | None:
            record = self.record(name)
            return record if holds(record) else None

        def picture() -> str:
            record = self.record(name)
            return f"{json.dumps(record.job['status'])} {record.pods}"

        return wait_for(f"{name} is so", found, seconds * self.patience, picture, self.poll_seconds)

    def end(self, name: str, seconds: float = 20) -> Record:
        return self.wait(name, lambda record: record.controller == "finished", seconds)

    def running(self, name: str, count: int = 1) -> Record:
        return self.wait(name, lambda record: record.job["status"]["ready"] == count)

    def log(self, name: str, index: int | None = None) -> list[str]:
        return [line.text for line in self.backend.logs(name, index, follow=False)]

    def said(self, name: str, text: str) -> None:
        """Wait until a pod has printed a line."""
        self.wait(name, lambda _: text in self.log(name))
