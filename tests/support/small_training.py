"""Trainings of the small dataset in this process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workers import __version__, checkpoint
from workers.config import Config
from workers.runtime import Runtime

STEPS = 60  # an epoch of the small dataset has 11 steps


@dataclass(kw_only=True)
class Process(Runtime):
    """A loop process in this one: told to stop once a step is reached, as by SIGTERM."""

    stop_after: int | None = None

    def progress(self, **summary: Any) -> None:
        super().progress(**summary)
        if self.stop_after is not None and summary.get("step") == self.stop_after:
            self.stop.set()


def process(volume: Path, fence: int = 1, stop_after: int | None = None) -> Process:
    return Process(volume=volume, tmp=volume, fence=fence, metrics_port=0, stop_after=stop_after)


def last_weights(volume: Path, run: str = "fit") -> dict[str, torch.Tensor]:
    found = checkpoint.newest(volume / "runs" / run)
    assert found is not None and found.step == STEPS
    return {f"{file}.{name}": tensor for file, group in found.tensors.items() for name, tensor in group.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def config(**keys: Any) -> Config:
    values = {"steps": STEPS, "batch": 64, "validateEverySteps": 20, "dropout": 0.2, **keys.pop("settings", {})}
    base = {"version": __version__, "run": "fit", "kind": "train", "task": "predictor", "data": "datasets/tiny"}
    return Config.model_validate({**base, "specHash": "a" * 16, "settings": values, **keys})
