"""The CLI with the workers' real program: what they leave on the volume and in their last message is what it shows."""

import json

import pytest


@pytest.fixture(autouse=True)
def _real_workers(home, monkeypatch):
    monkeypatch.delenv("JOBCTL_WORKER_PYTHON")


def test_one_collected_episode_is_shown_with_progress_result_and_files(jobctl, home):
    said = jobctl("submit", "collect", "--name", "one", "--set", "episodes=1", "--wait")
    assert said.status == 0
    job = json.loads(jobctl("status", "one", "-o", "json").out)["job"]
    assert (job["state"], job["progress"]["step"], job["progress"]["steps"]) == ("succeeded", 1, 1)
    assert job["result"]["figures"]["episodes"] == 1
    assert job["result"]["directory"] == str(home / "volumes/shared/runs/one/results/run.000001")
    assert job["replicaStatuses"][0]["attemptsOnVolume"] == 1
    fetched = json.loads(jobctl("results", "one", "--to", "out", "-o", "json").out)["fetched"]
    assert "out/result.json" in fetched


def test_a_worker_s_refusal_is_the_reason_of_the_job(jobctl):
    said = jobctl("submit", "train", "--name", "x", "--data", "datasets/nowhere", "--wait")
    assert said.status == 1
    assert "x: failed: bad data: data: datasets/nowhere does not exist" in said.out
