"""The supervisor of one replica of a training group: its loops live as long as all the group's loops do.

A replica whose peer died stays in its pod and starts its loops again; only the lost pod comes back through the Job
controller, whose back-off grows. Peers are judged lost here (workers/peers.py), never by a collective.
"""

import contextlib
import functools
import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence

from workers import fresh, meeting
from workers.errors import BadConfigError, InterruptedRun, PeersLostError, WorkerError
from workers.peers import Hub, Meeting, Member, Peers
from workers.processes import TICK_SECONDS, LoopProcess, sleep
from workers.runtime import seconds_from_env
from workers.supervise import Ending, Supervisor

STORE_PORT = 29400
DEFAULT_RENDEZVOUS_SECONDS = 900.0  # longer than the Job controller's longest back-off, 600 s
DEFAULT_SILENCE_SECONDS = 30.0
LAST_SAVE_SECONDS = 5.0  # what index 0's loop has to save its state when a peer is lost
JUDGING_SECONDS = 2.0  # loops hear of a lost peer before the supervisors do
MARKER_POLL_SECONDS = 1.0
WAITS_POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
MOST_FRUITLESS = 10
_OF_OTHERS = {InterruptedRun.code, PeersLostError.code}  # a loop's codes that tell of another replica
_ABORTED = -signal.SIGABRT  # perhaps NCCL's answer to a peer that is gone
# Tear the process down without cleaning up, which may hang: so a collective that lost a peer neither waits for ever (0)
# nor goes on with what has come (2). torch's own default, and no longer when torch changes it.
_NCCL = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}
_AGAIN = Ending(PeersLostError.code, "the loops start again")


class GroupSupervisor(Supervisor):
    """As its base, with a life of the loops for every generation of the group."""

    peers: Peers
    _held: socket.socket | None = None  # index 0's: keeps the store's port from one generation to the next
    _looked_at_waits = 0.0
    _generation: int | None = None
    _fruitless = 0  # generations in a row that ended without a step

    def _run(self) -> Ending:
        try:
            with contextlib.closing(self._meet()) as self.peers:
                while True:
                    ending = self._next_generation() or self._one_life()
                    if ending is not _AGAIN:
                        break
                if ending.code == 0 and self._leads:
                    self.peers.finish()
                return ending
        except InterruptedRun as error:
            return Ending(error.code, str(error), outside=True)
        except WorkerError as error:
            return Ending(error.code, str(error))

    def _recorded_attempt(self) -> Ending:
        """Others than index 0 leave no trace before it has moved aside what --fresh gives up."""
        began = time.monotonic()
        while not self._leads and fresh.pending(self.lease_dir.parent, self.work.token):
            if sleep(MARKER_POLL_SECONDS, self.told):
                return self._told_while_waiting()
            if time.monotonic() - began > self._rendezvous_seconds:
                return Ending(PeersLostError.code, f"replica 0 did not come for {self._rendezvous_seconds:.0f} s")
        return super()._recorded_attempt()

    @functools.cached_property
    def _rendezvous_seconds(self) -> float:
        return seconds_from_env("JOBCTL_RENDEZVOUS_SECONDS", DEFAULT_RENDEZVOUS_SECONDS)

    @property
    def _leads(self) -> bool:
        return self.runtime.index == self.publisher

    def _meet(self) -> Peers:
        host, port = self._store_from_env()
        silence_seconds = seconds_from_env("JOBCTL_PEER_SECONDS", DEFAULT_SILENCE_SECONDS)
        agreed = Meeting(self.work.job.run, self.runtime.job_uid, self.work.replicas - 1, silence_seconds)
        if not self._leads:
            return Member(agreed, host, lambda: meeting.find(self.lease_dir), self.runtime.index)
        self._held = meeting.hold(self.runtime.ip, port)
        listener = meeting.hold(self.runtime.ip, self._held.getsockname()[1] + 1)
        place = meeting.Place(meeting.new_token(), self._held.getsockname()[1], listener.getsockname()[1])
        self._despite_full_disk(lambda: meeting.announce(self.lease_dir, self.runtime.fence, place))
        return Hub(agreed, place, listener)

    def _store_from_env(self) -> tuple[str, int]:
        """Index 0's name, and the first port that it tries."""
        runtime = self.runtime
        if self.work.replicas > 1 and not runtime.store:
            raise BadConfigError("JOBCTL_STORE is not set: it says where the replicas of a group meet (HOST:PORT)")
        host, _, port = (runtime.store or f"{runtime.ip}:{STORE_PORT}").rpartition(":")
        first = os.environ.get("JOBCTL_STORE_PORT") or port
        if not (first.isascii() and first.isdigit() and 0 < int(first) < 65536):
            name = "JOBCTL_STORE_PORT" if os.environ.get("JOBCTL_STORE_PORT") else "the port of JOBCTL_STORE"
            raise BadConfigError(f"{name} is {first!r}, but must be a port's number")
        return host, int(first)

    def _next_generation(self) -> Ending | None:
        """None once the loops may start; otherwise why they need not."""
        ending = self._lead() if self._leads else self._follow()
        if ending is None and self.peers.alone_since is not None:
            self.log.say(f"waiting for {self.peers.missing()}")
        return ending

    def _lead(self) -> Ending | None:
        """A generation is a lease: one number fences what is published and tells the lives of the loops apart."""
        if self._generation is not None:
            if self._fruitless >= MOST_FRUITLESS:
                why = f"{self._fruitless} times in a row the group ended without a step; the last time: "
                return Ending(PeersLostError.code, why + self.peers.why)
            if sleep(min(LONGEST_PAUSE_SECONDS, 2.0**self._fruitless - 1), self.told):
                return self._told_while_waiting()
            assert self.lease is not None
            self._bounded(self.lease.release)
            self.lease = self._take_lease()
            if (finished := self._finished()) is not None:
                return finished
        self._generation = self.runtime.fence
        self.peers.begin(self._generation)
        return None

    def _follow(self) -> Ending | None:
        look_again = 0.0
        while not self.told.is_set():
            if self.peers.done:
                return Ending(0, "done")
            if (generation := self.peers.generation) not in (None, self._generation):
                self._generation = self.runtime.fence = generation
                return None
            if time.monotonic() >= look_again:
                look_again = time.monotonic() + MARKER_POLL_SECONDS
                with contextlib.suppress(OSError):
                    if (finished := self._finished()) is not None:
                        return finished
            if (lost := self._alone_for_too_long()) is not None:
                return lost
            time.sleep(TICK_SECONDS)
        return self._told_while_waiting()

    def _told_while_waiting(self) -> Ending:
        return Ending(InterruptedRun.code, "told to stop while waiting for the other replicas", outside=True)

    def _alone_for_too_long(self) -> Ending | None:
        since = self.peers.alone_since
        if since is None or time.monotonic() - since < self._rendezvous_seconds:
            return None
        return Ending(PeersLostError.code, f"{self.peers.missing()} did not come for {self._rendezvous_seconds:.0f} s")

    def _one_life(self) -> Ending:
        before = self.summary.pop("step", None)
        if self._held is not None:
            meeting.hang_up(self._held)
        ending = super()._run()
        self.peers.tell_waits(None)
        self._fruitless = 0 if "step" in self.summary else self._fruitless + 1
        if before is not None:
            self.summary.setdefault("step", before)
        return ending

    def _group_env(self, local_rank: int) -> Mapping[str, str]:
        host, port = self.peers.store
        env = {"JOBCTL_STORE": f"{host}:{port}", "JOBCTL_STORE_PREFIX": self.peers.store_prefix}
        if handed_over := self._handed_over(local_rank):
            env["JOBCTL_STORE_DESCRIPTOR"] = str(*handed_over)
        return {name: value for name, value in _NCCL.items() if name not in os.environ} | env

    def _handed_over(self, local_rank: int) -> Sequence[int]:
        return [self._held.fileno()] if self._held is not None and local_rank == 0 else []

    def _called_off(self, loops: Sequence[LoopProcess]) -> Ending | None:
        """While the loops run: whether the generation is over, or a peer is missing for too long."""
        if self.peers.done and not self._leads:
            return Ending(0, "done")
        self._look_at_waits(loops)
        if self.peers.generation == self._generation:
            return self._alone_for_too_long()
        may_save = self._leads and "step" in loops[0].summary()
        if may_save and time.monotonic() - self.peers.over_since < LAST_SAVE_SECONDS:
            return None
        self._say_over()
        return _AGAIN

    def _look_at_waits(self, loops: Sequence[LoopProcess]) -> None:
        """Where all processes of the group wait for each other, none of them hangs, and none will ever go on."""
        if time.monotonic() - self._looked_at_waits < WAITS_POLL_SECONDS:
            return
        self._looked_at_waits = time.monotonic()
        waits = [loop.waits() for loop in loops]
        self.peers.tell_waits(None if None in waits else waits)
        if self.peers.standstill_seconds() >= self.watchdog_seconds and self._generation is not None:
            why = f"all processes of the group have waited for each other for {self.watchdog_seconds:.0f} s"
            self.log.say(f"{why}: the stacks of those in this pod follow")
            for loop in loops:
                loop.dump_stacks()
            self.peers.report_lost(self._generation, why)

    def _watch(self, loops: Sequence[LoopProcess]) -> Ending | None:
        ending = super()._watch(loops)
        latest = time.monotonic() + JUDGING_SECONDS
        while ending is None and None in (codes := [loop.poll() for loop in loops]) and time.monotonic() < latest:
            if not {code for code in codes if code} <= _OF_OTHERS | {_ABORTED}:
                break  # the loop that the others of this pod lost
            time.sleep(TICK_SECONDS)
        return ending

    def _at_fault(self, codes: Sequence[int | None]) -> int:
        """Rather the loop that the others of this pod lost than one of those."""
        ended = [rank for rank, code in enumerate(codes) if code]
        return min(ended, key=lambda rank: (codes[rank] in _OF_OTHERS, codes[rank] == _ABORTED), default=0)

    def _judge(self, codes: Sequence[int | None]) -> Ending:
        ended = {code for code in codes if code}
        if ended - _OF_OTHERS - {_ABORTED}:
            return super()._judge(codes)
        if _ABORTED in ended and not self._aborted_for_another():
            return super()._judge(codes)
        if self.told.is_set() and ended == {InterruptedRun.code}:
            return super()._judge(codes)
        if self.told.is_set() and ended:
            return Ending(
                InterruptedRun.code, "told to stop, but a peer was lost: what is published is intact", outside=True
            )
        if ended:
            return self._start_again()
        return super()._judge(codes) if self._leads else self._wait_for_the_end()

    def _aborted_for_another(self) -> bool:
        """Whether a loop aborted because of another replica: the group's end is known by now, or a moment later.

        Where nobody was lost, the first replica whose loop aborted is at fault, and the others wait until it leaves.
        """
        if self._generation is None:
            return False
        self.peers.report_aborted(self._generation)
        latest = time.monotonic() + JUDGING_SECONDS
        while self.peers.generation == self._generation:
            if time.monotonic() > latest and self.peers.first_aborted in (None, self.runtime.index):
                return False
            time.sleep(TICK_SECONDS)
        return True

    def _start_again(self) -> Ending:
        """Loops that ended because of a peer: its supervisor's silence says who that is, if it is gone."""
        latest = time.monotonic() + JUDGING_SECONDS
        while self.peers.generation == self._generation and time.monotonic() < latest and not self.told.is_set():
            time.sleep(TICK_SECONDS)
        if self.peers.generation == self._generation and self._generation is not None:
            self.peers.report_lost(self._generation, str(self.summary.get("reason")))
        self._say_over()
        return _AGAIN

    def _say_over(self) -> None:
        self.log.say(f"{self.peers.why or 'a peer was lost'}: the loops start again")

    def _wait_for_the_end(self) -> Ending:
        """All steps are done; index 0 still has to publish the result, and needs this replica again if it is lost."""
        while not self.peers.done:
            if self.told.is_set():
                reason = "told to stop before index 0 had published the result"
                return self._finished() or Ending(InterruptedRun.code, reason, outside=True)
            if self.peers.generation != self._generation:
                return _AGAIN
            time.sleep(TICK_SECONDS)
        return Ending(0, "done")
