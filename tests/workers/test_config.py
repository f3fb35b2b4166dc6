import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from workers import __version__
from workers.config import CheckpointPolicy, Config
from workers.errors import BadConfigError

RENDERED: dict[str, Any] = {
    "version": __version__,
    "run": "x",
    "kind": "train",
    "task": "predictor",
    "gpu": "cpu",
    "device": "cpu",
    "allowCpu": False,
    "replicas": 2,
    "gpusPerReplica": 1,
    "preset": "balanced",
    "data": "datasets/salus",
    "from": "salus-train",
    "settings": {"steps": 40, "learningRate": "0.001"},
    "checkpoint": {"everySeconds": 5, "keep": 2},
    "gates": {"f1": 0.6},
    "specHash": "abc",
    "graceSeconds": 60,
    "freshToken": None,
    "replaces": False,
    "spec": {"kind": "train"},
}


class Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    steps: int = Field(100, ge=1)
    learning_rate: float = 1e-3


def load(tmp_path, **changes: Any) -> Config:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({key: value for key, value in {**RENDERED, **changes}.items() if value != "gone"}))
    return Config.load(path)


def test_a_rendered_config_is_read_whole(tmp_path):
    config = load(tmp_path)
    read = config.model_dump(by_alias=True, exclude={"enforce_gates"})
    assert read == RENDERED | {"checkpoint": {"everySeconds": 5.0, "keep": 2}}
    assert (config.from_, config.checkpoint) == ("salus-train", CheckpointPolicy(every_seconds=5, keep=2))
    assert config.settings_as(Settings) == Settings(steps=40, learningRate=0.001)


def test_the_switch_among_the_gates_says_whether_they_are_enforced(tmp_path):
    assert load(tmp_path).enforce_gates is True
    reported = load(tmp_path, gates={"f1": 0.6, "enforce": False})
    assert (reported.gates, reported.enforce_gates) == ({"f1": 0.6}, False)


def test_all_but_the_names_have_defaults(tmp_path):
    config = load(tmp_path, **dict.fromkeys(RENDERED.keys() - {"version", "run", "kind", "task", "specHash"}, "gone"))
    assert (config.replicas, config.checkpoint.keep, config.gates, config.data) == (1, 3, {}, None)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"kind": "trian"}, "config.kind should be 'collect', 'train' or 'eval' (it is \"trian\")"),
        ({"replicas": 0}, "config.replicas should be greater than or equal to 1 (it is 0)"),
        ({"specHash": "gone"}, "config.specHash is missing"),
        ({"gpuu": "a100"}, "config.gpuu is an unknown key; nearest: gpu"),
        ({"checkpoint": {"evrySeconds": 1}}, "config.checkpoint.evrySeconds is an unknown key; nearest: everySeconds"),
        (
            {"version": "9.9.0"},
            (
                f"the chart is version 9.9.0 but this worker is {__version__}: "
                f"use the image of 9.9.0 or the chart of {__version__}"
            ),
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(BadConfigError) as raised:
        load(tmp_path, **changes)
    assert (str(raised.value), raised.value.code) == (sentence, 64)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"stesp": 3}, "settings.stesp is an unknown setting; nearest: steps"),
        ({"zzz": 3}, "settings.zzz is an unknown setting; there are: learningRate, steps"),
        ({"steps": 0, "learningRate": "fast"}, "settings.steps should be greater than or equal to 1 (it is 0); "),
    ],
)
def test_a_wrong_setting_is_named_with_the_nearest_ones(tmp_path, settings, sentence):
    with pytest.raises(BadConfigError) as raised:
        load(tmp_path, settings=settings).settings_as(Settings)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize(
    ("content", "why"), [("{", "is not JSON"), ("\x00", "is not JSON"), ("[]", "^config should be")]
)
def test_a_file_that_is_no_config_is_refused(tmp_path, content, why):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(BadConfigError, match=why):
        Config.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadConfigError, match=r"nowhere\.json cannot be read: No such file"):
        Config.load(tmp_path / "nowhere.json")


def test_a_patch_release_of_the_chart_fits(tmp_path):
    major, minor, _ = __version__.split(".")
    assert load(tmp_path, version=f"{major}.{minor}.99").run == "x"
