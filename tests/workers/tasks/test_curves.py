"""The curve of a run is that of the steps which count, whatever was trained twice."""

import json
from pathlib import Path

import pytest

from workers.tasks.curves import draw_training, history


def write(run_dir: Path, fence: int, *lines: dict) -> None:
    (run_dir / "metrics").mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run_dir / "metrics" / f"0.{fence:06d}.jsonl").write_text(text)


def test_where_attempts_overlap_the_later_one_counts(tmp_path):
    write(tmp_path, 1, {"step": 10, "loss": 3}, {"step": 20, "loss": 2}, {"step": 35, "loss": 9})
    write(tmp_path, 2, {"step": 20, "loss": 2.5}, {"step": 30, "loss": 1})

    assert [(line["step"], line["loss"]) for line in history(tmp_path)] == [(10, 3), (20, 2.5), (30, 1)]


def test_a_line_cut_by_a_kill_is_left_out_and_other_indexes_do_not_mix(tmp_path):
    write(tmp_path, 1, {"step": 10, "loss": 3})
    with (tmp_path / "metrics" / "0.000001.jsonl").open("a") as file:
        file.write('{"step": 20, "lo')
    (tmp_path / "metrics" / "1.000001.jsonl").write_text('{"step": 15, "loss": 7}\n')

    assert history(tmp_path) == [{"step": 10, "loss": 3}]


def test_a_run_without_lines_has_no_history(tmp_path):
    assert history(tmp_path) == []


LONG = '{"step": %s}' % ("9" * 400)


@pytest.mark.parametrize(
    "line",
    ["7", "[]", '{"loss": 1}', '{"step": null}', '{"step": true}', '{"step": "10"}', LONG, "[" * 9999],
)
def test_a_line_that_is_none_of_ours_is_left_out(tmp_path, line):
    write(tmp_path, 1, {"step": 10, "loss": 3})
    with (tmp_path / "metrics" / "0.000001.jsonl").open("a") as file:
        file.write(f"{line}\n\xff\n")

    assert history(tmp_path) == [{"step": 10, "loss": 3}]


def test_what_is_no_number_is_not_drawn(tmp_path):
    write(tmp_path, 1, {"step": 10, "loss": "high"}, {"step": 20, "loss": [1]}, {"step": 30, "loss": float("inf")})

    draw_training(tmp_path, tmp_path)

    assert (tmp_path / "plots" / "training.png").read_bytes().startswith(b"\x89PNG")
