"""Windows of signals, cut from episodes that lie in memory whole.

Shapes: N timesteps of all episodes, one after another · S signals · B samples · W timesteps of context · H horizons ·
F failure types.
"""
# ruff: noqa: N803, N806, N815 - tensors' names end in their shape

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workers import sampling
from workers.tasks.predictor.settings import TrainSettings

Batch = tuple[Tensor, Tensor, Tensor]  # x_BWS, x_BWS one timestep earlier, y_BHF
SMALLEST_DEVIATION = 1e-6  # a signal that never changes is divided by 1, not by this


@dataclass(frozen=True)
class Timesteps:
    """All timesteps of some episodes; `first_N` and `last_N` are the rows where each one's episode begins and ends."""

    signals_NS: Tensor
    labels_NHF: Tensor
    first_N: Tensor
    last_N: Tensor

    @classmethod
    def of(cls, episodes: Sequence[Mapping[str, np.ndarray]], device: torch.device | str = "cpu") -> "Timesteps":
        """From each episode's arrays `signals` (T, 12) and `horizon_labels` (T, 4, 4); there is at least one."""
        lengths = np.array([len(episode["signals"]) for episode in episodes])
        ends = np.cumsum(lengths)
        first, last = np.repeat(ends - lengths, lengths), np.repeat(ends - 1, lengths)
        signals = np.concatenate([episode["signals"] for episode in episodes]).astype(np.float32)
        labels = np.concatenate([episode["horizon_labels"] for episode in episodes]).astype(np.float32)
        return cls(*(torch.from_numpy(array).to(device) for array in (signals, labels, first, last)))

    def __len__(self) -> int:
        return len(self.signals_NS)

    def rows(self, context: int, pad_history: bool) -> Tensor:
        """The rows that are samples: all, or those with a whole context behind them in their episode."""
        rows = torch.arange(len(self), device=self.first_N.device)
        return rows if pad_history else rows[rows - self.first_N >= context - 1]

    def windows(
        self, rows_B: Tensor, context: int, ends_B: Tensor | None = None, signals: Tensor | None = None
    ) -> Tensor:
        """x_BWS: the `context` timesteps that end at `ends_B` (default: at the rows themselves), oldest first.

        A window never leaves the episode of its row: what lies before it is the first timestep, repeated, and what lies
        behind it the last one. `signals` replaces this object's own values, noise added.
        """
        past_W = torch.arange(1 - context, 1, device=rows_B.device)
        ends_B = rows_B if ends_B is None else ends_B
        index_BW = (ends_B[:, None] + past_W).clamp(self.first_N[rows_B, None], self.last_N[rows_B, None])
        return (self.signals_NS if signals is None else signals)[index_BW]

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each signal, (S,) float; 1 for one that never changes."""
        deviation_S, mean_S = torch.std_mean(self.signals_NS.double(), dim=0, correction=0)
        still_S = deviation_S < SMALLEST_DEVIATION
        return mean_S.float(), torch.where(still_S, torch.ones_like(deviation_S), deviation_S).float()


class TrainingSamples:
    """The training split as samples 0 … len − 1, augmented: noise on the signals and windows moved by a few timesteps.

    Both are functions of seed, epoch and place alone. Noise belongs to the reading, so windows that overlap share it.
    """

    def __init__(self, timesteps: Timesteps, settings: TrainSettings) -> None:
        self.timesteps, self.settings = timesteps, settings
        self.rows = timesteps.rows(settings.context, settings.pad_history)
        self._deviation = timesteps.normalisation()[1]
        self._epoch: int | None = None
        self._noisy, self._shift = timesteps.signals_NS, torch.zeros_like(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, samples: np.ndarray, epoch: int) -> Batch:
        """(x_BWS, x one timestep earlier (B, W, S), y_BHF) of these samples as they are in this epoch."""
        self._augment(epoch)
        index = torch.from_numpy(samples).to(self.rows.device)
        rows, ends = self.rows[index], self.rows[index] + self._shift[index]
        window, settings = self.timesteps.windows, self.settings
        now = window(rows, settings.context, ends, self._noisy)
        return now, window(rows, settings.context, ends - 1, self._noisy), self.timesteps.labels_NHF[rows]

    def _augment(self, epoch: int) -> None:
        """Draw the epoch's noise and shifts: 13 numbers a timestep, once an epoch."""
        if epoch == self._epoch:
            return
        self._epoch, seed, jitter = epoch, self.settings.seed, self.settings.jitter
        signals, device = self.timesteps.signals_NS, self.rows.device
        noise = sampling.generator("noise", seed, epoch).standard_normal(tuple(signals.shape), dtype=np.float32)
        self._noisy = signals + self.settings.noise * self._deviation * torch.from_numpy(noise).to(device)
        shift = sampling.generator("jitter", seed, epoch).integers(-jitter, jitter + 1, len(self.rows))
        self._shift = torch.from_numpy(shift).to(device)
