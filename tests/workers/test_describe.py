"""What the chart knows of the tasks is what the models say."""

import json

import jsonschema_rs
import pytest
import yaml

from workers import describe


def test_the_charts_files_are_the_generated_ones(capsys):
    assert describe.main(["--check"]) == 0, capsys.readouterr().err


def test_check_names_a_file_that_differs_and_write_mends_it(tmp_path, capsys):
    assert describe.main(["--chart", str(tmp_path), "--write"]) == 0
    (tmp_path / "tasks" / "predictor.yaml").write_text("task: predictor\n")

    assert describe.main(["--chart", str(tmp_path), "--check"]) == 1
    assert "predictor.yaml differs" in capsys.readouterr().err

    describe.main(["--chart", str(tmp_path), "--write"])
    assert describe.main(["--chart", str(tmp_path), "--check"]) == 0


def test_every_model_of_the_schema_has_its_cost():
    files = describe.files()
    schema = json.loads(files["tasks/predictor.schema.json"])
    costs = yaml.safe_load(files["tasks/predictor.yaml"])

    model = schema["$defs"]["train"]["properties"]["model"]
    assert list(costs["models"]) == model["enum"]
    assert costs["defaultModel"] == model["default"]
    assert all(value > 0 for cost in costs["models"].values() for value in cost.values())


@pytest.mark.parametrize("kind", ["collect", "train", "eval"])
def test_the_schema_takes_the_defaults_and_refuses_an_unknown_setting(kind):
    schema = json.loads(describe.files()["tasks/predictor.schema.json"])["$defs"][kind]
    validator = jsonschema_rs.validator_for(schema)

    assert validator.is_valid({name: entry["default"] for name, entry in schema["properties"].items()} | {})
    assert not validator.is_valid({"noSuchSetting": 1})
    assert all(entry.get("description") for entry in schema["properties"].values())


@pytest.mark.parametrize("kind", ["collect", "train", "eval"])
def test_what_a_kind_needs_is_told_in_its_settings_and_in_counts_that_the_chart_has(kind):
    files = describe.files()
    settings = json.loads(files["tasks/predictor.schema.json"])["$defs"][kind]["properties"]
    need = yaml.safe_load(files["tasks/predictor.yaml"])["needs"][kind]
    own = {"processes", "hostMemoryMiB", *(["samples"] if kind == "train" else [])}

    defaults = {name: settings[name]["default"] for name in need["counts"]}
    assert {name: count for name, count in need["counts"].items() if defaults[name] not in (count, None)} == {}
    assert {name for term in need["terms"] for name in term["times"]} <= own | need["counts"].keys()
    assert all(term.get("memoryMiB", 0) + term.get("cpuMillicores", 0) > 0 for term in need["terms"])
