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
