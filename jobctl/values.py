"""A spec becomes chart values: its keys as asked, plus `planned` for jobctl's own numbers. Pure."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

from jobctl.documents import LIST_ITEM
from jobctl.schema import takes_text
from jobctl.spec import JobSpec
from jobctl.version import __version__


def values_of(
    spec: JobSpec, *, revision: int | None = None, fresh_token: str | None = None, replace: bool = False
) -> dict[str, Any]:
    """The values that submit hands to Helm, and render prints.

    `revision` is for the local backend: Helm knows the release's revision by itself, but `helm template` always says 1.
    `fresh_token` tells the next holder of the run's lease to set the old run aside, `replace` that the run's checkpoint
    may be another spec's. None of them changes the spec's hash.
    """
    values = copy.deepcopy(dict(spec.asked))
    values.pop("name", None)
    planned: dict[str, Any] = {"jobctlVersion": __version__}
    if revision is not None:
        planned["revision"] = revision
    if fresh_token is not None:
        planned["freshToken"] = fresh_token
    if replace:
        planned["replace"] = True
    # A key that the user wrote there always wins.
    values["planned"] = planned | values.get("planned", {})
    return values


def for_one_call(values: Mapping[str, Any], revision: int, token: str) -> dict[str, Any]:
    """The values as one call sends them to Helm: the chart refuses to become another revision than this one.

    The token lets the chart know values that are used once more (`helm upgrade --reuse-values`): they expect nothing.
    """
    planned = {**(values.get("planned") or {}), "expectRevision": revision, "submitToken": token}
    return {**values, "planned": planned}


def by_jobctl(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values that plain Helm may have sent first, as jobctl sends them: to try again replaces no other spec's run."""
    return {**values, "planned": {"jobctlVersion": __version__} | (values.get("planned") or {})}


def without_call(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without what only the call that sent them meant."""
    planned = values.get("planned")
    if not isinstance(planned, Mapping):
        return dict(values)
    kept = {key: value for key, value in planned.items() if key not in ("expectRevision", "submitToken")}
    return {**values, "planned": kept}


def spec_hash(manifest: list[dict[str, Any]]) -> str:
    """The spec's hash, which the chart worked out: 16 hexadecimal digits, read from the rendered Job's labels."""
    return str(job_of(manifest)["metadata"]["labels"]["jobctl.dev/spec-hash"])


def job_of(manifest: list[dict[str, Any]]) -> dict[str, Any]:
    """The one Job among the rendered objects."""
    return next(document for document in manifest if document["kind"] == "Job")


def image_of(manifest: Sequence[dict[str, Any]]) -> str:
    """The image that the rendered Job's pods run."""
    return str(job_of(list(manifest))["spec"]["template"]["spec"]["containers"][0]["image"])


def config_of(manifest: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The worker's config in a rendered release."""
    config = next(document for document in manifest if document["kind"] == "ConfigMap")
    return json.loads(config["data"]["config.json"])


def differing_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys, with dots, whose values differ between two specs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [path]
    found = []
    for key in sorted(old.keys() | new.keys()):
        found += differing_keys(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return found


def as_text(value: Any, path: tuple[str, ...] = ()) -> Any:
    """Values that an older jobctl sent as this one would have sent them: no numbers where text is meant."""
    if isinstance(value, dict):
        return {key: as_text(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [as_text(item, (*path, LIST_ITEM)) for item in value]
    return json.dumps(value) if isinstance(value, bool | int | float) and takes_text(path) else value


def spec_of(manifest: list[dict[str, Any]]) -> dict[str, Any]:
    """The normalised spec that the chart took the hash of."""
    return with_environment(config_of(manifest)["spec"], job_of(manifest))


def with_environment(spec: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """A spec as the worker's config has it, and the environment's values, of which that has the names alone.

    They are read back from the Job's container, where `$` stands twice. A config of an older chart has them itself.
    """
    names = spec.get("env")
    if not isinstance(names, list):
        return dict(spec)
    pod = ((job.get("spec") or {}).get("template") or {}).get("spec") or {}
    (container, *_) = pod.get("containers") or [{}]
    found = {str(entry.get("name")): str(entry.get("value", "")) for entry in container.get("env") or []}
    asked = [name for name in names if isinstance(name, str) and name in found]
    return {**spec, "env": {name: found[name].replace("$$", "$") for name in asked}}
