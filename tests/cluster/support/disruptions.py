"""What can happen to a running job on a cluster, and what a run's recovery is made of, told by the times it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path

from held import holder
from runs import Dict, Runs, place_faults

INTERRUPTED, KILLED, TERMINATED = 75, 137, 143  # exit codes; the last: before a loop could save
REPORT = "JOBCTL_DISRUPTIONS_REPORT"  # a file that gets a line of JSON for every recovery
KILL_LOOP = """
import os, pathlib
for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    if b"-m\\0workers.loop\\0" in line.read_bytes():
        os.kill(int(line.parent.name), 9)
"""


@dataclass(frozen=True)
class Recovery:
    """Seconds from a disruption to the run's next step, part by part. Kubernetes' own times are whole seconds."""

    ending: float  # until the old attempt has ended: it saves
    back_off: float  # until the Job controller makes the next pod
    scheduling: float
    container_start: float
    supervisor_and_lease: float  # until the attempt has begun
    python_and_restore: float  # until its first step is done

    @property
    def seconds(self) -> float:
        return sum(getattr(self, part.name) for part in fields(self))


@dataclass(frozen=True)
class Account:
    """What a job's end says of the attempts before it. `counted` and `ignored`: of the last pod's index."""

    codes: list[int | None]
    failed: int = 0
    failed_indexes: str = ""
    counted: int = 0
    ignored: int = 0


def account(runs: Runs, name: str, index: int = 0) -> Account:
    """Of the newest Job of a release, and of all attempts of an index."""
    status = newest_job(runs, name)["status"]
    notes = runs.pods(name)[index]["metadata"]["annotations"]
    return Account(
        codes=[(record["end"] or {}).get("exitCode") for record, _ in runs.attempts(name) if record["index"] == index],
        failed=status.get("failed", 0),
        failed_indexes=status.get("failedIndexes", ""),
        counted=int(notes.get("batch.kubernetes.io/job-index-failure-count", 0)),
        ignored=int(notes.get("batch.kubernetes.io/job-index-ignored-failure-count", 0)),
    )


def newest_job(runs: Runs, name: str) -> Dict:
    jobs = runs.namespace.items("jobs", f"--selector=app.kubernetes.io/instance={name}")
    return max(jobs, key=lambda job: job["metadata"]["creationTimestamp"])


class Watch:
    """Made in the moment of a disruption, while the run is held; says afterwards how it came back."""

    def __init__(self, runs: Runs, name: str, index: int = 0) -> None:
        self.runs, self.name, self.index = runs, name, index
        self.held = holder(runs.namespace.volume, name, index)
        self.pod = runs.pods(name)[index]
        self.fence = runs.fence(name)
        self.asked = time.time()

    def replacement(self, seconds: float = 150) -> Dict:
        """The pod that takes the place of the one of before, once its container has started."""

        def started() -> Dict | None:
            pod = self.runs.pods(self.name).get(self.index, self.pod)
            is_new = pod["metadata"]["uid"] != self.pod["metadata"]["uid"]
            return pod if is_new and _container_start(pod) else None

        return self.runs.namespace.wait_for(f"{self.name} has a new pod", started, seconds)

    def ended(self) -> float:
        """When the old attempt had ended, by itself."""
        records = {record["podUid"]: record for record, _ in self.runs.attempts(self.name)}
        end = records[self.pod["metadata"]["uid"]]["end"]
        return _unix(end["endedAt"]) if end else self.asked

    def let_go(self, until: int | None = None) -> None:
        """Let the run go on, once the disruption has reached it: from here on it may be as fast as it can."""
        self.runs.namespace.wait_for(f"{self.name} feels it", self._is_felt, 150)
        self.runs.release(self.name, until)

    def _is_felt(self) -> bool:
        """Whether the loop was told to stop, is dead, or has a successor."""
        volume, uid = self.runs.namespace.volume, self.pod["metadata"]["uid"]
        if holder(volume, self.name, self.index) != self.held:
            return True
        pods = {pod["metadata"]["uid"]: pod for pod in self.runs.namespace.pods(self.name)}
        return uid not in pods or pods[uid]["status"]["phase"] in ("Failed", "Succeeded")

    def recovery(self, since: float | None = None, until: int | None = None) -> Recovery:
        """Of the run after this disruption; `since`: the time from which it could come back, if not from the first.

        `until`: the step where it is held again.
        """
        self.let_go(until)
        pod = self.replacement()
        asked = since or self.asked
        stepped = self.runs.namespace.wait_for(f"{self.name} makes steps again", self._first_step, 150)
        attempts = {record["podUid"]: record for record, _ in self.runs.attempts(self.name)}
        old, new = (attempts.get(one["metadata"]["uid"], {}) for one in (self.pod, pod))
        scheduled = next(c for c in pod["status"]["conditions"] if c["type"] == "PodScheduled")["lastTransitionTime"]
        moments = [
            (old.get("end") or {}).get("endedAt"),
            pod["metadata"]["creationTimestamp"],
            scheduled,
            _container_start(pod),
            new["startedAt"],
        ]
        reached, seconds = asked, []
        for moment in [*(_unix(moment) if moment else asked for moment in moments), stepped]:
            seconds.append(round(max(0.0, moment - reached), 1))
            reached = max(reached, moment)
        return Recovery(*seconds)

    def _first_step(self) -> float | None:
        """When the first step after the disruption was done: from its line of metrics, which tells of several."""
        for file in sorted((self.runs.directory(self.name) / "metrics").glob("0.*.jsonl")):
            fence = int(file.suffixes[0][1:])
            lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
            if fence <= self.fence or not lines:
                continue
            line = json.loads(lines[0])
            adopted = self.runs.lease(self.name, fence)["adopted"]
            return line["time"] - (line["step"] - (adopted["step"] or 0) - 1) * line["step_seconds"]
        return None


def begin(runs: Runs, name: str, *options: str, indexes: Iterable[int] = (0,)) -> Watch:
    """A run that has saved once, is held at the next step and about to be disturbed."""
    step = runs.settings["checkpointEverySteps"] + 1
    runs.submit_held(name, step, *options, indexes=indexes)
    runs.namespace.wait_for(f"{name} has saved", lambda: runs.saved(name), 60)
    return Watch(runs, name)


def is_reported() -> bool:
    return REPORT in os.environ


def report(what: str, recovery: Recovery) -> None:
    """Into the report, if one is written (`make test-disruptions`)."""
    print(f"{what}: {recovery.seconds:.1f} s to the next step: {recovery}")
    if path := os.environ.get(REPORT):
        with Path(path).open("a") as file:
            file.write(json.dumps({"what": what, **asdict(recovery)}) + "\n")


def _container_start(pod: Dict) -> str | None:
    states = [status["state"] for status in pod["status"].get("containerStatuses", [])]
    return next((how["startedAt"] for state in states for how in state.values() if how.get("startedAt")), None)


def _unix(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# --- what a test does to a run ----------------------------------------------------------------------------------------


def kill_loop(runs: Runs, pod: str) -> None:
    """SIGKILL for the loop's process alone; its supervisor, the pod's first process, lives on and reports it."""
    runs.namespace.kubectl("exec", pod, "--", "python", "-c", KILL_LOOP)


def fault(runs: Runs, name: str, step: int, *moments: Sequence[str]) -> list[str]:
    """Options of `submit` that have the loops of the first lease, of the second and so on meet a fault of
    faults/sitecustomize.py as they save `step`, at these moments.
    """
    return meet(runs, name, f"checkpoints/step-{step:08d}", *moments)


def meet(runs: Runs, fault: str, at: str, *moments: Sequence[str]) -> list[str]:
    """The same for any publication: `at` is DIRECTORY/NAME, without the number of its lease."""
    leases = {str(lease): list(names) for lease, names in enumerate(moments, start=1)}
    what = json.dumps({"fault": fault, "at": at, "moments": leases})
    env = {"PYTHONPATH": place_faults(runs.namespace.volume), "JOBCTL_TEST_FAULT": what}
    return [f"--set=env.{key}={value}" for key, value in env.items()]


def signal_pod(pod: Dict, name: str, command: str = "") -> None:
    """A signal, from its node, for those processes of a pod whose command line holds `command`: none can catch it."""
    uid = pod["metadata"]["uid"]
    own = f"grep -l '{uid}\\|{uid.replace('-', '_')}' /proc/[0-9]*/cgroup | cut -d/ -f3"
    script = f"for p in $({own}); do grep -q '{command}' /proc/$p/cmdline && kill -{name} $p; done; true"
    subprocess.run(("docker", "exec", pod["spec"]["nodeName"], "sh", "-c", script), timeout=60, check=True)
