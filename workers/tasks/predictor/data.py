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

    def rows(self, lags: Sequence[int], pad_history: bool) -> Tensor:
        """The rows that are samples: all, or those with a whole context behind them in their episode."""
        rows = torch.arange(len(self), device=self.first_N.device)
        return rows if pad_history else rows[rows - self.first_N >= lags[-1]]

    def windows(
        self,
        rows_B: Tensor,
        lags: Sequence[int],
        ends_B: Tensor | None = None,
        signals: Tensor | None = None,
        seen_B: Tensor | None = None,
    ) -> Tensor:
        """x_BWS: the timesteps that lie `lags` before `ends_B` (default: before the rows themselves), oldest first.

        A window never leaves the episode of its row: what lies before it is the first timestep, repeated, and what lies
        behind it the last one. `signals` replaces this object's own values, noise added. `seen_B`: timesteps before the
        end that are seen; what lies before these is repeated in the same way.
        """
        past_W = -torch.tensor(lags[::-1], device=rows_B.device)
        ends_B = rows_B if ends_B is None else ends_B
        past_BW = past_W if seen_B is None else past_W.maximum(-seen_B[:, None])
        index_BW = (ends_B[:, None] + past_BW).clamp(self.first_N[rows_B, None], self.last_N[rows_B, None])
        return (self.signals_NS if signals is None else signals)[index_BW]

    def normalisation(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each signal, (S,) float; 1 for one that never changes."""
        deviation_S, mean_S = torch.std_mean(self.signals_NS.double(), dim=0, correction=0)
        still_S = deviation_S < SMALLEST_DEVIATION
        return mean_S.float(), torch.where(still_S, torch.ones_like(deviation_S), deviation_S).float()


class TrainingSamples:
    """The training split as samples 0 … len − 1, augmented: noise on the signals, windows moved by a few timesteps, and
    pasts cut as an episode's start cuts them.

    All are functions of seed, epoch and place alone. Noise belongs to the reading, so windows that overlap share it.
    """

    def __init__(self, timesteps: Timesteps, settings: TrainSettings) -> None:
        self.timesteps, self.settings = timesteps, settings
        self.lags, self.rows = settings.lags, timesteps.rows(settings.lags, settings.pad_history)
        self._deviation = timesteps.normalisation()[1]
        self._epoch: int | None = None
        self._noisy, self._shift = timesteps.signals_NS, torch.zeros_like(self.rows)
        self._seen = torch.full_like(self.rows, self.lags[-1])

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, samples: np.ndarray, epoch: int) -> Batch:
        """(x_BWS, x one timestep earlier (B, W, S), y_BHF) of these samples as they are in this epoch."""
        self._augment(epoch)
        index = torch.from_numpy(samples).to(self.rows.device)
        rows, ends, seen = self.rows[index], self.rows[index] + self._shift[index], self._seen[index]
        now, before = (self.timesteps.windows(rows, self.lags, end, self._noisy, seen) for end in (ends, ends - 1))
        return now, before, self.timesteps.labels_NHF[rows]

    def _augment(self, epoch: int) -> None:
        """Draw the epoch's noise, shifts and cuts: 15 numbers a timestep, once an epoch."""
        if epoch == self._epoch:
            return
        self._epoch, seed, jitter = epoch, self.settings.seed, self.settings.jitter
        signals, device = self.timesteps.signals_NS, self.rows.device
        noise = sampling.generator("noise", seed, epoch).standard_normal(tuple(signals.shape), dtype=np.float32)
        self._noisy = signals + self.settings.noise * self._deviation * torch.from_numpy(noise).to(device)
        shift = sampling.generator("jitter", seed, epoch).integers(-jitter, jitter + 1, len(self.rows))
        self._shift = torch.from_numpy(shift).to(device)
        random = sampling.generator("history", seed, epoch)
        cut = random.random(len(self.rows)) < self.settings.history_cut
        seen = np.where(cut, random.integers(0, self.lags[-1] + 1, len(self.rows)), self.lags[-1])
        self._seen = torch.from_numpy(seen).to(device)
