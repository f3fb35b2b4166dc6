"""A loop process for tests of the supervisor: does what config.settings.script says, with the workers' real runtime.

Run as `python fake_loop.py KIND --config FILE`. The words of a script stand in WORDS; "rank 1 fence 2 WORD" is said to
that rank in that generation only.
"""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from workers import results, storage
from workers.runtime import Runtime, die_with_parent, run_directory

faulthandler.register(signal.SIGUSR1, all_threads=True)
die_with_parent(int(os.environ["JOBCTL_SUPERVISOR_PID"]))
config = json.loads(Path(sys.argv[3]).read_text())
runtime = Runtime.from_env()
signal.signal(signal.SIGTERM, lambda signum, frame: runtime.stop.set())
job = results.Job(config["run"], config["kind"], config["task"], config["specHash"])
runtime.hold_as(job.run)
run_dir = run_directory(runtime.volume, job.run)
print(f"loop pid {os.getpid()} fence {runtime.fence} attempt {runtime.attempt}", flush=True)


def publish(step: int) -> None:
    final = run_dir / "checkpoints" / f"step-{step:08d}.{runtime.fence:06d}"
    storage.publish(final, lambda directory: (directory / "state.json").write_text("{}"))


def wait_for_stop() -> None:
    while not runtime.stop.is_set():
        runtime.progress(step=7)
        time.sleep(0.02)
    runtime.flush_progress(step=8, reason="interrupted at step 8, which is saved")
    publish(8)
    sys.exit(75)


def finish(code: str) -> None:
    results.publish_result(runtime, job, scope="index", code=int(code), reason=f"finished with {code}")
    sys.exit(int(code))


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"])
    print("deaf", flush=True)
    while True:
        runtime.progress(step=1)
        time.sleep(0.05)


HELPER = """
import faulthandler, signal, time
faulthandler.register(signal.SIGUSR1)
def stand_still():
    time.sleep(600)
stand_still()
"""


def await_file(name: str) -> None:
    """As loops wait for each other: alive all the while."""
    while not (runtime.volume / name).exists():
        runtime.progress()
        time.sleep(0.02)


def make_steps(count: str) -> None:
    """As training does them, without a pause."""
    for step in range(1, int(count) + 1):
        runtime.progress(step=step)
        if runtime.stop.is_set():
            runtime.flush_progress(reason=f"interrupted at step {step}, which is saved")
            publish(step)
            sys.exit(75)


def burn(seconds: str) -> None:
    """Use the processor and say nothing, as an import or a checksum does."""
    latest = time.monotonic() + float(seconds)
    while time.monotonic() < latest:
        sum(range(10_000))


def busy(line: str) -> None:
    with runtime.busy("reading the checkpoint"):
        say(line)


def behind(line: str) -> None:
    """Another thread does it; this one looks again and again whether it is done."""
    thread = threading.Thread(target=say, args=(line,), daemon=True)
    thread.start()
    with runtime.busy("saving", thread.native_id):
        while thread.is_alive():
            time.sleep(0.02)


def read_for_ever(name: str) -> None:
    """As from a server that does not answer: a pipe that nobody writes to."""
    path = runtime.volume / name
    os.mkfifo(path)
    path.read_bytes()


def stuck() -> None:
    """As in a collective that never ends: alive, as the others may be at work."""
    runtime.waits = 1.0
    while True:
        runtime.progress()
        time.sleep(0.02)


def say(line: str) -> None:
    """Do what one line of the script says."""
    word, *arguments = line.split(" ", 1)
    WORDS[word](*arguments)


WORDS = {
    "steps": make_steps,
    "publish": lambda step: publish(int(step)),
    "beat": lambda step: runtime.flush_progress(step=int(step)),
    "hang": lambda: time.sleep(600),
    "stubborn": stubborn,
    "helper": lambda: subprocess.Popen([sys.executable, "-c", HELPER]),
    "finish": finish,
    "exit": lambda code: sys.exit(int(code)),
    "kill": lambda name: os.kill(os.getpid(), getattr(signal, name)),
    "say": lambda text: print(text, flush=True),
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "wait": wait_for_stop,
    "await": await_file,
    "behind": behind,
    "burn": burn,
    "busy": busy,
    "read": read_for_ever,
    "stuck": stuck,
    "summary": lambda size: runtime.flush_progress(step=3, noise="x" * int(size), reason="r" * int(size)),
}
for line in config["settings"]["script"]:
    meant = True
    for name, own in (("rank", runtime.rank), ("fence", runtime.fence)):
        if line.startswith(f"{name} "):
            _, number, line = line.split(" ", 2)
            meant = meant and int(number) == own
    if meant:
        say(line)
