import copy

import pytest

from jobctl.errors import RefusedError
from jobctl.local.fields import CONTAINER, JOB, POD, Treatment, markdown
from jobctl.local.plan import Claim, Files, Mount, Scratch
from jobctl.local.rules import Action, ExitCodes, FailureRule, SuccessRule
from jobctl.local.translate import translate

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"config.json": "{}"}}


def put(document, path, value):
    """Set `a.b[0].c` in a copy."""
    document = copy.deepcopy(document)
    *parents, last = path.replace("[0]", ".0").split(".")
    place = document
    for key in parents:
        place = place[0] if key == "0" else place.setdefault(key, [{}] if f"{key}[0]" in path else {})
    place[last] = value
    return document


@pytest.fixture
def job(manifest):
    (document,) = manifest("true", 3, backoffLimitPerIndex=2)
    return document


def refusal(document, *others):
    with pytest.raises(RefusedError) as caught:
        translate([*others, document])
    assert caught.value.exit_status == 5
    return str(caught.value)


def test_every_translated_part_reaches_the_plan(manifest):
    (document,) = manifest(
        "true",
        2,
        backoffLimitPerIndex=3,
        maxFailedIndexes=0,
        activeDeadlineSeconds=60,
        podFailurePolicy={"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75]}}]},
        successPolicy={"rules": [{"succeededIndexes": "0"}]},
        pod={
            "subdomain": "x",
            "terminationGracePeriodSeconds": 7,
            "serviceAccountName": "sa",
            "volumes": [
                {"name": "shared", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "config", "configMap": {"name": "c"}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
        container={"volumeMounts": [{"name": "shared", "mountPath": "/shared", "subPath": "a/b"}]},
    )
    plan = translate([CONFIG, document])
    assert {key: value for key, value in plan._asdict().items() if key != "template"} == {
        "name": "x-r1",
        "namespace": "default",
        "completions": 2,
        "parallelism": 2,
        "backoff_limit": 2**31 - 1,
        "backoff_limit_per_index": 3,
        "max_failed_indexes": 0,
        "failure_rules": (FailureRule(Action.IGNORE, ExitCodes("In", frozenset({75}))),),
        "success_rules": (SuccessRule(frozenset({0})),),
        "suspend": False,
        "active_deadline_seconds": 60.0,
    }
    template = plan.template
    assert (template.subdomain, template.grace_seconds, template.service_account) == ("x", 7.0, "sa")
    assert template.volumes == {"shared": Claim("data"), "config": Files({"config.json": b"{}"}), "tmp": Scratch()}
    assert template.container.mounts == (Mount("shared", "/shared", "a/b"),)


TEMPLATE = "spec.template.spec"
WORKER = f"{TEMPLATE}.containers[0]"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{TEMPLATE}.hostPID", True),
        (f"{TEMPLATE}.hostNetwork", True),
        (f"{TEMPLATE}.hostIPC", True),
        (f"{TEMPLATE}.initContainers", [{"name": "i"}]),
        (f"{WORKER}.securityContext.privileged", True),
        (f"{WORKER}.securityContext.capabilities.add", ["SYS_ADMIN"]),
        (f"{WORKER}.lifecycle", {"preStop": {}}),
        (f"{WORKER}.envFrom", [{"secretRef": {"name": "s"}}]),
        (f"{TEMPLATE}.volumes", [{"name": "h", "hostPath": {"path": "/"}}]),
        ("spec.manualSelector", True),
    ],
)
def test_a_refused_field_is_named(job, path, value):
    message = refusal(put(job, path, value))
    assert path.split(".")[-1] in message
    assert "--backend kubernetes" in message


@pytest.mark.parametrize("part", ["name", "key"])
@pytest.mark.parametrize("word", ["", "..", "a/b", "/etc"])
def test_a_secret_that_is_no_file_s_name_is_refused(job, part, word):
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"} | {part: word}}}]
    assert f"env[0].valueFrom.secretKeyRef.{part}" in refusal(put(job, f"{WORKER}.env", env))


def test_only_the_chart_s_own_variables_say_where_something_is(job):
    env = [{"name": name, "value": "/shared"} for name in ("JOBCTL_VOLUME", "JOBCTL_TEST_X", "DATA", "HOME")]

    def wired(labels):
        labelled = put(put(job, f"{WORKER}.env", env), "metadata.labels", labels)
        return [variable.name for variable in translate([labelled]).template.container.env if variable.is_wired]

    assert wired({"app.kubernetes.io/name": "jobctl"}) == ["JOBCTL_VOLUME"]
    assert wired({}) == ["JOBCTL_VOLUME", "JOBCTL_TEST_X", "DATA", "HOME"]


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("spec.paralellism", 2, "parallelism"),
        (f"{TEMPLATE}.hostPid", True, "hostPID"),
        (f"{WORKER}.comand", ["x"], "command"),
        ("spec.podFailurePolicy", {"rules": [{"action": "Ignore", "onExitCode": {}}]}, "onExitCodes"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(job, path, value, hint):
    message = refusal(put(job, path, value))
    assert "unknown field" in message
    assert hint in message


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{TEMPLATE}.hostPID", False),
        (f"{TEMPLATE}.initContainers", []),
        (f"{TEMPLATE}.tolerations", None),
        (f"{TEMPLATE}.nodeSelector", {"any": "thing"}),
        (f"{WORKER}.resources", {"limits": {"nvidia.com/gpu": 8}}),
        (f"{WORKER}.securityContext.allowPrivilegeEscalation", False),
    ],
)
def test_harmless_and_ignored_values_change_nothing(job, path, value):
    assert translate([put(job, path, value)]) == translate([job])


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        ("spec.completions", "3", "a whole number"),
        ("spec.completions", 0, "spec.completions"),
        ("spec.completionMode", "NonIndexed", "completionMode"),
        ("spec.podReplacementPolicy", "TerminatingOrFailed", "podReplacementPolicy"),
        ("spec.parallelism", -1, "spec.parallelism"),
        (f"{TEMPLATE}.restartPolicy", "OnFailure", "restartPolicy"),
        (f"{TEMPLATE}.containers", [], "one container"),
        (f"{WORKER}.command", None, "command"),
        (f"{WORKER}.workingDir", "/app", "workingDir"),
        (f"{WORKER}.env", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}], "spec.nope"),
        (f"{WORKER}.volumeMounts", [{"name": "v", "mountPath": "/v"}], "no volume"),
        (f"{TEMPLATE}.volumes", [{"name": "c", "configMap": {"name": "absent"}}], "absent"),
        (f"{TEMPLATE}.volumes", [{"name": "c", "persistentVolumeClaim": {"claimName": "../up"}}], "../up"),
        ("spec.successPolicy", {"rules": [{"succeededIndexes": "7"}]}, "succeededIndexes"),
        ("spec.successPolicy", {"rules": [{}]}, "needs succeededIndexes"),
        ("spec.podFailurePolicy", {"rules": [{"action": "Ignore"}]}, "exactly one"),
        (
            "spec.podFailurePolicy",
            {"rules": [{"action": "Ignore", "onExitCodes": {"operator": "In", "values": [0]}}]},
            "0 isn't allowed",
        ),
    ],
)
def test_what_the_api_server_or_local_cannot_take_is_refused(job, path, value, part):
    assert part in refusal(put(job, path, value))


def test_fail_index_needs_a_limit_per_index(job):
    rules = [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [66]}}]
    document = put(job, "spec.podFailurePolicy", {"rules": rules})
    del document["spec"]["backoffLimitPerIndex"]
    assert "backoffLimitPerIndex" in refusal(document)


def test_other_kinds_and_a_second_job_are_refused(job):
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}
    assert "Deployment (apps/v1)" in refusal(job, deployment)
    assert "one Job" in refusal(job, job)
    assert "clusterIP" in refusal(job, {"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "10.0.0.1"}})


def test_the_published_tables_name_every_field_once():
    document = markdown()
    for table in (JOB, POD, CONTAINER):
        paths = [field.path for field in table]
        assert len(paths) == len(set(paths))
    assert all(f"`{field.path}`" in document for field in JOB)
    assert all(field.note for field in JOB if field.treatment is not Treatment.TRANSLATED)
