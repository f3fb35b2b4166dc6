"""list and status. Pods run fake_worker.py, everything else is real."""

import json

import yaml
from held import hold_at

TRAIN = ("train", "--name", "x", "--data", "datasets/x")


def test_status_of_a_finished_job_is_whole(jobctl, home):
    jobctl("submit", *TRAIN, "--wait")
    document = json.loads(jobctl("status", "x", "-o", "json").out)
    job = document["job"]
    times = {key: job.pop(key) for key in ("createdAt", "startedAt", "finishedAt")}
    replica = job["replicaStatuses"][0]
    pod, pid, address = replica.pop("pod"), replica.pop("pid"), replica.pop("address")
    progress = job["progress"]
    moment, rate = progress.pop("updatedUnixSeconds"), progress.pop("stepsPerSecond")
    directory = home / "volumes/shared/runs/x/results/0.000001"
    assert document == {
        "backend": {"name": "local", "home": str(home)},
        "job": {
            "name": "x",
            "state": "succeeded",
            "reason": "done",
            "kind": "train",
            "task": "predictor",
            "gpu": "cpu",
            "replicas": 1,
            "revision": 1,
            "specHash": job["specHash"],
            "progress": {"step": 3, "steps": 3, "etaSeconds": None, "figures": {"steps": 3, "loss": 1 / 3}},
            "controller": "finished",
            "replicaStatuses": [
                {
                    "index": 0,
                    "phase": "Succeeded",
                    "exitCode": 0,
                    "attempts": 1,
                    "attemptsOnVolume": 1,
                    "metricsUrl": None,
                    "message": "done",
                }
            ],
            "backoffs": [],
            "result": {
                "exitCode": 0,
                "reason": "done",
                "figures": {"f1": 0.41},
                "directory": str(directory),
                "plots": [str(directory / "plots/curve.png")],
                "reports": [str(directory / "report.html")],
            },
            "next": ["jobctl results x"],
        },
    }
    assert all(text.endswith("Z") for text in times.values()) and times["createdAt"] <= times["finishedAt"]
    assert pod.startswith("x-r1-0-") and pid > 1 and address.startswith("127.")
    assert moment > 0 and rate > 0


def test_yaml_says_the_same_as_json(jobctl):
    jobctl("submit", *TRAIN, "--wait")
    for command in (("status", "x"), ("list",), ("results", "x"), ("profiles",), ("wait", "x")):
        as_yaml, as_json = jobctl(*command, "-o", "yaml"), jobctl(*command, "-o", "json")
        assert as_yaml.status == as_json.status == 0
        assert yaml.safe_load(as_yaml.out) == json.loads(as_json.out)
        assert json.loads(as_json.out)["backend"]["name"] == "local"


def test_the_table_of_status_names_state_progress_replica_result_and_what_is_next(jobctl, home):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("status", "x")
    for part in ("state:    succeeded: done", f"backend:  local {home}", "step 3/3 (100 %)", "x-r1-0-", "f1", "0.41"):
        assert part in said.out
    assert said.out.endswith("next: jobctl results x\n")
    assert said.err == f"backend: local ({home})\n"


def test_status_of_a_running_job_has_the_pid_address_and_metrics_of_its_replica(jobctl, eventually):
    jobctl("submit", *TRAIN, "--set", "env.FAKE_STEPS=600", hold_at(5))

    def job():
        return json.loads(jobctl("status", "x", "-o", "json").out)["job"]

    eventually(lambda: job()["progress"] and job()["progress"]["etaSeconds"])
    seen = job()
    replica = seen["replicaStatuses"][0]
    assert (seen["state"], seen["result"], replica["phase"]) == ("running", None, "Running")
    assert replica["metricsUrl"] == f"http://{replica['address']}:9400/metrics"
    assert seen["progress"]["steps"] == 600
    assert seen["next"] == ["jobctl logs -f x", "jobctl wait x"]


def test_status_names_the_back_off_and_its_seconds(jobctl, monkeypatch, eventually):
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", "2")
    jobctl("submit", *TRAIN, "--set", "env.FAKE_EXIT=1", "--set", "env.FAKE_REASON=no luck")
    eventually(lambda: "recovering" in jobctl("status", "x").out)
    said = jobctl("status", "x")
    assert (
        "in the Job controller's back-off (10 s, scaled ×2 on the local backend) after: no luck (exit code 1)"
        in said.out
    )
    assert "of 20 s left" in said.out
    assert said.out.endswith("next: jobctl logs x · jobctl retry x\n")


def test_list_shows_every_job_the_newest_first_and_can_be_narrowed(jobctl):
    assert jobctl("list").out == "No jobs. `jobctl submit --help` says how to start one.\n"
    jobctl("submit", *TRAIN, "--wait")
    jobctl("submit", "eval", "--name", "judge", "--data", "d", "--from", "x", "--set", "env.FAKE_EXIT=66", "--wait")
    listed = json.loads(jobctl("list", "-o", "json").out)
    assert [(job["name"], job["state"]) for job in listed["jobs"]] == [("judge", "failed"), ("x", "succeeded")]
    failed = json.loads(jobctl("list", "--state", "failed", "-o", "json").out)
    assert [job["name"] for job in failed["jobs"]] == ["judge"]
    table = jobctl("list").out.splitlines()
    assert table[0].split() == ["NAME", "KIND", "GPU", "REPLICAS", "STATE", "PROGRESS", "REASON"]
    assert [line.split()[0] for line in table[2:]] == ["judge", "x"]


def test_a_result_of_an_earlier_failure_is_not_shown_as_this_job_s_own(jobctl, eventually):
    spec = (*TRAIN, "--set", "env.FAKE_EXIT=66")
    jobctl("submit", *spec, "--wait")
    jobctl("submit", *spec, "--wait")
    result = json.loads(jobctl("status", "x", "-o", "json").out)["job"]["result"]
    assert result["directory"].endswith("/0.000002")


def test_profiles_are_those_of_the_chart(jobctl):
    document = json.loads(jobctl("profiles", "-o", "json").out)
    names = {profile["name"]: profile for profile in document["profiles"]}
    assert {"cpu", "a10g", "a100"} <= names.keys()
    assert names["cpu"]["gpuMemoryGiB"] is None
    assert (names["cpu"]["cpuShareMillicores"], names["cpu"]["hostMemoryMiB"]) == (400, 0)
    assert "NVIDIA A10G" in jobctl("profiles").out
