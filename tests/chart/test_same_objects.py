"""Plain Helm and jobctl give the same objects."""

from __future__ import annotations

import pytest

from jobctl import helm
from jobctl.spec import read_specs
from jobctl.values import values_of

NOWHERE = {"HOME": "/nonexistent"}


def by_jobctl(**keywords):
    (spec,) = read_specs(None, environ=NOWHERE, **keywords)
    return helm.template(spec.name, values_of(spec))


def test_the_shortest_command_renders(helm_template):
    """`helm install x charts/jobctl --set kind=train --set gpu=cpu --set replicas=2` and
    `jobctl submit train --name x --gpu cpu --replicas 2`."""
    plain = helm_template("kind=train", "gpu=cpu", "replicas=2")
    assert plain == by_jobctl(kind="train", flags={"name": "x", "gpu": "cpu", "replicas": 2})
    assert [document["kind"] for document in plain] == ["ServiceAccount", "ConfigMap", "Service", "Job"]


@pytest.mark.parametrize("text", ["0.0001", "1e-4", "1E-4", ".0001", "0.00010"])
def test_a_float_given_by_set_is_the_same_number(helm_template, text):
    plain = helm_template("kind=train", "replicas=2", "data=datasets/d", f"settings.lr={text}")
    flags = {"name": "x", "replicas": 2, "data": "datasets/d"}
    assert plain == by_jobctl(kind="train", flags=flags, assignments=[f"settings.lr={text}"])
    assert plain == by_jobctl(kind="train", flags=flags | {"settings": {"lr": 0.0001}})


def test_a_number_given_as_text_is_the_same_number(helm_template, tmp_path):
    as_text = helm_template("kind=train", flags=("--set-string", "settings.lr=0.0001,settings.steps=500,replicas=2"))
    file = tmp_path / "values.yaml"
    file.write_text("kind: train\nreplicas: 2\nsettings: {lr: 0.0001, steps: 500}\n")
    assert as_text == helm_template(flags=("--values", str(file)))
    assert as_text == by_jobctl(
        kind="train", flags={"name": "x"}, assignments=["settings.lr='0.0001'", "settings.steps='500'", "replicas='2'"]
    )


def test_a_spec_less_its_name_is_a_values_file(helm_template, tmp_path):
    keys = "kind: eval\ngpu: a10g\nfrom: earlier\ngates: {f1: 0.6}\nscheduling: {spot: true}\n"
    values = tmp_path / "values.yaml"
    values.write_text(keys)
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"name: x\n{keys}")
    (read,) = read_specs(spec, environ=NOWHERE)
    assert helm.template("x", values_of(read)) == helm_template(flags=("--values", str(values)))
