"""Episodes of one simulator: what is recorded is what was seen and done, in memory that is used again."""

import threading
from functools import partial

import numpy as np

from workers import rollouts
from workers.envs.settings import CollectSettings
from workers.episodes import ledger, reader, writer
from workers.rollouts import Plan, Timesteps, record, rollout

SETTINGS = CollectSettings(max_steps=20)
NAMES = ("actions", "states", "images", "signals")


class Silent:
    def beat(self):
        pass

    def wait(self, why):
        raise AssertionError(why)

    def episode(self, entry, size_bytes, seconds):
        pass


def never():
    return False


def run(env, number, timesteps=None, beats=None):
    timesteps = timesteps or Timesteps(SETTINGS.max_steps)
    return rollout(env, number, SETTINGS, timesteps, never, lambda: beats.append(1) if beats is not None else None)


def test_a_timestep_is_an_observation_and_the_action_that_answered_it(fake):
    env, beats = fake.FakeEnv(0.0), []
    episode = run(env, 3, beats=beats)
    seen, info = env.reset(seed=SETTINGS.seed_of(3))
    for t in range(episode.steps):
        kept = {name: getattr(episode, name)[t] for name in NAMES}
        expected = (seen["policy_action"], seen["state"], seen["images"], seen["signals"])
        assert all(map(np.array_equal, kept.values(), expected))
        seen, _, ended, _, last = env.step(seen["policy_action"])
        assert ended == (t == episode.steps - 1)
    told = (episode.number, episode.seed, episode.outcome, episode.perturbed)
    assert told == (3, SETTINGS.seed_of(3), last["outcome"], info["perturbed"])
    assert len(beats) == episode.steps


def test_a_longer_episode_before_it_leaves_nothing_in_an_episode(fake):
    env, timesteps = fake.FakeEnv(0.0), Timesteps(SETTINGS.max_steps)
    for number in range(8):
        used, fresh = run(env, number, timesteps), run(env, number)
        assert all(np.array_equal(getattr(used, name), getattr(fresh, name)) for name in NAMES)


def test_an_episode_that_is_stopped_is_none(fake):
    assert rollout(fake.FakeEnv(0.0), 0, SETTINGS, Timesteps(20), lambda: True, lambda: None) is None


def test_two_episodes_are_in_memory_at_most_and_what_is_recorded_is_what_happened(tmp_path, fake, monkeypatch):
    made = []

    class Counted(Timesteps):
        def __init__(self, room):
            made.append(room)
            super().__init__(room)

    monkeypatch.setattr(rollouts, "Timesteps", Counted)
    record(Plan(tmp_path / "used", 1, SETTINGS, partial(fake.FakeEnv, 0.0)), range(9), never, Silent())
    assert made in ([20], [20, 20])
    env = fake.FakeEnv(0.0)
    for number in range(9):
        writer.write_episode(tmp_path / "fresh", run(env, number), 1)
    assert ledger.recorded(tmp_path / "used") == ledger.recorded(tmp_path / "fresh")


def test_what_had_ended_before_the_stop_is_recorded_and_no_episode_begins_after_it(tmp_path, fake):
    stop, begun = threading.Event(), []

    class Watched(fake.FakeEnv):
        def reset(self, **more):
            begun.append(more["seed"])
            return super().reset(**more)

        def step(self, action):
            result = super().step(action)
            if len(begun) == 3 and result[2]:
                stop.set()  # as its last timestep ends
            return result

    record(Plan(tmp_path, 1, SETTINGS, partial(Watched, 0.0)), range(9), stop.is_set, Silent())
    assert len(begun) == 3
    entries = ledger.recorded(tmp_path)
    assert [entry.episode for entry in entries] == [0, 1]
    assert all(len(reader.read_arrays(ledger.path_of(tmp_path, e), e, ("signals",))["signals"]) for e in entries)
