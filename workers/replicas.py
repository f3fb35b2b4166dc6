"""The supervisor of one replica of a training group: its loops live as long as all the group's loops do.

A replica whose peer died stays in its pod and starts its loops again; only the lost pod comes back through the Job
controller, whose back-off grows. Peers are judged lost here (workers/peers.py), never by a collective.
"""

import contextlib
import functools
import time
from collections.abc import Sequence

from workers import fresh
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
LONGEST_PAUSE_SECONDS = 30.0
MOST_FRUITLESS = 10
_OF_OTHERS = {InterruptedRun.code, PeersLostError.code}  # a loop's codes that tell of another replica
_AGAIN = Ending(PeersLostError.code, "the loops start again")


class GroupSupervisor(Supervisor):
    """As its base, with a life of the loops for every generation of the group."""

    peers: Peers
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
        runtime = self.runtime
        if self.work.replicas > 1 and not runtime.store:
            raise BadConfigError("JOBCTL_STORE is not set: it says where the replicas of a group meet (HOST:PORT)")
        host, _, port = (runtime.store or f"{runtime.ip}:{STORE_PORT}").rpartition(":")
        if not port.isdigit():
            raise BadConfigError(f"JOBCTL_STORE is {runtime.store!r}, but must be HOST:PORT")
        self._store_port = int(port)
        silence_seconds = seconds_from_env("JOBCTL_PEER_SECONDS", DEFAULT_SILENCE_SECONDS)
        meeting = Meeting(self.work.job.run, runtime.job_uid, self.work.replicas - 1, silence_seconds)
        if self._leads:
            return Hub(meeting, runtime.ip, self._store_port + 1)
        return Member(meeting, host, self._store_port + 1, runtime.index)

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
        ending = super()._run()
        self._fruitless = 0 if "step" in self.summary else self._fruitless + 1
        if before is not None:
            self.summary.setdefault("step", before)
        return ending

    def _group_env(self) -> dict[str, str]:
        return {"JOBCTL_STORE": f"{self.peers.store_host}:{self._store_port}"}

    def _called_off(self, loops: Sequence[LoopProcess]) -> Ending | None:
        """While the loops run: whether the generation is over, or a peer is missing for too long."""
        if self.peers.done and not self._leads:
            return Ending(0, "done")
        if self.peers.generation == self._generation:
            return self._alone_for_too_long()
        may_save = self._leads and "step" in loops[0].summary()
        if may_save and time.monotonic() - self.peers.over_since < LAST_SAVE_SECONDS:
            return None
        self._say_over()
        return _AGAIN

    def _watch(self, loops: Sequence[LoopProcess]) -> Ending | None:
        ending = super()._watch(loops)
        latest = time.monotonic() + JUDGING_SECONDS
        while ending is None and None in (codes := [loop.poll() for loop in loops]) and time.monotonic() < latest:
            if not {code for code in codes if code} <= _OF_OTHERS:
                break  # the loop that the others of this pod lost
            time.sleep(TICK_SECONDS)
        return ending

    def _judge(self, codes: Sequence[int | None]) -> Ending:
        ended = {code for code in codes if code}
        if ended - _OF_OTHERS:
            return super()._judge([code for code in codes if code not in _OF_OTHERS])
        if self.told.is_set() and ended == {InterruptedRun.code}:
            return super()._judge(codes)
        if self.told.is_set() and PeersLostError.code in ended:
            return Ending(
                InterruptedRun.code, "told to stop, but a peer was lost: what is published is intact", outside=True
            )
        if ended:
            return self._start_again()
        return super()._judge(codes) if self._leads else self._wait_for_the_end()

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
