"""jobctl on a home directory of its own. Jobs run on the real local backend; their pods run fake_worker.py."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from said import Said
from waiting import wait_for

from jobctl.cli.main import main
from jobctl.errors import NotFoundError
from jobctl.local.backend import LocalBackend

FAKE_WORKER = Path(__file__).parent / "fake_worker.py"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty $JOBCTL_HOME; no job of it outlives the test."""
    home = tmp_path / "home"
    for name in ("KUBECONFIG", "JOBCTL_BACKEND", "JOBCTL_LEASE_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    environ = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "JOBCTL_HOME": str(home),
        "JOBCTL_WORKER_PYTHON": str(FAKE_WORKER),
        "JOBCTL_LOCAL_BACKOFF_SCALE": "0.01",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield home
    backend = LocalBackend(home)
    for record in backend.records():
        with contextlib.suppress(NotFoundError):
            backend.delete(record.name)


@pytest.fixture
def jobctl(home: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run one command in this process."""

    def run(*arguments: str) -> Said:
        capfd.readouterr()
        status = main(list(arguments))
        return Said(status, *capfd.readouterr())

    return run


@pytest.fixture
def program(home: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start jobctl as a process of its own."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "jobctl.cli.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # as on a terminal: what a shell starts in the background ignores Ctrl-C, and so do these tests' children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


@pytest.fixture
def backend(home: Path) -> LocalBackend:
    return LocalBackend(home)


def eventually(holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until it holds; fail the test where it doesn't in time."""
    wait_for("it", holds, seconds, every_seconds=0.05)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., None]:
    return eventually
