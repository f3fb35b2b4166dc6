"""The systems that can be trained: model, loss, data and metrics of one each; none imports another.

The loops know a task by these protocols only. Whoever adds one writes a package with settings.py, training.py (a class
`Training`) and judging.py (a class `Judging`), and names it in TASKS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from workers.errors import BadConfigError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from workers.document import Block
    from workers.episodes.ledger import Entry

TASKS = ("predictor",)
Table = dict[str, Any]  # {"columns": [...], "rows": [[...]]}, as in result.json


@dataclass(frozen=True)
class Report:
    """What an evaluation found. `document` shows it to people; `draw(directory)` makes its pictures, plots/*.png."""

    figures: dict[str, float]
    tables: dict[str, Table]
    title: str
    document: Sequence[Block]
    draw: Callable[[Path], None]


class TrainingTask(Protocol):
    """What the training loop needs. Built as Training(settings, dataset, device, alive), which reads the data.

    `alive` is called every few seconds of whatever takes long, here and in `validate`.
    """

    model: torch.nn.Module
    samples: int  # of an epoch
    identity: dict[str, Any]  # what a checkpoint must agree in for a training to go on from it; plain JSON
    episodes: dict[str, list[Entry]]  # by split

    def batch(self, samples: np.ndarray, epoch: int) -> Any:
        """The data of these samples as they are in this epoch, on the device."""

    def loss(self, data: Any) -> torch.Tensor:
        """The mean loss of a batch's samples, a scalar; one forward pass of `model`."""

    def validate(self) -> dict[str, float]:
        """Figures on the validation split, `validation_score` among them: the higher, the better the weights."""


class JudgingTask(Protocol):
    """What the evaluation needs. Built as Judging(settings, weights, identity, dataset, test, device, alive).

    `alive` is called every few seconds of whatever takes long.
    """

    gates: Sequence[str]  # figures that a spec may set a bound for
    episodes: list[Entry]  # to be judged
    checksums: Sequence[str]  # of the dataset, then of the one that is judged whole, if there is one

    def judge(self, entries: Sequence[Entry]) -> dict[str, torch.Tensor]:
        """The model's predictions of these episodes, by names that are each episode's own."""

    def report(self, predictions: Mapping[str, torch.Tensor], alive: Callable[[], None]) -> Report:
        """On the predictions of all `episodes`; calls `alive` every few seconds, which may raise to end it."""


def require(task: str) -> None:
    """Raises BadConfigError for a task that this worker hasn't."""
    if task not in TASKS:
        raise BadConfigError(f"unknown task {task!r}; this worker has: {', '.join(TASKS)}")


def settings_model(task: str, kind: str) -> Any:
    """The pydantic model of a task's settings for "train" or "eval"."""
    require(task)
    return getattr(importlib.import_module(f"workers.tasks.{task}.settings"), f"{kind.capitalize()}Settings")


def nothing() -> None:
    """For whoever needs no signs of life."""


def training(
    task: str, settings: Any, dataset: Path, device: torch.device, alive: Callable[[], None] = nothing
) -> TrainingTask:
    """Raises BadDataError if the dataset can't be trained on."""
    require(task)
    return importlib.import_module(f"workers.tasks.{task}.training").Training(settings, dataset, device, alive)


def judging(
    task: str,
    settings: Any,
    weights: Mapping[str, torch.Tensor],
    identity: Mapping[str, Any],
    dataset: Path,
    test: Path | None,
    device: torch.device,
    alive: Callable[[], None] = nothing,
) -> JudgingTask:
    """`test`: a dataset to be judged whole, instead of the test split of `dataset`.

    Raises BadDataError if the dataset can't be judged, BadConfigError if the weights aren't this task's.
    """
    require(task)
    return importlib.import_module(f"workers.tasks.{task}.judging").Judging(
        settings, weights, identity, dataset, test, device, alive
    )
