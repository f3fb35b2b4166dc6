"""PID 1 of a worker: takes the lease, runs the loop as a child, and turns what happens to it into an exit code.

Signals are handled before anything else, and nothing heavy is imported: a pod may be told to stop at once.
"""

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from workers import attempts, fresh, results
from workers.episodes import ledger
from workers.errors import (
    CRASHED,
    TERMINAL_CODES,
    BadConfigError,
    BadDataError,
    InterruptedRun,
    StuckError,
    WorkerError,
)
from workers.lease import Lease, lease_seconds_from_env, numbers
from workers.processes import TERMINATED, TICK_SECONDS, LoopProcess, Told, Watchdog, sleep
from workers.runtime import (
    DEFAULT_EPISODES,
    Runtime,
    data_directory,
    killed_by,
    lease_directory,
    owned_range,
    require_no_links,
    run_directory,
    seconds_from_env,
    time_to_save,
)

LOOP = (sys.executable, "-m", "workers.loop")
TERMINATION_BYTES = 4096
REASON_CHARACTERS = 600  # at most 6 bytes each in JSON
DISK_POLL_SECONDS = 2.0
OVERTAKEN = "a newer attempt has taken the lease"
DEFAULT_WATCHDOG_SECONDS = 180.0
_T = TypeVar("_T")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR}


@dataclass(frozen=True)
class Ending:
    """How an attempt ended. `outside`: somebody else wanted it to; then it says nothing about the job itself."""

    code: int
    reason: str
    outside: bool = False


@dataclass(frozen=True)
class Work:
    """What the supervisor needs of the config file; the loop validates all of it."""

    job: results.Job
    data: str | None
    replicas: int
    processes: int  # loop processes of this pod
    token: str | None
    episodes: int  # of a collect run

    @classmethod
    def load(cls, kind: str, path: Path) -> "Work":
        try:
            values = json.loads(path.read_bytes())
            job = results.Job(
                values["run"], values["kind"], values["task"], values["specHash"], data=values.get("data")
            )
            many = values["kind"] == "train" and values.get("device") == "cuda"
            work = cls(
                job=job,
                data=values.get("data"),
                replicas=int(values.get("replicas", 1)),
                processes=int(values.get("gpusPerReplica", 1)) if many else 1,
                token=values.get("freshToken"),
                episodes=int(values.get("settings", {}).get("episodes", DEFAULT_EPISODES)) if kind == "collect" else 0,
            )
        except OSError as error:
            raise BadConfigError(f"the config file {path} cannot be read: {error.strerror}") from error
        except KeyError as error:
            raise BadConfigError(f"config.{error.args[0]} is missing in {path}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise BadConfigError(f"the config file {path} is not what the chart renders: {error}") from error
        if job.kind != kind:
            raise BadConfigError(f"the command says {kind}, but config.kind is {job.kind}")
        return work

    @property
    def is_group(self) -> bool:
        return self.job.kind == "train" and self.replicas * self.processes > 1


def main(kind: str, config_path: Path, command: Sequence[str] = LOOP) -> int:
    """One attempt, from the lease to the exit code. `command` starts a loop process: KIND --config FILE is added."""
    told = Told()
    log = attempts.Log()
    told.last_words = lambda: write_termination(TERMINATED, "told twice to stop: left without saving", {})
    summary: dict[str, Any] = {}
    try:
        work = Work.load(kind, config_path)
        runtime = Runtime.from_env()
        supervisor = supervisor_of(work)(work, runtime, told, log, [*command, kind, "--config", str(config_path)])
        summary = supervisor.summary
        ending = supervisor.attempt()
    except WorkerError as error:
        ending = Ending(error.code, str(error))
    except OSError as error:
        ending = _storage_failure(error)
    if ending.code:
        log.say(f"{kind} ends with code {ending.code}: {ending.reason}")
    log.close(0.3 if told.count > 1 else 2.0)
    write_termination(ending.code, ending.reason, summary)
    return ending.code


def supervisor_of(work: Work) -> "type[Supervisor]":
    """The class that suits the work: replicas of a training group look after each other."""
    if not work.is_group:
        return Supervisor
    from workers.replicas import GroupSupervisor  # which builds on this module

    return GroupSupervisor


class Supervisor:
    def __init__(self, work: Work, runtime: Runtime, told: Told, log: attempts.Log, command: Sequence[str]) -> None:
        self.work = work
        self.runtime = runtime
        self.told = told
        self.log = log
        self.command = command
        self.summary: dict[str, Any] = {}
        self.run_dir = run_directory(runtime.volume, work.job.run)
        self.dataset = data_directory(runtime.volume, work.data, work.job.run)
        # A group has one lease, one result and one publisher: index 0's.
        self.publisher = 0 if work.job.kind == "train" else runtime.index
        self.lease_dir = lease_directory(runtime.volume, work.job.kind, work.job.run, work.data, self.publisher)
        self.lease: Lease | None = None
        self.lease_seconds = lease_seconds_from_env()
        self.watchdog_seconds = seconds_from_env("JOBCTL_WATCHDOG_SECONDS", DEFAULT_WATCHDOG_SECONDS)

    def attempt(self) -> Ending:
        """Raises WorkerError or OSError if the loop could not be started."""
        require_no_links(self.runtime.volume, self.work.job.run)
        if (repeated := self._ended_before()) is not None:
            self.log.say("this spec has ended before: nothing is left to do")
            return repeated
        if self.runtime.index == self.publisher:
            self.lease = self._take_lease()
        else:
            self.runtime.fence = max(numbers(self.lease_dir), default=1)
        try:
            return self._ended_before() or self._recorded_attempt()
        finally:
            if self.lease is not None:
                self._bounded(self.lease.release)

    def _take_lease(self) -> Lease:
        waiting = {"lease_seconds": self.lease_seconds, "should_stop": self.told.is_set, "say": self.log.say}
        names = {"pod": self.runtime.pod, "uid": self.runtime.pod_uid}
        place = {"token": self.work.token, "above": results.highest_fence(self.run_dir)}
        lease = self._despite_full_disk(
            lambda: Lease.acquire(self.lease_dir, **place, **names, **waiting)  # type: ignore[arg-type]
        )
        self.runtime.fence = lease.number
        if self.work.token is not None:
            targets = [self.run_dir, self.dataset] if self.work.job.kind == "collect" else [self.run_dir]
            fresh.move_aside(lease, targets, self.work.token, **names, **waiting)  # type: ignore[arg-type]
        return lease

    def _despite_full_disk(self, call: Callable[[], _T]) -> _T:
        """A run that goes on never ends for want of space: it waits until somebody makes some."""
        while True:
            try:
                return call()
            except OSError as error:
                if error.errno not in _FULL:
                    raise
                self.log.say(f"the volume is full ({error.strerror}): waiting for space")
            if sleep(DISK_POLL_SECONDS, self.told):
                raise InterruptedRun("told to stop while waiting for space on the volume")

    def _finished(self) -> Ending | None:
        """What the end marker on the volume says; None if there is work to do."""
        if fresh.pending(self.lease_dir.parent, self.work.token):
            return None
        job = self.work.job
        code = results.finished(self.run_dir, self.publisher, job.spec_hash, self.runtime.job_uid)
        if code is None:
            return None
        return Ending(code, (results.read_result(self.run_dir, self.publisher) or {}).get("reason", "done before"))

    def _ended_before(self) -> Ending | None:
        """As `_finished`; but another Job's end marker is no reason to leave damaged episodes as they are."""
        ending = self._finished()
        left = results.read_result(self.run_dir, self.publisher) if ending is not None and ending.code == 0 else None
        if left is None or self.work.job.kind != "collect" or left["jobUid"] == self.runtime.job_uid:
            return ending
        try:
            ledger.require_whole(self.dataset, self._owned(), self._require_untold)
        except BadDataError as error:
            self.log.say(f"this spec has ended before, but {error}")
            return None
        return ending

    def _require_untold(self) -> None:
        if self.told.is_set():
            raise InterruptedRun("told to stop while the episodes were looked at")

    def _recorded_attempt(self) -> Ending:
        run_dir, runtime = self.run_dir, self.runtime
        self.log.open(attempts.log_path(run_dir, runtime.index, runtime.pod_uid))
        history = attempts.records(run_dir, runtime.index, runtime.job_uid)
        runtime.attempt = len(history) + 1
        mark = self._mark()
        began = time.monotonic()
        record: dict[str, Any] = {}
        try:
            attempts.require_progress(history, mark)
            record = self._begin_record(mark)
            ending = self._run()
        except StuckError as error:
            ending = Ending(error.code, str(error))
        return self._close(record, history, ending, time.monotonic() - began)

    def _begin_record(self, mark: int) -> dict[str, Any]:
        try:
            return attempts.begin(self.run_dir, self.runtime, self.work.job.spec_hash, mark)
        except OSError as error:
            self.log.say(f"this attempt cannot be recorded: {error.strerror}")
            return {}

    def _close(self, record: dict[str, Any], history: list[dict[str, Any]], ending: Ending, seconds: float) -> Ending:
        """Leave the end record, and the result that a terminal code asks for. A stuck job becomes code 70 here."""
        endings = [ending]

        def write() -> None:
            mark = self._mark()
            if record:
                facts = {"code": ending.code, "reason": ending.reason, "outside": ending.outside}
                attempts.end(self.run_dir, record, seconds=seconds, mark=mark, **facts)  # type: ignore[arg-type]
            if ending.code not in TERMINAL_CODES | {0} and not ending.outside:
                try:
                    again = attempts.records(self.run_dir, self.runtime.index, self.runtime.job_uid)
                    attempts.require_progress(again, mark)
                except StuckError as error:
                    endings.append(Ending(error.code, str(error)))
            self._publish_terminal(endings[-1])

        self._bounded(write)
        return endings[-1]

    def _publish_terminal(self, ending: Ending) -> None:
        if ending.code not in TERMINAL_CODES or self.runtime.index != self.publisher:
            return
        left = results.read_result(self.run_dir, self.publisher)
        if left is None or left["fence"] != self.runtime.fence:
            results.publish_result(self.runtime, self.work.job, scope="index", code=ending.code, reason=ending.reason)

    def _mark(self) -> int:
        return attempts.progress_mark(self.work.job.kind, self.run_dir, self.dataset, self.runtime.index, self._owned())

    def _owned(self) -> range:
        """The episodes of a collect run that are this index' share."""
        return owned_range(self.work.episodes, self.work.replicas, self.runtime.index)

    def _run(self) -> Ending:
        loops = [self._start(rank) for rank in range(self.work.processes)]
        try:
            ending = self._watch(loops)
            codes = [loop.poll() for loop in loops]  # before those that still run are killed with the one that failed
        finally:
            for loop in loops:
                loop.kill()
        self.summary.update(loops[0].summary() | loops[self._at_fault(codes)].summary())
        for loop in loops:
            loop.close()
        return ending or self._judge(codes)

    def _start(self, local_rank: int) -> LoopProcess:
        runtime = self.runtime
        world = self.work.replicas * self.work.processes if self.work.is_group else 1
        env = os.environ | {
            "JOBCTL_FENCE": str(runtime.fence),
            "JOBCTL_ATTEMPT": str(runtime.attempt),
            "JOBCTL_REPLICAS": str(self.work.replicas),
            "JOBCTL_WORLD": str(world),
            "JOBCTL_LOCAL_RANK": str(local_rank),
            "JOBCTL_SUPERVISOR_PID": str(os.getpid()),
            "PYTHONUNBUFFERED": "1",
            **self._group_env(local_rank),
        }
        return LoopProcess(self.command, env, runtime.tmp, self.log, self._handed_over(local_rank))

    def _group_env(self, local_rank: int) -> Mapping[str, str]:
        return {}

    def _handed_over(self, local_rank: int) -> Sequence[int]:
        """Open files that the loop of this rank inherits."""
        return ()

    def _at_fault(self, codes: Sequence[int | None]) -> int:
        """The local rank whose end says why the pod's loops ended; 0 if none failed."""
        return next((rank for rank, code in enumerate(codes) if code), 0)

    def _called_off(self, loops: Sequence[LoopProcess]) -> Ending | None:
        """Why the loops have to be ended for the sake of other replicas."""
        return None

    def _watch(self, loops: Sequence[LoopProcess]) -> Ending | None:
        """Until all loops have ended or one has failed: None; otherwise why they have to be killed."""
        watchdog = Watchdog(self.watchdog_seconds, loops)
        forwarded = False
        while True:
            codes = [loop.poll() for loop in loops]
            if any(codes) or None not in codes:
                return None
            if self.told.count > 1:
                return Ending(TERMINATED, "told twice to stop: left without saving", outside=True)
            if self.told.is_set() and not forwarded:
                forwarded = True
                self.log.say("told to stop: the loop saves and ends")
                for loop in loops:
                    loop.send(signal.SIGTERM)
            if forwarded and time.monotonic() - self.told.since > time_to_save(self.runtime.grace_seconds):
                return Ending(TERMINATED, "saving took longer than the grace period allows", outside=True)
            if self.lease is not None and self.lease.lost.is_set():
                return Ending(InterruptedRun.code, OVERTAKEN, outside=True)
            if (called_off := self._called_off(loops)) is not None:
                return called_off
            if not forwarded and (ranks := watchdog.look()):
                return self._dump_stacks(loops, ranks)
            time.sleep(TICK_SECONDS)

    def _dump_stacks(self, loops: Sequence[LoopProcess], ranks: Sequence[int]) -> Ending:
        """`ranks`: who stands still."""
        whose = f" of local rank {', '.join(map(str, ranks))}" if len(loops) > 1 else ""
        doing = loops[ranks[0]].doing()
        what = f"no progress{whose} for {self.watchdog_seconds:.0f} s{f' while {doing}' if doing else ''}"
        self.log.say(f"{what}: the stacks of all threads follow")
        for loop in loops:
            loop.dump_stacks()
        sleep(1.0, self.told)
        return Ending(InterruptedRun.code, f"{what}: stacks are in the log")

    def _judge(self, codes: Sequence[int | None]) -> Ending:
        """The exit code for loops that ended by themselves."""
        code = codes[self._at_fault(codes)] or 0
        if code and self._has_lost_its_lease():
            return Ending(InterruptedRun.code, OVERTAKEN, outside=True)  # a save was refused, say: that is no crash
        outside = self.told.is_set() or bool(self.lease and self.lease.lost.is_set())
        if code < 0:
            return Ending(128 - code, f"the loop was {killed_by(-code)}", outside)
        if code:
            return Ending(code, str(self.summary.get("reason") or f"the loop ended with code {code}"), outside)
        finished = self._finished()
        if finished is not None and finished.code == 0:
            return finished
        if self.runtime.index != self.publisher:
            return Ending(0, "done")
        if outside:
            return Ending(InterruptedRun.code, "told to stop before the end", outside)
        return Ending(CRASHED, "the loop ended without publishing its result")

    def _has_lost_its_lease(self) -> bool:
        """Looked up, as the loop may have noticed before the heartbeat did."""
        with contextlib.suppress(OSError):
            return self.lease is not None and not self.lease.is_current()
        return False

    def _bounded(self, call: Callable[[], None]) -> None:
        """Run the last writes, but leave in time if the volume hangs or fails: they help, nothing depends on them."""

        def run() -> None:
            try:
                call()
            except (OSError, WorkerError) as error:
                self.log.say(f"the end could not be recorded: {error}")

        thread = threading.Thread(target=run, name="last-writes", daemon=True)
        thread.start()
        latest = time.monotonic() + 10.0
        while thread.is_alive() and time.monotonic() < latest:
            if self.told.count > 1:
                latest = min(latest, time.monotonic() + 0.2)
            elif self.told.is_set():
                latest = min(latest, self.told.since + self.runtime.grace_seconds - 2.0)
            thread.join(TICK_SECONDS)


def write_termination(code: int, reason: str, summary: dict[str, Any]) -> None:
    """The pod's termination message: JSON of at most 4 KiB with the code, the reason and the loop's last summary."""
    path = os.environ.get("JOBCTL_TERMINATION_LOG")
    if not path:
        return
    message = {**summary, "code": code, "reason": reason}
    if len(_encode(message)) > TERMINATION_BYTES:
        message["reason"] = reason[:REASON_CHARACTERS]
    for key in sorted(summary, key=lambda key: len(json.dumps(summary[key], default=str)), reverse=True):
        if len(_encode(message)) <= TERMINATION_BYTES:
            break
        if key not in ("code", "reason"):
            del message[key]
    with contextlib.suppress(OSError):
        Path(path).write_bytes(_encode(message))


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(results.finite(message), default=str).encode()


def _storage_failure(error: OSError) -> Ending:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if error.errno in _UNUSABLE:
        return Ending(BadConfigError.code, f"the volume cannot be used: {what}; look at the claim and its rights")
    return Ending(CRASHED, f"the volume failed: {what}")
