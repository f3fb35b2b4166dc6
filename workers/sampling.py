"""Sample order and every random number of a training, as pure functions: resuming needs the step number alone.

Order is f(seed, epoch, position), augmentation f(seed, epoch, sample), dropout f(seed, step, rank). Neither order nor
augmentation depends on the number of processes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Stream = Literal["order", "noise", "jitter", "dropout", "weights", "bootstrap", "history"]
_STREAMS: dict[Stream, int] = {
    "order": 0,
    "noise": 1,
    "jitter": 2,
    "dropout": 3,
    "weights": 4,
    "bootstrap": 5,
    "history": 6,
}


def generator(stream: Stream, seed: int, *place: int) -> np.random.Generator:
    """Random numbers that belong to one place, such as an epoch, and to no other; the streams are independent."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((_STREAMS[stream], seed, *place))))


def torch_seed(stream: Stream, seed: int, *place: int) -> int:
    """A seed below 2^63 for torch's own generators, which make dropout and initial weights."""
    state = np.random.SeedSequence((_STREAMS[stream], seed, *place)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))


def order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The samples of an epoch by position: a permutation of range(samples), int64."""
    return generator("order", seed, epoch).permutation(samples)


@dataclass(frozen=True)
class Batch:
    """One step's samples of one process. `total` counts those of all processes: gradients weigh real sample counts."""

    epoch: int
    samples: np.ndarray
    total: int


class Sampler:
    """The samples of each optimizer step, counted from 0.

    An epoch's last batch holds what is left, so that every sample comes exactly once an epoch; it may be smaller than
    `batch`, and a process' share of it may be empty.
    """

    def __init__(self, samples: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if samples < 1:
            raise ValueError("there are no samples")
        self.samples, self.batch, self.seed, self.rank, self.world = samples, batch, seed, rank, world
        self.steps_per_epoch = -(-samples // batch)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def at(self, step: int) -> Batch:
        """The batch of a step. Steps may be asked for in any order; only a new epoch costs a permutation."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, order(self.seed, epoch, self.samples)
        whole = self._order[place * self.batch : (place + 1) * self.batch]
        return Batch(epoch, whole[self.rank :: self.world], len(whole))
