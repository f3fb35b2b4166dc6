"""Training: `python -m workers train`. One process a device; the loop is `run`, and reads from top to bottom.

Of several processes rank 0 leads: it restores, validates and publishes; what they do together is in workers/group.py.

A checkpoint is all that an attempt needs to go on exactly where the last one was: weights, optimizer, and the step
number, from which sample order, augmentation and dropout follow (workers/sampling.py).
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from workers import checkpoint, group, results, resuming, sampling, storage, tasks
from workers.checkpoint import Checkpoints, Restored
from workers.episodes import check
from workers.errors import (
    BadConfigError,
    BadDataError,
    InterruptedRun,
    PeersLostError,
    StuckError,
    WorkerError,
)
from workers.metrics import Metrics
from workers.room import FULL_DISK, POLL_SECONDS, when_there_is_room
from workers.runtime import Runtime, run_directory
from workers.schedule import batch_and_lr, learning_rate
from workers.tasks.compute import arithmetic, choose_device, make_exact, required_data
from workers.tasks.curves import draw_training
from workers.tasks.weights import weights_of
from workers.tensors import Tensors, flatten_optimizer, load_optimizer
from workers.training_log import Log
from workers.training_state import PROGRESS, State, best_step, score, seen_seeds, split_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workers.config import Config

PROBLEMS_TOLD = 3
METRICS_SECONDS = 10.0  # that the end of an attempt waits for the lines of its metrics
SETBACKS = 3  # times that a training may go back before it comes further than ever
STAND_IN = np.zeros(1, dtype=np.int64)  # a sample that does not count, for a process whose share of a batch is empty


def run(config: Config, runtime: Runtime) -> None:
    """Train to the last step and publish weights and result; raises WorkerError, InterruptedRun on a signal."""
    trainer = Trainer(config, runtime)
    try:
        _train(trainer)
    finally:
        trainer.flush_metrics()


def _train(trainer: Trainer) -> None:
    settings, log = trainer.settings, trainer.log
    while not trainer.is_done:
        try:
            trainer.train_step()
        except FloatingPointError as error:
            trainer.go_back(error)
            continue
        except PeersLostError:
            trainer.save_what_there_is()
            raise
        if trainer.step % settings.validate_every_steps == 0 or trainer.step == settings.steps:
            trainer.validate()
        if trainer.group.stopping():
            trainer.save_now()
            trainer.group.wait_for_leader()
            raise InterruptedRun(f"told to stop: saved after step {trainer.step} of {settings.steps}")
        if trainer.save_is_due():
            trainer.save()
        log.say_if_due(trainer)
    trainer.save_now()
    if not trainer.group.leads:
        return  # the supervisor waits until rank 0 has published
    if trainer.runtime.stop.is_set():
        raise InterruptedRun(
            f"told to stop after the last step, {trainer.step}: saved, the result is still to be written"
        )
    trainer.publish()


class Trainer:
    """What the loop works on. Everything that changes from step to step is here, and in a checkpoint."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.settings = config.settings_as(tasks.settings_model(config.task, "train"))
        self.device = choose_device(config, runtime.local_rank)
        _require_world(config, runtime)
        make_exact(self.device, self.settings.threads)
        self.autocast, self.scaler = arithmetic(self.settings.precision, self.device)
        self.run_dir = run_directory(runtime.volume, config.run)
        dataset = required_data(config, runtime)
        self.metrics = Metrics(runtime, config, behind=True)
        self.metrics.serve()
        self.checkpoints = Checkpoints(
            self.run_dir, runtime.fence, config.checkpoint.keep, report=self.metrics.record, beat=runtime.progress
        )
        restored = self._restore(dataset) if runtime.rank == 0 else None
        self._marks = resuming.marks(config, restored)
        self.task = tasks.training(config.task, self.settings, dataset, self.device, runtime.progress)
        self.model = self.task.model.train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        self.batch, self.lr = batch_and_lr(self.settings, runtime.world)
        place = {"rank": runtime.rank, "world": runtime.world}
        self.sampler = sampling.Sampler(self.task.samples, self.batch, self.settings.seed, **place)
        self.step = 0
        self.state = State(split=split_table(self.task.episodes), seen_seeds=seen_seeds(self.task.episodes))
        self._furthest, self._setbacks = -1, 0
        self._saved_at = self._began = time.monotonic()
        self.log = Log(self.metrics, self.settings.steps)
        self._initial = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        if restored:
            self._resume(restored)
        elif runtime.rank == 0:
            self._begin()
        self.group = group.join(runtime, self.device)
        resuming.require_agreement(self.group.gather(self._facts()))
        self.loss = self.group.loss_of(self.task, self.task.batch(STAND_IN, epoch=0))
        if restored and self.state.lost_best and not self.state.best:
            self._judge()
        self._receive()

    @property
    def is_done(self) -> bool:
        """Whether the last step is done: that of the settings, or an earlier one after which nothing got better."""
        return self.step >= self.settings.steps or self.state.stopped_early

    def train_step(self) -> None:
        """One optimizer step. Raises FloatingPointError before a weight changes if loss or gradient isn't finite."""
        began = time.monotonic()
        batch = self.sampler.at(self.step)
        data = self.task.batch(batch.samples if len(batch.samples) else STAND_IN, batch.epoch)
        self.log.samples(self.step, batch, data)
        waited = time.monotonic() - began
        torch.manual_seed(sampling.torch_seed("dropout", self.settings.seed, self.step, self.runtime.rank))
        lr = learning_rate(
            self.step, self.settings.steps, self.lr, self.settings.warmup_fraction, self.settings.schedule
        )
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        with self.group.together():
            with self.autocast():
                loss = self.loss(data)
            self.scaler.scale(self.group.weigh(loss, batch)).backward()
            value = self.group.agree(loss, batch)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        # a scaler drops a step whose gradients overflow and lowers its scale: that is no failure
        if not (math.isfinite(value) and (self.scaler.is_enabled() or math.isfinite(norm))):
            raise FloatingPointError(f"the loss is {value}, the gradient's norm {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.log.count(value, batch, lr, waited, time.monotonic() - began)
        self.runtime.progress(step=self.step, steps=self.settings.steps, loss=round(value, 5))

    def validate(self) -> None:
        """Judge the validation episodes: weights better than all before go to best/, and patience may end here."""
        if self.group.leads:
            self._judge()
        self.state.stopped_early = self.group.follow(self._is_out_of_patience())

    def _is_out_of_patience(self) -> bool:
        best, patience = self.state.best, self.settings.patience
        looks = (self.step - best["step"]) // self.settings.validate_every_steps if best else 0
        return patience is not None and looks >= patience

    def _judge(self) -> None:
        found = {name: value for name, value in results.finite(self.task.validate()).items() if value is not None}
        self.state.validation = found
        if score(found) > score(self.state.best):
            self.state.best = {"step": self.step, **found}
            if score(found) >= score(self.state.lost_best):
                self.state.lost_best = None
            self.checkpoints.publish_best(self.step, {"model": self.model.state_dict()}, self._state())
        self.log.say(self, **found)

    def save_is_due(self) -> bool:
        every = self.settings.checkpoint_every_steps
        late = time.monotonic() - self._saved_at >= self.config.checkpoint.every_seconds
        return self.group.leads and (late or bool(every and self.step % every == 0))

    def save(self) -> None:
        """Hand a snapshot to the writer; the loop goes on."""
        self._saved_at = time.monotonic()
        self.checkpoints.save(*self._snapshot())

    def save_now(self) -> None:
        """Save and wait until it is published, as long as it takes while nobody says stop; a full disk is waited for.

        Raises WorkerError if the volume doesn't take it for another reason, or within the time after a signal.
        """
        if self.group.leads:
            when_there_is_room(
                self._save_whole, self.runtime, f"the state of step {self.step} ({self._newest_saved()})"
            )

    def save_what_there_is(self) -> None:
        """A peer was lost within a step: the weights are still those of the last whole one."""
        if not self.group.leads:
            return
        try:
            self._save_whole()
        except (WorkerError, OSError) as error:
            print(f"a peer is lost and {error}", flush=True)

    def _save_whole(self) -> None:
        self.save()
        self._await_writer()
        if self.checkpoints.flush(0):
            return
        error = self.checkpoints.error
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            raise error
        raise WorkerError(f"the state of step {self.step} could not be saved; {self._newest_saved()}")

    def _await_writer(self) -> None:
        """Until nothing is left to write; not beyond the time that a signal leaves. It lives as its writer works."""
        with self.runtime.busy("saving", self.checkpoints.writer):
            while self.checkpoints.is_writing and self.runtime.seconds_to_save() > 0:
                self.checkpoints.flush(POLL_SECONDS)

    def _newest_saved(self) -> str:
        saved = self.checkpoints.saved_step
        return f"{'none of this attempt' if saved is None else f'that of step {saved}'} is the newest on the volume"

    def go_back(self, error: FloatingPointError) -> None:
        """To the newest checkpoint. Raises StuckError when the same step fails again, or others before it do."""
        again = self.step == self._furthest
        self._setbacks = 1 if self.step > self._furthest else self._setbacks + 1
        self._furthest = max(self._furthest, self.step)
        if again or self._setbacks >= SETBACKS:
            raise StuckError(
                f"training diverged: at step {self.step} {error}, again after going back to the last good state "
                f"(the furthest that it came is step {self._furthest}); "
                "try a lower lr, a smaller gradientClip or precision fp32"
            )
        if self.group.leads:
            self._load_last_good(error)
        self._receive()

    def flush_metrics(self) -> None:
        """Have the last lines of the metrics on the volume, unless that takes too long: nothing depends on them."""
        self.metrics.flush(min(METRICS_SECONDS, self.runtime.seconds_to_save()))

    def publish(self) -> None:
        """The end marker: figures, the split, the curve of all attempts."""
        self.flush_metrics()
        when_there_is_room(self._publish, self.runtime, "the result")

    def _publish(self) -> None:
        best = self.state.best or {}
        figures = {
            "steps": self.step,
            "epochs": self.step / self.sampler.steps_per_epoch,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "samples": self.task.samples,
            "train_seconds": self.state.seconds + time.monotonic() - self._began,
            "resumes": self.state.resumes,
            "loss": self.log.loss,
            **self.state.validation,
            **{f"best_{name}": value for name, value in best.items()},
        }
        reason = self.state.ending(self.step, self.settings)
        results.publish_result(
            self.runtime,
            self.config,
            scope="index",
            code=0,
            reason=reason,
            figures={name: value for name, value in figures.items() if value is not None},
            tables={"episodes": self.state.split},
            files=lambda directory: draw_training(self.run_dir, directory),
        )
        print(reason, flush=True)

    def _restore(self, dataset: Path) -> Restored | None:
        """The newest checkpoint; without one the data are checked before anything else is done."""
        self.metrics.track("checkpoint_age_seconds", self.checkpoints.age_seconds)

        def accept(found: Restored) -> None:
            resuming.require_meant(self.config, self.settings.steps, found)

        def restore() -> Restored | None:
            with self.runtime.busy("reading the checkpoint"):
                return self.checkpoints.restore(accept, best_step, lambda: resuming.require_nothing(self.run_dir))

        restored = when_there_is_room(restore, self.runtime, "the checkpoint to go on from")
        if restored is None:
            _check_data(dataset, self.runtime.progress)
        return restored

    def _resume(self, restored: Restored) -> None:
        resuming.require_same(self.task.identity, restored)
        try:
            self._load(restored.step, restored.tensors, restored.state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise BadConfigError(
                f"the checkpoint {restored.path} does not fit this worker ({_first_line(error)}): use the worker's "
                f"version that wrote it, or {checkpoint.BEGIN_ANEW}"
            ) from error
        self.state.resumes += 1
        self.metrics.inc("resumes_total")
        self.state.stopped_early = self._is_out_of_patience()

    def _compare_best(self) -> None:
        """What the state says of the best weights holds only where best/ has them."""
        claimed, found = self.state.best, self.checkpoints.best
        if claimed is None or self.checkpoints.has_best(claimed["step"]):
            return
        if score(claimed) > score(self.state.lost_best):
            self.state.lost_best = claimed
        self.state.best = found.state["progress"]["best"] if found and best_step(found.state) == found.step else None
        instead = f"those of step {found.step} are the best there are" if self.state.best and found else "none are left"
        print(
            f"the best weights, of step {claimed['step']} with a score of {score(claimed):.3f}, are damaged or gone: "
            f"{instead}",
            flush=True,
        )

    def _facts(self) -> dict[str, Any]:
        """What has to be the same in every process of a group."""
        settings = self.settings.model_dump(by_alias=True, mode="json")
        return {"settings": settings, "identity": self.task.identity, "samples": self.task.samples}

    def _load_last_good(self, error: FloatingPointError) -> None:
        self._await_writer()
        with self.runtime.busy("reading the checkpoint"):
            good = self.checkpoints.newest()
        print(f"step {self.step}: {error}; back to {good.path.name if good else 'the beginning'}", flush=True)
        self.checkpoints.withdraw_best(good.step if good else 0)
        if good:
            self._load(good.step, good.tensors, good.state)
            return
        self.model.load_state_dict(self._initial)
        self.optimizer.state.clear()
        self.step, self.state.best = 0, None

    def _receive(self) -> None:
        """Every rank goes on from rank 0's weights, optimizer and step."""
        if (found := self.group.share(self._snapshot)) is not None:
            self._load(*found)

    def _begin(self) -> None:
        """A new run: from scratch, or from another run's weights."""
        if self.config.from_:
            other = weights_of(self.runtime.volume, self.config.from_, self.config.task)
            try:
                self.model.load_state_dict(other.tensors["model"])
            except RuntimeError as error:
                raise BadConfigError(
                    f"the weights of {self.config.from_!r} don't fit model {self.settings.model}"
                ) from error
            seen = {*self.state.seen_seeds, *other.state["seenSeeds"]}
            self.state.seen_seeds = sorted(seen)
            self._initial = other.tensors["model"]
            print(f"starting from the weights of {self.config.from_}, {other.path.name}", flush=True)
        weights = sum(tensor.nbytes for tensor in self.model.state_dict().values())
        self.run_dir.mkdir(parents=True, exist_ok=True)
        storage.require_space(self.run_dir, 3 * weights)  # AdamW keeps two numbers a weight

    def _load(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        self.model.load_state_dict(tensors["model"])
        load_optimizer(self.optimizer, tensors.get("optimizer", {}), state["optimizer"])
        for parameters in self.optimizer.param_groups:
            parameters["weight_decay"] = self.settings.weight_decay  # another spec may go on with another one
        if self.scaler.is_enabled() and state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.step, self._began = step, time.monotonic()
        self.state = self.state.as_in(state)
        if self.runtime.rank == 0:
            self._compare_best()

    def _snapshot(self) -> tuple[int, Tensors, dict[str, Any]]:
        """Step, tensors and plain state: all of a checkpoint."""
        optimizer, meta = flatten_optimizer(self.optimizer)
        tensors = {"model": self.model.state_dict(), "optimizer": optimizer}
        return self.step, tensors, {**self._state(), "optimizer": meta}

    def _state(self) -> dict[str, Any]:
        """All of a checkpoint but the tensors and the optimizer's plain part."""
        seconds = self.state.seconds + time.monotonic() - self._began
        return {
            **self._marks,
            "task": self.config.task,
            "identity": self.task.identity,
            "seenSeeds": self.state.seen_seeds,
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else None,
            "progress": {name: getattr(self.state, name) for name in PROGRESS} | {"seconds": seconds},
        }


def _require_world(config: Config, runtime: Runtime) -> None:
    processes = config.replicas * (config.gpus_per_replica if config.device == "cuda" else 1)
    if processes != runtime.world:
        raise BadConfigError(
            f"replicas: {config.replicas} and gpusPerReplica: {config.gpus_per_replica} make {processes} processes, "
            f"but this one was started as one of {runtime.world}: start `python -m workers train`, which starts all"
        )


def _check_data(dataset: Path, beat: Callable[[], None]) -> None:
    """Raises BadDataError unless the dataset passes the check that collect ran at its end."""
    problems = check.check(dataset, None, beat).problems
    if problems:
        more = f" (and {len(problems) - PROBLEMS_TOLD} more)" if len(problems) > PROBLEMS_TOLD else ""
        raise BadDataError(f"{dataset} fails the data check: {'; '.join(problems[:PROBLEMS_TOLD])}{more}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200]
