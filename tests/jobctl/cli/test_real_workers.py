"""The CLI with the workers' real program: what they leave on the volume and in their last message is what it shows."""

import json
from pathlib import Path

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

    listed = json.loads(jobctl("data", "list", "-o", "json").out)
    assert (listed["data"], [episode["episode"] for episode in listed["episodes"]]) == ("datasets/one", [0])
    shown = jobctl("data", "show", "0", "--to", "episode.png")
    assert (shown.status, shown.out.splitlines()[0].startswith("datasets/one, episode 0: ")) == (0, True)
    assert Path("episode.png").read_bytes().startswith(b"\x89PNG")
    missing = jobctl("data", "show", "1")
    assert (missing.status, missing.error) == (3, "error: datasets/one has no episode 1, but 1 from 0 to 0")
    assert not Path("episode-000001.png").exists()
    assert jobctl("data", "show", "0", "--to", "gone/episode.png").status == 2

    chunk = home / "volumes/shared/datasets/one/episodes/000000.000001/signals/c.0.0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    damaged = jobctl("data", "show", "0", "--to", "damaged.png")
    assert damaged.status != 0 and "jobctl retry one" in damaged.error
    assert jobctl("retry", "one", "--wait").status == 0
    assert jobctl("data", "show", "0", "--to", "again.png").status == 0
    assert Path("again.png").read_bytes() == Path("episode.png").read_bytes()


def test_a_worker_s_refusal_is_the_reason_of_the_job(jobctl):
    said = jobctl("submit", "train", "--name", "x", "--data", "datasets/nowhere", "--wait")
    assert said.status == 1
    assert "x: failed: bad data: data: datasets/nowhere does not exist" in said.out
