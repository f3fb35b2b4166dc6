"""Baselines: each learns what it may see, and no more."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from workers.episodes.labels import horizon_labels
from workers.tasks.predictor import metrics
from workers.tasks.predictor.baselines import Baselines
from workers.tasks.predictor.data import Timesteps

NAMES = ["prevalence", "time", "logistic", "boosted"]


def episodes(count: int, seed: int) -> Timesteps:
    """Drops that signal 3 announces at any time, and timeouts after 60 timesteps that nothing but the clock does."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        drops = number % 2 == 0
        steps = int(random.integers(25, 55)) if drops else 60
        signals = random.normal(size=(steps, 12)).astype(np.float32)
        if drops:
            signals[-16:, 3] += 4
        found.append({"signals": signals, "horizon_labels": horizon_labels(steps, "drop" if drops else "timeout")})
    return Timesteps.of(found)


@pytest.fixture(scope="module")
def precisions() -> dict[str, dict[str, float]]:
    """Average precision on other episodes: of each baseline, by failure type."""
    test, baselines = episodes(20, 1), Baselines(episodes(40, 0), range(4), True, 0)
    labels = test.labels_NHF.numpy()
    return {
        name: {
            failure: average_precision_score(labels[:, 3, f], baselines.fit(name)(test)[:, 3, f])
            for f, failure in ((0, "drop"), (1, "timeout"))
        }
        for name in NAMES
    }


def test_the_clock_foretells_timeouts_and_signals_foretell_drops(precisions):
    assert precisions["time"]["timeout"] > 0.95
    assert min(precisions[name]["drop"] for name in ("logistic", "boosted")) > 0.9
    assert precisions["time"]["drop"] < 0.6
    assert max(precisions[name]["timeout"] for name in ("logistic", "boosted")) < 0.6


def test_prevalence_says_of_every_timestep_how_often_each_failure_comes():
    train = episodes(40, 0)

    found = Baselines(train, range(4), True, 0).fit("prevalence")(episodes(3, 1))

    np.testing.assert_allclose(found, np.broadcast_to(train.labels_NHF.numpy().mean(0), found.shape), rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_failure_that_never_comes_is_given_no_chance_and_all_are_probabilities(name):
    test, beats = episodes(4, 1), []

    found = Baselines(episodes(40, 0), range(4), False, 0).fit(name, lambda: beats.append(1))(test)

    assert found.shape == (len(test.rows(range(4), False)), *metrics.SCOPES["all"].shape)
    assert found.min() >= 0 and found.max() <= 1
    assert found[:, :, 2:].max() < 1e-6
    assert len(beats) == (0 if name == "prevalence" else 16)


@pytest.mark.parametrize("name", ["logistic", "boosted"])
def test_windows_reach_no_further_than_the_timestep_that_is_judged(name):
    test = episodes(4, 1)
    judge = Baselines(episodes(40, 0), range(4), True, 0).fit(name)
    later = test.signals_NS.clone()
    later[10:25] += torch.randn(15, 12, generator=torch.Generator().manual_seed(0))

    changed = judge(Timesteps(later, test.labels_NHF, test.first_N, test.last_N))

    np.testing.assert_array_equal(judge(test)[:10], changed[:10])
    assert (judge(test)[10:25] != changed[10:25]).any()
