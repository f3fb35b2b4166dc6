"""What batch/v1 says of Indexed Jobs, as statements that hold on every backend; `cluster` is what differs."""

import time
from itertools import pairwise
from typing import Any

import pytest
from waiting import wait_for

from jobctl.errors import NotFoundError

SHARED = {
    "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "shared"}}],
    "mounts": [{"name": "shared", "mountPath": "/shared"}],
    "env": [{"name": "SHARED", "value": "/shared"}],
}
ON_VOLUME: dict[str, Any] = {
    "pod": {"volumes": SHARED["volumes"]},
    "container": {"volumeMounts": SHARED["mounts"], "env": SHARED["env"]},
}
SLEEP = "trap 'kill $!; exit 143' TERM; echo up; sleep 60 & wait"
ATTEMPT = 'f=$SHARED/$JOB_COMPLETION_INDEX; echo x >> $f; n=$(wc -l < $f); echo "attempt $n"; '


def condition(record: Any, kind: str) -> dict[str, Any] | None:
    found = [c for c in record.job["status"]["conditions"] if c["type"] == kind and c["status"] == "True"]
    return found[0] if found else None


def outcome(record: Any) -> dict[str, Any]:
    """What matters of an ended Job."""
    status = record.job["status"]
    last = condition(record, "Complete") or condition(record, "Failed")
    kept = {key: status.get(key) for key in ("active", "succeeded", "failed", "completedIndexes", "failedIndexes")}
    return {**kept, "condition": last["type"] if last else None, "reason": last["reason"] if last else None}


def on_exit(action: str, *codes: int, operator: str = "In") -> dict[str, Any]:
    return {"action": action, "onExitCodes": {"containerName": "worker", "operator": operator, "values": [*codes]}}


def ended(**changes: Any) -> dict[str, Any]:
    expected = {
        "active": 0,
        "succeeded": 0,
        "failed": 0,
        "completedIndexes": "",
        "failedIndexes": "",
        "condition": "Failed",
        "reason": "FailedIndexes",
    }
    return {**expected, **changes}


COMPLETE = {"condition": "Complete", "reason": "CompletionsReached"}


class TestCompletion:
    def test_a_job_is_complete_when_every_index_has_succeeded(self, cluster, manifest):
        cluster.submit("done", manifest("echo $JOB_COMPLETION_INDEX", 4, backoffLimitPerIndex=0))
        record = cluster.end("done")
        assert outcome(record) == ended(succeeded=4, completedIndexes="0-3", **COMPLETE)
        assert record.job["status"]["completionTime"] >= record.job["status"]["startTime"]
        assert sorted(cluster.log("done")) == ["0", "1", "2", "3"]

    def test_parallelism_bounds_the_pods_that_run_at_once_and_low_indexes_go_first(self, cluster, manifest):
        script = "echo in $JOB_COMPLETION_INDEX >> $SHARED/log; sleep 0.1; echo out >> $SHARED/log"
        cluster.submit("one", manifest(script, 3, parallelism=1, **ON_VOLUME))
        cluster.end("one")
        lines = (cluster.volume("shared") / "log").read_text().split("\n")[:-1]
        assert lines == ["in 0", "out", "in 1", "out", "in 2", "out"]

    def test_what_a_container_leaves_running_ends_with_it(self, cluster, manifest):
        child = "setsid sh -c 'while sleep 0.01; do echo alive >> $SHARED/log; done'"
        script = f"{child} & until test -s $SHARED/log; do sleep 0.01; done; exit 0"
        cluster.submit("orphan", manifest(script, **ON_VOLUME))
        assert outcome(cluster.end("orphan"))["condition"] == "Complete"
        said = (cluster.volume("shared") / "log").read_text()
        assert said
        time.sleep(0.2)
        assert (cluster.volume("shared") / "log").read_text() == said

    def test_a_program_that_cannot_be_started_is_a_failure_that_says_so(self, cluster, manifest):
        job = manifest("", backoffLimitPerIndex=0, container={"command": ["/no/such/program"]})
        cluster.submit("absent", job)
        record = cluster.end("absent")
        terminated = record.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]
        assert terminated["reason"] == "StartError"
        assert terminated["exitCode"] == 128


class TestRetries:
    def test_an_index_that_uses_up_its_budget_fails_and_the_others_go_on(self, cluster, manifest):
        cluster.submit("budget", manifest("exit $JOB_COMPLETION_INDEX", 2, backoffLimitPerIndex=2))
        record = cluster.end("budget")
        assert outcome(record) == ended(succeeded=1, failed=3, completedIndexes="0", failedIndexes="1")

    def test_a_retried_index_may_still_succeed(self, cluster, manifest):
        cluster.submit("again", manifest(ATTEMPT + "test $n = 3", backoffLimitPerIndex=2, **ON_VOLUME))
        assert outcome(cluster.end("again")) == ended(succeeded=1, failed=2, completedIndexes="0", **COMPLETE)

    def test_a_limit_for_the_whole_job_counts_all_failed_pods(self, cluster, manifest):
        cluster.submit("whole", manifest("exit 3", backoffLimit=1))
        record = cluster.end("whole")
        assert outcome(record) == ended(failed=2, failedIndexes=None, reason="BackoffLimitExceeded")

    def test_more_failed_indexes_than_allowed_end_the_job_at_once(self, cluster, manifest):
        script = f"test $JOB_COMPLETION_INDEX = 1 && exit 5; {SLEEP}"
        cluster.submit("many", manifest(script, 3, backoffLimitPerIndex=0, maxFailedIndexes=0))
        record = cluster.end("many")
        assert outcome(record) == ended(failed=3, failedIndexes="1", reason="MaxFailedIndexesExceeded")

    def test_the_wait_doubles_with_every_failure_of_an_index(self, cluster, manifest):
        script = "date +%s.%N >> $SHARED/times; exit 1"
        cluster.submit("wait", manifest(script, backoffLimitPerIndex=3, **ON_VOLUME))
        cluster.end("wait")
        times = [float(line) for line in (cluster.volume("shared") / "times").read_text().split()]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        waits = [10 * 2**n * cluster.backoff_scale - cluster.clock_seconds for n in range(3)]
        assert [gap >= wait for gap, wait in zip(gaps, waits, strict=True)] == [True, True, True]


class TestPodFailurePolicy:
    def test_fail_job_ends_the_whole_job(self, cluster, manifest):
        script = f"test $JOB_COMPLETION_INDEX = 1 && exit 64; {SLEEP}"
        policy = {"rules": [on_exit("FailJob", 64, 65)]}
        cluster.submit("failjob", manifest(script, 2, backoffLimitPerIndex=3, podFailurePolicy=policy))
        record = cluster.end("failjob")
        assert outcome(record) | {"failedIndexes": ""} == ended(failed=2, reason="PodFailurePolicy")
        assert "exit code 64 matching FailJob rule at index 0" in condition(record, "Failed")["message"]

    def test_fail_index_spares_the_others_and_is_never_retried(self, cluster, manifest):
        policy = {"rules": [on_exit("FailIndex", 66)]}
        script = "test $JOB_COMPLETION_INDEX = 1 && exit 66; exit 0"
        cluster.submit("failindex", manifest(script, 2, backoffLimitPerIndex=3, podFailurePolicy=policy))
        record = cluster.end("failindex")
        assert outcome(record) == ended(succeeded=1, failed=1, completedIndexes="0", failedIndexes="1")

    def test_ignored_failures_are_retried_without_end_and_not_counted(self, cluster, manifest):
        policy = {"rules": [on_exit("Ignore", 75)]}
        job = manifest(ATTEMPT + "test $n = 4 || exit 75", backoffLimitPerIndex=0, podFailurePolicy=policy, **ON_VOLUME)
        cluster.submit("ignore", job)
        assert outcome(cluster.end("ignore")) == ended(succeeded=1, completedIndexes="0", **COMPLETE)

    def test_count_takes_from_the_budget(self, cluster, manifest):
        policy = {"rules": [on_exit("Count", 75), on_exit("Ignore", 75)]}
        job = manifest(ATTEMPT + "test $n = 4 || exit 75", backoffLimitPerIndex=1, podFailurePolicy=policy, **ON_VOLUME)
        cluster.submit("count", job)
        assert outcome(cluster.end("count")) == ended(failed=2, failedIndexes="0")

    def test_not_in_matches_every_other_failure(self, cluster, manifest):
        policy = {"rules": [on_exit("FailIndex", 1, 2, operator="NotIn")]}
        cluster.submit("notin", manifest("exit 3", backoffLimitPerIndex=3, podFailurePolicy=policy))
        assert outcome(cluster.end("notin")) == ended(failed=1, failedIndexes="0")

    def test_a_disrupted_pod_is_ignored_by_its_condition_whatever_its_exit_code(self, cluster, manifest):
        policy = {
            "rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                on_exit("FailJob", 9),
            ]
        }
        script = ATTEMPT + "test $n = 2 && exit 0; trap 'kill $!; exit 9' TERM; echo up; sleep 60 & wait"
        cluster.submit("evicted", manifest(script, backoffLimitPerIndex=0, podFailurePolicy=policy, **ON_VOLUME))
        cluster.said("evicted", "up")
        cluster.evict("evicted", 0)
        assert outcome(cluster.end("evicted")) == ended(succeeded=1, completedIndexes="0", **COMPLETE)


class TestSuccessPolicy:
    def test_the_named_index_decides_and_the_others_are_told_to_end(self, cluster, manifest):
        script = f"test $JOB_COMPLETION_INDEX = 0 && exec sleep 0.3; {SLEEP}"
        policy = {"rules": [{"succeededIndexes": "0"}]}
        job = manifest(script, 3, backoffLimitPerIndex=0, maxFailedIndexes=0, successPolicy=policy)
        cluster.submit("leader", job)
        record = cluster.end("leader")
        assert outcome(record) == ended(succeeded=1, completedIndexes="0", condition="Complete", reason="SuccessPolicy")
        assert condition(record, "SuccessCriteriaMet")["message"] == "Matched rules at index 0"

    def test_a_count_of_succeeded_indexes_is_enough(self, cluster, manifest):
        script = f"test $JOB_COMPLETION_INDEX -lt 2 && exit 0; {SLEEP}"
        cluster.submit("two", manifest(script, 4, successPolicy={"rules": [{"succeededCount": 2}]}))
        record = cluster.end("two")
        assert outcome(record)["completedIndexes"] == "0,1"
        assert outcome(record)["reason"] == "SuccessPolicy"


class TestSuspend:
    def test_suspending_ends_pods_uncounted_and_resuming_starts_them_again(self, cluster, manifest):
        script = ATTEMPT + "test $n = 2 && exit 0; trap 'kill $!; exit 1' TERM; echo up; sleep 60 & wait"
        cluster.submit("pause", manifest(script, backoffLimitPerIndex=0, **ON_VOLUME))
        cluster.said("pause", "up")
        cluster.backend.suspend("pause")
        status = cluster.wait("pause", lambda r: condition(r, "Suspended")).job["status"]
        record = cluster.wait("pause", lambda r: r.job["status"]["terminating"] == r.job["status"]["active"] == 0)
        assert (record.suspended, status["active"], status["failed"]) == (True, 0, 0)
        assert "startTime" not in record.job["status"]
        assert condition(record, "Suspended")["reason"] == "JobSuspended"
        cluster.backend.resume("pause")
        assert outcome(cluster.end("pause")) == ended(succeeded=1, completedIndexes="0", **COMPLETE)

    def test_a_job_created_suspended_waits_for_resume(self, cluster, manifest):
        cluster.submit("later", manifest("exit 0", suspend=True))
        time.sleep(0.3)
        record = cluster.record("later")
        assert (record.suspended, record.pods) == (True, [])
        assert condition(record, "Suspended") is not None
        cluster.backend.resume("later")
        assert outcome(cluster.end("later"))["condition"] == "Complete"


class TestCancelAndDelete:
    def test_cancel_suspends_and_marks_and_resume_clears_both(self, cluster, manifest):
        cluster.submit("stop", manifest(SLEEP))
        cluster.said("stop", "up")
        cluster.backend.cancel("stop")
        record = cluster.wait("stop", lambda r: r.job["status"]["terminating"] == r.job["status"]["active"] == 0)
        assert (record.suspended, record.cancelled, record.job["status"]["active"]) == (True, True, 0)
        cluster.backend.resume("stop")
        record = cluster.running("stop")
        assert (record.suspended, record.cancelled) == (False, False)

    def test_following_the_logs_of_a_cancelled_job_ends(self, cluster, manifest):
        cluster.submit("quiet", manifest(SLEEP))
        cluster.said("quiet", "up")
        lines = iter(cluster.backend.logs("quiet", None, follow=True))
        assert next(lines).text == "up"
        cluster.backend.cancel("quiet")
        assert list(lines) == []

    def test_delete_ends_the_pods_and_keeps_the_volume(self, cluster, manifest):
        script = "trap 'echo bye > $SHARED/bye; kill $!; exit 75' TERM; echo up; sleep 60 & wait"
        cluster.submit("gone", manifest(script, **ON_VOLUME))
        cluster.said("gone", "up")
        cluster.backend.delete("gone")
        with pytest.raises(NotFoundError):
            cluster.record("gone")
        wait_for("its pods have ended", lambda: not cluster.alive(), 10 * cluster.patience, cluster.alive)
        assert (cluster.volume("shared") / "bye").read_text() == "bye\n"

    def test_a_name_is_free_again_after_delete(self, cluster, manifest):
        cluster.submit("same", manifest(SLEEP))
        cluster.backend.delete("same")
        cluster.submit("same", manifest("exit 0"))
        assert outcome(cluster.end("same"))["condition"] == "Complete"

    def test_a_new_revision_replaces_the_older_one(self, cluster, manifest):
        cluster.submit("twice", manifest(SLEEP))
        cluster.said("twice", "up")
        cluster.submit("twice", manifest("echo second"), revision=2)
        record = cluster.end("twice")
        assert (record.revision, outcome(record)["condition"]) == (2, "Complete")
        assert cluster.log("twice") == ["up"] * cluster.keeps_logs_of_removed_pods + ["second"]


class TestGracePeriodAndDeadline:
    def test_a_pod_that_ignores_sigterm_is_killed_after_the_grace_period(self, cluster, manifest):
        script = "trap 'touch $SHARED/told' TERM; echo up; while :; do sleep 0.1; done"
        pod = {"terminationGracePeriodSeconds": 1, **ON_VOLUME["pod"]}
        policy = {"rules": [on_exit("FailJob", 137)]}
        job = manifest(
            script, pod=pod, container=ON_VOLUME["container"], backoffLimitPerIndex=0, podFailurePolicy=policy
        )
        cluster.submit("deaf", job)
        cluster.said("deaf", "up")
        cluster.evict("deaf", 0)
        record = cluster.end("deaf")
        assert outcome(record)["reason"] == "PodFailurePolicy"  # which asks for 137, not for the 143 of who obeys
        assert (cluster.volume("shared") / "told").exists()

    def test_a_pod_may_use_its_grace_period(self, cluster, manifest):
        script = "trap 'kill $!; sleep 0.5; exit 0' TERM; echo up; sleep 60 & wait"
        cluster.submit("saves", manifest(script))
        cluster.said("saves", "up")
        cluster.evict("saves", 0)
        assert outcome(cluster.end("saves"))["condition"] == "Complete"

    def test_a_job_that_is_active_too_long_fails(self, cluster, manifest):
        cluster.submit("late", manifest(SLEEP, backoffLimitPerIndex=3, activeDeadlineSeconds=1))
        record = cluster.end("late")
        assert outcome(record) == ended(failed=1, reason="DeadlineExceeded")


class TestEnvironment:
    def test_variables_are_expanded_and_the_downward_api_answers(self, cluster, manifest):
        def field(name: str, path: str) -> dict[str, Any]:
            return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}

        env = [
            {"name": "PLAIN", "value": "a"},
            {"name": "JOINED", "value": "$(PLAIN)-$(LATER)-$$(PLAIN)"},
            {"name": "LATER", "value": "b"},
            field("POD", "metadata.name"),
            field("POD_UID", "metadata.uid"),
            field("NAMESPACE", "metadata.namespace"),
            field("IP", "status.podIP"),
            field("TEAM", "metadata.labels['example.com/team']"),
            field("NOTE", "metadata.annotations['example.com/note']"),
            field("JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']"),
            field("INDEX", "metadata.annotations['batch.kubernetes.io/job-completion-index']"),
        ]
        names = "PLAIN JOINED POD POD_UID NAMESPACE IP TEAM NOTE JOB_UID INDEX JOB_COMPLETION_INDEX"
        script = f'for name in {names}; do echo "$name=$(printenv $name)"; done; echo "$@"'
        container = {"env": env, "args": ["sh", "$(PLAIN)$(LATER)", "$(NOPE)"]}
        metadata = {"labels": {"example.com/team": "red"}, "annotations": {"example.com/note": "hello"}}
        cluster.submit("env", manifest(script, container=container, template={"metadata": metadata}))
        record = cluster.end("env")
        pod, job = record.pods[0], record.job
        assert cluster.log("env") == [
            "PLAIN=a",
            "JOINED=a-$(LATER)-$(PLAIN)",
            f"POD={pod['metadata']['name']}",
            f"POD_UID={pod['metadata']['uid']}",
            f"NAMESPACE={cluster.namespace}",
            f"IP={pod['status']['podIP']}",
            "TEAM=red",
            "NOTE=hello",
            f"JOB_UID={job['metadata']['uid']}",
            "INDEX=0",
            "JOB_COMPLETION_INDEX=0",
            "ab $(NOPE)",
        ]

    @pytest.mark.local_only("a cluster gives every attempt a new address; the name of the Service is what stays")
    def test_peers_have_addresses_of_their_own_that_stay_over_attempts(self, cluster, manifest):
        env = [
            {"name": "LEADER", "value": "group-r1-0.group:29400"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
        policy = {"rules": [on_exit("Ignore", 75)]}
        script = ATTEMPT + 'echo "$IP $LEADER"; test $n = 2 || exit 75'
        job = manifest(
            script,
            2,
            backoffLimitPerIndex=0,
            podFailurePolicy=policy,
            pod={"subdomain": "group", **ON_VOLUME["pod"]},
            container={"env": [*SHARED["env"], *env], "volumeMounts": SHARED["mounts"]},
        )
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "group"},
            "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {}},
        }
        cluster.submit("group", job, service)
        record = cluster.end("group")
        addresses = {int(p["metadata"]["name"].split("-")[2]): p["status"]["podIP"] for p in record.pods}
        assert addresses[0] != addresses[1]
        for index in (0, 1):
            lines = [line for line in cluster.log("group", index) if not line.startswith("attempt")]
            assert lines == [f"{addresses[index]} {addresses[0]}:29400"] * 2


class TestVolumes:
    def test_a_claim_outlives_the_job_and_is_shared_by_its_pods(self, cluster, manifest):
        cluster.submit("write", manifest("echo data > $SHARED/$JOB_COMPLETION_INDEX", 2, **ON_VOLUME))
        cluster.end("write")
        cluster.backend.delete("write")
        cluster.submit("read", manifest("cat $SHARED/0 $SHARED/1", **ON_VOLUME))
        cluster.end("read")
        assert cluster.log("read") == ["data", "data"]

    def test_an_empty_dir_is_new_for_every_pod(self, cluster, manifest):
        script = ATTEMPT + "ls -A $SCRATCH; echo x > $SCRATCH/left; test $n = 2"
        job = manifest(
            script,
            backoffLimitPerIndex=1,
            pod={"volumes": [*SHARED["volumes"], {"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]},
            container={
                "volumeMounts": [*SHARED["mounts"], {"name": "scratch", "mountPath": "/scratch"}],
                "env": [*SHARED["env"], {"name": "SCRATCH", "value": "/scratch"}],
            },
        )
        cluster.submit("scratch", job)
        assert outcome(cluster.end("scratch"))["condition"] == "Complete"
        assert cluster.log("scratch") == ["attempt 1", "attempt 2"]

    def test_a_config_map_is_files(self, cluster, manifest):
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"config.json": "{}\n"}}
        job = manifest(
            "cat $CONFIG; stat -L -c %A $CONFIG",
            pod={"volumes": [{"name": "config", "configMap": {"name": "c", "defaultMode": 0o444}}]},
            container={
                "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
                "env": [{"name": "CONFIG", "value": "/etc/config/config.json"}],
            },
        )
        cluster.submit("config", job, config)
        cluster.end("config")
        assert cluster.log("config") == ["{}", "-r--r--r--"]


class TestLogsAndMessages:
    def test_logs_of_all_attempts_stay_after_the_end_oldest_first(self, cluster, manifest):
        script = ATTEMPT + "sleep 0.1; echo problem >&2; test $n = 3"
        cluster.submit("logs", manifest(script, backoffLimitPerIndex=2, **ON_VOLUME))
        cluster.end("logs")
        assert cluster.log("logs", 0) == [
            "attempt 1",
            "problem",
            "attempt 2",
            "problem",
            "attempt 3",
            "problem",
        ]

    def test_following_ends_with_the_job_and_misses_nothing(self, cluster, manifest):
        script = "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done; printf unfinished"
        cluster.submit("follow", manifest(script, 2))
        lines = list(cluster.backend.logs("follow", None, follow=True))
        expected = ["1", "2", "3", "4", "5", "unfinished"]
        assert [line.text for line in lines if line.index == 0] == expected
        assert [line.text for line in lines if line.index == 1] == expected
        assert cluster.record("follow").controller == "finished"

    def test_a_replica_that_is_not_there_is_named(self, cluster, manifest):
        cluster.submit("few", manifest("exit 0", 2))
        with pytest.raises(NotFoundError, match="no replica 7"):
            list(cluster.backend.logs("few", 7, follow=False))

    def test_the_termination_message_is_what_the_container_wrote(self, cluster, manifest):
        env = [{"name": "JOBCTL_TERMINATION_LOG", "value": "/dev/termination-log"}]
        script = 'printf "%5000s" x | tr " " y > $JOBCTL_TERMINATION_LOG; exit 7'  # 4999 y and an x
        cluster.submit("message", manifest(script, backoffLimitPerIndex=0, container={"env": env}))
        record = cluster.end("message")
        terminated = record.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (terminated["exitCode"], terminated["reason"]) == (7, "Error")
        assert terminated["message"] == "y" * 4095 + "x"
