import threading
from pathlib import Path

import pytest

from workers import fresh, lease, storage, untrusted
from workers.errors import InterruptedRun
from workers.lease import Lease


def take(root: Path, index: int, token: str | None) -> Lease:
    return Lease.acquire(root / str(index), pod="p", uid="u", token=token, lease_seconds=5.0)


def move(held: Lease, run: Path, token: str, should_stop=lambda: False) -> None:
    fresh.move_aside(
        held, [run], token, pod="p", uid="u", lease_seconds=5.0, should_stop=should_stop, say=lambda text: None
    )


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def run(tmp_path) -> Path:
    run = tmp_path / "x"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "old").touch()
    return run


def test_a_token_moves_all_but_the_leases_aside_exactly_once(run):
    held = take(run / "lease", 0, "t")
    assert fresh.pending(run / "lease", "t")
    move(held, run, "t")
    assert not fresh.pending(run / "lease", "t")
    assert tree(run.parent / "x.before-000001") == ["checkpoints/old"]
    assert [path.name for path in run.iterdir()] == ["lease"]
    (run / "new").touch()
    move(held, run, "t")
    assert (run / "new").exists()
    held.release()
    move(take(run / "lease", 0, "u"), run, "u")
    assert tree(run.parent / "x.before-000002") == ["new"]


def test_without_a_token_nothing_is_pending(run):
    assert not fresh.pending(run / "lease", None)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"done": 1, "number": 1}', '{"done": false, "number": "x"}', "[" * 9999]
)
def test_a_record_of_the_move_that_is_damaged_moves_nothing_and_is_named(run, content):
    held = take(run / "lease", 0, "t")
    move(held, run, "t")
    (record,) = (run / "lease" / "fresh").glob("*.json")
    (run / "new").touch()
    record.write_text(content)
    with pytest.raises(untrusted.CorruptError, match=record.name):
        move(held, run, "t")
    assert (run / "new").exists()


def test_directories_that_are_no_index_are_not_waited_for(run):
    (run / "lease" / "²").mkdir(parents=True)
    move(take(run / "lease", 0, "t"), run, "t")
    assert not (run / "checkpoints").exists()


def test_of_several_indexes_one_moves_and_the_others_keep_what_was_written_since(run):
    errors = []

    def index(number: int) -> None:
        try:
            held = take(run / "lease", number, "t")
            move(held, run, "t")
            assert not (run / "checkpoints").exists()
            (run / f"written-by-{number}").touch()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=index, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(path.name for path in run.iterdir()) == ["lease", *(f"written-by-{n}" for n in range(4))]
    assert tree(run.parent / "x.before-000001") == ["checkpoints/old"]


def test_a_living_writer_of_before_is_waited_for(run):
    old = take(run / "lease", 1, None)
    held = take(run / "lease", 0, "t")
    looks = iter(range(100))
    with pytest.raises(InterruptedRun):
        move(held, run, "t", should_stop=lambda: next(looks) > 3)
    assert (run / "checkpoints" / "old").exists()
    old.release()
    move(held, run, "t")
    assert not (run / "checkpoints").exists()


def test_a_move_that_was_cut_short_is_finished_into_the_same_place(run, monkeypatch):
    (run / "results").mkdir()
    held = take(run / "lease", 0, "t")
    real = Path.rename
    calls = []

    def dies(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(OSError, match="Input/output"):
            move(held, run, "t")
    assert fresh.pending(run / "lease", "t")
    held.release()
    move(take(run / "lease", 0, "t"), run, "t")
    assert sorted(path.name for path in (run.parent / "x.before-000001").iterdir()) == ["checkpoints", "results"]
    assert lease.numbers(run / "lease" / "0") == [1, 2]
    assert storage.read_json(next((run / "lease" / "fresh").glob("*.json")))["done"] is True
