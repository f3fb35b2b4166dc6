"""Rendering and checking, shared by the chart's tests. Each way of asking is rendered once a run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate.utils as kubernetes_schemas
import pytest
import yaml
from referencing import Registry, Resource

from jobctl import helm
from jobctl.spec import read_specs
from jobctl.values import values_of

ROOT = Path(__file__).resolve().parents[2]
CHARTS = ROOT / "charts"
Objects = list[dict[str, Any]]


@cache
def _run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(helm.find_helm()), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="session")
def run_helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Helm itself, as a user without jobctl calls it."""
    return _run_helm


@pytest.fixture(scope="session")
def helm_template() -> Callable[..., Objects]:
    """`helm template x charts/jobctl --set ... --set ...`: plain Helm, without jobctl."""

    def template(*assignments: str, name: str = "x", flags: tuple[str, ...] = ()) -> Objects:
        sets = [part for assignment in assignments for part in ("--set", assignment)]
        done = _run_helm("template", name, str(CHARTS / "jobctl"), *sets, *flags)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return template


@cache
def _render(text: str, name: str) -> str:
    return json.dumps(helm.template(name, json.loads(text)))


@pytest.fixture(scope="session")
def render() -> Callable[..., Objects]:
    """The objects of these values, given as Python would write them in JSON."""

    def rendered(values: dict[str, Any], name: str = "x") -> Objects:
        return json.loads(_render(json.dumps(values), name))

    return rendered


@pytest.fixture(scope="session")
def render_file() -> Callable[[Path], Objects]:
    """The objects of all jobs in a spec file, by jobctl's own way, without a team's defaults."""

    def rendered(path: Path) -> Objects:
        specs = read_specs(path, environ={"HOME": "/nonexistent"})
        return [document for spec in specs for document in json.loads(_render(json.dumps(values_of(spec)), spec.name))]

    return rendered


@pytest.fixture(scope="session")
def pick() -> Callable[[Objects, str], dict[str, Any]]:
    """The one object of this kind."""

    def picked(objects: Objects, kind: str) -> dict[str, Any]:
        (found,) = (document for document in objects if document["kind"] == kind)
        return found

    return picked


@pytest.fixture(scope="session")
def config_of() -> Callable[[Objects], dict[str, Any]]:
    """The worker's config among the objects."""

    def config(objects: Objects) -> dict[str, Any]:
        (found,) = (document for document in objects if document["kind"] == "ConfigMap")
        return json.loads(found["data"]["config.json"])

    return config


@cache
def _validator(version: str, kind: str, api_version: str) -> jsonschema.Draft202012Validator:
    """kubernetes-validate's strict schema; its own `validate` reads 1.8 MB anew for every document."""
    directory = f"kubernetes-json-schema/v{version}-local-strict"
    *group, version_of_group = api_version.split("/")
    group = "-".join([*(name.split(".")[0] for name in group), version_of_group])
    schema = kubernetes_schemas.schema_contents(f"{directory}/{kind.lower()}-{group}.json", version)
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Registry[Any]:
    directory = f"kubernetes-json-schema/v{version}-local-strict"
    definitions = kubernetes_schemas.schema_contents(f"{directory}/_definitions.json", version)
    return Resource.from_contents(definitions) @ Registry()


@pytest.fixture(scope="session", params=["1.34.0", kubernetes_schemas.latest_version()])
def schema_errors(request: pytest.FixtureRequest) -> Callable[[dict[str, Any]], list[str]]:
    """What the strict schema of the oldest and the newest Kubernetes has against an object."""

    def errors(document: dict[str, Any]) -> list[str]:
        validator = _validator(request.param, document["kind"], document["apiVersion"])
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]

    return errors
