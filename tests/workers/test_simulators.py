"""Simulators side by side: each episode once, no failure unheard, and no process that outlives its parent."""

import os
import re
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from waiting import wait_for

from workers.envs.settings import CollectSettings
from workers.episodes import ledger
from workers.errors import BadConfigError
from workers.rollouts import Plan
from workers.simulators import SimulatorDiedError, record_side_by_side

HELPERS = Path(__file__).parent / "episodes"
SETTINGS = CollectSettings(max_steps=20)
EPISODES = 6


class Report:
    """What was told; `then` is called at each episode."""

    def __init__(self, then=lambda: None):
        self.beats, self.waits, self.episodes, self.then = [], [], [], then

    def beat(self):
        self.beats.append("beat")

    def wait(self, why):
        self.waits.append(why)

    def episode(self, entry, size_bytes, seconds):
        self.episodes.append(entry.episode)
        assert size_bytes > 0 < seconds
        self.then()


def collect(dataset, make, report=None, stop=None, count=2):
    """Runs EPISODES episodes; the report."""
    report, stop = report or Report(), stop or threading.Event()
    record_side_by_side(count, Plan(dataset, 1, SETTINGS, make), range(EPISODES), stop.is_set, report)
    return report


def recorded(dataset):
    """The numbers of the episodes that are recorded whole."""
    entries = ledger.recorded(dataset)
    for entry in entries:
        ledger.path_of(dataset, entry)  # verifies every file
    return {entry.episode for entry in entries}


def simulators():
    """Processes that this one started and that live."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(pid) for pid in children if is_simulator(pid)]


def is_simulator(pid):
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_every_episode_is_recorded_once_and_told_with_signs_of_life(tmp_path, fake):
    report = collect(tmp_path, partial(fake.Together, tmp_path))
    assert sorted(report.episodes) == list(range(EPISODES))
    assert recorded(tmp_path) == set(range(EPISODES))
    assert report.beats
    assert simulators() == []


def test_a_stop_drops_what_is_in_flight_and_records_what_has_ended(tmp_path, fake):
    stop = threading.Event()
    report = collect(tmp_path, partial(fake.FakeEnv, 0.0), Report(then=stop.set), stop)
    assert 0 < len(report.episodes) < EPISODES
    assert recorded(tmp_path) == set(report.episodes)


def test_sigterm_and_sigint_are_left_to_the_collecting_process(tmp_path, fake):
    signalled = []

    def has_started(pid):
        ignored = re.search(r"SigIgn:\t(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
        return int(ignored, 16) & 1 << signal.SIGTERM - 1

    class Signalling(Report):
        def beat(self):
            for pid in filter(has_started, simulators()):
                signalled.append(pid)
                os.kill(pid, signal.SIGTERM)
                os.kill(pid, signal.SIGINT)

    report = collect(tmp_path, partial(fake.Together, tmp_path), Signalling())
    assert sorted(report.episodes) == list(range(EPISODES))
    assert len(set(signalled)) == 2


def test_a_simulator_that_dies_is_one_sentence_and_what_the_other_has_is_recorded(tmp_path, fake):
    make = partial(fake.Troubled, {SETTINGS.seed_of(4): fake.die})
    report = Report()
    with pytest.raises(SimulatorDiedError, match=r"^simulator [01] was killed by SIGKILL: probably out of memory$"):
        collect(tmp_path, make, report)
    assert recorded(tmp_path) >= set(report.episodes) > set()
    assert 4 not in report.episodes
    assert simulators() == []


def test_a_simulator_that_dies_after_the_stop_is_no_failure(tmp_path, fake):
    stop = threading.Event()

    def stop_and_kill():
        stop.set()
        for pid in simulators():
            os.kill(pid, signal.SIGKILL)

    collect(tmp_path, partial(fake.FakeEnv, 0.0), Report(then=stop_and_kill), stop)
    assert simulators() == []


def test_a_failure_in_a_simulator_is_raised_here(tmp_path, fake):
    with pytest.raises(BadConfigError, match=r"^no pictures$"):
        collect(tmp_path, fake.without_a_renderer)
    with pytest.raises(ZeroDivisionError) as caught:
        collect(tmp_path, partial(fake.Troubled, {SETTINGS.seed_of(1): fake.divide}))
    assert "in divide" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match=r"^UnsendableError: of 1$"):
        collect(tmp_path, partial(fake.Troubled, {SETTINGS.seed_of(1): fake.raise_unsendable}))
    assert simulators() == []


@pytest.fixture
def pipe(tmp_path):
    """A named pipe, and how to let those go on who wait for its byte, now or later."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield path, lambda: os.write(descriptor, b".")
    os.close(descriptor)


def test_simulators_that_start_give_signs_of_life_by_their_work_alone(tmp_path, fake):
    """They import and make their environments, which is done only when they have given some."""
    enough = tmp_path / "enough"

    class Starting(Report):
        def beat(self):
            super().beat()
            if len(self.beats) == 8:
                enough.touch()

    report = collect(tmp_path / "data", partial(fake.slow_to_make, enough), Starting())
    assert sorted(report.episodes) == list(range(EPISODES))


def test_one_that_stands_still_is_not_covered_by_the_other(tmp_path, fake, pipe):
    path, let_go = pipe

    class Watching(Report):
        def beat(self):
            if (tmp_path / "still").exists():
                super().beat()

    report, signs_of_life = Watching(), []

    def go_on():
        signs_of_life.append(len(report.beats))
        let_go()

    report.then = go_on  # as the other has recorded an episode
    still = partial(fake.stand_still, tmp_path / "still", path)
    collect(tmp_path, partial(fake.Troubled, {SETTINGS.seed_of(0): still}), report)
    assert signs_of_life[0] <= 2, "what it did before is told, nothing after it"
    assert sorted(report.episodes) == list(range(EPISODES))


def test_a_simulator_prints_its_stacks_when_the_supervisor_asks(tmp_path, fake, pipe, capfd):
    path, let_go = pipe
    said = []

    def stacks():
        said.append(capfd.readouterr().err)
        return re.search(r"rollouts.py.*line \d+ in rollout", "".join(said))

    class Asking(threading.Event):
        """Asked for by the desk all the while: asks, as the supervisor does, where nothing goes on, and stops."""

        def is_set(self):
            if (tmp_path / "still").exists() and not super().is_set():
                self.set()
                os.kill(simulators()[0], signal.SIGUSR1)
                assert wait_for("its stacks are in the log", stacks)
                let_go()
            return super().is_set()

    still = partial(fake.stand_still, tmp_path / "still", path)
    collect(tmp_path, partial(fake.Troubled, {SETTINGS.seed_of(0): still}), stop=Asking(), count=1)
    assert said


def test_a_full_disk_is_told_and_waited_for(tmp_path, fake):
    report = collect(tmp_path, fake.on_a_full_disk)
    assert sorted(report.episodes) == list(range(EPISODES))
    assert set(report.waits) <= {
        f"the volume is full: episode {number} waits in memory for room" for number in range(EPISODES)
    }
    assert report.waits


def test_no_simulator_is_left_when_the_report_fails(tmp_path, fake):
    def fail():
        raise OSError("metrics cannot be written")

    with pytest.raises(OSError, match="metrics cannot be written"):
        collect(tmp_path, partial(fake.FakeEnv, 0.0), Report(then=fail))
    assert simulators() == []


PARENT = """
import sys, threading
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import fake_environment
from workers.envs.settings import CollectSettings
from workers.rollouts import Plan
from workers.simulators import record_side_by_side

class Report:
    def beat(self): print("beat", flush=True)

if __name__ == "__main__":
    together = partial(fake_environment.Together, Path(sys.argv[1]))
    plan = Plan(Path(sys.argv[1]), 1, CollectSettings(max_steps=20), together)
    record_side_by_side(2, plan, range(6), lambda: False, Report())
"""


def test_simulators_die_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script), str(tmp_path), str(HELPERS)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "beat\n"
        listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        children = [pid for pid in listed if is_simulator(pid)]
        parent.kill()
        parent.wait()
    assert len(children) == 2
    wait_for("they die, too", lambda: not any(is_simulator(pid) for pid in children))
