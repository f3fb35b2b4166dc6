"""The Job controller of one local job: `python -m jobctl.local.supervisor DIRECTORY`, detached from who started it.

It alone writes status.json; commands reach it as files of control/ and are woken up for by SIGUSR1. All that matters is
in status.json, so a new supervisor goes on where a killed one stopped.
"""

import contextlib
import os
import resource
import selectors
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobctl.local import addresses, jobs, kubelet, pods, shim
from jobctl.local.job_object import VERBS, JobObject
from jobctl.local.kubelet import LivePod, ShimReport
from jobctl.local.layout import VERBS_OF_END, RevisionDir
from jobctl.local.pulse import EVERY_SECONDS, Pulse
from jobctl.local.saved import load_state, read_release, read_status, save_state
from jobctl.local.secrets import read_secrets
from jobctl.local.state import Identity, boot_id, timestamp, write_json
from jobctl.local.translate import translate
from jobctl.untrusted import UnreadableError, number, text, whole

POLL_SECONDS = 0.5  # between looks at control/, should a wake-up be lost
KEPT_PODS = 50  # ended ones of an index that are still shown
RETRY_SECONDS = 1.0  # after an OSError: a full disk, no memory for a process


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # the log may lie on the disk that is full
        print(f"{timestamp()} {text}", flush=True)


class Supervisor:
    """One revision of a job, from its start to its end."""

    def __init__(self, directory: Path) -> None:
        self.dir = RevisionDir(directory)
        self.release: dict[str, Any] = _named(self.dir.release, read_release)
        self.job = translate(self.release["manifest"])
        # In this process' memory alone, for as long as the job runs.
        self.secrets = read_secrets(self.job, self.dir.home, os.environ)
        self.scale = float(self.release["backoff_scale"])
        self.object = JobObject.of(self.release, self.job)
        self.state = jobs.JobState()
        self.live: dict[int, LivePod] = {}  # by index: one pod an index, replaced once it has fully ended
        self.pods: list[dict[str, Any]] = []
        self.attempts = 0
        self.ending: str | None = None
        self.started_at: float | None = None  # monotonic; None while suspended
        self.dirty = True
        self.save_at = 0.0
        self.failed_writes = 0
        self.serial = 0  # of the newest status, written or not
        self.pulse_at = 0.0
        self.handled: set[str] = set()
        self.identity = Identity.of(os.getpid())
        self.selector = selectors.DefaultSelector()
        _allow_files(2 * self.job.completions + 64)
        reserved = addresses.reserve(self.job.completions)
        self.addresses = [address for address, _ in reserved]
        self._holders = [holder for _, holder in reserved]  # held for as long as this process lives
        if self.dir.status.exists():
            self._take_over(_named(self.dir.status, read_status))

    def _take_over(self, status: dict[str, Any]) -> None:
        """Go on where a supervisor that died stopped. Its pods died with it: they count as disrupted."""
        now = time.monotonic()
        offset = _offset_seconds(status)
        self.object.load(status["job"])
        self.state = load_state(status["state"], offset, now)
        self.attempts = status["attempts"]
        self.pods = status["pods"]
        self.serial = whole(status, "serial") or 0
        self.handled = set(status["handled"])
        if status["started_at"] is not None:
            self.started_at = min(status["started_at"] + offset, now)
        for pod in self.pods:
            if pods.is_live(pod):
                pods.set_lost(pod, "The supervisor of this pod was killed.")
                self._count(pod, 137, removed="deletionTimestamp" in pod["metadata"])
        for old in self.dir.pods.glob("*"):
            kubelet.clean_up(old)

    # ---- the loop

    def run(self, ready: int) -> None:
        """Returns when the job has ended or is told to. `ready`: a descriptor closed once the state is on disk."""
        self._install_signals()
        self.step()
        self.save(raising=True)
        os.write(ready, b"ready")
        os.close(ready)
        while not self.over:
            self.wait()
            self.step()
            self.save()
        if self.ending == "delete":
            self.dir.remove()

    @property
    def over(self) -> bool:
        return not self.live and not self.dirty and (self.object.finished or self.ending is not None)

    def _install_signals(self) -> None:
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.selector.register(reader, selectors.EVENT_READ, None)
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._shut_down())
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 1)

    def _shut_down(self) -> None:
        """The machine shuts down: pods get their grace period, the job stays resumable."""
        self.ending = self.ending or "shutdown"

    def wait(self) -> None:
        """Sleep until a shim, a signal or an instant asks for something."""
        for key, _ in self.selector.select(max(self._next_instant() - time.monotonic(), 0)):
            if key.data is None:
                os.read(key.fd, 4096)
                continue
            for report in key.data.listen():
                self._hear(key.data, report)
        shim.reap()  # what matters of a shim comes through its socket

    def _next_instant(self) -> float:
        now = time.monotonic()
        instants = [now + POLL_SECONDS]  # sooner than the next beat is due
        instants += [at for _, at, _ in jobs.backoffs(self.job, self.state, self.live, now)]
        instants += [pod.kill_at for pod in self.live.values() if pod.kill_at is not None]
        instants += [pod.retry_at for pod in self.live.values() if pod.channel is None]
        if self.dirty:
            instants.append(self.save_at)
        if self.started_at is not None and self.job.active_deadline_seconds is not None:
            instants.append(self.started_at + self.job.active_deadline_seconds)
        return min(instants)

    # ---- what the Job controller does

    def step(self) -> None:
        self._take_commands()
        now = time.monotonic()
        if self.object.finished:
            return
        if self.ending is None:
            self._reconcile(now)
        elif self.ending == "shutdown":
            for pod in self.live.values():
                self._disrupt(pod, "TerminationByKubelet", "Pod was terminated in response to imminent node shutdown.")
        else:
            self._remove_pods()
        for pod in [*self.live.values()]:
            if pod.kill_at is not None and pod.kill_at <= now:
                self._kill(pod)

    def _reconcile(self, now: float) -> None:
        suspended = self.object.suspended
        if suspended != (self.started_at is None) or (suspended and not self.object.has("Suspended")):
            self.started_at = None if suspended else now
            self.object.mark_suspended(suspended)
            self.dirty = True
        active = None if self.started_at is None else now - self.started_at
        target = jobs.decide_end(self.job, self.state, active)
        if target is not None and not self.object.has(target.type):
            self.state.target = target
            self.object.set_condition(target)
            say(f"{target.type}: {target.reason}: {target.message}")
            self.dirty = True
        if target is not None or suspended:
            self._remove_pods()
        if target is not None and not self.live:
            self.object.finish(jobs.final_condition(target))
            self.dirty = True
        if target is None and not suspended:
            self._start_pods(now)

    def _start_pods(self, now: float) -> None:
        for pod in self.live.values():
            if pod.channel is None and pod.retry_at <= now and not pod.removed:
                self._try_start(pod)
        for index in jobs.startable(self.job, self.state, self.live, now):
            identity = pods.identity(self.job, self.object.owner, index, self.addresses[index])
            document = pods.pending(identity, self.object.owner, self.attempts)
            pod = LivePod(document, identity, self.dir.pod(self.attempts))
            self.attempts += 1
            self.live[index] = pod
            self.pods.append(pod.object)
            self._try_start(pod)

    def _try_start(self, pod: LivePod) -> None:
        self.dirty = True
        try:
            self.dir.add_attempt(pod.directory, pod.identity.index, pod.identity.name)
            kubelet.start(self.job, pod, self.addresses, self.dir.volumes, self.secrets)
        except OSError as error:
            pods.set_waiting(pod.object, self.job.template.container.name, "CreateContainerError", str(error))
            pod.retry_at = time.monotonic() + RETRY_SECONDS
            say(f"{pod.identity.name} can't be started, tried again in {RETRY_SECONDS:g} s: {error}")
            return
        assert pod.channel is not None
        self.selector.register(pod.channel, selectors.EVENT_READ, pod)

    def _remove_pods(self) -> None:
        """The controller deletes its pods: suspend, the Job's end, a newer revision."""
        for pod in [*self.live.values()]:
            if not pod.removed:
                pod.removed = True
                pod.object["metadata"]["deletionTimestamp"] = timestamp()
                self._terminate(pod)

    def _disrupt(self, pod: LivePod, reason: str, message: str) -> None:
        if pod.kill_at is None:
            pods.set_condition(pod.object, "DisruptionTarget", "True", reason, message)
            pod.object["metadata"]["deletionTimestamp"] = timestamp()
            self._terminate(pod)

    def _terminate(self, pod: LivePod) -> None:
        self.dirty = True
        if pod.channel is None:
            self._ended(pod, ShimReport(exit_code=137, error="never started"))
        else:
            pod.terminate(self.job.template.grace_seconds)

    def _kill(self, pod: LivePod) -> None:
        pod.kill_at = time.monotonic() + RETRY_SECONDS  # a process in uninterruptible sleep is told again
        pod.kill()

    # ---- what the kubelet says

    def _hear(self, pod: LivePod, report: ShimReport) -> None:
        if self.live.get(pod.identity.index) is not pod:
            return
        self.dirty = True
        if report.pid is not None:
            pods.set_running(pod.object, self.job.template.container.name, report.pid)
        if report.lost:
            shim.kill_all(spare=frozenset(other.shim_pid for other in self.live.values() if other is not pod))
            self._ended(pod, ShimReport(exit_code=137, error="the shim of this pod was killed"))
        elif report.exit_code is not None:
            self._ended(pod, report)

    def _ended(self, pod: LivePod, report: ShimReport) -> None:
        code, container = report.exit_code or 0, self.job.template.container
        reason = "Completed" if code == 0 else "StartError" if report.error and code == 128 else "Error"
        message = report.error or kubelet.termination_message(container, pod.directory, code)
        pods.set_ended(pod.object, container.name, code, reason, message)
        if pod.channel is not None:
            self.selector.unregister(pod.channel)
            pod.close()
        self.dir.end_attempt(pod.directory)
        kubelet.clean_up(pod.directory)
        del self.live[pod.identity.index]
        self._count(pod.object, code, removed=pod.removed)
        if pod.removed and code != 0:
            self.pods.remove(pod.object)  # as a cluster forgets pods that were deleted
        self._forget_old(pod.identity.index)
        self.dirty = True

    def _forget_old(self, index: int) -> None:
        """Keep the state small over weeks of disruptions; logs stay."""
        ended = [pod for pod in self.pods if pods.index_of(pod) == index and not pods.is_live(pod)]
        for pod in ended[:-KEPT_PODS]:
            self.pods.remove(pod)

    def _count(self, pod: dict[str, Any], code: int, removed: bool) -> None:
        name, conditions = pod["metadata"]["name"], pods.conditions_of(pod)
        end = jobs.PodEnd(name, pods.index_of(pod), code, conditions, removed)
        decision = jobs.record_end(self.job, self.state, end, time.monotonic(), self.scale)
        said = "told to end" if removed else decision.action if decision else "succeeded"
        say(f"{name} ended with {code}: {said}{f' ({decision.why})' if decision and decision.why else ''}")

    # ---- commands

    def _take_commands(self) -> None:
        if self.ending != "delete" and self.dir.is_given_up:  # by one who could not tell us
            say("the job was deleted")
            self.ending, self.dirty = "delete", True
        for path, command in self.dir.commands():
            if path.name in self.handled:
                continue
            self.handled.add(path.name)
            self.dirty = True
            verb = text(command, "verb")
            say(f"told to {verb}")
            if verb in VERBS_OF_END:
                self.ending = "delete" if "delete" in (verb, self.ending) else verb
            elif verb == "evict":
                pod = self.live.get(whole(command, "index") or 0)
                if pod is not None:
                    self._disrupt(pod, "EvictionByEvictionAPI", "Eviction API: evicting")
            elif verb in VERBS and not self.object.finished:
                self.object.apply(verb)

    # ---- what others see

    def save(self, raising: bool = False) -> None:
        """Write status.json if something changed. A full disk loses nothing: it is tried again."""
        now = time.monotonic()
        if now >= self.pulse_at:
            self._beat(now)
        if not self.dirty or now < self.save_at:
            return
        if self.ending == "delete" and self.dir.is_gone:
            self.dirty = False  # nobody will read it
            return
        self.serial += 1
        offset = time.time() - now
        waits = jobs.backoffs(self.job, self.state, self.live, now)
        self.object.refresh(self.job, self.state, [*self.live.values()], [(i, at + offset, s) for i, at, s in waits])
        status = {
            "name": self.release["name"],
            "revision": self.release["revision"],
            "values": self.release["values"],
            "created_at": self.release["created_at"],
            "job": self.object.document,
            "pods": self.pods,
            "supervisor": self.identity.as_dict() if self.identity else None,
            "state": save_state(self.state, offset),
            "attempts": self.attempts,
            "started_at": None if self.started_at is None else self.started_at + offset,
            "handled": sorted(self.handled),
            "serial": self.serial,
            "clock_offset_seconds": offset,
        }
        try:
            write_json(self.dir.status, status)
        except OSError as error:
            if raising:
                raise
            self.save_at = now + RETRY_SECONDS
            self._beat(now)  # which says that there is more than could be written
            if self.failed_writes == 0:
                say(f"the state can't be written, tried again every {RETRY_SECONDS:g} s: {error}")
            self.failed_writes += 1
            return
        if self.failed_writes:  # said again: the log may lie on the disk that was full
            say(f"the state is written again, after {self.failed_writes} tries that failed")
            self.failed_writes = 0
        self.dirty = False
        self._beat(now)
        self.dir.drop_commands(self.handled)

    def _beat(self, now: float) -> None:
        self.pulse_at = now + EVERY_SECONDS
        Pulse(self.identity, self.serial, now).write(self.dir.path)


def _named(path: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What `read` gives of the file's directory. Raises UnreadableError that names the file."""
    try:
        return read(path.parent)
    except UnreadableError as error:
        raise UnreadableError(f"{path} can't be used: {error}") from error


def _offset_seconds(status: dict[str, Any]) -> float:
    """The monotonic clock less Unix time, for instants that were saved: as it was then, where it is the same boot."""
    saved = number(status, "clock_offset_seconds")
    same_boot = text(status, "supervisor", "boot_id") == boot_id()
    return -saved if saved is not None and same_boot else time.monotonic() - time.time()


def _allow_files(count: int) -> None:
    """Room for two descriptors an index, as far as the hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )


def detach() -> None:
    """Leave the one who started us (in a session of our own): no parent that would have to wait for us."""
    if os.fork():
        os._exit(0)


def main(argv: list[str]) -> int:
    directory, ready = Path(argv[1]), int(argv[2])
    os.set_inheritable(ready, False)
    detach()
    try:
        Supervisor(directory).run(ready)
    except BaseException as error:
        with contextlib.suppress(OSError):  # closed once the job runs: then supervisor.log has it
            os.write(ready, f"failed: {error}".encode())
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
