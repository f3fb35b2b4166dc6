"""Any text is one value where it was put: it neither changes on its way nor becomes anything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from texts import NASTY, UNCARRIED, batches

from jobctl import helm
from jobctl.errors import UsageError

CAREFUL = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def values_of(batch: list[str]) -> dict:
    return {
        "kind": "train",
        "env": {f"V{number}": text for number, text in enumerate(batch)},
        "pod": {"annotations": {f"v{number}": text for number, text in enumerate(batch)}},
        "planned": {"freshToken": "".join(batch) or None},
    }


def taken_out(objects: list[dict]) -> tuple[list[dict], list[str | None], list[str | None], str | None]:
    """The objects without what was asked for, and that: the environment's texts, the annotations', the config's."""
    objects = json.loads(json.dumps(objects))
    config_map, job = objects[1], objects[2]
    config = json.loads(config_map["data"].pop("config.json"))
    pod = job["spec"]["template"]
    annotations = pod["metadata"].pop("annotations")
    (container,) = pod["spec"]["containers"]
    env = [entry.get("value", "").replace("$$", "$") for entry in container["env"] if entry["name"].startswith("V")]
    container["env"] = [entry for entry in container["env"] if not entry["name"].startswith("V")]
    for document in [*objects, pod]:
        del document["metadata"]["labels"]["jobctl.dev/spec-hash"]
    return objects, env, list(annotations.values()), config["freshToken"]


@CAREFUL
@given(batch=batches(30))
@example(batch=[*NASTY[:30]])
@example(batch=[*NASTY[-30:]])
@example(batch=["x"] * 30)
def test_any_text_renders_exactly_the_objects_that_are_meant(batch):
    batch = sorted(batch)
    objects, env, annotations, token = taken_out(helm.template("x", values_of(batch)))
    order = sorted(range(30), key=lambda number: f"V{number}")
    assert env == annotations == [batch[number] for number in order]
    assert (token or "") == "".join(batch)
    plain, *_ = taken_out(helm.template("x", values_of(["x"] * 30)))
    assert objects == plain


@pytest.mark.parametrize("text", UNCARRIED)
@pytest.mark.parametrize("place", ["env", "pod.annotations"])
def test_what_the_api_refuses_or_changes_is_refused_by_its_key(place, text):
    values = {"env": {"A": text}} if place == "env" else {"pod": {"annotations": {"A": text}}}
    with pytest.raises(UsageError, match=rf"^{place}\.A holds a control character"):
        helm.template("x", {"kind": "train", **values})


@pytest.mark.parametrize("name", ["1e3", "123", "0x1", "null", "true", "on", "1-1"])
def test_a_name_and_a_namespace_are_text_too(name):
    objects = helm.template(name, {"kind": "train", "volume": {"claim": name}, "from": name}, namespace=name)
    assert [document["metadata"]["name"] for document in objects] == [name, f"{name}-r1", f"{name}-r1"]
    assert {document["metadata"]["namespace"] for document in objects} == {name}
    pod = objects[2]["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["volumes"][0]["persistentVolumeClaim"]["claimName"]) == (name, name)


def test_helm_reads_the_same_values_whatever_the_locale_is():
    plain = helm.template("x", values_of([*NASTY]))
    code = (
        "import json, sys; from jobctl import helm;"
        "print(json.dumps(helm.template('x', json.loads(sys.argv[1]))) == json.dumps(json.loads(sys.argv[2])))"
    )
    command = [sys.executable, "-X", "utf8=0", "-c", code, json.dumps(values_of([*NASTY])), json.dumps(plain)]
    environ = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    assert subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout == "True\n"
