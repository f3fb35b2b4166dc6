"""A training whose job is gone, but not its checkpoints: what submit says, or refuses, before anything is started."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

TRAIN = ("train", "--name", "long", "--data", "datasets/x")


@pytest.fixture
def leave(jobctl: Callable[..., Any], home: Path) -> Callable[..., None]:
    """Puts a checkpoint of the run `long` on the volume, as the spec of these flags would have written it."""

    def make(step: int, *flags: str, **changes: Any) -> None:
        rendered = yaml.safe_load_all(jobctl("render", *TRAIN, *flags).out)
        config = next(json.loads(one["data"]["config.json"]) for one in rendered if one["kind"] == "ConfigMap")
        state = {"layout": 1, "specHash": config["specHash"], "spec": config["spec"]} | changes
        directory = home / "volumes" / "shared" / "runs" / "long" / "checkpoints" / f"step-{step:08d}.000001"
        directory.mkdir(parents=True)
        (directory / "state.json").write_text(json.dumps(state))

    return make


def test_the_same_spec_resumes_from_what_is_on_the_volume_and_a_dry_run_says_so_too(jobctl, leave):
    leave(2819)
    for command, verb in ((("--dry-run",), "would be started"), ((), "submitted")):
        said = jobctl("submit", *TRAIN, *command)
        expected = f"long: {verb} as revision 1 (3 objects); it resumes from step 2819 of 3000."
        assert (said.status, said.out.splitlines()[0]) == (0, expected)


@pytest.mark.parametrize("change", ["lr=0.5", "batch=300", "steps=4000"])
def test_another_spec_is_refused_with_the_keys_that_differ(jobctl, leave, backend, change):
    leave(2819)
    said = jobctl("submit", *TRAIN, "--set", change)
    assert (said.status, said.out) == (2, "")
    for part in ("step 2819 of long", f"settings.{change.partition('=')[0]}", "--replace", "--fresh", "--name"):
        assert part in said.err
    assert backend.records() == []


def test_replace_goes_on_from_there_with_the_other_spec_and_tells_the_worker(jobctl, leave, backend):
    leave(2819)
    said = jobctl("submit", *TRAIN, "--set", "lr=0.5", "--replace")
    assert (said.status, "it resumes from step 2819 of 3000" in said.out) == (0, True)
    assert backend.record("long").values["planned"]["replace"] is True


@pytest.mark.parametrize("more", [(), ("--replace",)])
def test_fewer_steps_than_are_done_are_refused_whatever_is_said(jobctl, leave, backend, more):
    leave(2819, "--set", "steps=10")
    said = jobctl("submit", *TRAIN, "--set", "steps=10", *more)
    assert said.status == 2
    assert "2819" in said.err and "10" in said.err and "--fresh" in said.err
    assert backend.records() == []


def test_fresh_asks_nobody(jobctl, leave):
    leave(2819)
    said = jobctl("submit", *TRAIN, "--set", "steps=10", "--fresh")
    assert (said.status, said.out.splitlines()[0]) == (0, "long: submitted as revision 1 (3 objects).")


def test_a_checkpoint_that_names_no_spec_is_left_to_the_worker(jobctl, leave):
    leave(2819, specHash=None, spec=None)
    assert "it resumes from step 2819 of 3000" in jobctl("submit", *TRAIN, "--set", "lr=0.5").out


def test_a_job_that_is_there_is_compared_with_its_own_spec_alone(jobctl, leave, backend):
    jobctl("submit", *TRAIN, "--wait")
    leave(2819, "--set", "lr=0.5")
    assert "already done" in jobctl("submit", *TRAIN).out


def test_a_state_that_cannot_be_read_is_left_to_the_worker(jobctl, leave, home):
    leave(2819)
    (state,) = home.glob("volumes/shared/runs/long/checkpoints/*/state.json")
    state.write_text("[" * 4000)
    said = jobctl("submit", *TRAIN, "--dry-run")
    assert (said.status, said.out) == (0, "long: would be started as revision 1 (3 objects).\n")
