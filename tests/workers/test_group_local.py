"""A group as a user starts one on a machine without a cluster: by `jobctl submit`."""

import json
import os
import subprocess
import sys
from pathlib import Path

JOBCTL = Path(sys.executable).parent / "jobctl"


def test_jobctl_trains_two_replicas_on_this_machine(tmp_path: Path, announced_dataset: Path):
    datasets = tmp_path / "volumes" / "shared" / "datasets"
    datasets.mkdir(parents=True)
    (datasets / "tiny").symlink_to(announced_dataset)
    command = [
        "submit",
        "train",
        "--name",
        "pair",
        "--replicas",
        "2",
        "--gpu",
        "cpu",
        "--data",
        "datasets/tiny",
        "--wait",
    ]
    settings = ["--data", "datasets/tiny", "--set", "steps=12", "--set", "batch=64", "--set", "validateEverySteps=12"]
    env = os.environ | {"JOBCTL_HOME": str(tmp_path), "JOBCTL_BACKEND": "local"}

    done = subprocess.run([str(JOBCTL), *command, *settings], env=env, capture_output=True, text=True, timeout=200)

    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = tmp_path / "volumes" / "shared" / "runs" / "pair"
    records = [json.loads(path.read_text()) for path in sorted((run_dir / "attempts").glob("*.json"))]
    assert [(record["index"], record["end"]["exitCode"]) for record in records] == [(0, 0), (1, 0)]
    assert [path.name for path in (run_dir / "results").iterdir()] == ["0.000001"]
