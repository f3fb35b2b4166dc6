"""Commands as a user types them, and what jobctl answers: for scripts that watch jobs and do none of the work."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
JOBCTL = str(Path(sys.executable).parent / "jobctl")
HOME = Path(os.environ.get("JOBCTL_HOME", ROOT / ".jobctl"))
ENVIRONMENT = os.environ | {"JOBCTL_HOME": str(HOME), "JOBCTL_BACKEND": "local"}


def say(text: str) -> None:
    print(f"\n>>> {text}", flush=True)


def jobctl(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([JOBCTL, *arguments], cwd=ROOT, env=ENVIRONMENT, text=True, **options)


def shown(*arguments: str) -> int:
    """Runs a command with its output on the screen, after showing what is typed."""
    say(" ".join(["jobctl", *arguments]))
    return jobctl(*arguments).returncode


def status(name: str) -> dict[str, Any] | None:
    """What `jobctl status NAME -o json` says; None while there is no such job."""
    asked = jobctl("status", name, "-o", "json", capture_output=True)
    return json.loads(asked.stdout)["job"] if asked.returncode == 0 else None


def results(name: str) -> dict[str, Any]:
    """What `jobctl results NAME -o json` says. Raises CalledProcessError where it has none."""
    asked = jobctl("results", name, "-o", "json", capture_output=True, check=True)
    return json.loads(asked.stdout)["result"]


def submit(documents: Sequence[Mapping[str, Any]]) -> int:
    """`jobctl submit -f FILE --wait` of these documents; its exit status."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(documents, file, sort_keys=False)
        file.flush()
        return jobctl("submit", "-f", file.name, "--wait").returncode


def pid_of(job: dict[str, Any]) -> int | None:
    """The process of its running pod, from what `status` said."""
    return next((replica["pid"] for replica in job["replicaStatuses"] if replica["phase"] == "Running"), None)


def progress_of(job: dict[str, Any]) -> float:
    """The share of its steps that a job has done; 0 while not all of its replicas have said how many there are."""
    progress = job["progress"]
    return progress["step"] / progress["steps"] if progress and progress["steps"] else 0.0
