"""From a spec to the chart's values."""

from __future__ import annotations

import copy

from jobctl.spec import validate
from jobctl.values import for_one_call, values_of, without_call
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
