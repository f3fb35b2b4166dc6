"""A disk that is full for a moment, for tests in whose own process a loop runs."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from workers import room, storage


def fill_once(monkeypatch: pytest.MonkeyPatch, *places: str) -> set[str]:
    """The first publication in a directory of each name finds the disk full; the names that none has found so yet."""
    real, full = storage.publish, set(places)

    def publish(final: Path, write: Callable[[Path], None]) -> Path:
        if final.parent.name in full:
            full.remove(final.parent.name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(final, write)

    monkeypatch.setattr(storage, "publish", publish)
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.0)
    return full
