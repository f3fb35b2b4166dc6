"""What a training goes on from: a checkpoint that is meant, whole and understood. It never begins anew instead."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_training import STEPS, config, process

from workers import checkpoint, lease, results, resuming, train
from workers.checkpoint import Checkpoints
from workers.errors import BadConfigError, BadDataError, InterruptedRun
from workers.lease import Lease
from workers.tasks.predictor import model, training

FIXTURE = Path(__file__).parent / "fixtures" / "layout-1"
SPEC = {"settings": {"steps": STEPS, "lr": 0.001}, "replicas": 1, "env": {"TOKEN": "do-not-tell"}}
A = {"specHash": "a" * 16, "spec": SPEC}
B = {"specHash": "b" * 16, "spec": {**SPEC, "settings": {"steps": STEPS, "lr": 0.5}, "replicas": 2}}


@pytest.fixture(autouse=True)
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "_check_data", lambda dataset, beat: None)
    monkeypatch.setattr(train, "draw_training", lambda run_dir, directory: None)


@pytest.fixture
def told(training_volume: Path) -> Callable[..., Path]:
    """Trains `fit` until it is told to stop after a step: each call is the next attempt. Returns the directory."""
    fences = iter(range(1, 100))

    def until(step: int | None, **keys: Any) -> Path:
        attempt = process(training_volume, next(fences), step)
        if step is None:
            train.run(config(**keys), attempt)
        else:
            with pytest.raises(InterruptedRun, match=f"saved after step {step}"):
                train.run(config(**keys), attempt)
        return training_volume / "runs" / "fit"

    return until


def names(run_dir: Path) -> list[str]:
    return sorted(str(path.relative_to(run_dir)) for path in run_dir.glob("[bc]*/*/*"))


def result(run_dir: Path) -> dict[str, Any]:
    found = results.read_result(run_dir, 0)
    assert found is not None
    return found


def taken(run_dir: Path, *tokens: str | None) -> None:
    """Leases one after the other, each released; the last token is the newest's."""
    for token in tokens:
        Lease.acquire(run_dir / "lease" / "0", pod="p", uid="u", token=token, lease_seconds=0.0).release()


# --- where something was, nothing begins anew


def test_checkpoints_that_are_gone_are_no_new_beginning_and_the_best_weights_stay(told):
    run_dir = told(None, **A)
    shutil.rmtree(run_dir / "checkpoints")
    kept = names(run_dir)
    with pytest.raises(BadDataError, match=r"is empty, but this run has ended with success before: .*--fresh"):
        told(None, **B, replaces=True)
    shutil.rmtree(run_dir / "results")
    taken(run_dir, None)
    lease.adopt(run_dir / "lease" / "0", 1, "step-00000040.000001", 40)
    with pytest.raises(BadDataError, match="went on from step 40 before"):
        told(None, **A)
    assert names(run_dir) == kept


def test_what_was_put_back_after_a_new_beginning_is_neither_gone_on_from_nor_removed(told):
    run_dir = told(5, **A)
    taken(run_dir, None, "T", "T")
    lease.adopt(run_dir / "lease" / "0", 2, None, None)  # it began
    kept = names(run_dir)
    for _ in range(2):  # nor does the refusal make it so
        with pytest.raises(BadDataError, match=r"step 5 from before the run was begun anew: move .*--fresh"):
            Checkpoints(run_dir, 3, 3).restore(accept_none=lambda: resuming.require_nothing(run_dir))
    assert names(run_dir) == kept


# --- another spec


def test_another_spec_is_refused_with_the_keys_that_differ_and_changes_nothing(told):
    run_dir = told(5, **A)
    before = names(run_dir)

    with pytest.raises(
        BadConfigError, match=r"differ in replicas, settings.lr; .*--replace .*planned.replace.*--fresh"
    ):
        told(None, **B)

    assert names(run_dir) == before
    assert "do-not-tell" not in (checkpoint.publications(run_dir)[0].path / "state.json").read_text()


def test_another_spec_goes_on_where_that_is_meant_and_the_first_one_after_a_rollback(told):
    told(5, **A)
    told(9, **B, replaces=True)

    run_dir = told(12, **A)  # `helm rollback` brings the first revision's config back as it was
    with pytest.raises(BadConfigError, match="made under another spec"):
        told(None, specHash="c" * 16, spec=SPEC)

    state = checkpoint.newest(run_dir).state
    assert (state["layout"], state["specHash"], state["specHistory"]) == (1, "a" * 16, ["b" * 16])


@pytest.mark.parametrize("keys", [{**B, "replaces": True}, A])
def test_fewer_steps_than_are_done_are_refused_in_every_case(told, keys):
    told(30, **A)

    with pytest.raises(BadConfigError, match=r"has done 30 steps .*settings.steps asks for 10: .*--fresh"):
        told(None, **keys, settings={"steps": 10})


def test_another_model_is_refused_even_where_another_spec_is_meant(told):
    told(5, **A)

    with pytest.raises(BadConfigError, match=r"another seed: .*--fresh"):
        told(None, **B, replaces=True, settings={"seed": 1})


def test_what_another_spec_says_of_weight_decay_and_patience_holds(told):
    """An early end was decided under a patience that holds no more; AdamW's state remembers its own weight decay."""
    run_dir = told(None, **A, settings={"patience": 1, "lr": 1e-12, "validateEverySteps": 10})
    assert result(run_dir)["figures"]["steps"] == 20

    told(25, **B, replaces=True, settings={"weightDecay": 0.5})

    (group,) = checkpoint.newest(run_dir).state["optimizer"]["groups"]
    assert group["weight_decay"] == 0.5


@given(st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers(0, 1))))
def test_a_key_differs_if_and_only_if_it_is_named(old):
    new = {**old, "a": {"x": 2}, "d": {}}
    expected = ["a.x"] + [f"a.{key}" for key in sorted(old.get("a", {})) if key != "x"] if "a" in old else ["a"]
    assert resuming.differing_keys(old, new) == [*expected, "d"]
    assert resuming.differing_keys(old, dict(old)) == []


# --- layouts


@pytest.fixture
def layout_1(training_volume: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of step 10 of 60 as it was written before checkpoints had a layout's number, of a network of four units."""
    monkeypatch.setitem(model.SIZES, "small", model.Size((4,), 0.1))
    run_dir = training_volume / "runs" / "fit"
    for place in ("checkpoints", "best"):
        shutil.copytree(FIXTURE / place, run_dir / place)
    state = checkpoint.newest(run_dir).state
    monkeypatch.setattr(training, "checksum", lambda entries: state["identity"]["data"])  # zarr's bytes may change
    return run_dir


OF_FOUR_UNITS = {"context": 2, "reach": 1, "validateEverySteps": 5}


def rewritten(run_dir: Path, **changes: Any) -> None:
    """The run's checkpoint published again, by another lease, with some of its state changed, or None: left out."""
    found = checkpoint.newest(run_dir)
    state = {key: value for key, value in {**found.state, **changes}.items() if value is not None}
    shutil.rmtree(run_dir / "checkpoints")
    writer = checkpoint.Checkpoints(run_dir, fence=1, keep=1)
    writer.save(found.step, found.tensors, state)
    assert writer.flush(20)


def test_a_checkpoint_of_the_first_layout_is_gone_on_from(layout_1, told):
    before = checkpoint.newest(layout_1)

    told(11, specHash="b" * 16, settings=OF_FOUR_UNITS)
    told(None, specHash="b" * 16, settings=OF_FOUR_UNITS)

    after, figures = checkpoint.newest(layout_1), result(layout_1)["figures"]
    assert (after.step, after.state["layout"], after.state["specHash"]) == (STEPS, 1, "b" * 16)
    assert after.state["seenSeeds"] == before.state["seenSeeds"]
    assert figures["resumes"] == 2
    assert figures["best_validation_score"] >= before.state["progress"]["best"]["validation_score"]


def test_what_an_older_state_lacks_is_taken_from_what_the_run_begins_with(layout_1, told):
    seeds = checkpoint.newest(layout_1).state["seenSeeds"]
    rewritten(layout_1, seenSeeds=None, scaler=None, task=None, progress={"seconds": 3.0, "of_the_future": 1})

    told(11, settings=OF_FOUR_UNITS)

    state = checkpoint.newest(layout_1).state
    assert state["seenSeeds"] == seeds
    assert {row[0] for row in state["progress"]["split"]["rows"]} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": None}, r"step-00000010.000001 lacks identity"),
        ({"optimizer": None}, "lacks optimizer"),
        ({"optimizer": {"groups": []}}, "does not fit this worker"),
        ({"layout": 7}, "layout 7, but this worker reads none above 1"),
    ],
)
def test_what_cannot_be_made_up_is_named_in_one_sentence(layout_1, told, changes, message):
    rewritten(layout_1, **changes)

    with pytest.raises(BadConfigError, match=f"{message}.*--fresh"):
        told(None, settings=OF_FOUR_UNITS)


# --- damage


def damage(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def test_checkpoints_that_are_all_damaged_end_the_attempt_and_no_training_begins(told):
    run_dir = told(5)
    for publication in checkpoint.publications(run_dir):
        damage(publication.path)

    with pytest.raises(
        BadDataError, match=r"none that can be used: .*step-00000005.000001.*model.safetensors.*--fresh"
    ):
        told(None)

    assert {publication.step for publication in checkpoint.publications(run_dir)} == {5}


def test_best_weights_that_are_lost_are_said_and_not_claimed(told, capfd):
    """The best of step 20 is gone, and so is the checkpoint of that step: what is there now is the best there is."""
    run_dir = told(30, settings={"validateEverySteps": 20}, checkpoint={"keep": 1})
    shutil.rmtree(run_dir / "best")

    told(None, settings={"validateEverySteps": 100})

    assert "the best weights, of step 20 with a score of" in capfd.readouterr().out
    end, best = result(run_dir), checkpoint.newest(run_dir, "best")
    assert best.step == end["figures"]["best_step"]
    assert best.step in (30, STEPS)
    lost = checkpoint.newest(run_dir).state["progress"]["lost_best"]
    assert ("those of step 20" in end["reason"]) == (lost is not None)


def test_best_weights_are_taken_from_the_checkpoint_of_their_step(told):
    run_dir = told(20, settings={"validateEverySteps": 20})
    damage(run_dir / "best" / "step-00000020.000001")

    told(21, settings={"validateEverySteps": 100})

    assert checkpoint.newest(run_dir, "best").step == 20
    assert checkpoint.newest(run_dir).state["progress"]["best"]["step"] == 20


# --- the ranks of a group

RANK = {"settings": {"lr": 0.1, "batch": 64}, "identity": {"data": "x"}, "samples": 3000}


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ({"settings": {"lr": 0.2, "batch": 64}}, BadConfigError, "rank 2 differs from rank 0 in settings.lr"),
        (
            {"samples": 3010, "identity": {"data": "y"}},
            BadDataError,
            "rank 2 reads other data .*3010 samples, not 3000",
        ),
        ({"identity": {"data": "y"}}, BadDataError, "rank 2 reads other data"),
    ],
)
def test_ranks_that_differ_end_with_the_same_sentence(other, error, message):
    resuming.require_agreement([RANK, dict(RANK)])
    with pytest.raises(error, match=message):
        resuming.require_agreement([RANK, RANK, RANK | other])


# --- data


def test_a_dataset_that_is_still_collected_is_no_data_yet(training_volume, announced_dataset):
    own = training_volume / "datasets" / "own"
    shutil.copytree(announced_dataset, own)
    (own / "manifest.json").unlink()

    with pytest.raises(BadDataError, match=r"datasets/own is not finished: 36 episodes .*`jobctl wait own`"):
        train.run(config(data="datasets/own"), process(training_volume))

    assert not list((training_volume / "runs").glob("*/checkpoints"))
