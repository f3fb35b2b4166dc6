import errno
import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import storage
from workers.errors import BadConfigError

SMALL = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = st.sampled_from(["a", "b.bin", "sub/c", "sub/deep/d"])
CONTENT = st.dictionaries(NAMES, st.binary(max_size=9000), min_size=1)


def fill(files: dict[str, bytes]):
    def write(directory: Path) -> None:
        for name, data in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return write


def new(parent: Path, files: dict[str, bytes]) -> Path:
    final = parent / "thing.000001"
    shutil.rmtree(final, ignore_errors=True)
    return storage.publish(final, fill(files))


def failing_fsync(monkeypatch: pytest.MonkeyPatch, call: int, code: int) -> None:
    calls = iter(range(10_000))

    def fsync(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage, "fsync", fsync)


@SMALL
@given(files=CONTENT)
def test_what_is_published_verifies_and_holds_every_file(tmp_path, files):
    final = new(tmp_path, files)
    manifest = storage.verify(final)
    assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {n: len(d) for n, d in files.items()}
    assert {name: (final / name).read_bytes() for name in files} == files
    assert [path.name for path in tmp_path.iterdir()] == [final.name]


@SMALL
@given(files=CONTENT, data=st.data())
def test_any_flipped_bit_in_any_file_or_in_the_manifest_is_refused(tmp_path, files, data):
    final = new(tmp_path, files)
    path = data.draw(st.sampled_from(sorted(p for p in final.rglob("*") if p.is_file() and p.stat().st_size)))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(storage.CorruptError):
        storage.verify(final)


def test_every_bit_of_a_manifest_counts(tmp_path):
    final = new(tmp_path, {"a": b"x"})
    manifest = final / storage.MANIFEST
    content = manifest.read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            manifest.write_bytes(content[:position] + bytes([content[position] ^ 1 << bit]) + content[position + 1 :])
            with pytest.raises(storage.CorruptError):
                storage.verify(final)


def test_a_file_cut_at_any_4_kib_is_refused_by_name(tmp_path):
    final = new(tmp_path, {"model": os.urandom(65536), "state": b"{}"})
    content = (final / "model").read_bytes()
    for length in range(0, len(content), 4096):
        (final / "model").write_bytes(content[:length])
        with pytest.raises(storage.CorruptError, match=rf"model is damaged: it has {length} bytes instead of 65536"):
            storage.verify(final)


def test_missing_files_are_refused_by_name(tmp_path):
    final = new(tmp_path, {"a": b"1", "b": b"2"})
    (final / "b").unlink()
    with pytest.raises(storage.CorruptError, match="b is damaged: it is missing"):
        storage.verify(final)
    (final / storage.MANIFEST).unlink()
    with pytest.raises(storage.CorruptError, match=r"manifest\.json is damaged: it is missing"):
        storage.verify(final)


@SMALL
@given(files=CONTENT, more=st.sampled_from([".nfs0000000000000001", ".DS_Store", "sub/Thumbs.db", "z", "empty/.nfs1"]))
def test_files_that_the_manifest_does_not_name_do_not_matter(tmp_path, files, more):
    final = new(tmp_path, files)
    before = storage.verify(final)
    (final / more).parent.mkdir(exist_ok=True)
    (final / more).write_bytes(b"of a file manager")
    (final / f"{more}.link").symlink_to("nowhere")
    assert storage.verify(final) == before


def forge(final: Path, files: dict) -> None:
    """A manifest in its canonical form that says this."""
    manifest = {"schema": storage.MANIFEST_SCHEMA, "files": files}
    (final / storage.MANIFEST).write_bytes(json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n")


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/hostname", "a/../../secret", "..", ".", "", "a//b", "./a", "a\n", "\x1b[31ma", "manifest.json"],
)
def test_a_manifest_names_plain_paths_only(tmp_path, name):
    final = new(tmp_path, {"a": b"1"})
    entry = storage.verify(final)["files"]["a"]
    (tmp_path / "secret").write_bytes(b"1")
    forge(final, {name: entry})
    with pytest.raises(storage.CorruptError, match="it is not a manifest as it was written"):
        storage.verify(final)


@pytest.mark.parametrize(
    "entry", [None, [], {}, {"bytes": True, "sha256": ""}, {"bytes": -1, "sha256": ""}, {"bytes": 1, "sha256": 1}]
)
def test_a_manifest_gives_sizes_and_hashes(tmp_path, entry):
    final = new(tmp_path, {"a": b"1"})
    forge(final, {"a": entry})
    with pytest.raises(storage.CorruptError, match="it is not a manifest as it was written"):
        storage.verify(final)


@pytest.mark.timeout(20)
def test_no_more_is_read_than_the_manifest_says_and_nothing_but_files(tmp_path):
    final = new(tmp_path, {"a": b"12345", "sub/b": b"1"})
    entries = storage.verify(final)["files"]
    with (final / "a").open("ab") as file:
        file.truncate(2**40)  # a tebibyte, of which nothing is read
    with pytest.raises(storage.CorruptError, match=f"a is damaged: it has {2**40} bytes instead of 5"):
        storage.verify(final)
    (final / "a").unlink()
    for make, why in ((os.mkfifo, "no regular file"), (os.mkdir, "no regular file"), (to_zero, "it is a link")):
        make(final / "a")
        with pytest.raises(storage.CorruptError, match=f"a is damaged: .*{why}"):
            storage.verify(final)
        (final / "a").rmdir() if (final / "a").is_dir() else (final / "a").unlink()
    forge(final, {"sub/b": entries["sub/b"]})
    assert storage.verify(final)
    (final / "sub").rename(tmp_path / "sub")
    (final / "sub").symlink_to(tmp_path / "sub")
    with pytest.raises(storage.CorruptError, match="b is damaged: it is a link, or lies behind one"):
        storage.verify(final)


def to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def test_a_publication_behind_a_link_below_the_root_is_refused(tmp_path):
    final = new(tmp_path / "run" / "results", {"a": b"1"})
    (tmp_path / "run" / "best").symlink_to("results")
    behind = tmp_path / "run" / "best" / final.name
    assert storage.verify(final, root=tmp_path / "run")
    with pytest.raises(storage.CorruptError, match="lies behind one"):
        storage.verify(behind, root=tmp_path / "run")


def test_verifying_gives_signs_of_life_within_a_large_file(tmp_path):
    beats = []
    storage.verify(new(tmp_path, {"a": bytes(3 * 2**20), "b": b""}), beat=lambda: beats.append(1))
    assert len(beats) == 3 + 2


def test_sizes_alone_can_be_compared(tmp_path):
    final = new(tmp_path, {"a": b"12345"})
    (final / "a").write_bytes(b"54321")
    assert storage.verify(final, hashes=False)
    (final / "a").write_bytes(b"5432")
    with pytest.raises(storage.CorruptError, match="4 bytes instead of 5"):
        storage.verify(final, hashes=False)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_publication_whose_disk_fails_leaves_nothing_and_can_be_tried_again(tmp_path, monkeypatch, code):
    parent_sync = 5  # two files, manifest, the directory: then the rename, then the parent
    for call in range(parent_sync - 1):
        with monkeypatch.context() as patch:
            failing_fsync(patch, call, code)
            with pytest.raises(OSError, match=os.strerror(code)):
                storage.publish(tmp_path / "thing.000001", fill({"a": b"1", "b": b"2"}))
        assert list(tmp_path.iterdir()) == []
    assert storage.verify(new(tmp_path, {"a": b"1", "b": b"2"}))


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def write(directory: Path) -> None:
        (directory / "half").write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        storage.publish(tmp_path / "thing.000001", write)
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_publications_of_one_name_stays(tmp_path):
    storage.publish(tmp_path / "thing.000001", fill({"a": b"first"}))
    with pytest.raises(FileExistsError):
        storage.publish(tmp_path / "thing.000001", fill({"a": b"second"}))
    assert (tmp_path / "thing.000001" / "a").read_bytes() == b"first"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_an_atomic_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch, code):
    path = tmp_path / "file"
    storage.write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        failing_fsync(patch, 0, code)
        with pytest.raises(OSError, match=os.strerror(code)):
            storage.write_atomic(path, b"new")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]
    storage.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


def no_links(source: Path, target: Path) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def full(source: Path, target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("failing", ["its bytes", "its name"])
def test_on_a_volume_without_hard_links_a_full_disk_leaves_nothing_under_the_name(tmp_path, monkeypatch, failing):
    path = tmp_path / "000001.json"
    monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patch:
        if failing == "its bytes":
            failing_fsync(patch, 0, errno.ENOSPC)
        else:
            patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            storage.create(path, b"whole")
    assert list(tmp_path.iterdir()) == []
    assert (storage.create(path, b"whole"), storage.create(path, b"other")) == (True, False)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("000001.json", b"whole")]


@pytest.mark.parametrize("links", [True, False])
def test_what_is_created_is_synced_and_so_is_its_directory(tmp_path, monkeypatch, links):
    synced = []
    monkeypatch.setattr(storage, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    assert storage.create(tmp_path / "x", b"1")
    assert synced == [(tmp_path / "x").stat().st_ino, tmp_path.stat().st_ino]


def test_of_many_who_create_one_file_without_hard_links_one_succeeds_and_its_content_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", no_links)
    won = []
    contents = [bytes([65 + number]) * 100 for number in range(8)]
    threads = [
        threading.Thread(target=lambda data=data: won.append(data) if storage.create(tmp_path / "x", data) else None)
        for data in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(tmp_path / "x").read_bytes()] == won


def test_only_temporaries_of_lower_numbers_are_cleaned(tmp_path):
    left = [".tmp-step-00000004.000007.12-0123abcd", ".tmp-ledger.json.12-0123abcd", "step-00000004.000001"]
    gone = [".tmp-step-00000004.000006.12-0123abcd", ".tmp-0.000002.7-00000000"]
    for name in left + gone:
        (tmp_path / name).mkdir()
    assert sorted(storage.clean_temporaries(tmp_path, fence=7)) == sorted(gone)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)
    assert storage.clean_temporaries(tmp_path / "nowhere", fence=7) == []


def test_a_new_run_needs_room_for_two_checkpoints(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    storage.require_space(tmp_path, free // 4)
    with pytest.raises(BadConfigError, match=r"two checkpoints of .* MiB must fit: free space on it or take a larger"):
        storage.require_space(tmp_path, free)


def test_json_that_is_none_is_refused_by_name(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(storage.CorruptError, match=r"x\.json is damaged: it is not JSON"):
        storage.read_json(tmp_path / "x.json")
    assert json.loads(storage.to_json({"a": 1})) == {"a": 1}
