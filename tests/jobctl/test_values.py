"""From a spec to the chart's values."""

from __future__ import annotations

import copy
import json

from texts import NASTY

from jobctl import helm
from jobctl.spec import validate
from jobctl.values import as_text, for_one_call, job_of, spec_of, values_of, with_environment, without_call
from jobctl.version import __version__

ASKED = {"kind": "train", "name": "x", "settings": {"lr": "1e-4"}, "image": None, "replicas": 2}


def test_values_are_the_keys_as_asked_without_the_name():
    assert values_of(validate(ASKED)) == {
        "kind": "train",
        "settings": {"lr": "1e-4"},
        "image": None,
        "replicas": 2,
        "planned": {"jobctlVersion": __version__},
    }


def test_what_jobctl_adds_stands_under_planned():
    planned = values_of(validate(ASKED), revision=3, fresh_token="abc")["planned"]
    assert planned == {"jobctlVersion": __version__, "revision": 3, "freshToken": "abc"}


def test_a_users_own_planned_key_wins():
    spec = validate(ASKED | {"planned": {"freshToken": "mine"}})
    assert values_of(spec, revision=2, fresh_token="abc")["planned"]["freshToken"] == "mine"


def test_what_one_call_expects_is_not_sent_again_by_the_next():
    sent = for_one_call({"kind": "train", "planned": {"freshToken": "mine"}}, 2, "t")
    assert sent["planned"] == {"freshToken": "mine", "expectRevision": 2, "submitToken": "t"}
    assert without_call(sent) == {"kind": "train", "planned": {"freshToken": "mine"}}


def test_the_spec_is_left_as_it_was():
    asked = copy.deepcopy(ASKED)
    spec = validate(asked)
    values_of(spec)["settings"]["lr"] = 1
    assert spec.asked == ASKED
    assert asked == ASKED


def test_the_spec_of_a_rendered_job_has_the_environment_that_was_asked_for():
    env = {f"V{number}": text for number, text in enumerate(NASTY)} | {"HOME": "/x", "JOBCTL_LEASE_SECONDS": "5"}
    asked = {"kind": "train", "env": env, "secretEnv": {"TOKEN": {"secret": "s", "key": "k"}}}
    manifest = helm.template("x", asked)
    found = spec_of(manifest)
    assert {key: found[key] for key in ("env", "secretEnv")} == {key: asked[key] for key in ("env", "secretEnv")}
    # it is what was hashed: the same values give the same job again, by Helm or from what Helm has forgotten
    assert job_of(helm.template("x", json.loads(json.dumps(found)))) == job_of(manifest)


def test_a_config_of_an_older_chart_has_its_environment_itself():
    assert with_environment({"env": {"A": "$$"}}, {}) == {"env": {"A": "$$"}}


def test_values_that_an_older_jobctl_sent_have_numbers_where_text_is_meant():
    old = {
        "kind": "train",
        "env": {"A": 3, "B": True, "C": 0.5, "D": None, "E": "x"},
        "scheduling": {"tolerations": [{"value": 5, "tolerationSeconds": 6}], "spot": True},
        "resources": {"requests": {"cpu": 3}},
        "replicas": 2,
    }
    text = {
        **old,
        "env": {"A": "3", "B": "true", "C": "0.5", "D": None, "E": "x"},
        "scheduling": {"tolerations": [{"value": "5", "tolerationSeconds": 6}], "spot": True},
        "resources": {"requests": {"cpu": "3"}},
    }
    assert as_text(old) == text
    assert as_text(text) == text
