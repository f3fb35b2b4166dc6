"""What `jobctl data` makes of a worker's answer: volume and image may be anybody's."""

import base64
import json
import sys

import pytest

PNG = b"\x89PNG\r\n\x1a\n" + b"rest"
EPISODE = {"episode": 3, "outcome": "success", "steps": 20, "perturbed": True, "seed": 7}
LIST = {"schema": "jobctl.data/v1", "data": "datasets/x", "complete": True, "episodes": [EPISODE]}
SHOW = {
    "schema": "jobctl.data/v1",
    "data": "datasets/x",
    "episode": EPISODE | {"seconds": 2.0},
    "signals": {"force": {"unit": "N", "min": 0.0, "mean": 1.0, "max": 2.0}},
    "positive_timesteps": {"drop": {"6": 2, "9": 0}},
    "picture": base64.b64encode(PNG).decode(),
}


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Have the worker answer with this document, or this text."""
    worker = tmp_path / "worker"

    def answer(said):
        (tmp_path / "answer").write_text(said if isinstance(said, str) else json.dumps(said))
        worker.write_text(f"#!{sys.executable}\nprint(open({str(tmp_path / 'answer')!r}).read())\n")
        worker.chmod(0o755)
        monkeypatch.setenv("JOBCTL_WORKER_PYTHON", str(worker))

    return answer


def test_an_episode_is_drawn_once_and_replaced_only_where_that_is_said(jobctl, answers, tmp_path):
    answers(SHOW)
    said = jobctl("data", "show", "3")
    assert (said.status, (tmp_path / "episode-000003.png").read_bytes()) == (0, PNG)
    lines = said.out.splitlines()
    assert lines[0] == "datasets/x, episode 3: success after 20 timesteps (2.00 s), perturbed, seed 7"
    assert "positive timesteps of drop: 2 within 6 timesteps, 0 within 9 timesteps" in lines
    (tmp_path / "episode-000003.png").write_text("mine")
    again = jobctl("data", "show", "3")
    assert (again.status, "episode-000003.png is there already" in again.error) == (2, True)
    assert (tmp_path / "episode-000003.png").read_text() == "mine"
    (tmp_path / "link.png").symlink_to("elsewhere.png")
    assert jobctl("data", "show", "3", "--to", "link.png").status == 2
    for target in ("episode-000003.png", "link.png"):
        assert jobctl("data", "show", "3", "--to", target, "--force").status == 0
        assert (tmp_path / target).read_bytes() == PNG
    assert not (tmp_path / "elsewhere.png").exists()


def test_episodes_are_listed(jobctl, answers):
    answers(LIST)
    said = jobctl("data", "list")
    assert said.out.splitlines()[0] == "datasets/x: 1 episodes (1 success)"
    assert said.out.splitlines()[-1].split() == ["3", "success", "20", "yes", "7"]


ODD = {
    "brackets": "[" * 4000,
    "another form": {"schema": "other"},
    "no picture": SHOW | {"picture": None},
    "a picture that is none": SHOW | {"picture": "bm9uZQ=="},
    "a picture in no encoding": SHOW | {"picture": "\x1b[31m"},
}


@pytest.mark.parametrize("what", ODD)
def test_an_answer_that_is_none_is_one_sentence_and_writes_nothing(what, jobctl, answers, tmp_path):
    answers(ODD[what])
    said = jobctl("data", "show", "3")
    assert (said.status, len(said.error.splitlines()), "Traceback" in said.err) == (1, 1, False)
    assert not list(tmp_path.glob("*.png"))


def test_an_answer_of_other_types_is_shown_as_far_as_it_goes(jobctl, answers):
    answers(LIST | {"episodes": [7, {}, {"episode": [], "outcome": "\x1b[31m", "steps": {}}], "data": 5})
    said = jobctl("data", "list")
    assert said.status == 0 and "\x1b" not in said.out
    answers(SHOW | {"episode": [], "signals": {"\x1b": 7, "force": {"min": "x"}}, "positive_timesteps": {"a": [1]}})
    said = jobctl("data", "show", "3")
    assert said.status == 0 and "\x1b" not in said.out
