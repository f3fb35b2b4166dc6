"""What a training says of its steps: a line for people, one for runs/RUN/metrics, the gauges of each process."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workers.metrics import Metrics

if TYPE_CHECKING:
    from workers.sampling import Batch
    from workers.train import Trainer

LOG_SECONDS = 2.0
SHORTEST_SECONDS = 1e-9  # a clock may stand still between two looks
LOG_SAMPLES = "JOBCTL_LOG_SAMPLES"  # set to anything: every step prints which samples this process uses


class Log:
    """A line for people and one for runs/RUN/metrics, of the steps since the last one."""

    def __init__(self, metrics: Metrics, steps: int) -> None:
        self._metrics, self._steps = metrics, steps
        self.loss: float | None = None
        self._clear()

    def count(self, loss: float, batch: Batch, lr: float, wait_seconds: float, step_seconds: float) -> None:
        """Add one step. `loss`: over the samples of all processes."""
        self._losses.append(loss)
        self._samples += batch.total
        self._own_samples += len(batch.samples)
        self._lr = lr
        self._wait_seconds += wait_seconds
        self._metrics.observe("data_wait_seconds", wait_seconds)
        self._metrics.observe("step_seconds", step_seconds)

    def samples(self, step: int, batch: Batch, data: Any) -> None:
        """Print the step's samples of this process, each with a checksum of its data as augmented, if that is asked."""
        if LOG_SAMPLES not in os.environ:
            return
        rows = [tensor.detach().cpu().numpy() for tensor in data] if len(batch.samples) else []
        sums = [zlib.crc32(b"".join(row[place].tobytes() for row in rows)) for place in range(len(batch.samples))]
        told = " ".join(f"{sample}:{digest:08x}" for sample, digest in zip(batch.samples, sums, strict=True))
        print(f"samples of step {step} epoch {batch.epoch}: {told}", flush=True)

    def say_if_due(self, trainer: Trainer) -> None:
        if time.monotonic() - self._since >= LOG_SECONDS:
            self.say(trainer)

    def say(self, trainer: Trainer, **validation: float) -> None:
        """Print and write what was counted; `validation` figures go into the same line. Gauges alone on other ranks.

        Without a step since the last line there is nothing to say but `validation`.
        """
        if not self._losses and not validation:
            self._clear()
            return
        seconds = max(time.monotonic() - self._since, SHORTEST_SECONDS)
        figures = self._figures(trainer, seconds)
        if trainer.group.leads:
            print(_line(trainer.step, figures, trainer.state.validation.get("validation_f1")), flush=True)
            age = trainer.checkpoints.age_seconds()
            self._metrics.log(trainer.step, **figures, checkpoint_age_seconds=age, **validation)
        else:
            self._metrics.show(trainer.step, **figures)
        if self._losses:
            self._metrics.set("samples_per_second", self._own_samples / seconds)  # of this process: they are added up
        self._clear()

    def _figures(self, trainer: Trainer, seconds: float) -> dict[str, float]:
        """Means and rates of the steps that were counted; without one there are none."""
        found: dict[str, float] = {"steps": self._steps, "epoch": trainer.step / trainer.sampler.steps_per_epoch}
        if not (steps := len(self._losses)):
            return found
        self.loss = sum(self._losses) / steps
        return found | {
            "loss": self.loss,
            "lr": self._lr,
            "samples_per_second": self._samples / seconds,
            "step_seconds": seconds / steps,
            "data_wait_seconds": self._wait_seconds / steps,
        }

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._samples, self._own_samples, self._wait_seconds, self._since = 0, 0, 0.0, time.monotonic()


def _line(step: int, figures: Mapping[str, float], score: float | None) -> str:
    text = f"step {step}/{figures['steps']} epoch {figures['epoch']:.1f}"
    if "loss" in figures:
        text += f" loss {figures['loss']:.3f} lr {figures['lr']:.1e} {figures['samples_per_second']:,.0f} samples/s"
    return text + (f" f1(val) {score:.2f}" if score is not None else "")
