"""Training: exact over any interruption, honest about its data, and never a checkpoint of a loss that is no number."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from held import wait_until_held
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_training import STEPS, config, equal, last_weights, process
from waiting import patience, wait_for

from workers import checkpoint, results, train
from workers.config import Config
from workers.episodes import ledger
from workers.errors import BadConfigError, BadDataError, InterruptedRun, StuckError


@pytest.fixture(scope="module")
def undisturbed(announced_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the run `fit`, trained without an interruption. Read it only."""
    volume = tmp_path_factory.mktemp("undisturbed")
    (volume / "datasets").mkdir()
    (volume / "datasets" / "tiny").symlink_to(announced_dataset)
    train.run(config(), process(volume))
    return volume


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the data check and the drawing, where a test begins many runs on data that was checked."""
    monkeypatch.setattr(train, "_check_data", lambda dataset, beat: None)
    monkeypatch.setattr(train, "draw_training", lambda run_dir, directory: None)


def interrupted(volume: Path, *stops: int, **keys: Any) -> None:
    """Train with a SIGTERM after each of these steps, then to the end."""
    for fence, stop in enumerate(stops, start=1):
        with pytest.raises(InterruptedRun, match=f"saved after step {stop} of {STEPS}"):
            train.run(config(**keys), process(volume, fence, stop))
    train.run(config(**keys), process(volume, len(stops) + 1))


def test_patience_ends_a_training_that_gets_no_better_and_an_interruption_changes_nothing(
    undisturbed, training_volume, unchecked
):
    """Step 20 is the best of an lr of almost nothing: steps 40 and 60 bring no more, and 60 of 400 is the last."""
    keys = {"settings": {"steps": 400, "patience": 2, "lr": 1e-12}}
    ends = []
    for run, stops in (("whole", []), ("told", [30, 60])):
        for fence, stop in enumerate([*stops, None], start=1):
            attempt = process(training_volume, fence, stop)
            if stop:
                with pytest.raises(InterruptedRun, match=f"saved after step {stop} of 400"):
                    train.run(config(run=run, **keys), attempt)
            else:
                train.run(config(run=run, **keys), attempt)
        result = results.read_result(training_volume / "runs" / run, 0)
        assert result["reason"].startswith("trained 60 steps of 400, as 2 looks brought nothing better; best on")
        ends.append((result["figures"]["steps"], result["figures"]["best_step"], last_weights(training_volume, run)))
    assert ends[0][:2] == ends[1][:2] == (60, 20)
    assert equal(ends[0][2], ends[1][2])


# --- exactness


@given(st.lists(st.integers(1, STEPS - 1), min_size=1, max_size=2, unique=True).map(sorted))
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stops_after_random_steps_give_the_weights_of_the_undisturbed_run(
    undisturbed, training_volume, unchecked, stops
):
    shutil.rmtree(training_volume / "runs", ignore_errors=True)

    interrupted(training_volume, *stops)

    assert equal(last_weights(training_volume), last_weights(undisturbed))


def test_leaving_out_the_optimizers_state_gives_other_weights(undisturbed, training_volume, unchecked, monkeypatch):
    monkeypatch.setattr(train, "load_optimizer", lambda optimizer, tensors, meta: None)

    interrupted(training_volume, 17)

    assert not equal(last_weights(training_volume), last_weights(undisturbed))


def test_forgetting_the_step_in_the_dropout_seed_gives_other_weights(
    undisturbed, training_volume, unchecked, monkeypatch
):
    real = train.sampling.torch_seed
    calls = iter(range(10**6))
    monkeypatch.setattr(train.sampling, "torch_seed", lambda stream, seed, *place: real(stream, seed, next(calls)))

    interrupted(training_volume, 17)

    assert not equal(last_weights(training_volume), last_weights(undisturbed))


@pytest.mark.held
def test_real_workers_killed_at_random_steps_end_with_the_same_weights(undisturbed, training_volume):
    """`python -m workers train`: SIGKILL of the whole pod, then SIGTERM, then to the end; dropout on, mid-epoch."""
    keys = {"settings": {"checkpointEverySteps": 3}}
    first, second = random.randint(5, 25), random.randint(26, 45)
    print(f"SIGKILL after step {first}, SIGTERM after step {second}")

    with worker(training_volume, config(**keys), attempt=1, hold_at=first) as pod:
        wait_until_held(training_volume, "fit")
        killed_at = wait_for("a save", lambda: newest_step(training_volume))
        pod.kill()
        assert pod.wait(20) == -signal.SIGKILL
    assert killed_at <= first

    with worker(training_volume, config(**keys), attempt=2, hold_at=second) as pod:
        wait_until_held(training_volume, "fit", fence=2)
        pod.terminate()
        assert pod.wait(patience(60)) == 75
    assert newest_step(training_volume) == second

    with worker(training_volume, config(**keys), attempt=3) as pod:
        assert pod.wait(patience(120)) == 0
    assert equal(last_weights(training_volume), last_weights(undisturbed))
    result = results.read_result(training_volume / "runs" / "fit", 0)
    assert result["exitCode"] == 0
    assert result["figures"]["resumes"] == 2


class worker:  # noqa: N801 - reads as a function
    """A pod's program as a process, held at a step if one is named, so that a signal can hit it."""

    def __init__(self, volume: Path, config: Config, attempt: int, hold_at: int | None = None) -> None:
        file = volume / f"config.{attempt}.json"
        file.write_text(config.model_dump_json(by_alias=True))
        self._log = (volume / f"log.{attempt}").open("w")
        env = {
            **os.environ,
            "JOBCTL_VOLUME": str(volume),
            "JOBCTL_TMP": str(volume),
            "JOBCTL_POD_UID": f"pod-{attempt}",
            "JOBCTL_TERMINATION_LOG": str(volume / f"termination.{attempt}"),
            "JOBCTL_LEASE_SECONDS": "1.5",
            "JOBCTL_METRICS_PORT": "0",
            "JOBCTL_POD_IP": "127.0.0.1",
        }
        if hold_at is not None:
            env["JOBCTL_HOLD_AT"] = str(hold_at)
        self._arguments = [sys.executable, "-m", "workers", "train", "--config", str(file)]
        self._env = env

    def __enter__(self) -> subprocess.Popen:
        self._process = subprocess.Popen(self._arguments, env=self._env, stdout=self._log, stderr=subprocess.STDOUT)
        return self._process

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()
        if error[0] is not None:
            print(Path(self._log.name).read_text())


def newest_step(volume: Path) -> int:
    found = checkpoint.publications(volume / "runs" / "fit")
    return found[0].step if found else 0


# --- what a run leaves


def test_a_run_leaves_weights_curve_figures_and_its_split(undisturbed):
    result = results.read_result(undisturbed / "runs" / "fit", 0)
    directory = next((undisturbed / "runs" / "fit" / "results").iterdir())

    assert result["exitCode"] == 0
    assert result["figures"]["parameters"] == pytest.approx(35_000, rel=0.02)
    assert result["figures"]["best_validation_f1"] >= result["figures"]["validation_f1"] > 0.2
    assert (directory / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
    rows = [
        dict(zip(result["tables"]["episodes"]["columns"], row, strict=True))
        for row in result["tables"]["episodes"]["rows"]
    ]
    entries = {entry.episode: entry for entry in ledger.read(undisturbed / "datasets" / "tiny")}
    assert {row["episode"]: (row["seed"], row["outcome"]) for row in rows} == {
        number: (entry.seed, entry.outcome) for number, entry in entries.items()
    }
    assert {row["split"] for row in rows} == {"train", "validation", "test"}


def test_the_best_weights_are_those_of_the_best_validation_figure(undisturbed):
    best = checkpoint.newest(undisturbed / "runs" / "fit", "best")
    lines = [json.loads(line) for line in (undisturbed / "runs/fit/metrics/0.000001.jsonl").read_text().splitlines()]

    scores = {line["step"]: line["validation_score"] for line in lines if "validation_score" in line}
    assert best.step == max(scores, key=scores.get)
    assert list(scores) == [20, 40, 60]
    assert {"loss", "lr", "epoch", "steps", "samples_per_second", "step_seconds", "data_wait_seconds"} <= lines[
        0
    ].keys()


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    rates = [train.learning_rate(step, 100, 1.0, 0.1) for step in range(100)]

    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True) and 0 < rates[-1] < 0.001
    assert [train.learning_rate(step, 100, 1.0, 0.1, "constant") for step in (0, 10, 99)] == [0.1, 1.0, 1.0]


def test_batch_per_replica_multiplies_batch_and_rate():
    per_replica = config(settings={"batchPerReplica": 32, "lr": 0.01}).settings | {}
    del per_replica["batch"]
    model = train.tasks.settings_model("predictor", "train").model_validate(per_replica)

    assert train.batch_and_lr(model, processes=4) == (128, pytest.approx(0.04))


def test_a_training_starts_from_the_best_weights_of_another_and_inherits_what_they_saw(
    undisturbed, tmp_path, unchecked
):
    volume = tmp_path / "volume"
    shutil.copytree(undisturbed, volume, symlinks=True)

    train.run(config(run="more", settings={"steps": 1, "lr": 1e-12}, **{"from": "fit"}), process(volume))

    began, before = checkpoint.newest(volume / "runs/more"), checkpoint.newest(volume / "runs/fit", "best")
    for name, tensor in before.tensors["model"].items():
        torch.testing.assert_close(began.tensors["model"][name], tensor, rtol=1e-6, atol=1e-6)
    assert set(before.state["seenSeeds"]) <= set(began.state["seenSeeds"])


# --- a loss that is no number


@pytest.fixture
def broken_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets the loss be NaN at some steps, each as often as it is named; returns the list of those still to come."""
    from workers.tasks.predictor.training import Training

    real = train.Trainer.train_step
    real_loss = Training.loss

    def make(*steps: int) -> list[int]:
        left = list(steps)

        def train_step(self: train.Trainer) -> None:
            broken = self.step in left
            if broken:
                left.remove(self.step)
            monkeypatch.setattr(
                Training, "loss", lambda task, data: real_loss(task, data) * (float("nan") if broken else 1.0)
            )
            real(self)

        monkeypatch.setattr(train.Trainer, "train_step", train_step)
        return left

    return make


@pytest.mark.parametrize("every", [7, 50])
def test_a_nan_once_goes_back_to_the_last_good_state_and_changes_nothing(
    undisturbed, training_volume, unchecked, broken_steps, every, capfd
):
    left = broken_steps(25)

    train.run(config(settings={"checkpointEverySteps": every}), process(training_volume))

    assert left == []
    back = "step-00000021.000001" if every == 7 else "the beginning"
    assert f"back to {back}" in capfd.readouterr().out
    assert equal(last_weights(training_volume), last_weights(undisturbed))


def test_a_nan_twice_at_one_step_is_a_failure_that_says_so_and_is_never_saved(training_volume, unchecked, broken_steps):
    broken_steps(25, 25)

    with pytest.raises(StuckError, match=r"diverged: at step 25 .*nan.*again.*lower lr"):
        train.run(config(settings={"checkpointEverySteps": 5}), process(training_volume))

    kept = checkpoint.publications(training_volume / "runs" / "fit")
    assert max(publication.step for publication in kept) == 25
    tensors = checkpoint.read(kept[0]).tensors
    assert all(tensor.isfinite().all() for group in tensors.values() for tensor in group.values())


# --- bad input


def test_a_gpu_profile_without_a_device_is_refused_and_runs_where_the_cpu_is_allowed(training_volume, unchecked, capfd):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(BadConfigError, match=r"profile a100 asks for a GPU.*allowCpu"):
        train.run(config(gpu="a100", device="cuda"), process(training_volume))

    train.run(config(gpu="a100", device="cuda", allowCpu=True, settings={"steps": 1}), process(training_volume))

    assert "computing on the CPU" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"settings": {"learningRate": 1}}, "learningRate is an unknown setting"),
        ({"settings": {"batch": 0}}, "settings.batch"),
        ({"settings": {"precision": "fp16"}}, "fp16 needs a GPU"),
        ({"task": "detector"}, "unknown task 'detector'.*predictor"),
        ({"data": None}, "data is missing"),
        ({"from": "nobody"}, "'nobody' does not exist.*no finished training"),
    ],
)
def test_a_bad_configuration_is_one_sentence(training_volume, unchecked, keys, message):
    with pytest.raises(BadConfigError, match=message):
        train.run(config(**keys), process(training_volume))

    assert not list((training_volume / "runs").glob("*/results/*"))


def test_missing_data_names_the_datasets_there_are(training_volume):
    with pytest.raises(BadDataError, match=r"datasets/salus does not exist; .*datasets/tiny"):
        train.run(config(data="datasets/salus"), process(training_volume))


@pytest.fixture
def own_dataset(training_volume: Path, announced_dataset: Path) -> Iterator[Path]:
    """datasets/own: a copy that a test may damage."""
    own = training_volume / "datasets" / "own"
    shutil.copytree(announced_dataset, own)
    yield own


def test_another_schema_is_bad_data(training_volume, own_dataset):
    manifest = json.loads((own_dataset / "manifest.json").read_text())
    (own_dataset / "manifest.json").write_text(json.dumps({**manifest, "schema": "episodes/v0"}))

    with pytest.raises(BadDataError, match="episodes/v0"):
        train.run(config(data="datasets/own"), process(training_volume))


def test_data_that_fail_the_check_are_refused_before_step_0(training_volume, own_dataset):
    damaged = sorted((own_dataset / "episodes").glob("000003.*/signals/c.*"))[0]
    damaged.write_bytes(b"\0" * damaged.stat().st_size)

    with pytest.raises(BadDataError, match=r"fails the data check: episode 3 .*damaged"):
        train.run(config(data="datasets/own"), process(training_volume))

    assert not (training_volume / "runs" / "fit" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "what"), [({"seed": 1}, "seed"), ({"context": 4}, "context"), ({"model": "medium"}, "model")]
)
def test_a_resume_with_another_model_or_seed_is_refused_and_loses_nothing(training_volume, unchecked, settings, what):
    with pytest.raises(InterruptedRun):
        train.run(config(), process(training_volume, 1, 5))

    with pytest.raises(BadConfigError, match=f"another {what}: .*--fresh"):
        train.run(config(settings=settings), process(training_volume, 2))

    train.run(config(), process(training_volume, 3))
    assert results.read_result(training_volume / "runs" / "fit", 0)["figures"]["resumes"] == 1


def test_a_resume_on_other_data_is_refused(training_volume, own_dataset, unchecked):
    with pytest.raises(InterruptedRun):
        train.run(config(), process(training_volume, 1, 5))
    ledger.entry_path(own_dataset, 35).unlink()
    (own_dataset / "manifest.json").unlink()
    ledger.merge(own_dataset, 35)

    with pytest.raises(BadConfigError, match=r"another data: .*--fresh"):
        train.run(config(data="datasets/own"), process(training_volume, 2))
