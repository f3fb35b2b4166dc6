"""The predictor as the evaluation sees it: predictions of episodes, and the report on all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers import sampling
from workers.episodes import ledger, reader
from workers.errors import BadConfigError, BadDataError
from workers.tasks import Report, Table
from workers.tasks.predictor import metrics, plots
from workers.tasks.predictor.baselines import Baselines
from workers.tasks.predictor.data import Timesteps
from workers.tasks.predictor.model import Predictor
from workers.tasks.predictor.settings import EvalSettings
from workers.tasks.predictor.training import checksum, logits_of, split

MODEL = "predictor"
EVERYTHING = (slice(None), slice(None))
COLUMNS = [column for figure in metrics.FIGURES for column in (figure, f"{figure}_low", f"{figure}_high")]
GATES = (
    *metrics.FIGURES,
    *(f"{figure}_{key}" for key, _, _ in metrics.groups() if key != "micro" for figure in metrics.FIGURES),
)


@dataclass(frozen=True)
class Judged:
    """One predictor's answers to the test episodes. `probabilities` and `labels`: (B, H, F) an episode."""

    name: str
    threshold: float
    probabilities: list[np.ndarray]
    labels: list[np.ndarray]

    def counts(self) -> np.ndarray:
        """(E, H, F, 3), see metrics.counts."""
        pairs = zip(self.probabilities, self.labels, strict=True)
        return np.stack([metrics.counts(probability, label, self.threshold) for probability, label in pairs])


class Judging:
    """Judges one model's weights on a dataset's test split; thresholds are chosen on its validation split."""

    gates = GATES

    def __init__(
        self,
        settings: EvalSettings,
        weights: Mapping[str, Tensor],
        identity: Mapping[str, Any],
        dataset: Path,
        device: torch.device,
    ) -> None:
        entries = ledger.read(dataset)
        self.settings, self.dataset, self.checksum = settings, dataset, checksum(entries)
        self._split = split(entries)
        self.episodes = self._split["test"]
        for name in ("validation", "test"):
            if not self._split[name]:
                raise BadDataError(f"none of the {len(entries)} episodes of {dataset} falls into the {name} split")
        self._context, self._pad_history = int(identity["context"]), bool(identity["padHistory"])
        self._model = Predictor(identity["model"], self._context).to(device).eval()
        try:
            self._model.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise BadConfigError(f"the weights do not fit the model {identity['model']} they are named for") from error

    def judge(self, entries: Sequence[ledger.Entry]) -> dict[str, Tensor]:
        """Probabilities (samples, H, F) float32 of each episode, by its number in six digits."""
        return {
            f"{entry.episode:06d}": self._probabilities(self._read([entry])).contiguous().cpu() for entry in entries
        }

    def report(self, predictions: Mapping[str, Tensor]) -> Report:
        """Figures, tables and plots of the predictions of all test episodes, beside both baselines."""
        test = [self._read([entry]) for entry in self.episodes]
        labels = [self._labels(episode) for episode in test]
        validation = self._read(self._split["validation"])
        answers = [predictions[f"{entry.episode:06d}"].numpy() for entry in self.episodes]
        threshold = self.settings.threshold or self._threshold(
            validation, self._probabilities(validation).cpu().numpy()
        )
        judged = [Judged(MODEL, threshold, answers, labels)]
        for name, predict in self._baselines().items():
            threshold = self._threshold(validation, predict(validation))
            judged.append(Judged(name, threshold, [predict(episode) for episode in test], labels))
        tables = _tables(judged, self.settings)
        return Report(
            figures=_figures(judged, self.settings),
            tables=tables,
            write=lambda directory: plots.write(directory, judged, self.episodes, tables),
        )

    def _read(self, entries: Sequence[ledger.Entry]) -> Timesteps:
        return Timesteps.of(reader.load(self.dataset, entries))

    def _labels(self, timesteps: Timesteps) -> np.ndarray:
        return timesteps.labels_NHF[timesteps.rows(self._context, self._pad_history)].numpy()

    def _probabilities(self, timesteps: Timesteps) -> Tensor:
        rows = timesteps.rows(self._context, self._pad_history)
        return logits_of(self._model, timesteps, rows, self._context, self.settings.batch).sigmoid()

    def _threshold(self, validation: Timesteps, probabilities: np.ndarray) -> float:
        return metrics.best_threshold(probabilities, self._labels(validation))[0]

    def _baselines(self) -> Mapping[str, Any]:
        """Empty where the dataset has no training episodes to fit them on."""
        if not self._split["train"]:
            return {}
        return Baselines(
            self._read(self._split["train"]), self._context, self._pad_history, self.settings.seed
        ).predictors


def _figures(judged: Sequence[Judged], settings: EvalSettings) -> dict[str, float]:
    """Flat figures; what is undefined is absent. The model's bear no name, a baseline's end in its name."""
    model = judged[0]
    found: dict[str, float] = {
        "episodes": len(model.labels),
        "timesteps": sum(map(len, model.labels)),
        "positives": int(sum(label.sum() for label in model.labels)),
        "threshold": model.threshold,
    }
    for key, _, index in metrics.groups():
        found |= _named(_row(model, index, settings), "" if key == "micro" else f"_{key}")
    for baseline in judged[1:]:
        found |= _named(_row(baseline, EVERYTHING, settings), f"_{baseline.name}")
    return found


def _named(row: Mapping[str, float | None], suffix: str) -> dict[str, float]:
    """The defined figures of a row, as f1_SUFFIX and f1_SUFFIX_low."""
    split_up = ((*column.partition("_"), value) for column, value in row.items())
    return {f"{figure}{suffix}{dash}{bound}": value for figure, dash, bound, value in split_up if value is not None}


def _tables(judged: Sequence[Judged], settings: EvalSettings) -> dict[str, Table]:
    model = judged[0]
    outputs, predictors = [], []
    for _, title, index in metrics.groups():
        row = _row(model, index, settings)
        positives = int(sum(label[(slice(None), *index)].sum() for label in model.labels))
        outputs.append([title, positives, *(row[column] for column in COLUMNS)])
    for one in judged:
        row = _row(one, EVERYTHING, settings)
        predictors.append([one.name, one.threshold, *(row[column] for column in COLUMNS)])
    return {
        "outputs": {"columns": ["outputs", "positives", *COLUMNS], "rows": outputs},
        "predictors": {"columns": ["predictor", "threshold", *COLUMNS], "rows": predictors},
    }


def _row(judged: Judged, index: tuple[slice | int, ...], settings: EvalSettings) -> dict[str, float | None]:
    """Each of COLUMNS for some of the outputs; None where it is undefined."""
    counted = judged.counts()[(slice(None), *index)]
    random = sampling.generator("bootstrap", settings.seed)  # the same draws for all rows: they can be compared
    between = metrics.intervals(counted, settings.bootstrap, settings.confidence, random)
    row: dict[str, float | None] = {}
    for name, value in metrics.figures(counted).items():
        low, high = between.get(name, (None, None)) if value is not None else (None, None)
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return row
