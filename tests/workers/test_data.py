"""`python -m workers data`: what a dataset holds, and one episode of it."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from workers import data
from workers.episodes import ledger
from workers.errors import BadConfigError, BadDataError

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def own_volume(tmp_path: Path, announced_dataset: Path) -> Path:
    """A volume with a real copy of the dataset, named data: a link would lead off the volume."""
    shutil.copytree(announced_dataset, tmp_path / "own" / "datasets" / "data")
    (tmp_path / "own" / "datasets" / "data" / "dataset.json").write_text('{"schema": "jobctl.episodes/v1"}')
    return tmp_path / "own"


def test_the_ledger_is_listed_whole(own_volume):
    found = data.episodes(own_volume, "datasets/data")
    entries = ledger.read(own_volume / "datasets" / "data")
    assert (found["complete"], [ledger.Entry(**one) for one in found["episodes"]]) == (True, entries)


@pytest.mark.parametrize(("number", "outcome"), [(0, "success"), (1, "drop"), (4, "collision")])
def test_an_episode_is_shown_with_its_signals_labels_and_a_picture(own_volume, number, outcome):
    found = data.episode(own_volume, "datasets/data", number)
    assert base64.b64decode(found.pop("picture")).startswith(PNG)
    assert (found["episode"]["episode"], found["episode"]["outcome"]) == (number, outcome)
    assert all(figures["min"] <= figures["mean"] <= figures["max"] for figures in found["signals"].values())
    positive = {"6": 6, "9": 9, "12": 12, "15": 15}
    none = dict.fromkeys(positive, 0)
    assert found["positive_timesteps"] == {
        failure: positive if failure == outcome else none for failure in ("drop", "timeout", "collision", "other")
    }


def test_a_damaged_episode_is_refused_by_name(own_volume):
    image = next(own_volume.glob("datasets/data/episodes/000001.*/images/c*"))
    image.write_bytes(image.read_bytes()[:-1])
    with pytest.raises(BadDataError, match=r"episode 1 of .* is damaged"):
        data.episode(own_volume, "datasets/data", 1)


@pytest.mark.parametrize(
    ("where", "number", "said"),
    [
        ("datasets/data", 99, "datasets/data has no episode 99, but 36 from 0 to 35"),
        ("datasets/date", 0, "the volume has no 'datasets/date'; it has datasets/data"),
        ("../elsewhere", 0, "'../elsewhere' does not lie on the volume"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(own_volume, where, number, said):
    with pytest.raises(BadConfigError, match=said):
        data.episode(own_volume, where, number)


def run(volume: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workers", "data", *arguments]
    environ = os.environ | {"JOBCTL_VOLUME": str(volume)}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def test_the_only_dataset_need_not_be_named_and_of_two_one_must_be(own_volume):
    assert json.loads(run(own_volume).stdout)["data"] == "datasets/data"
    shutil.copytree(own_volume / "datasets" / "data", own_volume / "datasets" / "more")
    said = run(own_volume)
    assert (said.returncode, said.stderr) == (
        64,
        "python -m workers data: say which dataset: it has datasets/data, datasets/more\n",
    )
