"""The data check: silent on sound data, and each planted fault is found and named."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from workers.episodes import ledger, writer
from workers.episodes.check import GATES, check, missed_gates, require_gates
from workers.errors import BadConfigError, BadDataError


def problems_with(dataset, episode, expected=6):
    """The problems of the dataset after episode 2 was recorded as `episode`."""
    shutil.rmtree(dataset / "episodes" / "000002.000001")
    for path in (ledger.entry_path(dataset, 2), dataset / "manifest.json", dataset / "ledger.json"):
        path.unlink()
    writer.write_episode(dataset, episode, fence=1)
    ledger.merge(dataset, 6)
    return check(dataset, expected).problems


def changed(values, change):
    values = values.copy()
    change(values)
    return values


def copy_camera(images):
    images[:, 2] = images[:, 0]


def blacken(images):
    images[:, 1] = 0


def rest(signals):
    signals[:, 8] = 0.5


def freeze(images):
    images[:, 1] = images[0, 1]


def test_a_sound_dataset_has_no_problems_and_says_what_it_holds(dataset):
    report = check(dataset, 6)
    steps = 4 + 5 + 6 + 7 + 8 + 4
    positives = steps - 4 - 4  # all episodes are shorter than each horizon: all but the two successes
    assert report.problems == []
    assert report.figures == pytest.approx(
        {
            "episodes": 6,
            "steps": steps,
            "steps_mean": steps / 6,
            "perturbed_share": 2 / 6,
            "success_share": 2 / 6,
            "drop_share": 1 / 6,
            "timeout_share": 1 / 6,
            "collision_share": 1 / 6,
            "other_share": 1 / 6,
            "positive_share_h6": (positives - 3) / steps,  # 1 of 7 timesteps and 2 of 8 are too early
            "positive_share_h9": positives / steps,
            "positive_share_h12": positives / steps,
            "positive_share_h15": positives / steps,
        }
    )
    assert report.tables["outcomes"]["rows"][0] == ["success", 2, 2 / 6, 2]
    assert [row[0] for row in report.tables["labels"]["rows"]] == [6, 9, 12, 15]
    assert len(report.tables["signals"]["rows"]) == 12


@pytest.mark.parametrize("name", ["actions", "states", "signals"])
def test_an_array_of_zeros_is_found(dataset, episode, name):
    zeros = np.zeros_like(getattr(episode(2), name))
    assert problems_with(dataset, episode(2, **{name: zeros})) == [f"episode 2: {name} is all zeros"]


@pytest.mark.parametrize("name", ["actions", "states", "signals"])
def test_an_array_that_never_changes_is_found(dataset, episode, name):
    frozen = changed(getattr(episode(2), name), lambda values: values.__setitem__(slice(None), values[0]))
    assert problems_with(dataset, episode(2, **{name: frozen})) == [f"episode 2: {name} never changes"]


def test_a_value_that_is_not_finite_is_found(dataset, episode):
    signals = changed(episode(2).signals, lambda values: values.__setitem__((1, 4), np.nan))
    assert problems_with(dataset, episode(2, signals=signals)) == [
        "episode 2: signals holds values that are not finite",
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (copy_camera, "the front and wrist cameras show the same images"),
        (blacken, "the side camera's images are all zeros"),
        (freeze, "the side camera's images never change"),
    ],
)
def test_cameras_that_see_nothing_or_the_same_are_found(dataset, episode, change, problem):
    images = changed(episode(2).images, change)
    assert problems_with(dataset, episode(2, images=images)) == [f"episode 2: {problem}"]


def test_a_signal_that_is_the_same_in_every_episode_is_found(tmp_path, episode):
    for number in range(3):
        long = episode(number, steps=100)
        writer.write_episode(tmp_path, dataclasses.replace(long, signals=changed(long.signals, rest)), fence=1)
    assert check(tmp_path, 3).problems == ["the signal wrist_force is 0.5 in every timestep of the dataset"]


def test_labels_that_do_not_follow_from_the_outcome_are_found(dataset, monkeypatch, episode):
    monkeypatch.setattr(writer, "horizon_labels", lambda steps, outcome: np.zeros((steps, 4, 4), np.uint8))
    problems = problems_with(dataset, episode(2))
    assert problems == ["episode 2: horizon_labels do not follow from its outcome 'timeout'"]


def test_missing_episodes_are_found_and_named(dataset):
    assert check(dataset, 9).problems == ["3 of 9 episodes are missing: 6, 7, 8"]


def test_more_episodes_than_expected_are_found(dataset):
    assert check(dataset, 5).problems == ["the ledger has 6 entries, 5 are expected"]


def test_a_manifest_that_counts_wrongly_is_found(dataset):
    path = dataset / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"steps": 999}))
    assert check(dataset, None).problems == ["the manifest counts steps 999, the ledger 34"]


def test_steps_that_the_ledger_counts_wrongly_are_found(dataset):
    for path in (dataset / "manifest.json", dataset / "ledger.json"):
        path.unlink()
    path = ledger.entry_path(dataset, 3)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"steps": 6}))
    [problem] = check(dataset, 6).problems
    assert "actions/zarr.json is damaged: it has [7] timesteps, the ledger says 6" in problem


def test_a_damaged_episode_is_a_problem_that_names_it(dataset):
    path = dataset / "episodes/000003.000001/signals/c.0.0"
    path.write_bytes(path.read_bytes()[:-1])
    [problem] = check(dataset, 6).problems
    assert problem.startswith(f"episode 3 of {dataset} is damaged")


def test_another_schema_is_no_dataset_to_check(tmp_path):
    (tmp_path / "manifest.json").write_text('{"schema": "folder/v3"}')
    with pytest.raises(BadDataError, match=r"folder/v3"):
        check(tmp_path, None)


def test_each_gate_judges_figures_that_the_check_gives(dataset):
    figures = check(dataset, 6).figures
    strict = {name: 10.0 if gate.at_least else -1.0 for name, gate in GATES.items()}
    missed = missed_gates(strict, figures)
    assert len(missed) == sum(len(gate.figures) for gate in GATES.values())
    assert missed[0] == "episodes is 6, gate episodes asks at least 10"
    assert missed_gates({name: -1.0 if gate.at_least else 10.0 for name, gate in GATES.items()}, figures) == []


def test_an_unknown_gate_is_refused_with_the_nearest(dataset):
    require_gates({"successShareMin": 0.3})
    with pytest.raises(BadConfigError, match=r"'succesShare'.*successShareM"):
        require_gates({"succesShare": 0.3})
