"""The ledger: each episode once, whole or not at all, and refused when it is not what it should be."""

import contextlib
import dataclasses
import hashlib
import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import storage
from workers.episodes import ledger, reader, writer
from workers.errors import BadDataError


def entry_of(number: int, **changes) -> ledger.Entry:
    entry = ledger.Entry(number, 1_000_000 + number, "drop", 10, False, f"{number:064x}")
    return dataclasses.replace(entry, **changes)


def test_of_many_who_record_one_episode_one_succeeds_and_its_entry_stays(tmp_path):
    entries = [entry_of(3, steps=steps) for steps in range(1, 17)]
    won = []
    threads = [
        threading.Thread(target=lambda entry=entry: won.append(entry) if ledger.record(tmp_path, entry) else None)
        for entry in entries
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.recorded(tmp_path) == won
    assert [path.name for path in (tmp_path / "ledger").iterdir()] == ["000003.json"], "no temporary is left"


def test_entries_are_read_in_the_order_of_episodes(tmp_path):
    for number in (4, 0, 12, 2):
        ledger.record(tmp_path, entry_of(number))
    assert ledger.read(tmp_path) == [entry_of(number) for number in (0, 2, 4, 12)]


def test_a_merge_waits_for_all_parts_and_is_idempotent(tmp_path):
    ledger.record(tmp_path, entry_of(0))
    assert ledger.merge(tmp_path, 2) is None
    assert not (tmp_path / "manifest.json").exists()
    ledger.record(tmp_path, entry_of(1, outcome="success", perturbed=True))
    first = ledger.merge(tmp_path, 2)
    files = {name: (tmp_path / name).read_bytes() for name in ("ledger.json", "manifest.json")}
    assert ledger.merge(tmp_path, 2) == first == ledger.read(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    manifest = ledger.read_manifest(tmp_path)
    manifest.pop("ledgerSha256")
    assert manifest == {
        "schema": "jobctl.episodes/v1",
        "episodes": 2,
        "steps": 20,
        "perturbed": 1,
        "outcomes": {"success": 1, "drop": 1, "timeout": 0, "collision": 0, "other": 0},
    }


def test_a_missing_path_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(BadDataError, match="does not exist"):
        ledger.read(tmp_path / "nowhere")
    with pytest.raises(BadDataError, match="no recorded episodes"):
        ledger.read(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "dataset.json"])
def test_another_schema_is_refused_naming_both(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"schema": "folder/v3"}))
    with pytest.raises(BadDataError, match=r"'folder/v3'.*'jobctl\.episodes/v1'"):
        ledger.read(tmp_path)


def test_a_damaged_entry_is_named(tmp_path):
    ledger.record(tmp_path, entry_of(0))
    path = ledger.entry_path(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(BadDataError, match=r"000000\.json"):
        ledger.read(tmp_path)


def test_the_first_writer_decides_what_a_dataset_holds(tmp_path):
    assert ledger.begin(tmp_path, {"seed": 0}) == {"seed": 0}
    assert ledger.begin(tmp_path, {"seed": 1}) == {"seed": 0}


def test_of_two_fences_the_one_with_the_recorded_content_is_read(dataset, episode):
    [entry] = [entry for entry in ledger.read(dataset) if entry.episode == 2]
    late = episode(2, steps=9)  # a writer that woke up late, with other content
    storage.publish(dataset / "episodes" / "000002.000009", lambda to: writer._write_group(to, late, late.arrays()))
    assert ledger.path_of(dataset, entry).name == "000002.000001"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["images/c.0.0.0.0.0", "signals/c.0.0", "zarr.json", "manifest.json"])
def test_a_flipped_bit_anywhere_is_refused_naming_the_episode(dataset, name):
    flip(dataset / "episodes" / "000004.000001" / name)
    with pytest.raises(BadDataError, match=r"episode 4 of .* is damaged"):
        reader.load(dataset, ledger.read(dataset))


def test_an_episode_that_is_gone_is_refused_by_name(dataset):
    (dataset / "episodes" / "000001.000001").rename(dataset / "gone")
    with pytest.raises(BadDataError, match=r"episode 1 of .* is damaged: its directory is missing"):
        reader.load(dataset, ledger.read(dataset))


FORGED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["episode", "seed", "outcome", "steps", "perturbed", "checksum"]), FORGED, st.booleans())
def test_a_forged_entry_is_an_entry_or_refused_naming_the_file(tmp_path_factory, field, value, whole):
    dataset = tmp_path_factory.mktemp("forged")
    for number in (0, 1):
        ledger.record(dataset, entry_of(number))
    content = dataclasses.asdict(entry_of(1)) | {field: value}
    ledger.entry_path(dataset, 1).write_text(json.dumps(content))
    if whole:  # the merged ledger holds it
        merged = json.dumps([dataclasses.asdict(entry_of(0)), content]).encode()
        (dataset / "ledger.json").write_bytes(merged)
        vouched = {"schema": "jobctl.episodes/v1", "episodes": 2, "ledgerSha256": hashlib.sha256(merged).hexdigest()}
        (dataset / "manifest.json").write_text(json.dumps(vouched))
    try:
        entries = ledger.read(dataset)
    except BadDataError as error:
        assert "ledger" in str(error) and ".json" in str(error)
    else:
        assert [type(value) for entry in entries for value in dataclasses.astuple(entry)] == [
            int,
            int,
            str,
            int,
            bool,
            str,
        ] * 2


def test_files_that_are_no_entries_are_no_episodes(tmp_path):
    ledger.record(tmp_path, entry_of(2))
    for name in ("000003 (copy).json", "².json", "000004.json~", ".nfs00001", "9" * 200 + ".json", "notes.txt"):
        (tmp_path / "ledger" / name).write_text("{}")
    (tmp_path / "ledger" / "000005.json").touch()  # begun on a volume without hard links
    assert ledger.recorded(tmp_path) == [entry_of(2)]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["manifest.json", "ledger.json", "ledger/000001.json"])
def test_no_endless_file_is_read_for_a_ledger(dataset, name):
    path = dataset / name
    path.unlink()
    if name == "ledger/000001.json":
        (dataset / "manifest.json").unlink()
        (dataset / "ledger.json").unlink()
    path.symlink_to("/dev/zero")
    with contextlib.suppress(BadDataError):
        assert len(ledger.read(dataset)) == 6


def test_an_unknown_file_in_an_episode_does_not_matter(dataset):
    for name in (".nfs0000001", "signals/.DS_Store", "images/c.0.0.0.0.1"):
        (dataset / "episodes" / "000004.000001" / name).write_bytes(b"x")
    assert len(reader.load(dataset, ledger.read(dataset))) == 6


def test_loading_gives_signs_of_life(dataset):
    beats = []
    reader.load(dataset, ledger.read(dataset), beat=lambda: beats.append(1))
    assert len(beats) >= 6 * 11, "one a file, at least"


def test_a_dataset_is_whole_or_names_what_is_not(dataset):
    ledger.require_whole(dataset, range(6))
    with pytest.raises(BadDataError, match="no complete ledger with episode 6"):
        ledger.require_whole(dataset, range(7))
    flip(dataset / "episodes" / "000004.000001" / "signals/c.0.0")
    ledger.require_whole(dataset, range(4))
    with pytest.raises(BadDataError, match=r"episode 4 of .* is damaged: .*c\.0\.0 .*: jobctl retry data"):
        ledger.require_whole(dataset, range(6))
    (dataset / "ledger.json").write_text("[]")
    with pytest.raises(BadDataError, match="no complete ledger"):
        ledger.require_whole(dataset, range(4))
