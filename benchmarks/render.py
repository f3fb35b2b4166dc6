"""Claim: `jobctl render` takes 250 ms, most of it Helm's own."""

import sys
from pathlib import Path

from paired import command, compare

from jobctl.helm import find_helm

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
FLAGS = ["--name", "x", "--gpu", "a100", "--replicas", "4"]
SET = ["--set", "kind=train", "--set", "gpu=a100", "--set", "replicas=4"]

if __name__ == "__main__":
    compare(
        "jobctl render train against helm template of the same chart and values",
        command("jobctl render", [str(BIN / "jobctl"), "render", "train", *FLAGS]),
        command("helm template", [str(find_helm()), "template", "x", str(ROOT / "charts/jobctl"), *SET]),
        runs=15,
    )
