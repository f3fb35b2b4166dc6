"""A spec becomes chart values: its keys as asked, plus `planned` for jobctl's own numbers. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from jobctl.documents import LIST_ITEM
from jobctl.schema import takes_text
from jobctl.spec import JobSpec
from jobctl.version import __version__


def values_of(spec: JobSpec, *, revision: int | None = None, fresh_token: str | None = None) -> dict[str, Any]:
    """The values that submit hands to Helm, and render prints.

    `revision` is for the local backend: Helm knows the release's revision by itself, but `helm template` always says 1.
    `fresh_token` tells the next holder of the run's lease to set the old run aside. Neither changes the spec's hash.
    """
    values = copy.deepcopy(dict(spec.asked))
    values.pop("name", None)
    planned: dict[str, Any] = {"jobctlVersion": __version__}
    if revision is not None:
        planned["revision"] = revision
    if fresh_token is not None:
        planned["freshToken"] = fresh_token
    # A key that the user wrote there always wins.
    values["planned"] = planned | values.get("planned", {})
    return values


def spec_hash(manifest: list[dict[str, Any]]) -> str:
    """The spec's hash, which the chart worked out: 16 hexadecimal digits, read from the rendered Job's labels."""
    return str(job_of(manifest)["metadata"]["labels"]["jobctl.dev/spec-hash"])


def job_of(manifest: list[dict[str, Any]]) -> dict[str, Any]:
    """The one Job among the rendered objects."""
    return next(document for document in manifest if document["kind"] == "Job")


def as_text(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Values that an older jobctl sent as this one would have sent them: no numbers where text is meant."""
    if isinstance(value, dict):
        return {key: as_text(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [as_text(item, (*path, LIST_ITEM)) for item in value]
    return json.dumps(value) if isinstance(value, bool | int | float) and takes_text(path) else value


def spec_of(manifest: list[dict[str, Any]]) -> dict[str, Any]:
    """The normalised spec that the chart took the hash of."""
    config = next(document for document in manifest if document["kind"] == "ConfigMap")["data"]["config.json"]
    return with_environment(json.loads(config)["spec"], job_of(manifest))


def with_environment(spec: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as the worker's config has it, and the environment's values, of which that has the names alone.

    They are read back from the Job's container, where `$` stands twice. A config of an older chart has them itself.
    """
    names = spec.get("env")
    if not isinstance(names, list):
        return dict(spec)
    (container, *_) = job["spec"]["template"]["spec"]["containers"]
    found = {entry["name"]: str(entry.get("value", "")) for entry in container.get("env") or []}
    return {**spec, "env": {name: found[name].replace("$$", "$") for name in names if name in found}}
