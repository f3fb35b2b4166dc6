"""Order and randomness are pure functions: of seed, epoch and place, and of nothing that a restart forgets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import sampling
from workers.sampling import Sampler

samples = st.integers(1, 300)
batches = st.integers(1, 64)
seeds = st.integers(0, 2**31 - 1)


@given(samples, batches, seeds, st.integers(0, 3), st.integers(1, 5))
def test_every_sample_comes_exactly_once_an_epoch_over_all_processes(samples, batch, seed, epoch, world):
    group = [Sampler(samples, batch, seed, rank, world) for rank in range(world)]
    steps = range(epoch * group[0].steps_per_epoch, (epoch + 1) * group[0].steps_per_epoch)

    seen = np.concatenate([sampler.at(step).samples for step in steps for sampler in group])

    assert sorted(seen) == list(range(samples))


@given(samples, batches, seeds, st.integers(0, 500), st.integers(1, 5))
def test_the_batch_of_a_step_is_the_same_whatever_the_number_of_processes(samples, batch, seed, step, world):
    alone = Sampler(samples, batch, seed).at(step)

    shares = [Sampler(samples, batch, seed, rank, world).at(step) for rank in range(world)]

    assert sorted(np.concatenate([share.samples for share in shares])) == sorted(alone.samples)
    assert {share.total for share in shares} == {alone.total} == {len(alone.samples)}
    assert {share.epoch for share in shares} == {alone.epoch}


@given(samples, batches, seeds, st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_a_step_needs_no_history(samples, batch, seed, steps):
    used = Sampler(samples, batch, seed)

    for step in steps:
        np.testing.assert_array_equal(used.at(step).samples, Sampler(samples, batch, seed).at(step).samples)


@given(seeds, st.integers(0, 1000))
def test_orders_of_other_epochs_and_seeds_differ(seed, epoch):
    orders = [
        sampling.order(seed, epoch, 100),
        sampling.order(seed, epoch + 1, 100),
        sampling.order(seed + 1, epoch, 100),
    ]

    assert len({tuple(order) for order in orders}) == 3


@given(seeds, st.integers(0, 10**6), st.integers(0, 63))
@settings(max_examples=50)
def test_dropout_seeds_differ_between_steps_and_ranks_and_repeat_for_the_same(seed, step, rank):
    here = sampling.torch_seed("dropout", seed, step, rank)

    assert here == sampling.torch_seed("dropout", seed, step, rank)
    assert 0 <= here < 2**63
    others = {
        sampling.torch_seed("dropout", seed, step + 1, rank),
        sampling.torch_seed("dropout", seed, step, rank + 1),
    }
    assert here not in others


def test_streams_are_independent():
    drawn = {sampling.generator(stream, 7, 3).integers(2**62) for stream in ("order", "noise", "jitter", "bootstrap")}

    assert len(drawn) == 4
