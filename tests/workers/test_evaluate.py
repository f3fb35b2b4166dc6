"""Evaluation: on episodes that no training saw, beside baselines, merged by whoever sees all parts, judged by gates."""

import dataclasses
import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from full_disk import fill_once

from workers import __version__, checkpoint, evaluate, results, storage, train
from workers.config import Config
from workers.episodes import ledger, reader
from workers.episodes.schema import SCHEMA
from workers.episodes.split import split_of
from workers.errors import BadConfigError, BadDataError, GateMissedError, InterruptedRun
from workers.lease import Lease
from workers.runtime import Runtime

MET = {"f1": 0.3, "recall_horizon_6": 0.1, "alarmed_share_at_0_5": 0.1}
QUICK = {"bootstrap": 200, "baselines": ["prevalence"]}
WHOLE = {"bootstrap": 200}


def config(kind: str = "eval", **keys: Any) -> Config:
    base = {"version": __version__, "kind": kind, "task": "predictor", "data": "datasets/tiny", "specHash": "a" * 16}
    own = {"train": {"run": "fit"}, "eval": {"run": "judge", "from": "fit", "settings": QUICK}}
    return Config.model_validate({**base, **own[kind], **keys})


def process(volume: Path, index: int = 0, fence: int = 1, **keys: Any) -> Runtime:
    return Runtime(volume=volume, tmp=volume, index=index, fence=fence, metrics_port=0, **keys)


@pytest.fixture(scope="module")
def trained(announced_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with the finished training `fit`. Read it only."""
    volume = tmp_path_factory.mktemp("trained")
    (volume / "datasets").mkdir()
    (volume / "datasets" / "tiny").symlink_to(announced_dataset)
    settings = {"steps": 160, "batch": 64, "validateEverySteps": 40, "lr": 0.003}
    train.run(config("train", settings=settings), process(volume))
    return volume


@pytest.fixture
def volume(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may write to; nothing is drawn, which would take half of the time."""
    monkeypatch.setattr(evaluate, "_write", lambda *arguments: None)
    return Path(shutil.copytree(trained, tmp_path / "volume", symlinks=True))


@pytest.fixture(scope="module")
def judged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run `judge` by one index, with gates that it meets and all baselines. Read it only."""
    volume = Path(shutil.copytree(trained, tmp_path_factory.mktemp("judged") / "volume", symlinks=True))
    evaluate.run(config(gates=MET, settings=WHOLE), process(volume))
    return volume / "runs" / "judge"


def test_the_report_judges_the_test_split_and_beats_prevalence(judged, announced_dataset):
    result = results.read_result(judged, "run")
    figures = result["figures"]

    test = [entry for entry in ledger.read(announced_dataset) if split_of(entry.seed) == "test"]
    assert (figures["episodes"], figures["timesteps"]) == (len(test), sum(entry.steps for entry in test))
    assert result["exitCode"] == results.read_result(judged, 0)["exitCode"] == 0
    assert figures["f1"] > figures["f1_prevalence"]
    for name in ("precision", "recall", "f1"):
        assert figures[f"{name}_low"] <= figures[name] <= figures[f"{name}_high"]
    assert {"f1_logistic", "f1_horizon_6", "f1_horizon_15_low", "recall_drop", "threshold"} <= figures.keys()
    assert {"f1_without_timeout_low", "f1_horizon_6_without_timeout", "f1_without_timeout_time"} <= figures.keys()
    assert figures["gain_over_prevalence"] == pytest.approx(figures["f1"] - figures["f1_prevalence"])
    assert 0 < figures["alarmed_share_at_0_1"] <= figures["alarmed_share_at_1"] <= 1
    assert 0 < figures["median_lead_seconds_at_0_5"] <= 0.5
    assert 0 <= figures["calibration_error_horizon_6"] < 0.2
    shapes = {name: len(table["rows"]) for name, table in result["tables"].items()}
    assert shapes == {
        "predictors": 5,
        "comparison": 2 * 4,
        "outputs": 5 + 4 + 5,
        "f1_by_horizon_and_type": 4,
        "lead_time": 5 * 3,
        "lead_time_without_timeout": 5 * 3,
        "calibration": 5 + 4,
        "gates": 3,
    }
    baselines = ["boosted", "logistic", "time", "prevalence"]
    assert [row[0] for row in result["tables"]["predictors"]["rows"]] == ["predictor", *baselines]


def test_the_report_has_plots_and_text_for_people(judged):
    directory = judged / "results" / "run.000001"

    storage.verify(directory)
    for name in ("precision_recall", "lead_time", "calibration", "episodes"):
        assert (directory / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    report = (directory / "report.md").read_text()
    assert "| logistic |" in report and "within 6 timesteps (200 ms)" in report
    assert re.search(r"Over all 16 outputs, .* (is|are) ahead of .* by 0\.\d{3}: F1 .*; the two intervals ", report)
    assert "| f1 | 0.300 |" in report and "| spec hash | aaaaaaaaaaaaaaaa |" in report and "| torch" not in report


def test_the_html_report_is_one_file_that_loads_nothing_and_runs_nothing(judged):
    class Page(HTMLParser):
        tags: list[str] = []  # noqa: RUF012 - one page is read
        sources: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.tags.append(tag)
            self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data", "srcset")]

    text = (judged / "results" / "run.000001" / "report.html").read_text()
    Page().feed(text)

    assert not {"script", "link", "iframe", "object"} & set(Page.tags)
    assert len(Page.sources) == 4 and all(source.startswith("data:image/png;base64,") for source in Page.sources)
    assert "url(" not in text and "@import" not in text and "http" not in text
    assert Page.tags.count("table") == 9


def test_without_baselines_the_figures_are_the_same_and_nothing_is_compared(judged, volume):
    evaluate.run(config(settings={"bootstrap": 200, "baselines": []}), process(volume))

    alone, beside = (results.read_result(run, "run") for run in (volume / "runs" / "judge", judged))
    assert alone["figures"].items() <= beside["figures"].items()
    assert alone["tables"]["comparison"]["rows"] == []
    assert alone["tables"]["outputs"] == beside["tables"]["outputs"]


def test_any_number_of_indexes_gives_the_same_report_and_the_last_one_writes_it(judged, volume, capfd):
    for index in (2, 0):
        evaluate.run(config(replicas=3, gates=MET, settings=WHOLE), process(volume, index))
        assert "index that ends last writes the report" in capfd.readouterr().out
        assert results.read_result(volume / "runs" / "judge", "run") is None

    evaluate.run(config(replicas=3, gates=MET, settings=WHOLE), process(volume, 1))

    alone, merged = results.read_result(judged, "run"), results.read_result(volume / "runs" / "judge", "run")
    assert merged["figures"] == alone["figures"]
    assert merged["tables"] == alone["tables"]


def test_an_attempt_that_comes_again_uses_what_was_judged_and_publishes_no_second_report(volume, monkeypatch):
    evaluate.run(config(), process(volume))
    monkeypatch.setattr(evaluate, "_judge", lambda *arguments: pytest.fail("judged again"))

    evaluate.run(config(), process(volume, fence=2))

    assert sorted(path.name for path in (volume / "runs/judge/results").iterdir()) == [
        "0.000001",
        "0.000002",
        "run.000001",
    ]


def test_parts_of_other_weights_are_judged_again(volume, capfd):
    evaluate.run(config(replicas=2), process(volume, 0))
    part = volume / "runs/judge/predictions/0.000001"
    shutil.rmtree(part)
    other = json.dumps({"weights": "others"})
    storage.publish(part, lambda directory: (directory / "part.json").write_text(other))

    evaluate.run(config(replicas=2), process(volume, 1))

    assert "index 0 judged other weights or data" in capfd.readouterr().out
    assert results.read_result(volume / "runs" / "judge", "run")["exitCode"] == 0


# --- gates


@pytest.mark.parametrize(
    ("gates", "sentence"),
    [
        ({"f1": 0.999}, r"f1 0\.\d\d < 1\.00"),
        ({"f1": 0.1, "precision_drop": 1.01}, r"^precision_drop \d\.\d\d < 1\.01$"),
    ],
)
def test_a_missed_gate_is_66_with_both_numbers_in_the_sentence(volume, gates, sentence):
    with pytest.raises(GateMissedError, match=sentence) as raised:
        evaluate.run(config(gates=gates), process(volume))

    for scope in (0, "run"):
        result = results.read_result(volume / "runs" / "judge", scope)
        assert (result["exitCode"], result["reason"]) == (66, str(raised.value))


def test_a_narrow_miss_is_told_with_enough_digits():
    misses = evaluate.missed_gates(
        {"f1": 0.6, "recall": 0.6, "precision": 0.5}, {"f1": 0.5971, "recall": 0.41, "precision": 0.5}
    )

    assert misses == ["f1 0.597 < 0.600", "recall 0.41 < 0.60"]


def test_gates_that_are_not_enforced_are_reported_and_end_with_0(volume):
    evaluate.run(config(gates={"f1": 0.999, "recall": 0.01, "enforce": False}), process(volume))

    result = results.read_result(volume / "runs" / "judge", "run")
    assert result["exitCode"] == 0
    assert "gates missed, not enforced: f1 0." in result["reason"]
    rows = [[figure, gate, met] for figure, gate, _, met in result["tables"]["gates"]["rows"]]
    assert rows == [["f1", 0.999, False], ["recall", 0.01, True]]


def test_what_is_undefined_misses_its_gate_and_is_absent_from_the_figures(volume):
    entries = [
        entry
        for entry in ledger.read(volume / "datasets/tiny")
        if split_of(entry.seed) != "test" or entry.outcome != "drop"
    ]
    own = volume / "datasets" / "own"
    own.mkdir()
    (own / "episodes").symlink_to((volume / "datasets/tiny/episodes").resolve())
    text = json.dumps([dataclasses.asdict(entry) for entry in entries])
    vouched = {"ledgerSha256": hashlib.sha256(text.encode()).hexdigest()}
    (own / "ledger.json").write_text(text)
    (own / "manifest.json").write_text(json.dumps({"schema": SCHEMA, **ledger.counts(entries), **vouched}))

    with pytest.raises(GateMissedError, match=r"recall_drop is undefined, the gate is 0\.50"):
        evaluate.run(config(data="datasets/own", gates={"recall_drop": 0.5}), process(volume))

    result = json.loads((volume / "runs/judge/results/run.000001/result.json").read_text())
    assert "recall_drop" not in result["figures"] and "recall_drop_low" not in result["figures"]
    row = dict(zip(result["tables"]["outputs"]["columns"], result["tables"]["outputs"]["rows"][5], strict=True))
    assert (row["outputs"], row["positives"], row["recall"]) == ("drop", 0, None)


# --- a dataset that is a test as a whole


def test_all_episodes_of_another_dataset_are_judged_at_the_thresholds_of_the_first(volume, other_dataset):
    (volume / "datasets/other").symlink_to(other_dataset)
    both = {}
    for run, settings in (("judge", QUICK), ("judge-other", {**QUICK, "testData": "datasets/other"})):
        evaluate.run(config(run=run, settings=settings), process(volume))
        both[run] = results.read_result(volume / "runs" / run, "run")

    figures = both["judge-other"]["figures"]
    assert figures["episodes"] == len(ledger.read(other_dataset)) != both["judge"]["figures"]["episodes"]
    assert figures["f1"] != both["judge"]["figures"]["f1"]
    assert threshold_of(both["judge"]) == threshold_of(both["judge-other"])


def threshold_of(result: dict[str, Any]) -> float:
    """The predictor's, for all outputs."""
    table = result["tables"]["predictors"]
    return float(dict(zip(table["columns"], table["rows"][0], strict=True))["threshold"])


def test_parts_of_another_dataset_are_not_taken_for_those_of_the_first(volume, other_dataset, capfd):
    (volume / "datasets/other").symlink_to(other_dataset)
    evaluate.run(config(replicas=2), process(volume, index=0))
    evaluate.run(config(replicas=2, settings={**QUICK, "testData": "datasets/other"}), process(volume, index=1))

    assert "index 0 judged other weights or data: judging its share again" in capfd.readouterr().out


def test_nor_are_parts_of_the_same_two_datasets_the_other_way_round(volume, other_dataset, capfd, monkeypatch):
    monkeypatch.setattr(evaluate, "_require_unseen", lambda *judged: None)  # the training saw one of the two
    (volume / "datasets/other").symlink_to(other_dataset)
    for index, (data, test) in enumerate((("tiny", "other"), ("other", "tiny"))):
        settings = {**QUICK, "testData": f"datasets/{test}"}
        evaluate.run(config(replicas=2, data=f"datasets/{data}", settings=settings), process(volume, index=index))

    assert "index 0 judged other weights or data: judging its share again" in capfd.readouterr().out


def test_a_test_that_shares_episodes_with_the_data_is_none(volume):
    (volume / "datasets/again").symlink_to(volume / "datasets/tiny")
    with pytest.raises(BadDataError, match=r"^36 of the 36 episodes of .*again have seeds .* another settings.seed$"):
        evaluate.run(config(settings={**QUICK, "testData": "datasets/again"}), process(volume))


def test_a_test_that_does_not_exist_is_named(volume):
    message = r"^settings.testData: datasets/othr does not exist; datasets on this volume: datasets/tiny$"
    with pytest.raises(BadDataError, match=message):
        evaluate.run(config(settings={**QUICK, "testData": "datasets/othr"}), process(volume))


# --- what must not be judged


def test_episodes_that_shaped_the_weights_are_never_judged(volume, monkeypatch):
    leak = ledger.read(volume / "datasets/tiny")
    seen = next(entry for entry in leak if split_of(entry.seed) == "validation")
    monkeypatch.setattr(
        "workers.tasks.predictor.training.split_of", lambda seed: "test" if seed == seen.seed else split_of(seed)
    )

    with pytest.raises(BadDataError, match=rf"1 of \d+ test episodes were seen by the training \({seen.episode},"):
        evaluate.run(config(), process(volume))


def labels_of_others(load: Any) -> Any:
    """A reader whose episodes bear labels of other episodes: as many positives, in runs as long, and no cause."""

    def shuffled(dataset: Path, entries: Any, **keys: Any) -> Any:
        episodes = load(dataset, entries, **keys)
        random = np.random.default_rng(len(episodes))
        labels = [episodes[place]["horizon_labels"] for place in random.permutation(len(episodes))]
        stream = np.roll(np.concatenate(labels), random.integers(sum(map(len, labels))), axis=0)
        ends = np.cumsum([len(episode["signals"]) for episode in episodes])
        parts = np.split(stream, ends[:-1])
        return [episode | {"horizon_labels": part} for episode, part in zip(episodes, parts, strict=True)]

    return shuffled


def test_a_training_on_shuffled_labels_is_worth_no_more_than_prevalence(trained, judged, tmp_path, monkeypatch):
    volume = Path(shutil.copytree(trained, tmp_path / "volume", symlinks=True))
    monkeypatch.setattr(evaluate, "_write", lambda *arguments: None)
    monkeypatch.setattr("workers.tasks.predictor.training.reader.load", labels_of_others(reader.load))
    settings = {"steps": 160, "batch": 64, "validateEverySteps": 40, "lr": 0.003}

    train.run(config("train", run="shuffled", settings=settings), process(volume))
    evaluate.run(config(**{"from": "shuffled"}), process(volume))

    shuffled = results.read_result(volume / "runs" / "judge", "run")["figures"]
    assert shuffled["f1_low"] <= shuffled["f1_prevalence"]
    assert shuffled["gain_over_prevalence_low"] <= 0
    assert shuffled["f1_high"] < results.read_result(judged, "run")["figures"]["f1_low"]


def test_the_same_training_on_true_labels_is_worth_more_than_prevalence_and_the_clock(judged):
    figures = results.read_result(judged, "run")["figures"]

    assert figures["f1_low"] > figures["f1_prevalence"]
    assert figures["gain_over_prevalence_low"] > 0 and figures["gain_over_time"] > 0


@dataclass(kw_only=True)
class Told(Runtime):
    """Told to stop once two episodes are judged."""

    def progress(self, **summary: Any) -> None:
        if summary.get("step") == 2:
            self.stop.set()


def test_a_signal_is_75_and_publishes_nothing(volume):
    with pytest.raises(InterruptedRun, match="after 2 of"):
        evaluate.run(config(), Told(volume=volume, tmp=volume, metrics_port=0))

    assert not (volume / "runs/judge/results").exists()


def test_a_disk_that_is_full_at_the_end_is_waited_for(volume, monkeypatch, capfd):
    full = fill_once(monkeypatch, "predictions", "results")
    evaluate.run(config(), process(volume))

    assert full == set()
    assert capfd.readouterr().out.count("waits for room") == 2
    assert results.read_result(volume / "runs/judge", "run")["exitCode"] == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"from": None}, "from is missing"),
        ({"from": "fitt"}, r"'fitt' does not exist as a training; finished trainings on this volume: fit$"),
        ({"gates": {"f2": 0.5}}, r"gates.f2 is an unknown figure; nearest: f1"),
        ({"gates": {"median_lead_seconds_at_2": 0.2}}, "unknown figure; nearest: median_lead_seconds_at_1"),
        ({"settings": {"bootstraps": 5}}, "bootstraps is an unknown setting; nearest: bootstrap"),
        ({"settings": {"testData": "../else"}}, "testData"),
    ],
)
def test_a_bad_configuration_is_one_sentence(volume, keys, message):
    with pytest.raises(BadConfigError, match=message):
        evaluate.run(config(**keys), process(volume))


def test_a_training_that_has_not_ended_is_not_judged(volume):
    shutil.copytree(volume / "runs" / "fit" / "best", volume / "runs" / "half" / "best")

    with pytest.raises(BadConfigError, match=r"'half' is not finished as a training; finished .*: fit"):
        evaluate.run(config(**{"from": "half"}), process(volume))


def test_damaged_weights_are_never_judged(volume):
    best = checkpoint.publications(volume / "runs" / "fit", "best")[0].path / "model.safetensors"
    best.write_bytes(best.read_bytes()[:-1] + b"\0\0")

    with pytest.raises(BadDataError, match=r"'fit' is damaged: .*model.safetensors is damaged"):
        evaluate.run(config(), process(volume))


def test_nor_are_older_ones_in_the_place_of_the_best(volume):
    best = checkpoint.publications(volume / "runs" / "fit", "best")[0].path
    older = best.with_name(f"step-00000001.{best.name[-6:]}")
    shutil.copytree(best, older)
    (best / "state.json").unlink()

    with pytest.raises(BadDataError, match=r"'fit' is damaged: .*state.json is damaged: it is missing"):
        evaluate.run(config(), process(volume))


def test_a_training_whose_end_is_damaged_is_said_to_be_that_and_not_unfinished(volume):
    (volume / "runs/fit/results/0.000001/result.json").write_text("{}")

    with pytest.raises(BadDataError, match=r"'fit' is damaged: .*0.000001/result.json is damaged: it has 2 bytes"):
        evaluate.run(config(), process(volume))


def test_a_later_revision_that_was_refused_makes_no_training_unfinished(volume):
    refused = config("train", specHash="b" * 16)
    for fence, code in ((2, 64), (3, 65)):
        results.publish_result(process(volume, fence=fence), refused, scope="index", code=code, reason="refused")
        evaluate.run(config(run=f"judge-{fence}"), process(volume))
    results.publish_result(process(volume, fence=4), refused, scope="index", code=70, reason="diverged")
    with pytest.raises(BadConfigError, match="is not finished"):
        evaluate.run(config(run="judge-4"), process(volume))


def test_files_that_nobody_published_make_no_training_unfinished_or_damaged(volume, judged):
    for directory in ("results/0.000001", "best", "lease"):
        (volume / "runs/fit" / directory).mkdir(exist_ok=True)
        (volume / "runs/fit" / directory / ".nfs0000000012").write_bytes(b"x")
    for published in (volume / "runs/fit/best").glob("step-*"):
        (published / ".DS_Store").write_bytes(b"x")
    evaluate.run(config(), process(volume))

    found, undisturbed = (results.read_result(run, "run")["figures"] for run in (volume / "runs/judge", judged))
    assert found["f1"] == undisturbed["f1"]


def test_a_replica_whose_lease_was_taken_publishes_no_end(volume):
    """As it draws its report, a newer attempt takes the lease and ends well."""
    leases = volume / "runs/judge/lease/0"

    def take_over() -> None:
        for _ in range(2):
            Lease.acquire(leases, pod="p", uid="u", lease_seconds=0.0).release()
        evaluate.run(config(), process(volume, fence=2))

    class Late(Runtime):
        def progress(self, **summary: Any) -> None:
            if "step" in summary and not leases.exists():
                take_over()

    with pytest.raises(InterruptedRun, match="a newer attempt has taken the lease"):
        evaluate.run(config(gates={"f1": 0.999}), Late(volume=volume, tmp=volume, metrics_port=0))

    assert results.read_result(volume / "runs/judge", "run")["exitCode"] == 0
    assert results.read_result(volume / "runs/judge", 0)["exitCode"] == 0
    assert sorted(path.name for path in (volume / "runs/judge/results").iterdir()) == ["0.000002", "run.000001"]


def test_a_damaged_episode_is_named_with_the_command_that_mends_it(volume, announced_dataset):
    own = volume / "datasets" / "own"
    shutil.copytree(announced_dataset, own)
    test = next(entry for entry in ledger.read(own) if split_of(entry.seed) == "test")
    shutil.rmtree(own / "episodes" / f"{test.episode:06d}.000001")

    with pytest.raises(BadDataError, match=rf"episode {test.episode} of .* is damaged: .* jobctl retry own"):
        evaluate.run(config(data="datasets/own"), process(volume))


def test_another_indexs_share_is_judged_again_with_signs_of_life(volume, capfd):
    evaluate.run(config(replicas=2), process(volume, 0))
    part = volume / "runs/judge/predictions/0.000001"
    (part / "part.json").unlink()
    steps = []

    class Watched(Runtime):
        def progress(self, **summary: Any) -> None:
            steps.append(summary.get("step"))

    evaluate.run(config(replicas=2), Watched(volume=volume, tmp=volume, index=1, metrics_port=0))
    assert "judging its share again" in capfd.readouterr().out
    assert steps.count(1) == 2, "its own share, and the other one"
