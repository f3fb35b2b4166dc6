"""What one job consists of."""

from __future__ import annotations

import json

import pytest

KINDS = {"collect": {"kind": "collect"}, "train": {"kind": "train"}, "eval": {"kind": "eval", "from": "r"}}


def names(objects):
    return [(document["kind"], document["metadata"]["name"]) for document in objects]


def environment(job):
    return {entry["name"]: entry for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_is_an_account_a_config_and_a_job(render, kind):
    assert names(render(KINDS[kind])) == [("ServiceAccount", "x"), ("ConfigMap", "x-r1"), ("Job", "x-r1")]


def test_replicas_that_train_together_have_a_headless_service_of_the_release_name(render, pick):
    objects = render({"kind": "train", "replicas": 2})
    assert pick(objects, "Service")["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {"app.kubernetes.io/name": "jobctl", "app.kubernetes.io/instance": "x"},
        "ports": [{"name": "store", "port": 29400}],
    }
    job = pick(objects, "Job")["spec"]
    assert (job["maxFailedIndexes"], job["successPolicy"]) == (0, {"rules": [{"succeededIndexes": "0"}]})
    assert job["template"]["spec"]["subdomain"] == "x"
    assert environment(pick(objects, "Job"))["JOBCTL_STORE"]["value"] == "x-r1-0.x:29400"


@pytest.mark.parametrize("kind", ["collect", "eval"])
def test_replicas_that_work_alone_fail_and_succeed_alone(render, pick, kind):
    objects = render(KINDS[kind] | {"replicas": 2})
    job = pick(objects, "Job")["spec"]
    assert "Service" not in dict(names(objects))
    assert not {"maxFailedIndexes", "successPolicy"} & set(job)
    assert "JOBCTL_STORE" not in environment(pick(objects, "Job"))


@pytest.mark.parametrize("kind", KINDS)
def test_exit_codes_are_judged_by_three_rules_in_this_order(render, pick, kind):
    assert pick(render(KINDS[kind]), "Job")["spec"]["podFailurePolicy"]["rules"] == [
        {
            "action": "FailJob" if kind == "train" else "FailIndex",
            "onExitCodes": {"containerName": "worker", "operator": "In", "values": [64, 65, 66, 70]},
        },
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"containerName": "worker", "operator": "In", "values": [75, 76, 143]}},
    ]


def test_the_job_is_indexed_with_retries_and_back_off_of_each_index(render, pick):
    job = pick(
        render({"kind": "collect", "replicas": 3, "retry": {"perReplica": 5}, "deadlineSeconds": 2000000}), "Job"
    )
    job["spec"].pop("template")
    job["spec"].pop("podFailurePolicy")
    assert job["spec"] == {
        "completionMode": "Indexed",
        "completions": 3,
        "parallelism": 3,
        "podReplacementPolicy": "Failed",
        "backoffLimitPerIndex": 5,
        "activeDeadlineSeconds": 2000000,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_suspend_is_left_to_whoever_suspends(render, pick, kind):
    assert "suspend" not in pick(render(KINDS[kind]), "Job")["spec"]


def test_paths_and_hosts_stand_in_the_environment_alone(render, pick, config_of):
    objects = render({"kind": "train", "replicas": 2})
    container = pick(objects, "Job")["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["python", "-m", "workers", "train", "--config", "$(JOBCTL_CONFIG)"]
    assert "args" not in container
    texts = []

    def collect(value):
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(item)
        if isinstance(value, str):
            texts.append(value)

    collect(config_of(objects))
    assert [text for text in texts if text.startswith("/") or ":29400" in text] == []


def test_the_environment_is_what_workers_expect(render, pick):
    fields = {
        "JOBCTL_POD_NAME": "metadata.name",
        "JOBCTL_POD_UID": "metadata.uid",
        "JOBCTL_POD_IP": "status.podIP",
        "JOBCTL_NODE": "spec.nodeName",
        "JOBCTL_NAMESPACE": "metadata.namespace",
        "JOBCTL_JOB_UID": "metadata.labels['batch.kubernetes.io/controller-uid']",
    }
    plain = {
        "JOBCTL_CONFIG": "/etc/jobctl/config.json",
        "JOBCTL_VOLUME": "/shared",
        "JOBCTL_TMP": "/tmp",
        "HOME": "$(JOBCTL_TMP)",
        "JOBCTL_TERMINATION_LOG": "/dev/termination-log",
        "JOBCTL_METRICS_PORT": "9400",
        "JOBCTL_GRACE_SECONDS": "60",
        "MUJOCO_GL": "osmesa",
    }
    expected = {name: {"name": name, "value": value} for name, value in plain.items()}
    expected |= {name: {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()}
    assert environment(pick(render({"kind": "collect"}), "Job")) == expected


def test_what_the_environment_refers_to_stands_before_it(render, pick):
    entries = pick(render({"kind": "collect"}), "Job")["spec"]["template"]["spec"]["containers"][0]["env"]
    names = [entry["name"] for entry in entries]
    assert names.index("JOBCTL_TMP") < names.index("HOME")


def test_a_users_environment_wins_and_stays_text(render, pick):
    values = {
        "kind": "collect",
        "env": {"MUJOCO_GL": "egl", "RATE": "0.10", "A": "pa$$word", "B": "$(HOME)/x", "C": None},
    }
    values["secretEnv"] = {"KEY": {"secret": "s", "key": "k"}}
    entries = pick(render(values), "Job")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert len({entry["name"] for entry in entries}) == len(entries)
    found = {entry["name"]: entry.get("value") for entry in entries}
    # Kubernetes makes one $ of two, and expands $(NAME) only where no other $ stands before it.
    assert [found[name] for name in ("MUJOCO_GL", "RATE", "A", "B")] == ["egl", "0.10", "pa$$$$word", "$$(HOME)/x"]
    assert "C" not in found
    assert entries[-1] == {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}


def test_the_config_has_the_names_of_the_environment_and_none_of_its_values(render, pick):
    config = pick(render({"kind": "train", "env": {"TOKEN": "s3cret-value", "A": "b"}}), "ConfigMap")
    assert json.loads(config["data"]["config.json"])["spec"]["env"] == ["A", "TOKEN"]
    assert "s3cret-value" not in json.dumps(config)


def test_pods_have_users_of_their_own_where_that_is_asked_for(render, pick):
    def host_users(value):
        job = pick(render({"kind": "train", "pod": {"hostUsers": value}}), "Job")
        return job["spec"]["template"]["spec"].get("hostUsers"), job["metadata"]["labels"]["jobctl.dev/spec-hash"]

    plain = pick(render({"kind": "train"}), "Job")["metadata"]["labels"]["jobctl.dev/spec-hash"]
    assert [host_users(value) for value in (None, True)] == [(None, plain)] * 2
    assert host_users(False)[0] is False


def test_a_gpu_profile_asks_for_its_gpus_and_their_nodes(render, pick):
    pod = pick(render({"kind": "train", "gpu": "a10g", "gpusPerReplica": 2}), "Job")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term == {
        "matchExpressions": [{"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-A10G"]}]
    }


def test_without_a_gpu_no_node_is_asked_for(render, pick):
    pod = pick(render({"kind": "train", "gpu": "cpu"}), "Job")["spec"]["template"]["spec"]
    assert not {"affinity", "tolerations", "nodeSelector"} & set(pod)
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["limits"]


def test_allow_cpu_leaves_the_place_alone_and_tells_the_worker(render, pick, config_of):
    strict = render({"kind": "train", "gpu": "a100"})
    lenient = render({"kind": "train", "gpu": "a100", "allowCpu": True})

    def place(objects):
        pod = pick(objects, "Job")["spec"]["template"]["spec"]
        return pod["affinity"], pod["tolerations"], pod["containers"][0]["resources"]["limits"]

    assert place(strict) == place(lenient)
    assert [(config["device"], config["allowCpu"]) for config in map(config_of, (strict, lenient))] == [
        ("cuda", False),
        ("cuda", True),
    ]


def test_labels_of_a_user_never_replace_those_that_objects_are_found_by(render, pick):
    values = {"kind": "train", "pod": {"labels": {"jobctl.dev/kind": "eval", "team": "7"}}}
    job = pick(render(values), "Job")
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert labels == job["metadata"]["labels"] | {"team": "7"}
    assert labels["jobctl.dev/kind"] == "train"


def test_every_object_has_the_same_labels(render):
    objects = render({"kind": "train", "replicas": 2, "gpu": "a100"})
    spec_hash = objects[0]["metadata"]["labels"]["jobctl.dev/spec-hash"]
    assert len(spec_hash) == 16
    expected = {
        "app.kubernetes.io/name": "jobctl",
        "app.kubernetes.io/instance": "x",
        "app.kubernetes.io/component": "worker",
        "app.kubernetes.io/version": "0.1.0",
        "app.kubernetes.io/managed-by": "Helm",
        "jobctl.dev/kind": "train",
        "jobctl.dev/task": "predictor",
        "jobctl.dev/gpu": "a100",
        "jobctl.dev/spec-hash": spec_hash,
    }
    assert [document["metadata"]["labels"] for document in objects] == [expected] * 4


def test_an_upgrade_a_later_revision_or_a_word_says_that_another_spec_may_go_on(helm_template, config_of):
    def replaces(*assignments, flags=()):
        return config_of(helm_template("kind=train", *assignments, flags=flags))["replaces"]

    assert not replaces()
    assert not replaces("planned.revision=1")
    assert replaces("planned.replace=true")
    assert not replaces("planned.revision=2")
    assert replaces(flags=("--is-upgrade",))
    assert not replaces("planned.jobctlVersion=0.1.0", flags=("--is-upgrade",))
    assert not replaces("planned.replace=false", "planned.revision=2", flags=("--is-upgrade",))


def test_the_config_says_what_was_asked_with_every_default(render, config_of):
    config = config_of(
        render({"kind": "train", "settings": {"lr": "1e-4"}, "planned": {"freshToken": "abc"}}, name="run-1")
    )
    spec = config.pop("spec")
    assert config == {
        "version": "0.1.0",
        "run": "run-1",
        "kind": "train",
        "task": "predictor",
        "gpu": "cpu",
        "device": "cpu",
        "allowCpu": False,
        "replicas": 1,
        "gpusPerReplica": 1,
        "preset": "balanced",
        "data": "datasets/run-1",
        "from": None,
        "settings": {"lr": 0.0001},
        "checkpoint": {"everySeconds": 60, "keep": 3},
        "gates": {},
        "graceSeconds": 60,
        "freshToken": "abc",
        "replaces": False,
        "specHash": config["specHash"],
    }
    assert "planned" not in spec
    assert {key: spec[key] for key in ("settings", "data", "image")} == {
        "settings": {"lr": 0.0001},
        "data": "datasets/run-1",
        "image": None,
    }


def test_a_taints_value_stays_text_and_its_seconds_become_a_number(render, pick):
    asked = [
        {"key": "slot", "value": "5", "effect": "NoSchedule"},
        {"key": "slot", "value": "1e3", "effect": "NoExecute", "tolerationSeconds": "60"},
    ]
    pod = pick(render({"kind": "train", "scheduling": {"tolerations": asked}}), "Job")["spec"]["template"]["spec"]
    assert pod["tolerations"] == [
        {"key": "slot", "value": "5", "effect": "NoSchedule"},
        {"key": "slot", "value": "1e3", "effect": "NoExecute", "tolerationSeconds": 60},
    ]


def test_queue_priority_and_spot_reach_the_scheduler(render, pick):
    job = pick(render({"kind": "train", "scheduling": {"queue": "q", "priority": "high", "spot": True}}), "Job")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    pod = job["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == "high"
    assert {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"} in pod[
        "tolerations"
    ]
    assert "requiredDuringSchedulingIgnoredDuringExecution" not in pod["affinity"]["nodeAffinity"]
