"""What must hold when supervisors, shims, disks and machines fail, and what a command says then."""

import json
import os
import resource
import signal
import subprocess
import time
from datetime import UTC, datetime

import pytest

from jobctl.errors import NotFoundError, RefusedError, UsageError
from jobctl.local.backend import LocalBackend
from jobctl.local.state import Identity, boot_id
from jobctl.status import is_ended, view

SLEEP = "trap 'kill $!; exit 75' TERM; echo up; sleep 60 & wait"
FAMILY = "setsid sh -c 'setsid sleep 61 & sleep 62' & (setsid sleep 63 &) ; sleep 64 & echo up; wait"
ON_VOLUME = {
    "pod": {"volumes": [{"name": "s", "persistentVolumeClaim": {"claimName": "s"}}]},
    "container": {
        "volumeMounts": [{"name": "s", "mountPath": "/s"}],
        "env": [{"name": "S", "value": "/s"}],
    },
}
ATTEMPT = "echo x >> $S/n; n=$(wc -l < $S/n); echo attempt $n; "
TRAINING_RULES = {
    "rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64, 65, 66, 70]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [75, 76, 143]}},
    ]
}


def counts(record):
    return {key: record.job["status"][key] for key in ("active", "succeeded", "failed")}


class TestAKilledSupervisor:
    def test_leaves_no_descendant_and_no_lie(self, home, manifest):
        home.submit("x", manifest(FAMILY, 2))
        home.wait("x", lambda record: home.log("x") == ["up", "up"])
        assert len(home.alive()) >= 11  # supervisor, two shims, two families of at least four
        os.kill(home.supervisor("x"), signal.SIGKILL)
        home.until_empty()
        record = home.gone("x")
        assert (record.controller, counts(record)) == ("gone", {"active": 0, "succeeded": 0, "failed": 0})
        assert [pod["status"]["phase"] for pod in record.pods] == ["Failed", "Failed"]
        assert home.backend.supervisor_pid("x") is None

    def test_is_followed_by_a_new_revision_and_logs_of_both_stay(self, home, manifest):
        home.submit("x", manifest(FAMILY))
        home.said("x", "up")
        os.kill(home.supervisor("x"), signal.SIGKILL)
        home.until_empty()
        home.submit("x", manifest("echo again"), revision=2)
        record = home.end("x")
        assert (record.revision, counts(record)["succeeded"]) == (2, 1)
        assert home.log("x") == ["up", "again"]

    def test_resume_goes_on_with_the_same_job_and_its_pods_count_as_disrupted(self, home, manifest):
        script = ATTEMPT + "test $n = 1 || exit 0; sleep 60"
        home.submit("x", manifest(script, backoffLimitPerIndex=0, podFailurePolicy=TRAINING_RULES, **ON_VOLUME))
        uid = home.said("x", "attempt 1").job["metadata"]["uid"]
        os.kill(home.supervisor("x"), signal.SIGKILL)
        home.gone("x")
        home.backend.resume("x")
        record = home.end("x")
        assert record.job["metadata"]["uid"] == uid
        assert counts(record) == {"active": 0, "succeeded": 1, "failed": 0}
        assert home.log("x") == ["attempt 1", "attempt 2"]

    def test_can_still_be_cancelled_and_deleted(self, home, manifest):
        home.submit("x", manifest(SLEEP))
        home.said("x", "up")
        os.kill(home.supervisor("x"), signal.SIGKILL)
        home.gone("x")
        home.backend.cancel("x")
        record = home.backend.record("x")
        assert (record.cancelled, record.suspended, record.controller) == (True, True, "gone")
        home.backend.delete("x")
        assert home.backend.records() == []
        assert not (home.path / "local" / "x").exists()


def test_a_reboot_reads_as_a_supervisor_that_is_gone(home, manifest):
    home.submit("x", manifest(SLEEP, suspend=True))
    os.kill(home.supervisor("x"), signal.SIGKILL)  # it would write them again
    living = subprocess.Popen(["sleep", "60"])
    files = [*home.path.glob("local/x/*/status.json"), *home.path.glob("local/x/*/pulse.json")]
    for file in files:
        document = json.loads(file.read_text())
        document["supervisor"] |= {**vars(Identity.of(living.pid)), "boot_id": "another boot"}
        file.write_text(json.dumps(document))
    assert home.backend.record("x").controller == "gone"
    for file in files:
        document = json.loads(file.read_text())
        document["supervisor"]["boot_id"] = boot_id()
        file.write_text(json.dumps(document))
    assert home.backend.record("x").controller == "alive"
    living.kill()
    living.wait()
    assert home.backend.record("x").controller == "gone"


def test_a_supervisor_that_is_told_to_end_gives_pods_their_grace_period(home, manifest):
    script = ATTEMPT + "test $n = 1 || exit 0; trap 'echo saved; kill $!; exit 75' TERM; sleep 60 & wait"
    home.submit("x", manifest(script, podFailurePolicy=TRAINING_RULES, backoffLimitPerIndex=0, **ON_VOLUME))
    home.said("x", "attempt 1")
    os.kill(home.supervisor("x"), signal.SIGTERM)
    home.until_empty()
    record = home.gone("x")
    assert (record.controller, home.log("x")) == ("gone", ["attempt 1", "saved"])
    home.backend.resume("x")
    assert counts(home.end("x")) == {"active": 0, "succeeded": 1, "failed": 0}


def test_a_killed_shim_takes_its_pod_along_and_counts_as_a_crash(home, manifest):
    home.submit("x", manifest(FAMILY, backoffLimitPerIndex=0))
    pid = int(home.said("x", "up").pods[0]["metadata"]["annotations"]["jobctl.dev/pid"])
    with open(f"/proc/{pid}/stat") as stat:
        shim = int(stat.read().rpartition(")")[2].split()[1])
    os.kill(shim, signal.SIGKILL)
    record = home.end("x")
    assert counts(record) == {"active": 0, "succeeded": 0, "failed": 1}
    home.until_empty()


class TestSigtermFromOutside:
    SCRIPT = ATTEMPT + "test $n = 1 || exit 0; trap 'kill $!; exit 75' TERM; echo up; sleep 60 & wait"

    def interrupt(self, home, rules, manifest):
        job = manifest(self.SCRIPT, backoffLimitPerIndex=0, podFailurePolicy=rules, **ON_VOLUME)
        home.submit("x", job)
        pid = int(home.said("x", "up").pods[0]["metadata"]["annotations"]["jobctl.dev/pid"])
        os.kill(pid, signal.SIGTERM)
        return home.end("x")

    def test_a_worker_that_says_75_is_ignored_by_the_rule(self, home, manifest):
        record = self.interrupt(home, TRAINING_RULES, manifest)
        assert counts(record) == {"active": 0, "succeeded": 1, "failed": 0}

    def test_an_edited_manifest_that_counts_75_changes_the_outcome(self, home, manifest):
        edited = json.loads(json.dumps(TRAINING_RULES).replace("[75, 76, 143]", "[76, 143]"))
        edited["rules"].append({"action": "Count", "onExitCodes": {"operator": "In", "values": [75]}})
        record = self.interrupt(home, edited, manifest)
        assert counts(record) == {"active": 0, "succeeded": 0, "failed": 1}
        assert record.job["status"]["failedIndexes"] == "0"


def test_a_refused_manifest_starts_nothing(home, manifest):
    job = manifest(SLEEP)
    job[0]["spec"]["template"]["spec"]["hostPID"] = True
    with pytest.raises(RefusedError, match="hostPID"):
        home.submit("x", job)
    assert home.backend.records() == []
    assert not home.path.exists()


def test_a_disk_that_is_full_while_the_state_is_written_loses_nothing(home, manifest):
    home.submit("x", manifest("echo up; until test -e $S/go; do sleep 0.02; done", **ON_VOLUME))
    supervisor = home.supervisor("x")
    home.said("x", "up")
    (log,) = home.path.glob("local/x/*/supervisor.log")
    before = resource.prlimit(supervisor, resource.RLIMIT_FSIZE)
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, (256, before[1]))  # every longer file fails to be written
    (home.backend.volume("s") / "go").touch()
    stale = home.wait("x", lambda record: record.doubt is not None)
    assert (stale.controller, stale.job["status"]["ready"]) == ("alive", 1)
    shown = view(stale, datetime.now(UTC))
    assert (shown.state, is_ended(shown)) == ("unknown", False)
    resource.prlimit(supervisor, resource.RLIMIT_FSIZE, before)
    assert counts(home.end("x")) == {"active": 0, "succeeded": 1, "failed": 0}
    assert "the state is written again, after" in log.read_text()


def test_jobs_that_run_side_by_side_never_share_an_address(home, manifest):
    homes = [home.backend, LocalBackend(home.path / "other")]
    for number, backend in enumerate(homes):
        home_of = type(home)(backend.home)
        home_of.submit(f"x{number}", manifest(SLEEP, 8))
    try:
        addresses = []
        for number, backend in enumerate(homes):
            record = type(home)(backend.home).wait(f"x{number}", lambda r: r.job["status"]["ready"] == 8)
            addresses += [pod["status"]["podIP"] for pod in record.pods]
        assert len(set(addresses)) == 16
        assert all(address.startswith("127.") for address in addresses)
    finally:
        homes[1].delete("x1")


def test_the_back_off_is_published_with_its_scale(home, manifest, monkeypatch):
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", "60")
    home.submit("x", manifest("exit 1", backoffLimitPerIndex=3))
    record = home.wait("x", lambda record: record.job["status"]["failed"] == 1)
    annotations = record.job["metadata"]["annotations"]
    (wait,) = json.loads(annotations["jobctl.dev/backoff"])
    assert (wait["index"], wait["seconds"]) == (0, 600.0)
    assert 0 < wait["until_unix_seconds"] - time.time() <= 600
    assert annotations["jobctl.dev/backoff-scale"] == "60"


def test_a_pod_sees_nothing_of_the_environment_that_jobctl_runs_in(home, manifest, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "hush")
    home.submit("x", manifest("env"))
    home.end("x")
    names = {line.partition("=")[0] for line in home.log("x")}
    assert "SECRET_OF_THE_SHELL" not in names
    assert {"PATH", "HOME", "JOB_COMPLETION_INDEX", "JOBCTL_LEASE_SECONDS"} <= names


def test_empty_dirs_and_config_files_go_with_their_pod(home, manifest):
    pod = {"volumes": [{"name": "tmp", "emptyDir": {}}]}
    container = {
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "env": [{"name": "HOME", "value": "/tmp"}],
    }
    home.submit("x", manifest("echo data > $HOME/file; echo $HOME", pod=pod, container=container))
    home.end("x")
    (directory,) = home.log("x")
    assert directory.startswith(str(home.path))
    assert not os.path.exists(directory)


class TestCommands:
    def test_a_job_that_is_not_there_is_named_with_the_nearest(self, home, manifest):
        home.submit("train", manifest("exit 0"))
        with pytest.raises(NotFoundError, match=r"'trian'.*'train'"):
            home.backend.record("trian")
        for call in (home.backend.suspend, home.backend.cancel, home.backend.resume, home.backend.delete):
            with pytest.raises(NotFoundError):
                call("nope")

    def test_an_ended_job_has_nothing_to_suspend(self, home, manifest):
        home.submit("x", manifest("exit 0"))
        home.end("x")
        with pytest.raises(RefusedError, match="has ended"):
            home.backend.suspend("x")

    def test_a_revision_that_is_not_newer_is_refused_and_the_running_one_goes_on(self, home, manifest):
        home.submit("x", manifest(SLEEP))
        with pytest.raises(RefusedError, match="revision 1 already"):
            home.submit("x", manifest("exit 0"))
        assert home.said("x", "up").controller == "alive"

    def test_names_and_scales_that_make_no_sense_are_usage_errors(self, home, manifest, monkeypatch):
        with pytest.raises(UsageError):
            home.submit("../x", manifest("exit 0"))
        monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", "fast")
        with pytest.raises(UsageError, match="JOBCTL_LOCAL_BACKOFF_SCALE"):
            home.submit("x", manifest("exit 0"))
        assert home.backend.records() == []

    def test_records_of_several_jobs_come_by_name_with_their_values(self, home, manifest):
        for name in ("b", "a"):
            home.submit(name, manifest("exit 0"))
        assert [(record.name, record.values) for record in home.backend.records()] == [
            ("a", {"kind": "train", "gpu": "cpu"}),
            ("b", {"kind": "train", "gpu": "cpu"}),
        ]


ODD = {
    "a pipe": "rm -f {0}; mkfifo {0}",
    "a link to a device": "rm -f {0}; ln -s /dev/zero {0}",
    "a directory": "rm -f {0}; mkdir {0}",
    "a number of 400 digits": 'printf \'{{"step": %400s}}\' 9 | tr " " 9 > {0}',
    "brackets": "head -c 4000 /dev/zero | tr '\\0' '[' > {0}",
}


@pytest.mark.parametrize("what", ODD)
def test_whatever_a_pod_leaves_as_its_last_message_holds_nobody_up(home, manifest, what):
    script = "cd $(dirname $LOG); " + ODD[what].format("termination-log") + "; exit 3"
    container = {"terminationMessagePath": "/dev/log", "env": [{"name": "LOG", "value": "/dev/log"}]}
    home.submit("x", manifest(script, backoffLimitPerIndex=0, container=container))
    record = home.end("x")
    assert counts(record) == {"active": 0, "succeeded": 0, "failed": 1}
    assert view(record, datetime.now(UTC)).state == "failed"


def test_a_command_that_is_none_ends_no_supervisor(home, manifest):
    home.submit("x", manifest(SLEEP))
    home.said("x", "up")
    (revision,) = home.path.glob("local/x/*")
    (revision / "control").mkdir(exist_ok=True)
    for number, text in enumerate(("[", "{}", '{"verb": "explode"}', '{"verb": 7}', '{"verb": "evict", "index": []}')):
        (revision / "control" / f"{number}.json").write_text(text)
    os.mkfifo(revision / "control" / "8.json")
    home.backend.suspend("x")
    assert home.wait("x", lambda record: record.suspended).controller == "alive"


def test_pods_say_which_attempt_they_are(home, manifest):
    home.submit("x", manifest("exit 1", backoffLimitPerIndex=2))
    attempts = [pod["metadata"]["annotations"]["jobctl.dev/attempt"] for pod in home.end("x").pods]
    assert attempts == ["0", "1", "2"]
