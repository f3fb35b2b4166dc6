"""Recording behind the simulators: in order, bounded, patient with a full disk, honest about failures."""

import errno
import os
import threading
import time
import weakref

import pytest

from workers.episodes import ledger, recorder
from workers.episodes.recorder import Recorder


class Watch:
    """What a Recorder reported, and whether it should stop."""

    def __init__(self):
        self.recorded, self.waits, self.stop = [], [], threading.Event()

    def recorder(self, dataset, **more):
        return Recorder(
            dataset,
            1,
            on_recorded=self.recorded.append,
            on_wait=self.waits.append,
            should_stop=self.stop.is_set,
            **more,
        )


@pytest.fixture
def watch():
    return Watch()


def full_for(monkeypatch, tries):
    """Let the first `tries` writes find a full disk; the list of all tries."""
    real, calls = recorder.write_episode, []

    def write(*arguments):
        calls.append(arguments)
        if len(calls) <= tries:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    monkeypatch.setattr(recorder, "write_episode", write)
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(recorder, "POLL_SECONDS", 0.01)
    return calls


def test_episodes_are_recorded_in_the_order_of_hand_over(tmp_path, episode, watch):
    with watch.recorder(tmp_path) as recording:
        for number in (2, 0, 1):
            assert recording.put(episode(number))
    assert [entry.episode for entry in watch.recorded] == [2, 0, 1]
    assert ledger.recorded(tmp_path) == sorted(watch.recorded)


def test_no_more_episodes_are_in_memory_than_there_is_room(tmp_path, episode, watch, monkeypatch):
    gate, real = threading.Event(), recorder.write_episode
    monkeypatch.setattr(recorder, "write_episode", lambda *arguments: gate.wait(30) and real(*arguments))
    with watch.recorder(tmp_path, room=2) as recording:
        recording.put(episode(0))
        recording.put(episode(1))
        handing_over = threading.Thread(target=recording.put, args=(episode(2),))
        handing_over.start()
        handing_over.join(0.5)
        assert handing_over.is_alive(), "one is being written, one is queued: the third waits"
        gate.set()
        handing_over.join(30)
    assert len(watch.recorded) == 3


def test_an_episode_that_is_recorded_is_kept_no_longer(tmp_path, episode, watch):
    with watch.recorder(tmp_path) as recording:
        one = episode(0)
        kept = weakref.ref(one.images)
        recording.put(one)
        del one
        recording.put(episode(1))
        assert kept() is None


def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path, episode, watch, monkeypatch):
    full_for(monkeypatch, tries=2)
    with watch.recorder(tmp_path) as recording:
        recording.put(episode(0))
        recording.put(episode(1))
    assert [entry.episode for entry in watch.recorded] == [0, 1]
    assert set(watch.waits) == {"the volume is full: episode 0 waits in memory for room"}


def test_stopping_does_not_wait_for_room(tmp_path, episode, watch, monkeypatch):
    full_for(monkeypatch, tries=1000)
    with watch.recorder(tmp_path) as recording:
        recording.put(episode(0))
        while not watch.waits:
            time.sleep(0.01)
        watch.stop.set()
    assert not recording.put(episode(1))
    assert watch.recorded == []


def test_what_was_handed_over_before_the_stop_is_recorded(tmp_path, episode, watch):
    with watch.recorder(tmp_path) as recording:
        recording.put(episode(0))
        recording.put(episode(1))
        watch.stop.set()
    assert [entry.episode for entry in watch.recorded] == [0, 1]


def test_another_failure_reaches_the_one_who_hands_over(tmp_path, episode, watch, monkeypatch):
    monkeypatch.setattr(recorder, "write_episode", lambda *arguments: os.stat("/proc/nowhere"))
    with pytest.raises(FileNotFoundError), watch.recorder(tmp_path) as recording:
        while recording.put(episode(0)):
            pass


def test_a_failure_after_the_last_hand_over_is_raised_at_the_end(tmp_path, episode, watch):
    with pytest.raises(ValueError, match="signals"), watch.recorder(tmp_path) as recording:
        recording.put(episode(0, signals=episode(0).signals[:, :3]))
