"""Runs the demo from nothing and puts what it prints into README.md, and the plots it made into docs/images."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import marked

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- transcript: made by `make transcript` -->", "<!-- end of transcript -->"
WIDTH = "110"
PLOTS = {
    "demo-collect": ("episode.png", "outcomes.png"),
    "demo-train": ("training.png",),
    "demo-eval": ("precision_recall.png", "episodes.png", "lead_time.png", "calibration.png"),
}


def run_demo() -> str:
    shutil.rmtree(ROOT / ".jobctl" / "volumes", ignore_errors=True)
    shutil.rmtree(ROOT / ".jobctl" / "local", ignore_errors=True)
    command = [sys.executable, str(ROOT / "scripts" / "demo.py")]
    environment = os.environ | {"COLUMNS": WIDTH, "NO_COLOR": "1", "JOBCTL_HOME": str(ROOT / ".jobctl")}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as demo:
        assert demo.stdout is not None, "a pipe was asked for"
        lines = []
        for line in demo.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if demo.returncode != 0:
        sys.exit(f"the demo ended with {demo.returncode}: README.md is left as it was")
    return "".join(lines)


def shortened(text: str) -> str:
    """Without paths of this machine, and with one progress line in five."""
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    kept = []
    for line in text.splitlines():
        progress = re.match(r"demo-\w+: (episode|step) (\d+)/", line)
        if progress is None or int(progress[2]) % 5 == 0:
            kept.append(line.rstrip())
    return "\n".join(kept).strip()


def main() -> None:
    transcript = shortened(run_demo())
    marked.replace(README, BEGIN, END, f"```console\n$ make demo\n{transcript}\n```")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for run, names in PLOTS.items():
        for name in names:
            newest = sorted((ROOT / ".jobctl/volumes/shared/runs" / run / "results").glob(f"*/plots/{name}"))[-1]
            shutil.copyfile(newest, IMAGES / name)


if __name__ == "__main__":
    main()
