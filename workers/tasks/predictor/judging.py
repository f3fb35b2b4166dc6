"""The predictor as the evaluation sees it: predictions of episodes, and the report on all of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.episodes import ledger, reader
from workers.errors import BadConfigError, BadDataError
from workers.tasks import Report, nothing
from workers.tasks.predictor import plots, report, tables
from workers.tasks.predictor.baselines import Baselines
from workers.tasks.predictor.data import Timesteps
from workers.tasks.predictor.judged import Judged, choose_alarm_thresholds, choose_thresholds
from workers.tasks.predictor.model import Predictor
from workers.tasks.predictor.settings import EvalSettings, lags
from workers.tasks.predictor.training import checksum, logits_of, split


class Judging:
    """Judges one model's weights on a dataset's test split, or on all of `test`; thresholds are chosen on the
    validation split, and baselines fitted on the training split, of `dataset`."""

    def __init__(
        self,
        settings: EvalSettings,
        weights: Mapping[str, Tensor],
        identity: Mapping[str, Any],
        dataset: Path,
        test: Path | None,
        device: torch.device,
        alive: Callable[[], None] = nothing,
    ) -> None:
        entries = ledger.read(dataset)
        self._alive = alive
        self.settings, self.checksums = settings, [checksum(entries)]
        self._dataset, self._test_dataset = dataset, test or dataset
        self.gates = tables.gates(settings)
        self._split = split(entries)
        if test is not None:
            self._split["test"] = _of_another(test, entries)
            self.checksums.append(checksum(self._split["test"]))
        self.episodes = self._split["test"]
        for name in ("validation", "test"):
            if not self._split[name]:
                raise BadDataError(f"none of the {len(entries)} episodes of {dataset} falls into the {name} split")
        self._lags = lags(int(identity["context"]), int(identity["reach"]))
        self._pad_history = bool(identity["padHistory"])
        self._model = Predictor(identity["model"], len(self._lags)).to(device).eval()
        try:
            self._model.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise BadConfigError(f"the weights do not fit the model {identity['model']} they are named for") from error

    def judge(self, entries: Sequence[ledger.Entry]) -> dict[str, Tensor]:
        """Probabilities (samples, H, F) float32 of each episode, by its number in six digits."""
        return {
            f"{entry.episode:06d}": self._probabilities(_read(self._test_dataset, [entry], self._alive))
            .contiguous()
            .cpu()
            for entry in entries
        }

    def report(self, predictions: Mapping[str, Tensor], alive: Callable[[], None] = lambda: None) -> Report:
        """Figures, tables, text and plots of the predictions of all test episodes, beside the baselines."""
        findings = tables.Findings(list(self._judged(predictions, alive)), self.settings)
        found = findings.tables()
        alive()
        return Report(
            figures=findings.figures(),
            tables=found,
            title=report.TITLE,
            document=report.document(findings, found, self._split),
            draw=lambda directory: plots.write(directory, findings, self.episodes),
        )

    def _judged(self, predictions: Mapping[str, Tensor], alive: Callable[[], None]) -> Iterator[Judged]:
        """The model, then each baseline."""
        validation = _read(self._dataset, self._split["validation"], alive)
        test = _read(self._test_dataset, self.episodes, alive)
        labels, known = self._by_episode(test, self._labels(test)), self._labels(validation)
        known_by_episode = self._by_episode(validation, known)

        def judged(name: str, answers: Sequence[np.ndarray], before: np.ndarray) -> Judged:
            thresholds = choose_thresholds(before, known, self.settings.beta)
            if name == tables.MODEL and self.settings.threshold is not None:
                thresholds = dict.fromkeys(thresholds, self.settings.threshold)
            alive()
            budgets, episodes = self.settings.false_alarms, self._by_episode(validation, before)
            chosen = choose_alarm_thresholds(episodes, known_by_episode, budgets, alive)
            return Judged(name, answers, labels, thresholds, chosen)

        answers = [predictions[f"{entry.episode:06d}"].numpy() for entry in self.episodes]
        yield judged(tables.MODEL, answers, self._probabilities(validation).cpu().numpy())
        if not self._split["train"]:
            return  # nothing to fit baselines on
        train = _read(self._dataset, self._split["train"], alive)
        baselines = Baselines(train, self._lags, self._pad_history, self.settings.seed)
        for name in self.settings.baselines:
            predict = baselines.fit(name, alive)
            yield judged(name, self._by_episode(test, predict(test)), predict(validation))

    def _rows(self, timesteps: Timesteps) -> Tensor:
        return timesteps.rows(self._lags, self._pad_history)

    def _labels(self, timesteps: Timesteps) -> np.ndarray:
        return timesteps.labels_NHF[self._rows(timesteps)].numpy()

    def _by_episode(self, timesteps: Timesteps, answers: np.ndarray) -> list[np.ndarray]:
        """Answers to all samples, one array of each episode; an empty one where it is shorter than the context."""
        ends = timesteps.last_N.unique() + 1
        return np.split(answers, np.searchsorted(self._rows(timesteps).numpy(), ends[:-1].numpy()))

    def _probabilities(self, timesteps: Timesteps) -> Tensor:
        rows, at_once = self._rows(timesteps), self.settings.batch
        return logits_of(self._model, timesteps, rows, self._lags, at_once, self._alive).sigmoid()


def _read(dataset: Path, entries: Sequence[ledger.Entry], alive: Callable[[], None]) -> Timesteps:
    return Timesteps.of(reader.load(dataset, entries, beat=alive))


def _of_another(test: Path, entries: Sequence[ledger.Entry]) -> list[ledger.Entry]:
    """All episodes of the dataset `test`. Raises BadDataError where one is among `entries`: that would be no test."""
    found, known = ledger.read(test), {entry.seed for entry in entries}
    shared = [entry.episode for entry in found if entry.seed in known]
    if shared:
        raise BadDataError(
            f"{len(shared)} of the {len(found)} episodes of {test} have seeds of data's episodes (the first is "
            f"{shared[0]}), so they are no test: collect it with another settings.seed"
        )
    return found
