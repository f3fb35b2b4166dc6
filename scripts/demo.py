"""The main job, watched: `jobctl submit -f examples/demo.yaml`, with the training told to stop once in the middle.

Nothing here does any of the work. It types the commands that a user would, sends one SIGTERM as an eviction would, and
reads what jobctl says. Everything lies in $JOBCTL_HOME, by default .jobctl (`make clean` removes it); run again, it
goes on or shows results.
"""

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from typed import HOME, ROOT, jobctl, pid_of, progress_of, say, shown, status

SPEC = Path("examples") / "demo.yaml"
TRAIN, EVAL = "demo-train", "demo-eval"
JOBS = ("demo-collect", TRAIN, EVAL)
INTERRUPT_AT = 0.4  # of the training's steps
SAVED = re.compile(r"ends with code 75: .*saved after step (?P<step>\d+)")
RESUMED = re.compile(r"resuming from step-(?P<step>\d+)")


class Interruption(threading.Thread):
    """Sends one SIGTERM to the training's pod when it has done two fifths of its steps."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.finished = threading.Event()
        self.seconds_until_next_step: float | None = None

    def run(self) -> None:
        pid = self._wait_for_the_moment()
        if pid is None:
            return
        told_at = time.monotonic()
        os.kill(pid, signal.SIGTERM)
        say(f"the training's pod is told to stop, as an eviction would: kill -TERM {pid}")
        while not self.finished.wait(0.5):
            now = status(TRAIN)
            if now and now["state"] == "running" and pid_of(now) not in (None, pid) and self._stepped(now):
                self.seconds_until_next_step = time.monotonic() - told_at
                return

    def _wait_for_the_moment(self) -> int | None:
        while not self.finished.wait(0.5):
            now = status(TRAIN)
            if not now:
                continue
            if now["state"] in ("succeeded", "failed"):
                return None
            if now["state"] == "running" and progress_of(now) >= INTERRUPT_AT:
                return pid_of(now)
        return None

    @staticmethod
    def _stepped(now: dict[str, Any]) -> bool:
        saved = steps_in_log(SAVED)
        return bool(now["progress"] and saved and now["progress"]["step"] > saved[-1])


def log_lines() -> list[str]:
    return jobctl("logs", TRAIN, capture_output=True).stdout.splitlines()


def steps_in_log(pattern: re.Pattern[str]) -> list[int]:
    return [int(found["step"]) for line in log_lines() if (found := pattern.search(line))]


def show_that_no_step_was_lost(interruption: Interruption) -> None:
    """The last step before each interruption and the first one after it, in the workers' own words."""
    say("the interruption, from `jobctl logs demo-train`:")
    print("\n".join(line for line in log_lines() if SAVED.search(line) or RESUMED.search(line)))
    lost = [saved - resumed for saved, resumed in zip(steps_in_log(SAVED), steps_in_log(RESUMED), strict=False)]
    print(f"steps lost: {sum(lost)} (in {len(lost)} interruption{'s' if len(lost) != 1 else ''})")
    if interruption.seconds_until_next_step is not None:
        print(f"from SIGTERM to the next new step: {interruption.seconds_until_next_step:.1f} s")


def main() -> int:
    started = time.monotonic()
    interruption = Interruption()
    if not status(TRAIN):
        interruption.start()
    code = shown("submit", "-f", str(SPEC), "--wait")
    interruption.finished.set()
    if code != 0:
        say("the demo did not finish: `make demo` again continues where it stopped")
        return code
    shown("list")
    show_that_no_step_was_lost(interruption)
    shown("results", EVAL)
    say("plots worth looking at:")
    for name in JOBS:
        now = status(name)
        for path in ((now or {}).get("result") or {}).get("plots", []):
            print(os.path.relpath(path, ROOT))
    say(f"done in {time.monotonic() - started:.0f} s. Edit {SPEC}, give it names of your own, and submit it:")
    print(f"JOBCTL_HOME={os.path.relpath(HOME, ROOT)} .venv/bin/jobctl submit -f my.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
