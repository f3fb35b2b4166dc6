#!/usr/bin/env python3
"""Stands in for `python -m workers KIND --config FILE` in the tests of the CLI alone, so that they take milliseconds.

It is started through $JOBCTL_WORKER_PYTHON and keeps the worker's contract towards the CLI: metrics lines, a published
result, a termination message, exit codes, JOBCTL_HOLD_AT. What it does is steered by the job's environment: FAKE_STEPS
(default 3), FAKE_EXIT (0), FAKE_REASON, FAKE_EXIT_ONCE (the first attempt's exit code, instead),
FAKE_CLOCK_SECONDS (how far its clock is off).
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from workers.hold import Hold, hold_directory  # the standard library alone


def main() -> int:
    config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(end(75, "interrupted at a step")))
    index = int(os.environ["JOB_COMPLETION_INDEX"])
    run = Path(os.environ["JOBCTL_VOLUME"]) / "runs" / config["run"]
    attempts = run / "attempts"
    attempts.mkdir(parents=True, exist_ok=True)
    fence = len(list(attempts.glob(f"{index}.*.json"))) + 1
    record = {"index": index, "fence": fence, "jobUid": os.environ["JOBCTL_JOB_UID"]}
    (attempts / f"{index}.{os.environ['JOBCTL_POD_UID']}.json").write_text(json.dumps(record))
    steps = int(os.environ.get("FAKE_STEPS", "3"))
    print(f"{config['kind']} {config['run']} index {index} attempt {fence}", flush=True)
    write_metrics(run, index, fence, steps, hold_of(config["run"], index, fence))
    if fence == 1 and "FAKE_EXIT_ONCE" in os.environ:
        return end(int(os.environ["FAKE_EXIT_ONCE"]), "the first attempt fails", step=0)
    code = int(os.environ.get("FAKE_EXIT", "0"))
    reason = os.environ.get("FAKE_REASON", "done")
    publish(run, config, index, fence, code, reason)
    return end(code, reason, step=steps, steps=steps)


def hold_of(run: str, index: int, fence: int) -> Hold:
    at = int(os.environ.get("JOBCTL_HOLD_AT", sys.maxsize))
    facts = {"pod": os.environ["JOBCTL_POD_NAME"], "fence": fence}
    return Hold(hold_directory(Path(os.environ["JOBCTL_VOLUME"]), run), at, str(index), facts, generation=None)


def never_told(seconds: float) -> bool:
    """SIGTERM ends this program where it is."""
    time.sleep(seconds)
    return False


def write_metrics(run: Path, index: int, fence: int, steps: int, hold: Hold) -> None:
    (run / "metrics").mkdir(parents=True, exist_ok=True)
    with (run / "metrics" / f"{index}.{fence:06d}.jsonl").open("a") as file:
        for step in range(1, steps + 1):
            print(f"step {step}", flush=True)
            moment = time.time() + float(os.environ.get("FAKE_CLOCK_SECONDS", "0"))
            line = {"time": moment, "step": step, "steps": steps, "loss": 1 / step}
            print(json.dumps(line), file=file, flush=True)
            hold.keep(step, never_told, give_sign=lambda: None)


def publish(run: Path, config: dict, index: int, fence: int, code: int, reason: str) -> None:
    result = {
        "schema": "jobctl.result/v1", "run": config["run"], "kind": config["kind"], "task": config["task"],
        "specHash": config["specHash"], "jobUid": os.environ["JOBCTL_JOB_UID"], "podUid": os.environ["JOBCTL_POD_UID"],
        "index": index, "fence": fence, "exitCode": code, "reason": reason, "figures": {"f1": 0.41},
        "tables": {
            "by_horizon": {"columns": ["horizon", "f1"], "rows": [[6, 0.5], [9, 0.4]]},
            "by_episode": {"columns": ["episode", "f1"], "rows": [[4711, 0.4]], "detail": True},
        },
    }  # fmt: skip
    files = {"result.json": json.dumps(result).encode(), "plots/curve.png": b"\x89PNG", "report.html": b"<html>"}
    seal(run / "results" / f"{index}.{fence:06d}", files)
    seal(run / "best" / f"step-00000003.{fence:06d}", {"model.safetensors": b"weights"})


def seal(directory: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (directory / "manifest.json").write_text(json.dumps({"schema": "jobctl.manifest/v1", "files": entries}))


def end(code: int, reason: str, **summary: int) -> int:
    Path(os.environ["JOBCTL_TERMINATION_LOG"]).write_text(json.dumps({"code": code, "reason": reason, **summary}))
    return code


if __name__ == "__main__":
    sys.exit(main())
