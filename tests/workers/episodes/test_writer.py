"""Writing an episode: equal bytes for equal arrays, one writer, nothing half-made."""

import errno
import multiprocessing
import os
import re
import shutil
import signal

import numpy as np
import pytest

from workers import storage
from workers.episodes import ledger, reader, writer
from workers.episodes.labels import horizon_labels


def files_of(directory):
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_is_written_is_read_back(tmp_path, episode):
    written = episode(7, outcome="collision", steps=19)
    entry = writer.write_episode(tmp_path, written, fence=3)
    assert (entry.episode, entry.seed, entry.outcome, entry.steps, entry.perturbed) == (
        7,
        1000007,
        "collision",
        19,
        False,
    )
    assert ledger.path_of(tmp_path, entry).name == "000007.000003"
    [arrays] = reader.load(
        tmp_path, ledger.read(tmp_path), ("actions", "states", "images", "signals", "horizon_labels")
    )
    for name in ("actions", "states", "images", "signals"):
        np.testing.assert_array_equal(arrays[name], getattr(written, name), strict=True)
    np.testing.assert_array_equal(arrays["horizon_labels"], horizon_labels(19, "collision"), strict=True)


def test_images_are_one_shard_in_chunks_of_eight_timesteps_of_one_camera(tmp_path, episode):
    import zarr

    path = ledger.path_of(tmp_path, writer.write_episode(tmp_path, episode(0, steps=19), fence=1))
    images = zarr.open_group(path, mode="r")["images"]
    assert (images.chunks, images.shards) == ((8, 1, 224, 224, 3), (24, 3, 224, 224, 3))
    assert [child.name for child in (path / "images").glob("c*")] == ["c.0.0.0.0.0"]


def test_equal_arrays_give_equal_bytes_whoever_writes_them(tmp_path, episode):
    one = writer.write_episode(tmp_path / "one", episode(5), fence=1)
    other = writer.write_episode(tmp_path / "other", episode(5), fence=12)
    assert one == other
    changed = episode(5)
    changed.signals[-1, -1] += 1
    assert writer.write_episode(tmp_path / "changed", changed, fence=1).checksum != one.checksum


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("signals", np.zeros((4, 11), np.float32)),
        ("signals", np.zeros((5, 12), np.float32)),
        ("actions", np.zeros((4, 4), np.float64)),
        ("images", np.zeros((4, 3, 192, 192, 3), np.uint8)),
    ],
)
def test_arrays_of_another_shape_or_type_are_refused_before_a_byte_is_written(tmp_path, episode, name, values):
    with pytest.raises(ValueError, match=name):
        writer.write_episode(tmp_path, episode(0, steps=4, **{name: values}), fence=1)
    assert files_of(tmp_path) == set()


def _hold(dataset, number, ready, done):
    with writer._only_writer(dataset, number):
        ready.set()
        done.wait(30)


def test_a_second_writer_in_another_process_is_refused_before_a_byte_is_written(tmp_path, episode):
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, 3, ready, done))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(writer.EpisodeTakenError, match="another writer is writing episode 3"):
        writer.write_episode(tmp_path, episode(3), fence=2)
    assert files_of(tmp_path) == {"episodes/.lock"}
    writer.write_episode(tmp_path, episode(4), fence=2)  # its neighbour is free
    holder.kill()  # the lock dies with its holder
    holder.join()
    assert writer.write_episode(tmp_path, episode(3), fence=2).episode == 3


def test_a_second_writer_in_the_same_process_is_refused_too(tmp_path, episode):
    with writer._only_writer(tmp_path, 3), pytest.raises(writer.EpisodeTakenError):
        writer.write_episode(tmp_path, episode(3), fence=2)


def test_a_recorded_episode_is_never_written_again(tmp_path, episode):
    entry = writer.write_episode(tmp_path, episode(3), fence=1)
    before = files_of(tmp_path)
    with pytest.raises(writer.EpisodeTakenError, match="recorded already"):
        writer.write_episode(tmp_path, episode(3, steps=9), fence=2)
    assert (files_of(tmp_path), ledger.recorded(tmp_path)) == (before, [entry])


@pytest.mark.parametrize("after", range(0, 30, 5))
def test_a_full_disk_leaves_nothing_behind_whenever_it_happens(tmp_path, episode, monkeypatch, after):
    real, calls = storage.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(storage, "fsync", fsync)
    try:
        writer.write_episode(tmp_path, episode(1), fence=1)
    except OSError as error:
        assert error.errno == errno.ENOSPC
        assert not list(tmp_path.glob("*/.tmp-*"))
    monkeypatch.undo()
    writer.recover(tmp_path, [1])
    if not ledger.recorded(tmp_path):
        writer.write_episode(tmp_path, episode(1), fence=1)
    [entry] = ledger.recorded(tmp_path)
    assert entry.checksum == writer.write_episode(tmp_path / "other", episode(1), fence=1).checksum


def test_recovery_clears_temporaries_and_enters_what_was_published_whole(tmp_path, episode):
    entries = [writer.write_episode(tmp_path, episode(number), fence=1) for number in range(4)]
    ledger.entry_path(tmp_path, 1).unlink()  # killed between rename and ledger
    shutil.copytree(tmp_path / "episodes/000000.000001", tmp_path / "episodes/.tmp-000009.000001.77-0123abcd")
    (tmp_path / "ledger/.tmp-000009.json.0123").write_bytes(b"{")
    assert writer.recover(tmp_path, range(20)) == [entries[1]]
    assert ledger.recorded(tmp_path) == entries
    assert not list(tmp_path.glob("*/.tmp-*"))


def test_recovery_clears_what_a_kill_inside_the_ledgers_entry_left(tmp_path, episode):
    entry = writer.write_episode(tmp_path, episode(3), fence=1)
    ledger.entry_path(tmp_path, 3).unlink()
    victim = multiprocessing.get_context("fork").Process(target=_record_until_the_link, args=(tmp_path, entry))
    victim.start()
    victim.join()
    assert len(list(tmp_path.glob("ledger/.tmp-*"))) == 1, "it was killed with the entry's bytes on disk"
    assert writer.recover(tmp_path, [3]) == [entry]
    assert not list(tmp_path.glob("*/.tmp-*"))


def test_recovery_removes_a_damaged_episode_that_no_ledger_names(tmp_path, episode):
    writer.write_episode(tmp_path, episode(1), fence=1)
    ledger.entry_path(tmp_path, 1).unlink()
    (tmp_path / "episodes/000001.000001/states/c.0.0").unlink()
    assert writer.recover(tmp_path, range(4)) == []
    assert ledger.published(tmp_path, 1) == []


def test_recovery_leaves_a_living_writer_and_other_indexes_alone(tmp_path):
    living = tmp_path / "episodes/.tmp-000003.000001.77-0123abcd"
    others = tmp_path / "episodes/.tmp-000008.000001.77-0123abcd"
    living.mkdir(parents=True)
    others.mkdir()
    with writer._only_writer(tmp_path, 3):
        assert writer.recover(tmp_path, range(5)) == []
    assert living.is_dir()
    assert others.is_dir()


def damage(path, how):
    match how:
        case "gone":
            shutil.rmtree(path)
        case "a file is gone":
            (path / "signals/c.0.0").unlink()
        case "a file is cut":
            (path / "images/c.0.0.0.0.0").write_bytes(b"x")
        case "the manifest is gone":
            (path / "manifest.json").unlink()


@pytest.mark.parametrize("how", ["gone", "a file is gone", "a file is cut", "the manifest is gone"])
def test_a_recorded_episode_that_is_gone_or_damaged_is_missing_and_is_recorded_again_as_it_was(tmp_path, episode, how):
    entries = [writer.write_episode(tmp_path, episode(number), fence=1) for number in range(3)]
    damage(tmp_path / "episodes/000001.000001", how)
    said = []

    assert writer.recover(tmp_path, range(3), say=said.append) == []

    assert [re.match("episode 1 of .* is damaged: ", line) is not None for line in said] == [True]
    assert writer.missing(tmp_path, range(4)) == [1, 3]
    assert ledger.recorded(tmp_path) == entries, "what the ledger says of it stays"
    assert writer.write_episode(tmp_path, episode(1), fence=2) == entries[1]
    assert ledger.path_of(tmp_path, entries[1]).name == "000001.000002"
    assert writer.missing(tmp_path, range(3)) == []


def test_one_whose_sizes_are_right_is_recorded_again_where_its_hash_is_not(tmp_path, episode):
    entry = writer.write_episode(tmp_path, episode(1), fence=1)
    path = tmp_path / "episodes/000001.000001/signals/c.0.0"
    path.write_bytes(bytes(path.stat().st_size))
    writer.recover(tmp_path, [1])
    assert writer.missing(tmp_path, [1]) == [], "hashes are the data check's"
    assert writer.write_episode(tmp_path, episode(1), fence=1) == entry, "under the same number, too"
    assert ledger.path_of(tmp_path, entry)


def test_one_that_is_recorded_again_with_other_content_is_refused_and_the_ledger_stays(tmp_path, episode):
    entry = writer.write_episode(tmp_path, episode(1), fence=1)
    shutil.rmtree(tmp_path / "episodes/000001.000001")
    with pytest.raises(writer.OtherContentError, match=r"episode 1 of .* is not what it was .* --fresh"):
        writer.write_episode(tmp_path, episode(1, steps=9), fence=2)
    assert ledger.recorded(tmp_path) == [entry]
    assert ledger.published(tmp_path, 1) == []
    assert writer.write_episode(tmp_path, episode(1), fence=2) == entry


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_an_entry_that_is_empty_or_damaged_is_made_again(tmp_path, episode, content):
    entry = writer.write_episode(tmp_path, episode(1), fence=1)
    ledger.entry_path(tmp_path, 1).write_text(content)
    assert writer.recover(tmp_path, [1]) == [entry]
    ledger.entry_path(tmp_path, 1).write_text(content)
    shutil.rmtree(tmp_path / "episodes")
    writer.recover(tmp_path, [1])
    assert writer.missing(tmp_path, [1]) == [1]
    assert writer.write_episode(tmp_path, episode(1), fence=1) == entry


def _record_until_the_link(dataset, entry):
    os.link = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
    ledger.record(dataset, entry)
