"""How far a job is, from its pods alone."""

import json

from jobctl.cluster.progress import lines_of_metrics, lines_of_summary
from jobctl.volume import progress_of

SCRAPE = """# HELP jobctl_step Progress
# TYPE jobctl_step gauge
jobctl_step{index="0",kind="train",run="x",task="predictor"} 120.0
jobctl_steps{index="0",kind="train",run="x",task="predictor"} 400.0
jobctl_loss{index="0",kind="train",run="x",task="predictor"} 0.25
jobctl_step_seconds_bucket{index="0",kind="train",le="0.1",run="x",task="predictor"} 20.0
jobctl_step_seconds_count{index="0",kind="train",run="x",task="predictor"} 20.0
jobctl_step_seconds_sum{index="0",kind="train",run="x",task="predictor"} 4.0
process_cpu_seconds_total 3.0
"""


def test_a_scrape_gives_step_total_figures_and_the_rate_of_this_attempt():
    progress = progress_of([lines_of_metrics(SCRAPE, 1000.0)])
    assert progress is not None
    assert (progress.step, progress.steps, progress.steps_per_second, progress.eta_seconds) == (120, 400, 5.0, 56.0)
    assert progress.figures == {"steps": 400.0, "loss": 0.25}


def test_episodes_give_their_rate_by_a_gauge():
    scrape = "jobctl_step 3.0\njobctl_steps 8.0\njobctl_episodes_per_second 0.5\n"
    progress = progress_of([lines_of_metrics(scrape, 1000.0)])
    assert progress is not None
    assert (progress.step, progress.steps_per_second, progress.eta_seconds) == (3, 0.5, 10.0)


def test_a_scrape_without_a_step_or_of_something_else_gives_nothing():
    assert lines_of_metrics("", 1.0) == lines_of_metrics("<html>busy</html>", 1.0) == []
    assert lines_of_metrics("jobctl_step NotANumber\n", 1.0) == []


def test_an_ended_pod_s_last_message_gives_its_figures_without_a_rate():
    message = json.dumps({"code": 0, "reason": "done", "step": 400, "steps": 400, "loss": 0.1})
    progress = progress_of([lines_of_summary({"message": message, "finishedAt": "2026-01-01T00:00:00Z"})])
    assert progress is not None
    assert (progress.step, progress.steps, progress.steps_per_second) == (400, 400, None)
    assert progress.figures == {"steps": 400, "loss": 0.1}


def test_a_last_message_without_a_step_gives_nothing():
    assert lines_of_summary({"message": "Killed", "finishedAt": "2026-01-01T00:00:00Z"}) == []
    assert lines_of_summary({"message": '{"step": 3}'}) == []
