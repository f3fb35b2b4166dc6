"""What jobctl is made of, and what its page on security shows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
SHOWN = [one for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) for one in yaml.safe_load_all(block)]
EXAMPLES = [one for one in SHOWN if "kind" in one]  # beside them, keys of a spec


def test_the_license_is_there_that_the_package_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("path", sorted((ROOT / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_every_base_image_can_be_named_by_its_digest(path):
    text = path.read_text()
    arguments = set(re.findall(r"^ARG (\w+)=", text.partition("FROM")[0], re.MULTILINE))
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases and {base.strip("${}") for base in bases} <= arguments, bases
    assert all(base.startswith("${") for base in bases)


@pytest.mark.parametrize("document", EXAMPLES, ids=lambda one: f"{one['kind']}/{one['metadata']['name']}")
def test_the_examples_of_the_page_on_security_fit_the_strict_schema(schema_errors, document):
    assert schema_errors(document) == []


def test_a_policy_is_bound_and_every_rule_has_a_sentence():
    policy, binding = (one for one in EXAMPLES if one["kind"].startswith("ValidatingAdmissionPolicy"))
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert all(rule["message"] for rule in policy["spec"]["validations"])
