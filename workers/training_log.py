"""What a training says of its steps: a line for people, one for runs/RUN/metrics, the gauges of each process."""

from __future__ import annotations

import os
import time
import zlib
from typing import TYPE_CHECKING, Any

from workers.metrics import Metrics

if TYPE_CHECKING:
    from workers.sampling import Batch
    from workers.train import Trainer

LOG_SECONDS = 2.0
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
        """Print and write what was counted; `validation` figures go into the same line. Gauges alone on other ranks."""
        steps, seconds = len(self._losses), time.monotonic() - self._since
        self.loss = sum(self._losses) / steps
        epoch = trainer.step / trainer.sampler.steps_per_epoch
        rate = self._samples / seconds
        score = trainer.state.validation.get("validation_f1")
        figures = {
            "steps": self._steps,
            "epoch": epoch,
            "loss": self.loss,
            "lr": self._lr,
            "samples_per_second": rate,
            "step_seconds": seconds / steps,
            "data_wait_seconds": self._wait_seconds / steps,
        }
        if trainer.group.leads:
            print(
                f"step {trainer.step}/{self._steps} epoch {epoch:.1f} loss {self.loss:.3f} lr {self._lr:.1e} "
                f"{rate:,.0f} samples/s" + (f" f1(val) {score:.2f}" if score is not None else ""),
                flush=True,
            )
            age = trainer.checkpoints.age_seconds()
            self._metrics.log(trainer.step, **figures, checkpoint_age_seconds=age, **validation)
        else:
            self._metrics.show(trainer.step, **figures)
        self._metrics.set("samples_per_second", self._own_samples / seconds)  # of this process: they are added up
        self._clear()

    def _clear(self) -> None:
        self._losses: list[float] = []
        self._samples, self._own_samples, self._wait_seconds, self._since = 0, 0, 0.0, time.monotonic()
