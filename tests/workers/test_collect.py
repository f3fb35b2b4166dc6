"""Collect: each episode exactly once, whatever happens, and the same dataset however it was collected."""

import json
import multiprocessing
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from full_disk import fill_once
from held import wait_until_held
from hypothesis import given
from hypothesis import strategies as st
from waiting import patience

from workers import collect, results, storage
from workers.config import Config
from workers.envs.settings import MAX_EPISODES, CollectSettings
from workers.episodes import check, ledger
from workers.errors import BadConfigError, BadDataError
from workers.lease import Lease
from workers.runtime import Runtime, owned_range

HELPER = Path(__file__).parent / "episodes" / "fake_collect.py"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["workers.collect", "workers.loop", "gymnasium", "zarr", "matplotlib.figure"])
EPISODES = 8
SUPERVISOR = """
import sys
from pathlib import Path
from workers.supervise import main
sys.exit(main("collect", Path(sys.argv[1]), [sys.executable, sys.argv[2]]))
"""


class Collection:
    """A volume, and attempts that collect into datasets/run with a fake simulator."""

    def __init__(self, volume: Path, step_seconds: float = 0.0) -> None:
        self.volume, self.step_seconds = volume, step_seconds
        self.dataset, self.run_dir = volume / "datasets/run", volume / "runs/run"
        self.fence = 0
        volume.mkdir(parents=True, exist_ok=True)

    def start(
        self, index: int = 0, replicas: int = 1, job: str = "job", hold_at: int | None = None, **more
    ) -> FORKS.Process:
        self.fence += 1
        self.log = self.volume / f"{self.fence}.log"
        config = self.volume / f"{self.fence}.json"
        config.write_text(json.dumps(config_of(replicas=replicas, **more)))
        arguments = {
            "config": str(config),
            "log": str(self.log),
            "step_seconds": self.step_seconds,
            "env": {
                "JOBCTL_VOLUME": str(self.volume),
                "JOBCTL_TMP": str(self.volume),
                "JOBCTL_METRICS_PORT": "0",
                "JOBCTL_FENCE": str(self.fence),
                "JOBCTL_JOB_UID": job,
                "JOB_COMPLETION_INDEX": str(index),
                **({} if hold_at is None else {"JOBCTL_HOLD_AT": str(hold_at)}),
            },
        }
        process = FORKS.Process(target=runpy.run_path, args=(str(HELPER), {"ARGUMENTS": arguments}, "__main__"))
        process.start()
        return process

    def run(self, **more) -> int:
        process = self.start(**more)
        process.join(patience(60))
        return process.exitcode

    def held(self, index: int = 0) -> dict:
        """Once the newest attempt stands still."""
        return wait_until_held(self.volume, "run", [index], fence=self.fence)[0]

    def said(self) -> list[str]:
        return self.log.read_text().splitlines()

    def merged(self) -> bytes:
        return (self.dataset / "ledger.json").read_bytes()

    def entries(self) -> list[ledger.Entry]:
        return ledger.recorded(self.dataset)


def config_of(replicas: int = 1, episodes: int | None = EPISODES, spec_hash: str = "hash", settings=(), **more) -> dict:
    asked = {} if episodes is None else {"episodes": episodes}  # otherwise by default
    settings = {**asked, "envs": 1, "maxSteps": 20, **dict(settings)}
    base = {"version": "0.1.0", "run": "run", "kind": "collect", "task": "predictor", "specHash": spec_hash}
    return base | {"replicas": replicas, "settings": settings} | more


@pytest.fixture
def collection(tmp_path):
    return Collection(tmp_path / "volume")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Collection:
    """What one replica with one simulator records when nothing happens."""
    collection = Collection(tmp_path_factory.mktemp("undisturbed"))
    assert collection.run() == 0
    return collection


@given(st.integers(1, 500), st.integers(1, 40))
def test_indexes_own_disjoint_contiguous_ranges_that_are_all_episodes(episodes, replicas):
    ranges = [owned_range(episodes, replicas, index) for index in range(replicas)]
    assert [number for owned in ranges for number in owned] == list(range(episodes))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, MAX_EPISODES - 1)), unique=True, max_size=50))
def test_no_two_episodes_of_any_datasets_share_a_seed(pairs):
    seeds = [CollectSettings(seed=seed).seed_of(episode) for seed, episode in pairs]
    assert len(set(seeds)) == len(pairs)


def test_an_undisturbed_run_records_every_episode_and_says_so(undisturbed):
    entries = undisturbed.entries()
    assert [(entry.episode, entry.seed) for entry in entries] == [(n, 1_000_000 + n) for n in range(EPISODES)]
    lines = [line for line in undisturbed.said() if line.startswith("episode ")]
    pattern = r"episode (\d)/8 seed 100000\1 \w+ after [3-8] steps( \(perturbed\))?, \d\.\d MB, \d+\.\d s"
    assert [bool(re.fullmatch(pattern, line)) for line in lines] == [True] * EPISODES
    assert undisturbed.said()[-1] == "all 8 episodes are recorded and pass the data check"


def test_the_end_is_published_with_figures_tables_and_pictures(undisturbed):
    run = results.read_result(undisturbed.run_dir, "run")
    index = results.read_result(undisturbed.run_dir, 0)
    assert (run["exitCode"], index["exitCode"]) == (0, 0)
    assert run["figures"] == check.check(undisturbed.dataset, EPISODES).figures
    assert set(run["tables"]) == {"outcomes", "labels", "signals", "misses"}
    files = storage.verify(undisturbed.run_dir / "results/run.000001")["files"]
    assert set(files) == {"result.json", "report.md", "plots/outcomes.png", "plots/episode.png"}
    assert files["plots/episode.png"]["bytes"] > 50_000


def test_metrics_count_what_was_recorded(undisturbed):
    lines = [json.loads(line) for line in (undisturbed.run_dir / "metrics/0.000001.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, EPISODES + 1))
    outcomes = {name: count for name, count in lines[-1].items() if re.match(r"episodes_(?!per_second)", name)}
    assert sum(outcomes.values()) == lines[-1]["episodes"] == EPISODES
    assert all(line["episodes_per_second"] > 0 and line["timesteps_per_second"] > 0 for line in lines)


def test_the_dataset_does_not_depend_on_replicas_or_simulators(collection, undisturbed):
    processes = [collection.start(index=index, replicas=3, settings={"envs": 3}) for index in range(3)]
    for process in processes:
        process.join(patience(60))
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert collection.merged() == undisturbed.merged()


@pytest.mark.held
def test_sigkill_at_random_instants_records_each_episode_exactly_once(tmp_path, undisturbed):
    """No attempt gets beyond its first episode, as it is held there: all but the last are killed."""
    collection = Collection(tmp_path / "volume", step_seconds=0.01)
    expected = {entry.episode: entry for entry in undisturbed.entries()}
    instants = random.Random(4)
    recorded: set[int] = set()
    for attempt in range(2 * EPISODES):
        if len(recorded) == EPISODES - 1:
            break
        process = collection.start(hold_at=len(recorded) + 1)
        if attempt % 2:
            collection.held()
        else:
            process.join(instants.uniform(0.05, 0.6))
        process.kill()
        process.join()
        entries = collection.entries() if collection.dataset.exists() else []
        for entry in entries:
            assert entry == expected[entry.episode]
            ledger.path_of(collection.dataset, entry)  # verifies every file
        assert recorded <= {entry.episode for entry in entries}, "what was recorded stays"
        recorded = {entry.episode for entry in entries}
    assert collection.run() == 0
    assert collection.merged() == undisturbed.merged()
    assert not list(collection.dataset.glob("*/.tmp-*"))
    assert len(list(collection.dataset.glob("episodes/0*"))) == EPISODES, "no episode was written twice"


@pytest.mark.held
def test_sigkill_while_two_simulators_record_leaves_the_same_dataset(tmp_path, undisturbed):
    collection = Collection(tmp_path / "volume", step_seconds=0.05)
    for told in (1, 3):
        process = collection.start(settings={"envs": 2}, hold_at=told)
        collection.held()
        process.kill()  # as the simulators finish what they have begun
        process.join()
    assert len(collection.entries()) >= 2
    assert collection.run(settings={"envs": 2}) == 0
    assert collection.merged() == undisturbed.merged()
    assert len(list(collection.dataset.glob("episodes/0*"))) == EPISODES, "no episode was written twice"


@pytest.mark.held
def test_index_2_of_4_killed_in_an_episode_leaves_the_same_ledger(tmp_path, undisturbed):
    collection = Collection(tmp_path / "volume")
    others = [collection.start(index=index, replicas=4) for index in (0, 1, 3)]
    victim = collection.start(index=2, replicas=4, hold_at=1)
    collection.held(2)
    victim.kill()
    victim.join()
    for process in others:
        process.join(patience(60))
    assert [process.exitcode for process in others] == [0, 0, 0]
    assert {4, 5} - {entry.episode for entry in collection.entries()} == {5}
    assert not (collection.dataset / "manifest.json").exists(), "nobody sees all parts yet"
    assert results.read_result(collection.run_dir, "run") is None
    assert collection.run(index=2, replicas=4) == 0
    assert collection.merged() == undisturbed.merged()
    assert results.read_result(collection.run_dir, "run")["exitCode"] == 0


@pytest.mark.held
@pytest.mark.parametrize("envs", [1, 2])
def test_sigterm_drops_what_is_in_flight_and_a_restart_records_exactly_the_missing(tmp_path, undisturbed, envs):
    collection = Collection(tmp_path / "volume")
    process = collection.start(settings={"envs": envs}, hold_at=1)
    collection.held()
    process.terminate()
    process.join(patience(20))
    assert process.exitcode == 75
    done = {entry.episode for entry in collection.entries()}
    assert 1 <= len(done) <= 2 * envs, "each had begun two at most"
    assert collection.said()[-1] == (
        f"collect: interrupted with {len(done)} of 8 episodes recorded; the others follow on resume"
    )
    assert collection.run() == 0
    resumed = {int(match[1]) for line in collection.said() if (match := re.match(r"episode (\d+)/", line))}
    assert resumed == set(range(EPISODES)) - done
    assert collection.merged() == undisturbed.merged()


def test_a_missed_gate_is_66_after_everything_is_published(collection, undisturbed):
    gates = {"successShareMin": 0.99}
    assert collection.run(gates=gates) == 66
    assert collection.merged() == undisturbed.merged(), "the episodes stay"
    run = results.read_result(collection.run_dir, "run")
    [[miss]] = run["tables"]["misses"]["rows"]
    assert run["exitCode"] == 66
    assert re.fullmatch(r"success_share is 0\.\d+, gate successShareMin asks at least 0\.99", miss)
    assert results.read_result(collection.run_dir, 0)["exitCode"] == 66
    assert results.finished(collection.run_dir, 0, "hash", "another job") is None, "a retry judges again"
    assert collection.run(gates={}, spec_hash="relaxed", job="another job") == 0
    assert results.read_result(collection.run_dir, "run")["exitCode"] == 0


def test_more_episodes_continue_a_dataset_and_fewer_are_refused(collection, undisturbed):
    assert collection.run(episodes=3) == 0
    assert collection.run(episodes=EPISODES) == 0
    assert collection.merged() == undisturbed.merged()
    assert collection.run(episodes=3) == 64
    assert "holds episode 7 already, but settings.episodes asks for 3 only" in collection.said()[-1]


def test_bad_input_is_refused_in_one_sentence_before_anything_is_lost(collection):
    assert collection.run(episodes=2) == 0
    before = collection.merged()
    refusals = {
        64: [
            ({"settings": {"seed": 5}}, "was begun with seed 0, not 5: keep these settings"),
            ({"settings": {"maxStep": 5}}, "unknown setting; nearest: maxSteps"),
            ({"settings": {"perturbedShare": 2}}, "settings.perturbedShare"),
            ({"gates": {"sucessShareMin": 0.5}}, "unknown gate 'sucessShareMin' for collect; try successShareMin"),
        ],
        65: [({"data": "datasets/other"}, "'folder/v3'")],
    }
    (collection.volume / "datasets/other").mkdir()
    (collection.volume / "datasets/other/manifest.json").write_text('{"schema": "folder/v3"}')
    for code, cases in refusals.items():
        for more, sentence in cases:
            assert collection.run(**{"episodes": 2, **more}) == code
            assert sentence in collection.said()[-1]
            assert "Traceback" not in collection.log.read_text()
    assert collection.merged() == before


def test_a_full_volume_is_refused_before_the_first_episode(tmp_path, monkeypatch):
    usage = collect.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(collect.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    config = Config.model_validate(config_of(settings={"maxSteps": 200}))
    with pytest.raises(BadConfigError, match="1 MB free, two uncompressed episodes need 181 MB"):
        collect.run(config, Runtime(volume=tmp_path, tmp=tmp_path))


def test_a_disk_that_is_full_at_the_end_is_waited_for(tmp_path, undisturbed, monkeypatch, capfd):
    volume = Path(shutil.copytree(undisturbed.volume, tmp_path / "volume"))
    full = fill_once(monkeypatch, "results")
    collect.run(Config.model_validate(config_of(spec_hash="other")), Runtime(volume=volume, tmp=volume, fence=9))

    assert full == set()
    assert capfd.readouterr().out.count("waits for room") == 1
    assert results.read_result(volume / "runs/run", "run")["specHash"] == "other"


def test_episodes_whose_settings_nobody_knows_are_neither_continued_nor_overwritten(tmp_path, undisturbed):
    volume = Path(shutil.copytree(undisturbed.volume, tmp_path / "volume"))
    (volume / "datasets/run/dataset.json").unlink()
    (volume / "datasets/run/manifest.json").unlink()
    more = Config.model_validate(config_of(episodes=EPISODES + 1, spec_hash="other"))
    with pytest.raises(BadDataError, match=rf"holds {EPISODES} recorded episodes, but no dataset.json.*--fresh"):
        collect.run(more, Runtime(volume=volume, tmp=volume, fence=9))


# --- what was damaged since it was recorded


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def begun_again(collection) -> set[int]:
    return {int(match[1]) for line in collection.said() if (match := re.match(r"episode (\d+)/", line))}


def test_what_is_gone_or_damaged_is_recorded_again_by_the_next_collection(tmp_path, undisturbed):
    collection = Collection(Path(shutil.copytree(undisturbed.volume, tmp_path / "volume")))
    collection.fence = 1
    episodes = collection.dataset / "episodes"
    (episodes / ".nfs00001").write_bytes(b"x")
    (episodes / "000000.000001" / "signals" / ".DS_Store").write_bytes(b"x")  # no damage
    shutil.rmtree(episodes / "000001.000001")
    (episodes / "000002.000001/states/c.0.0").unlink()
    flip(episodes / "000003.000001/signals/c.0.0")  # found by the data check at the end
    (collection.dataset / "ledger/000004.json").write_text("{")
    (collection.dataset / "ledger/notes.txt").write_text("not ours")

    assert collection.run(job="another job") == 0

    assert begun_again(collection) == {1, 2, 3}
    assert collection.merged() == undisturbed.merged()
    for entry in collection.entries():
        ledger.path_of(collection.dataset, entry)
    assert results.read_result(collection.run_dir, "run")["exitCode"] == 0


def supervised(collection, job: str, loop: Path = HELPER, uid: str = "pod", index: int = 0, **more) -> tuple[int, str]:
    """One attempt with its supervisor, as a pod of this Job runs it; (exit code, output)."""
    collection.volume.mkdir(exist_ok=True)
    config = collection.volume / "config.json"
    config.write_text(json.dumps(config_of(**more)))
    env = {
        "JOBCTL_VOLUME": collection.volume,
        "JOBCTL_TMP": collection.volume,
        "JOBCTL_METRICS_PORT": 0,
        "JOBCTL_JOB_UID": job,
        "JOBCTL_POD_UID": uid,
        "JOB_COMPLETION_INDEX": index,
    }
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISOR, str(config), str(loop)],
        env={**os.environ, **{name: str(value) for name, value in env.items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout


def test_a_finished_collection_that_is_retried_looks_at_its_episodes_and_mends_them(collection):
    assert supervised(collection, "first", episodes=2)[0] == 0
    ledger_before = collection.merged()
    flip(collection.dataset / "episodes/000001.000001/images/c.0.0.0.0.0")

    code, output = supervised(collection, "first", episodes=2)
    assert (code, "nothing is left to do" in output) == (0, True), "a pod of the same Job repeats its end"
    code, output = supervised(collection, "retried", episodes=2)
    assert (code, re.findall(r"episode (\d)/", output)) == (0, ["1"]), output
    assert "episode 1 of" in output and "is damaged" in output
    assert collection.merged() == ledger_before
    code, output = supervised(collection, "retried again", episodes=2)
    assert (code, "nothing is left to do" in output) == (0, True)


@pytest.mark.parametrize("episodes", [None, 60])
def test_an_index_that_makes_no_progress_is_not_hidden_by_what_the_others_record(collection, episodes):
    """Of 60 episodes, asked for or by default, index 1 of 2 records what is its own while index 0 crashes."""
    loop = collection.volume / "crash.py"
    loop.write_text("raise SystemExit(1)")
    codes = []
    for attempt in range(3):
        entry = ledger.Entry(30 + attempt, attempt, "drop", 5, False, "")
        ledger.record(collection.dataset, entry)
        codes.append(supervised(collection, "job", loop=loop, uid=str(attempt), replicas=2, episodes=episodes)[0])
    assert codes == [1, 1, 70]


@pytest.mark.parametrize("data", ["runs/innocent", "datasets/link", "datasets/../runs/innocent", "datasets"])
def test_collect_into_a_place_that_is_no_dataset_is_refused_before_anything_is_moved_aside(collection, data):
    innocent = collection.volume / "runs/innocent"
    innocent.mkdir(parents=True)
    (innocent / "checkpoint").write_bytes(b"dear")
    (collection.volume / "datasets").mkdir()
    (collection.volume / "datasets/link").symlink_to(innocent)

    code, output = supervised(collection, "job", episodes=2, data=data, freshToken="t")

    assert code == 64
    assert f"data is '{data}', but collect writes below datasets/ only" in output
    assert "Traceback" not in output
    assert [path.name for path in innocent.iterdir()] == ["checkpoint"]
    assert sorted(path.name for path in (collection.volume / "runs").iterdir()) == ["innocent"]
    assert sorted(path.name for path in (collection.volume / "datasets").iterdir()) == ["link"]


def test_a_replica_whose_lease_was_taken_publishes_no_end_and_leaves_with_75(tmp_path, undisturbed):
    collection = Collection(Path(shutil.copytree(undisturbed.volume, tmp_path / "volume")))
    before = sorted(path.name for path in (collection.run_dir / "results").iterdir())
    for _ in range(5):
        Lease.acquire(collection.dataset / "lease" / "0", pod="p", uid="u", lease_seconds=0.0).release()
    collection.fence = 1

    assert collection.run(job="late", gates={"successShareMin": 0.99}) == 75

    assert "a newer attempt has taken the lease" in collection.said()[-1]
    assert sorted(path.name for path in (collection.run_dir / "results").iterdir()) == before


@pytest.mark.timeout(120)
def test_the_real_simulators_dataset_passes_its_check_and_does_not_depend_on_their_number(tmp_path):
    ledgers = []
    for envs in (1, 2):
        runtime = Runtime(volume=tmp_path / str(envs), tmp=tmp_path, metrics_port=0)
        collect.run(Config.model_validate(config_of(episodes=2, settings={"envs": envs})), runtime)
        dataset = runtime.volume / "datasets/run"
        assert check.check(dataset, 2).problems == []
        ledgers.append(ledger.read(dataset))
    assert ledgers[0] == ledgers[1]
    assert [(entry.outcome, entry.steps) for entry in ledgers[0]] == [("timeout", 20)] * 2
