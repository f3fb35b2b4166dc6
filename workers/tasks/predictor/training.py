"""The predictor as the training loop sees it: data, model, loss, and how good it is on validation episodes."""
# ruff: noqa: N806 - tensors' names end in their shape

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers import sampling
from workers.episodes import ledger, reader
from workers.episodes.split import SHARES, split_of
from workers.errors import BadDataError
from workers.tasks import nothing
from workers.tasks.predictor.data import Batch, Timesteps, TrainingSamples
from workers.tasks.predictor.loss import Loss, balanced_pos_weight
from workers.tasks.predictor.metrics import best_threshold, counts, figures
from workers.tasks.predictor.model import Predictor
from workers.tasks.predictor.settings import TrainSettings

ROWS_AT_ONCE = 8192


class Training:
    """Built once an attempt; training and validation split lie in memory whole (about 200 bytes a timestep)."""

    def __init__(
        self, settings: TrainSettings, dataset: Path, device: torch.device, alive: Callable[[], None] = nothing
    ) -> None:
        entries = ledger.read(dataset)
        self.settings, self.device, self._alive = settings, device, alive
        self.episodes = split(entries)
        for name in ("train", "validation"):
            if not self.episodes[name]:
                raise BadDataError(
                    f"none of the {len(entries)} episodes of {dataset} falls into the {name} split: collect more"
                )
        train = Timesteps.of(reader.load(dataset, self.episodes["train"], beat=alive), device)
        self._validation = Timesteps.of(reader.load(dataset, self.episodes["validation"], beat=alive), device)
        self._data = TrainingSamples(train, settings)
        self.samples = len(self._data)
        self._rows = self._validation.rows(settings.lags, settings.pad_history)
        if self.samples == 0 or len(self._rows) == 0:
            raise BadDataError(
                f"no training or no validation episode of {dataset} has {settings.lags[-1] + 1} timesteps: "
                "use padHistory, or less reach and context"
            )
        self.identity = {
            "model": settings.model,
            "context": settings.context,
            "reach": settings.lags[-1],
            "padHistory": settings.pad_history,
            "seed": settings.seed,
            "data": checksum(entries),
        }
        self.model = self._build(train)
        self._loss = Loss(
            settings.horizon_weights, self._pos_weight(train), settings.consistency, settings.label_smoothing
        )

    def batch(self, samples: np.ndarray, epoch: int) -> Batch:
        """Windows, the windows one timestep earlier, and labels of these samples as they are in this epoch."""
        return self._data.batch(samples, epoch)

    def loss(self, data: Batch) -> Tensor:
        """The mean over a batch's samples, a scalar."""
        x_BWS, before_BWS, y_BHF = data
        if not self.settings.consistency:
            return self._loss(self.model(x_BWS).float(), None, y_BHF)
        both = self.model(torch.cat((before_BWS, x_BWS))).float()
        return self._loss(both[len(y_BHF) :], both[: len(y_BHF)], y_BHF)

    def validate(self) -> dict[str, float]:
        """Loss, and precision, recall and F1 (micro over the 16 outputs) at the threshold that is best for F1."""
        labels_NHF = self._validation.labels_NHF[self._rows]
        logits_NHF = logits_of(self.model, self._validation, self._rows, self.settings.lags, alive=self._alive)
        probabilities, labels = logits_NHF.sigmoid().cpu().numpy(), labels_NHF.cpu().numpy()
        self._alive()
        threshold, score = best_threshold(probabilities, labels)
        found = {
            f"validation_{k}": v for k, v in figures(counts(probabilities, labels, threshold)).items() if v is not None
        }
        loss = float(self._loss(logits_NHF, None, labels_NHF))
        return {**found, "validation_loss": loss, "validation_threshold": threshold, "validation_score": score}

    def _build(self, train: Timesteps) -> Predictor:
        torch.manual_seed(sampling.torch_seed("weights", self.settings.seed))
        model = Predictor(self.settings.model, self.settings.context, self.settings.dropout).to(self.device)
        mean_S, deviation_S = train.normalisation()
        model.mean_S.copy_(mean_S)
        model.deviation_S.copy_(deviation_S)
        return model

    def _pos_weight(self, train: Timesteps) -> Tensor:
        if self.settings.pos_weight is None:
            return balanced_pos_weight(train.labels_NHF[self._data.rows])
        return torch.full(train.labels_NHF.shape[1:], self.settings.pos_weight, device=self.device)


def split(entries: Sequence[ledger.Entry]) -> dict[str, list[ledger.Entry]]:
    """The episodes of each split, whole: never a timestep of one episode here and another there."""
    found: dict[str, list[ledger.Entry]] = {name: [] for name, _ in SHARES}
    for entry in entries:
        found[split_of(entry.seed)].append(entry)
    return found


def checksum(entries: Sequence[ledger.Entry]) -> str:
    """SHA-256 of the ledger's content: another one means other data, whatever the directory's name."""
    content: list[dict[str, Any]] = [asdict(entry) for entry in sorted(entries)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def logits_of(
    model: torch.nn.Module,
    timesteps: Timesteps,
    rows: Tensor,
    lags: Sequence[int],
    at_once: int = ROWS_AT_ONCE,
    alive: Callable[[], None] = nothing,
) -> Tensor:
    """Logits (len(rows), H, F) of the windows that end at these rows, without dropout; the model's mode is kept."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    found = []
    for part in rows.split(at_once):
        found.append(model(timesteps.windows(part, lags).to(device)).float())
        alive()
    model.train(was_training)
    return torch.cat(found)
