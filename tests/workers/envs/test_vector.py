"""Environments side by side: the same episodes as alone, partial resets, and no process that outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gymnasium.vector import VectorEnv

from workers.envs import make_vector
from workers.envs.settings import CollectSettings
from workers.envs.vector import EnvironmentDiedError

SETTINGS = CollectSettings(max_steps=20)


@pytest.fixture(scope="module")
def pair() -> Iterator[VectorEnv]:
    vector = make_vector(2, SETTINGS)
    yield vector
    vector.close()


def bits(observation: dict[str, np.ndarray], index: int) -> dict[str, bytes]:
    return {name: values[index].tobytes() for name, values in observation.items()}


def test_an_episode_has_the_same_bits_in_a_vector_of_two_as_alone(pair: VectorEnv) -> None:
    alone = make_vector(1, SETTINGS)
    single, _ = alone.reset(seed=[31])
    both, _ = pair.reset(seed=[30, 31])
    for _ in range(8):
        assert bits(both, 1) == bits(single, 0)
        single, *_ = alone.step(single["policy_action"])
        both, *_ = pair.step(both["policy_action"])
    alone.close()


def test_one_environment_starts_anew_while_the_other_goes_on(pair: VectorEnv) -> None:
    observation, _ = pair.reset(seed=[40, 41])
    for _ in range(5):
        observation, *_ = pair.step(observation["policy_action"])
    before = bits(observation, 1)
    after, info = pair.reset(seed=[42, None], options={"reset_mask": np.array([True, False])})
    assert info["episode_seed"][0] == 42
    assert bits(after, 1) == before
    begun = bits(after, 0)
    fresh, _ = pair.reset(seed=[42, 41])
    assert bits(fresh, 0) == begun


def test_the_last_step_tells_the_outcome_and_nothing_resets_by_itself(pair: VectorEnv) -> None:
    observation, _ = pair.reset(seed=[50, 51])
    for step in range(1, 21):
        observation, _, ended, _, info = pair.step(observation["policy_action"])
        assert ended.tolist() == [step == 20] * 2
    assert info["outcome"].tolist() == ["timeout", "timeout"]
    last = bits(observation, 0)
    frozen, _, ended, _, info = pair.step(observation["policy_action"])
    assert ended.tolist() == [True, True]
    assert "outcome" not in info
    assert {**bits(frozen, 0), "policy_action": b""} == {**last, "policy_action": b""}  # the policy alone goes on


def test_children_leave_sigterm_and_sigint_to_their_parent() -> None:
    vector = make_vector(2, SETTINGS)
    for process in vector.processes:
        os.kill(process.pid, signal.SIGTERM)
        os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    observation, _ = vector.reset(seed=[1, 2])
    assert observation["signals"].shape == (2, 12)
    # A child that dies all the same is one sentence, and closing does not wait for it.
    vector.processes[1].kill()
    with pytest.raises(EnvironmentDiedError, match=r"environment 1 \(exit code -9\)"):
        for _ in range(3):
            vector.step(observation["policy_action"])
    started = time.monotonic()
    vector.close()
    assert time.monotonic() - started < 5


ORPHANS = """
import sys, time
from workers.envs import make_vector
from workers.envs.settings import CollectSettings
if __name__ == "__main__":
    vector = make_vector(2, CollectSettings(max_steps=20))
    print(*[process.pid for process in vector.processes], flush=True)
    time.sleep(60)
"""


def test_children_die_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        children = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()
        parent.wait()
    assert len(children) == 2
    deadline = time.monotonic() + 5
    while (alive := [pid for pid in children if running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive == []


FORGETFUL = """
from workers.envs import make_vector
from workers.envs.settings import CollectSettings
if __name__ == "__main__":
    vector = make_vector(2, CollectSettings(max_steps=20))
    raise SystemExit(3)
"""


def test_a_parent_that_ends_without_closing_does_not_hang(tmp_path: Path) -> None:
    script = tmp_path / "forgetful.py"
    script.write_text(FORGETFUL)
    assert subprocess.run([sys.executable, str(script)], timeout=60, check=False).returncode == 3


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
