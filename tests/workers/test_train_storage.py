"""A training on a volume that is full, slow or damaged: nothing is lost that need not be, and nothing ends for it."""

import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_training import Process, config, equal, last_weights, process

from workers import checkpoint, results, room, storage, train
from workers.errors import BadDataError, InterruptedRun, WorkerError
from workers.metrics import Metrics
from workers.tasks.predictor.training import Training

SHORT = {"steps": 4, "validateEverySteps": 100}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_check_data", lambda dataset, beat: None)
    monkeypatch.setattr(train, "draw_training", lambda run_dir, directory: None)
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(room, "POLL_SECONDS", 0.01)


@dataclass(kw_only=True)
class Watched(Process):
    """Hears what the loop waits for, and is told to stop as soon as a test says so."""

    waited: list[str | None] = field(default_factory=list)
    on_wait: Callable[[str], None] = lambda why: None
    on_beat: Callable[[], None] = lambda: None

    def progress(self, **summary: Any) -> None:
        super().progress(**summary)
        if "waiting" in summary:
            self.waited += [summary["waiting"]] if summary["waiting"] not in self.waited[-1:] else []
            if summary["waiting"]:
                self.on_wait(summary["waiting"])
        elif not summary:
            self.on_beat()


def watched(volume: Path, fence: int = 1, **more: Any) -> Watched:
    return Watched(volume=volume, tmp=volume, fence=fence, metrics_port=0, **more)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int | None]:
    """disk[PLACE] = errno: what is published there, such as checkpoints, fails with it."""
    real, faults = storage.publish, {}

    def publish(final: Path, write: Callable[[Path], None]) -> Path:
        if (code := faults.get(final.parent.name)) is not None:
            raise OSError(code, os.strerror(code))
        return real(final, write)

    monkeypatch.setattr(storage, "publish", publish)
    return faults


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("place", ["checkpoints", "best", "results"])
def test_a_disk_that_is_full_at_the_end_is_waited_for(training_volume, disk, place, code):
    disk[place] = code
    attempt = watched(training_volume, on_wait=lambda why: disk.clear())

    train.run(config(settings=SHORT), attempt)

    told, cleared = attempt.waited
    assert room.FULL_DISK[code] in told and "waits for room" in told
    assert cleared is None
    assert results.read_result(training_volume / "runs" / "fit", 0)["exitCode"] == 0
    assert checkpoint.newest(training_volume / "runs" / "fit", "best").step == 4


@pytest.mark.parametrize("place", ["checkpoints", "results"])
def test_a_signal_ends_that_wait_with_75(training_volume, disk, place):
    disk[place] = errno.ENOSPC
    attempt = watched(training_volume)
    attempt.on_wait = lambda why: attempt.stop.set()

    with pytest.raises(InterruptedRun, match=r"told to stop: the volume is full: .* waits for room"):
        train.run(config(settings=SHORT), attempt)

    disk.clear()
    train.run(config(settings=SHORT), watched(training_volume, fence=2))
    assert results.read_result(training_volume / "runs" / "fit", 0)["exitCode"] == 0


def test_a_disk_that_is_full_when_a_run_goes_on_is_waited_for(training_volume, disk):
    with pytest.raises(InterruptedRun):
        train.run(config(), process(training_volume, 1, 5))
    disk["checkpoints"] = errno.ENOSPC
    attempt = watched(training_volume, fence=2, stop_after=7, on_wait=lambda why: disk.clear())

    with pytest.raises(InterruptedRun, match="saved after step 7"):
        train.run(config(), attempt)

    assert "the checkpoint to go on from waits for room" in attempt.waited[0]


def test_a_disk_that_fails_otherwise_is_no_success(training_volume, disk):
    disk["checkpoints"] = errno.EIO

    with pytest.raises(WorkerError, match="the state of step 4 could not be saved; none of this attempt is the newest"):
        train.run(config(settings=SHORT), watched(training_volume))


@pytest.mark.parametrize("told", [False, True])
def test_the_last_save_may_take_as_long_as_it_likes_unless_somebody_says_stop(training_volume, monkeypatch, told):
    """The write is held until the loop has given a hundred signs of life; with a signal there is no time for that."""
    real, beats = checkpoint.Checkpoints._publish, threading.Semaphore(0)

    def held(self: checkpoint.Checkpoints, save: Any) -> Path:
        for _ in range(100):
            assert beats.acquire(timeout=60)
        return real(self, save)

    monkeypatch.setattr(checkpoint.Checkpoints, "_publish", held)
    monkeypatch.setattr(train, "POLL_SECONDS", 0.001)
    attempt = watched(training_volume, on_beat=beats.release, grace_seconds=0.0 if told else 0.02)
    if told:
        attempt.stop_after = 2
        with pytest.raises(WorkerError, match="the state of step 2 could not be saved"):
            train.run(config(settings=SHORT), attempt)
    else:
        train.run(config(settings=SHORT), attempt)
        assert results.read_result(training_volume / "runs" / "fit", 0)["exitCode"] == 0


def test_a_save_and_a_long_look_in_one_step_say_nothing_of_no_steps(training_volume, monkeypatch, capfd):
    monkeypatch.setattr("workers.training_log.LOG_SECONDS", 0.0)

    train.run(
        config(settings={"steps": 3, "validateEverySteps": 1, "checkpointEverySteps": 1}), watched(training_volume)
    )

    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("step ")]
    assert len(said) == 3 and all(" loss " in line and "samples/s" in line for line in said)


@pytest.mark.parametrize("figure", ["validation_loss", "validation_score"])
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_figure_that_is_not_finite_is_absent_and_ends_nothing(training_volume, monkeypatch, figure, value):
    real = Training.validate
    monkeypatch.setattr(Training, "validate", lambda task: real(task) | {figure: value})

    train.run(config(settings=SHORT), watched(training_volume))

    result = results.read_result(training_volume / "runs" / "fit", 0)
    assert figure not in result["figures"] and f"best_{figure}" not in result["figures"]
    assert ("no best weights" in result["reason"]) is (figure == "validation_score")


# --- going back


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[int]], None]:
    """Steps whose loss is no number, in the order in which they come."""

    def make(steps: list[int]) -> None:
        real, real_loss, left = train.Trainer.train_step, Training.loss, list(steps)

        def train_step(self: train.Trainer) -> None:
            broken = left[:1] == [self.step]
            del left[: int(broken)]
            factor = float("nan") if broken else 1.0
            monkeypatch.setattr(Training, "loss", lambda task, data: real_loss(task, data) * factor)
            real(self)

        monkeypatch.setattr(train.Trainer, "train_step", train_step)

    return make


@pytest.mark.parametrize("steps", [[12, 14] * 50, [14, 13, 12, 11] * 50, [12, 12]])
def test_going_back_without_coming_further_has_an_end(training_volume, broken_at, steps):
    broken_at(steps)

    with pytest.raises(WorkerError, match=r"diverged: at step \d+ .*lower lr") as raised:
        train.run(config(settings={"checkpointEverySteps": 10}), watched(training_volume))

    assert raised.value.code == 70


def test_a_training_that_comes_further_each_time_goes_on(training_volume, broken_at):
    broken_at([11, 13, 12, 15, 14, 17])

    train.run(config(settings={"checkpointEverySteps": 10}), watched(training_volume))

    whole = config(run="whole")
    train.run(whole, watched(training_volume))
    assert equal(last_weights(training_volume), last_weights(training_volume, "whole"))


def test_a_checkpoint_found_damaged_on_going_back_is_said_counted_and_written_anew(
    training_volume, broken_at, monkeypatch, capfd
):
    broken_at([25])
    run_dir = training_volume / "runs" / "fit"
    real, counted = train.Trainer.go_back, []

    def go_back(self: train.Trainer, error: FloatingPointError) -> None:
        self.checkpoints.flush()
        (run_dir / "checkpoints" / "step-00000020.000001" / "state.json").write_text("{}")
        real(self, error)

    monkeypatch.setattr(train.Trainer, "go_back", go_back)
    monkeypatch.setattr(Metrics, "record", lambda self, name, value: counted.append(name))
    train.run(config(settings={"checkpointEverySteps": 10}, checkpoint={"keep": 9}), watched(training_volume))

    said = capfd.readouterr().out
    assert "passed over a checkpoint" in said and "back to step-00000010.000001" in said
    assert counted.count("corrupt_checkpoints_total") == 1
    for publication in checkpoint.publications(run_dir):
        assert checkpoint.read(publication).step == publication.step


def test_with_no_checkpoint_that_can_be_used_going_back_is_no_new_beginning(training_volume, broken_at, monkeypatch):
    broken_at([25])
    real = train.Trainer.go_back

    def go_back(self: train.Trainer, error: FloatingPointError) -> None:
        self.checkpoints.flush()
        for path in (training_volume / "runs" / "fit" / "checkpoints").iterdir():
            (path / "state.json").write_text("{}")
        real(self, error)

    monkeypatch.setattr(train.Trainer, "go_back", go_back)
    with pytest.raises(BadDataError, match="none that can be used"):
        train.run(config(settings={"checkpointEverySteps": 10}), watched(training_volume))


# --- signs of life


def test_loading_and_looking_give_signs_of_life_between_episodes_and_parts(announced_dataset, monkeypatch):
    import torch

    from workers import tasks
    from workers.tasks.predictor import training

    beats = []
    settings = config().settings_as(tasks.settings_model("predictor", "train"))
    task = tasks.training("predictor", settings, announced_dataset, torch.device("cpu"), lambda: beats.append(1))
    loaded = len(beats)
    assert loaded >= sum(len(task.episodes[name]) for name in ("train", "validation"))

    function = training.logits_of.__wrapped__
    monkeypatch.setattr(function, "__defaults__", (1, *function.__defaults__[1:]))
    task.validate()
    assert len(beats) - loaded >= 100  # a part is one sample here
