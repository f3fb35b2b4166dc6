"""The spec's hash: the same for the same job, whichever way it was asked for."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobctl.values import spec_hash

SLOW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))

BASE = {
    "kind": "train",
    "gpu": "a10g",
    "replicas": 2,
    "settings": {"lr": 0.001, "steps": 500, "model": "large"},
    "env": {"A": "1", "B": "x"},
    "checkpoint": {"everySeconds": 30, "keep": 2},
}


@SLOW
@given(order=st.permutations(sorted(BASE)), inner=st.permutations(sorted(BASE["settings"])))
def test_the_order_of_keys_does_not_matter(render, order, inner):
    shuffled = {key: BASE[key] for key in order}
    shuffled["settings"] = {key: BASE["settings"][key] for key in inner}
    assert spec_hash(render(shuffled)) == spec_hash(render(BASE))


@SLOW
@given(lr=st.floats(min_value=1e-9, max_value=9.0), steps=st.integers(1, 10**8), seconds=st.integers(1, 86400))
def test_a_number_and_its_text_are_one(render, lr, steps, seconds):
    def values(write):
        return {
            "kind": "train",
            "settings": {"lr": write(lr), "steps": write(steps)},
            "checkpoint": {"everySeconds": write(seconds)},
        }

    assert render(values(lambda number: number)) == render(values(repr))


def test_a_whole_float_is_the_integer(render):
    assert render({"kind": "train", "settings": {"lr": 1.0}}) == render({"kind": "train", "settings": {"lr": 1}})


def test_what_jobctl_adds_is_not_hashed(render):
    planned = {"revision": 7, "freshToken": "abc", "replace": True, "jobctlVersion": "0.1.9"}
    planned |= {"expectRevision": 1, "submitToken": "t"}
    assert spec_hash(render(BASE | {"planned": planned})) == spec_hash(render(BASE))


def test_the_default_image_is_not_hashed_and_another_one_is(render):
    def hashed(image):
        return spec_hash(render(BASE | {"image": image}))

    assert hashed(None) == hashed("jobctl-worker:0.1.0") == spec_hash(render(BASE))
    assert hashed("jobctl-worker:0.2.0") != hashed(None)


def test_a_default_that_is_written_out_changes_nothing(render):
    written = BASE | {"task": "predictor", "preset": "balanced", "data": "datasets/x", "scheduling": {"spot": False}}
    written |= {"from": None, "retry": {"perReplica": 3}, "pod": {"runAsUser": 1000}, "gates": {}}
    assert spec_hash(render(written)) == spec_hash(render(BASE))


@SLOW
@given(
    change=st.sampled_from(
        [
            {"gpu": "a100"},
            {"replicas": 3},
            {"data": "datasets/y"},
            {"settings": {"lr": 0.002, "steps": 500, "model": "large"}},
            {"env": {"A": "1.0", "B": "x"}},
            {"deadlineSeconds": 60},
            {"pod": {"labels": {"a": "b"}}},
            {"resources": {"shm": "1Gi"}},
        ]
    )
)
def test_another_job_has_another_hash(render, change):
    assert spec_hash(render(BASE | change)) != spec_hash(render(BASE))


def test_environment_that_looks_like_a_number_stays_as_it_was_written(render):
    assert spec_hash(render(BASE | {"env": {"A": "0.10"}})) != spec_hash(render(BASE | {"env": {"A": "0.1"}}))
