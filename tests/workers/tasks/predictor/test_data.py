"""Windows never leave their episode, and augmentation is a function of seed, epoch and place."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workers.tasks.predictor.data import Timesteps, TrainingSamples
from workers.tasks.predictor.settings import TrainSettings, lags


def numbered(*lengths: int) -> Timesteps:
    """Episodes whose every signal is 100 × the episode's place + the timestep."""
    episodes = []
    for place, length in enumerate(lengths):
        values = 100.0 * place + np.arange(length, dtype=np.float32)
        labels = np.zeros((length, 4, 4), dtype=np.uint8)
        labels[-1] = 1
        episodes.append({"signals": np.repeat(values[:, None], 12, axis=1), "horizon_labels": labels})
    return Timesteps.of(episodes)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 12), st.integers(-5, 5))
def test_a_window_never_leaves_the_episode_of_its_row(lengths, context, shift):
    timesteps = numbered(*lengths)
    rows = timesteps.rows(range(context), pad_history=True)

    windows = timesteps.windows(rows, range(context), rows + shift)

    assert (windows // 100 == timesteps.signals_NS[rows][:, None] // 100).all()


def test_a_window_holds_the_past_oldest_first_and_repeats_the_first_timestep_before_it():
    windows = numbered(3, 4).windows(torch.tensor([0, 4, 6]), lags=(0, 1, 2))

    assert windows[:, :, 0].tolist() == [[0, 0, 0], [100, 100, 101], [101, 102, 103]]


@given(st.integers(1, 200), st.integers(0, 1000))
def test_what_is_seen_of_the_past_thins_out_from_the_present_to_the_reach(context, reach):
    found = lags(context, reach)

    gaps = np.diff(found)
    assert (len(found), found[0]) == (context, 0)
    assert (gaps >= 1).all()
    assert found[-1] == max(reach, context - 1) or context == 1
    assert found == tuple(range(context)) or reach >= context


def test_the_default_past_is_the_documented_one():
    assert TrainSettings().lags == (0, 1, 2, 4, 9, 16, 29, 51, 91, 160)


def test_a_window_with_gaps_holds_the_timesteps_at_its_lags():
    windows = numbered(30, 30).windows(torch.tensor([5, 49]), lags=(0, 1, 4, 20))

    assert windows[:, :, 0].tolist() == [[0, 1, 4, 5], [100, 115, 118, 119]]


def test_a_cut_past_looks_like_an_episodes_start():
    timesteps = numbered(30)

    windows = timesteps.windows(torch.tensor([20, 20]), (0, 1, 4, 8), seen_B=torch.tensor([3, 0]))

    assert windows[:, :, 0].tolist() == [[17, 17, 19, 20], [20, 20, 20, 20]]


def test_without_padding_only_timesteps_with_a_whole_context_are_samples():
    assert numbered(3, 4).rows((0, 2), pad_history=False).tolist() == [2, 5, 6]


def test_normalisation_leaves_a_signal_that_never_changes_alone():
    timesteps = Timesteps.of([{"signals": np.full((5, 12), 3.0), "horizon_labels": np.zeros((5, 4, 4))}])

    mean, deviation = timesteps.normalisation()

    assert mean.tolist() == [3.0] * 12
    assert deviation.tolist() == [1.0] * 12


def test_a_batch_holds_the_window_the_one_before_it_and_the_labels_of_its_own_timestep():
    data = TrainingSamples(numbered(6), TrainSettings(context=2, reach=1, noise=0, jitter=0, history_cut=0))

    now, before, labels = data.batch(np.array([5, 3]), epoch=0)

    assert now[:, :, 0].tolist() == [[4, 5], [2, 3]]
    assert before[:, :, 0].tolist() == [[3, 4], [1, 2]]
    assert labels[:, 0, 0].tolist() == [1, 0]


@pytest.mark.parametrize(("share", "reaches"), [(0, {12}), (1, set(range(13)))])
def test_pasts_are_cut_anywhere_in_the_share_asked_for(share, reaches):
    settings = TrainSettings(context=5, reach=12, noise=0, jitter=0, history_cut=share)
    data, middle = TrainingSamples(numbered(60), settings), np.arange(20, 60)

    windows = torch.stack([data.batch(middle, epoch)[0][:, :, 0] for epoch in range(20)])

    assert set((windows[..., -1] - windows[..., 0]).flatten().tolist()) == reaches


def test_augmentation_is_the_same_in_any_order_and_another_in_another_epoch():
    one, two = (TrainingSamples(numbered(20, 20), TrainSettings(context=3)) for _ in range(2))
    two.batch(np.array([0]), epoch=8)

    same = one.batch(np.array([7, 30]), epoch=4)[0]

    torch.testing.assert_close(two.batch(np.array([30, 7]), epoch=4)[0].flip(0), same, rtol=0, atol=0)
    assert not torch.equal(one.batch(np.array([7, 30]), epoch=5)[0], same)


def test_jitter_moves_the_window_by_at_most_so_many_timesteps_and_never_the_label():
    data = TrainingSamples(numbered(40), TrainSettings(context=1, noise=0, jitter=2))
    middle = np.arange(10, 30)

    ends = torch.stack([data.batch(middle, epoch)[0][:, -1, 0] for epoch in range(20)])

    shifts = ends - torch.from_numpy(middle)
    assert set(shifts.flatten().tolist()) == {-2, -1, 0, 1, 2}
    assert data.batch(np.array([39]), 3)[2].all()


def test_noise_is_in_units_of_each_signals_own_deviation():
    random = np.random.default_rng(0)
    signals = (random.normal(size=(4000, 12)) * np.logspace(-2, 3, 12)).astype(np.float32)
    timesteps = Timesteps.of([{"signals": signals, "horizon_labels": np.zeros((4000, 4, 4))}])
    data = TrainingSamples(timesteps, TrainSettings(context=1, noise=0.01, jitter=0))

    noise = data.batch(np.arange(4000), epoch=0)[0][:, 0] - timesteps.signals_NS

    np.testing.assert_allclose(noise.std(0) / timesteps.normalisation()[1], 0.01, rtol=0.1)
