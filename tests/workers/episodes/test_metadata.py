"""What an episode's metadata may say: whatever somebody wrote there, it is refused before memory is taken."""

import json
import resource
import shutil
import struct
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import storage
from workers.episodes import frames, ledger, metadata, reader, writer
from workers.episodes.schema import ARRAY_NAMES, ARRAYS
from workers.errors import BadDataError


def grid(*chunk: int) -> dict:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


V2_KEYS = {"name": "v2", "configuration": {"separator": "."}}
FORGED = [
    pytest.param("images", {"shape": [7, 10**6, 10**6, 10**6, 3]}, "its shape", id="petabytes"),
    pytest.param("signals", {"shape": [10**15, 12]}, "timesteps", id="more timesteps than the ledger says"),
    pytest.param("states", {"shape": [7, 10**12]}, "its shape", id="a dimension of any size"),
    pytest.param("signals", {"shape": [7]}, "its shape", id="a dimension less"),
    pytest.param("signals", {"shape": [7.0, 12]}, "its shape", id="no sizes"),
    pytest.param("signals", {"data_type": "float64"}, "no float32 array", id="another type"),
    pytest.param("signals", {"data_type": "object"}, "no float32 array", id="objects"),
    pytest.param("signals", {"data_type": {"name": "fixed_length_utf32"}}, "'data_type'", id="a type with settings"),
    pytest.param("signals", {"zarr_format": 2}, "of Zarr 3", id="another format"),
    pytest.param("signals", {"storage_transformers": [{"name": "x"}]}, "of Zarr 3", id="a transformer"),
    pytest.param("signals", {"codecs": [{"name": "numcodecs.pickle"}]}, "its codecs", id="an unknown codec"),
    pytest.param("signals", {"codecs": [{"name": "bytes"}, {"name": "blosc"}]}, "its codecs", id="not one of ours"),
    pytest.param("signals", {"codecs": [4]}, "its codecs", id="no codec"),
    pytest.param("signals", {"codecs": {}}, "'codecs'", id="no codecs"),
    pytest.param("signals", {"chunk_grid": grid(10**9, 12)}, "far larger", id="a chunk of gigabytes"),
    pytest.param("signals", {"chunk_grid": grid(1, 1)}, "not all", id="many chunks"),
    pytest.param("signals", {"chunk_grid": grid(0, 0)}, "not all", id="empty chunks"),
    pytest.param("signals", {"chunk_grid": {"name": "rectangular"}}, "its chunk", id="another grid"),
    pytest.param("signals", {"chunk_key_encoding": V2_KEYS}, "named", id="other keys"),
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory, make_episode) -> Path:
    dataset = tmp_path_factory.mktemp("sound")
    writer.write_episode(dataset, make_episode(3), fence=1)
    return dataset


def forge(dataset: Path, change) -> ledger.Entry:
    """Let `change(directory)` write what it likes into episode 3; manifest and ledger vouch for it."""
    final = dataset / "episodes" / "000003.000001"
    other = dataset / "episodes" / "other"
    final.rename(other)
    (other / "manifest.json").unlink()

    def write(directory: Path) -> None:
        shutil.copytree(other, directory, dirs_exist_ok=True)
        change(directory)

    storage.publish(final, write)
    shutil.rmtree(other)
    path = ledger.entry_path(dataset, 3)
    content = json.loads(path.read_bytes()) | {"checksum": ledger.checksum_of(storage.verify(final))}
    path.write_text(json.dumps(content))
    return ledger.recorded(dataset)[0]


def changed(name: str, **changes):
    def change(directory: Path) -> None:
        path = directory / name / "zarr.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))

    return change


def read_all(dataset: Path, entry: ledger.Entry) -> dict:
    [arrays] = reader.load(dataset, [entry], ARRAY_NAMES)
    return arrays


@pytest.fixture
def dataset(sound, tmp_path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "data"))


@pytest.mark.parametrize(("name", "changes", "why"), FORGED)
def test_metadata_that_no_worker_writes_are_refused_naming_episode_and_file(dataset, name, changes, why):
    entry = forge(dataset, changed(name, **changes))
    with pytest.raises(BadDataError, match=f"episode 3 .*{name}/zarr.json is damaged: .*{why}"):
        read_all(dataset, entry)


def test_what_is_unpacked_at_once_has_an_end():
    """A shard that is one chunk would be unpacked whole for a single image."""
    images = next(array for array in ARRAYS if array.name == "images")
    packed = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1, "checksum": False}}]

    def problem(steps: int) -> str | None:
        shape = [steps, 3, 224, 224, 3]
        return metadata._problem(
            images,
            {"zarr_format": 3, "node_type": "array", "data_type": "uint8", "shape": shape, "chunk_grid": grid(*shape),
             "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}}, "codecs": packed},
            steps,
        )  # fmt: skip

    assert problem(8) is None
    assert "too large to be unpacked" in str(problem(2000))


def test_a_claim_of_petabytes_takes_no_memory(dataset):
    entry = forge(dataset, changed("states", shape=[7, 10**14], chunk_grid=grid(7, 10**14)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadDataError):
        read_all(dataset, entry)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "KiB"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"chunk_shape": [8, 1, 224, 224, 10**9]}, "its shard's chunks"),
        ({"chunk_shape": [1, 1, 1, 1, 1]}, "more than 100000 chunks"),
        ({"codecs": [{"name": "pickle"}]}, "its shard is packed by"),
        ({"index_codecs": [{"name": "gzip"}]}, "its shard is packed by"),
        ({"codecs": [{"name": "sharding_indexed", "configuration": {}}]}, "its shard is packed by"),
        ({"index_location": "start"}, "its shard is packed by"),
    ],
)
def test_a_shard_is_held_to_the_same(dataset, changes, why):
    def change(directory: Path) -> None:
        path = directory / "images" / "zarr.json"
        metadata = json.loads(path.read_bytes())
        metadata["codecs"][0]["configuration"] |= changes
        path.write_text(json.dumps(metadata))

    entry = forge(dataset, change)
    with pytest.raises(BadDataError, match=f"images/zarr.json is damaged: .*{why}"):
        reader.read_instants(ledger.path_of(dataset, entry), entry)


def test_a_group_of_zarr_2_reaches_no_codec(dataset):
    """Its filter would unpickle what lies there."""
    pickled = b"cbuiltins\nexec\n(S'import sys; sys.unpickled = True'\ntR."

    def change(directory: Path) -> None:
        shutil.rmtree(directory / "signals")
        (directory / "zarr.json").unlink()
        (directory / "signals").mkdir()
        (directory / ".zgroup").write_text('{"zarr_format": 2}')
        (directory / ".zattrs").write_text('{"schema": "jobctl.episodes/v1"}')
        array = {
            "zarr_format": 2, "shape": [7, 12], "chunks": [7, 12], "dtype": "|O", "order": "C", "fill_value": None,
            "compressor": None, "filters": [{"id": "pickle", "protocol": 0}],
        }  # fmt: skip
        (directory / "signals" / ".zarray").write_text(json.dumps(array))
        (directory / "signals" / "0.0").write_bytes(pickled)

    entry = forge(dataset, change)
    with pytest.raises(BadDataError, match=r"episode 3 .* can't be read"):
        read_all(dataset, entry)
    assert not hasattr(sys, "unpickled")


def test_metadata_beside_those_of_the_array_decide_nothing(dataset):
    """Consolidated metadata in the group would hide the array's own."""

    def change(directory: Path) -> None:
        path = directory / "zarr.json"
        signals = json.loads((directory / "signals" / "zarr.json").read_bytes()) | {"shape": [10**9, 12]}
        consolidated = {"kind": "inline", "must_understand": False, "metadata": {"signals": signals}}
        path.write_text(json.dumps(json.loads(path.read_bytes()) | {"consolidated_metadata": consolidated}))

    entry = forge(dataset, change)
    assert read_all(dataset, entry)["signals"].shape == (7, 12)


def test_a_chunk_that_is_gone_is_no_array_of_zeros(dataset):
    entry = forge(dataset, lambda directory: (directory / "signals" / "c.0.0").unlink())
    with pytest.raises(BadDataError, match=r"episode 3 .* can't be read"):
        read_all(dataset, entry)


BOMBS = {
    "a frame of a mebibyte": lambda zstd, right: zstd.encode(bytes(2**20)),
    "a frame too short": lambda zstd, right: zstd.encode(right[:-4]),
    "a second frame behind the first": lambda zstd, right: zstd.encode(right) + zstd.encode(bytes(2**20)),
    "a frame that doesn't say": lambda zstd, right: bytes.fromhex("28b52ffd0058") + zstd.encode(right)[6:],
    "no frame": lambda zstd, right: right,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["signals", "images"])
def test_a_chunk_that_unpacks_to_more_than_its_array_holds_is_not_unpacked(dataset, monkeypatch, name, bomb):
    zstd = numcodecs.Zstd(1)

    def change(directory: Path) -> None:
        if name == "signals":
            (directory / "signals" / "c.0.0").write_bytes(BOMBS[bomb](zstd, bytes(7 * 12 * 4)))
            return
        packed = [zstd.encode(bytes(8 * 224 * 224 * 3))] * 2 + [BOMBS[bomb](zstd, bytes(8 * 224 * 224 * 3))]
        ends = np.cumsum([len(frame) for frame in packed])
        index = b"".join(
            struct.pack("<QQ", end - len(frame), len(frame)) for end, frame in zip(ends, packed, strict=True)
        )
        (directory / "images" / "c.0.0.0.0.0").write_bytes(b"".join(packed) + index + bytes(4))

    entry = forge(dataset, change)
    monkeypatch.setattr("zarr.Array.from_dict", lambda *arguments: pytest.fail("it would be unpacked"))
    with pytest.raises(BadDataError, match=rf"{name}/c\.0.* is damaged: a chunk"):
        reader.read_arrays(ledger.path_of(dataset, entry), entry, [name])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400_000), st.integers(0, 255), st.booleans(), st.booleans())
def test_a_frame_is_measured_as_zstd_writes_it(count, value, noisy, checksum):
    data = np.random.default_rng(count).bytes(count) if noisy else bytes([value]) * count
    packed = numcodecs.Zstd(1, checksum=checksum).encode(data)
    assert frames.measure(packed) == (count, len(packed))
    assert frames.measure(packed + b"more") == (count, len(packed))
    assert frames.measure(packed[:-5]) is None or checksum


KEYS = ["shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs", "zarr_format", "node_type", "fill_value"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "configuration", "chunk_shape", "separator"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), value=VALUES, name=st.sampled_from(ARRAY_NAMES))
def test_whatever_metadata_say_an_episode_is_read_as_it_is_or_refused(sound, tmp_path_factory, key, value, name):
    dataset = Path(shutil.copytree(sound, tmp_path_factory.mktemp("forged") / "data"))
    [recorded] = ledger.recorded(sound)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "fsync", lambda descriptor: None)
        entry = forge(dataset, changed(name, **{key: value}))
    try:
        found = read_all(dataset, entry)
    except BadDataError as error:
        assert "episode 3" in str(error)
    else:
        expected = read_all(sound, recorded)
        assert all(np.array_equal(found[name], expected[name]) for name in ARRAY_NAMES)
