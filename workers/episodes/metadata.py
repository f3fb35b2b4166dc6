"""What an episode's zarr.json may say, checked before any memory is taken for an array.

Zarr 3 only, the schema's arrays, codecs that do nothing but unpack bytes: another format's codecs may run what they are
told, so it is never opened. What is checked here is what reader.py reads with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from workers import untrusted
from workers.episodes import frames
from workers.episodes.schema import ARRAYS, MAX_STATE_SIZE, MAX_STEPS, Array

METADATA = "zarr.json"
METADATA_BYTES = 2**16
PACKED, SHARDED, INDEX = ("bytes", "zstd"), ("sharding_indexed",), ("bytes", "crc32c")  # all codecs there are
MAX_PADDING_BYTES = 16 * 2**20  # a chunk may be twice as large as its array, and by so much larger
MAX_INNER_CHUNKS = 100_000
MAX_CHUNK_BYTES = 2**28  # what is unpacked at once; all other arrays of an episode of MAX_STEPS fit into it
_ITEM_BYTES = {"float32": 4, "uint8": 1}
_NAMED: dict[str, untrusted.Types] = {"name": str, "configuration": dict}


def attributes_of(path: Path) -> dict[str, Any]:
    """The attributes of an episode's group. Raises CorruptError, FileNotFoundError."""
    fields: dict[str, untrusted.Types] = {"zarr_format": int, "node_type": str, "attributes": dict}
    group = untrusted.read_record(path / METADATA, fields, path.parent, METADATA_BYTES)
    if (group["zarr_format"], group["node_type"]) != (3, "group"):
        raise untrusted.CorruptError(path / METADATA, "it describes no group of Zarr 3")
    return group["attributes"]


def array_of(path: Path, name: str, steps: int) -> dict[str, Any]:
    """The metadata of the array `name` of an episode of so many timesteps, whose one chunk lies there.

    Raises CorruptError naming the file and what in it is not as the schema says, FileNotFoundError.
    """
    place = path / name / METADATA
    metadata = untrusted.read_json(place, path.parent, METADATA_BYTES)
    [array] = [array for array in ARRAYS if array.name == name]
    if (wrong := untrusted.misfit(metadata, _FIELDS) or _problem(array, metadata, steps)) is not None:
        raise untrusted.CorruptError(place, wrong)
    _require_chunk(path / name, array, metadata, path.parent)
    return metadata


def _require_chunk(directory: Path, array: Array, metadata: Mapping[str, Any], root: Path) -> None:
    """Raises FileNotFoundError for a chunk without a file, which would read as zeros; CorruptError for one that doesn't
    unpack to just what the metadata say."""
    separator = metadata["chunk_key_encoding"]["configuration"]["separator"]
    path = directory / separator.join(["c", *"0" * len(metadata["shape"])])
    chunk, item_bytes = metadata["chunk_grid"]["configuration"]["chunk_shape"], _ITEM_BYTES[array.dtype]
    codec = metadata["codecs"][0]
    with untrusted.open_file(path, root) as file:
        try:
            if codec["name"] == "sharding_indexed":
                frames.require_shard(file, chunk, codec["configuration"]["chunk_shape"], item_bytes)
            else:
                frames.require_chunk(file, prod(chunk) * item_bytes)
        except ValueError as error:
            raise untrusted.CorruptError(path, str(error)) from error


_FIELDS: dict[str, untrusted.Types] = {
    "zarr_format": int,
    "node_type": str,
    "data_type": str,
    "shape": list,
    "chunk_grid": dict,
    "chunk_key_encoding": dict,
    "codecs": list,
}


def _problem(array: Array, metadata: Mapping[str, Any], steps: int) -> str | None:
    """What is not as the schema says; None: nothing."""
    found = (metadata["zarr_format"], metadata["node_type"], metadata["data_type"])
    if found != (3, "array", array.dtype) or metadata.get("storage_transformers"):
        return f"it describes no {array.dtype} array of Zarr 3"
    if metadata["shape"][:1] != [steps]:
        return f"it has {_shown(metadata['shape'][:1])} timesteps, the ledger says {steps}"
    if not _fits(array, metadata["shape"], steps):
        return f"its shape is {_shown(metadata['shape'])}, the schema asks ({steps}, {_suffix(array)})"
    chunk = _setting(metadata["chunk_grid"], "regular", "chunk_shape")
    item_bytes = _ITEM_BYTES[array.dtype]
    if not _covers(chunk, metadata["shape"]):
        return f"its chunk is {_shown(chunk)}, which is not all of it"
    if prod(chunk) * item_bytes > 2 * prod(metadata["shape"]) * item_bytes + MAX_PADDING_BYTES:
        return f"its chunk is {_shown(chunk)}, far larger than the array"
    if _setting(metadata["chunk_key_encoding"], "default", "separator") not in (".", "/"):
        return "its chunks are named in another way"
    return _codec_problem(metadata["codecs"], chunk, item_bytes)


def _fits(array: Array, shape: Sequence[Any], steps: int) -> bool:
    wanted = (steps, *array.suffix)
    if not 1 <= steps <= MAX_STEPS or len(shape) != len(wanted) or not _are_sizes(shape):
        return False
    return all(
        size == want or (want is None and size <= MAX_STATE_SIZE) for size, want in zip(shape, wanted, strict=True)
    )


def _codec_problem(codecs: Any, chunk: Sequence[int], item_bytes: int) -> str | None:
    """One chunk is packed as numbers and then by zstd; or it is a shard of such chunks."""
    names = _names(codecs)
    if names == SHARDED:
        return _shard_problem(codecs[0], chunk)
    if names != PACKED:
        return f"its codecs are {_shown(names)}, not {PACKED} or {SHARDED}"
    return f"its chunk is {_shown(chunk)}, too large to be unpacked" if _is_huge(chunk, item_bytes) else None


def _is_huge(chunk: Sequence[int], item_bytes: int) -> bool:
    return prod(chunk) * item_bytes > MAX_CHUNK_BYTES


def _shard_problem(codec: Mapping[str, Any], chunk: Sequence[int]) -> str | None:
    settings = codec["configuration"] if untrusted.misfit(codec, _NAMED) is None else {}
    inner = settings.get("chunk_shape")
    if not isinstance(inner, list) or not _are_sizes(inner) or not _covers(chunk, inner):
        return f"its shard's chunks are {_shown(inner)} of {_shown(chunk)}"
    if prod(-(-size // part) for size, part in zip(chunk, inner, strict=True)) > MAX_INNER_CHUNKS:
        return f"its shard has more than {MAX_INNER_CHUNKS} chunks"
    found = [
        _names(settings.get("codecs")),
        _names(settings.get("index_codecs")),
        settings.get("index_location", "end"),
    ]
    wanted = [PACKED, INDEX, "end"]
    return None if found == wanted else f"its shard is packed by {_shown(found)}, not {wanted}"


def _names(codecs: Any) -> tuple[str, ...] | None:
    named = isinstance(codecs, list) and all(untrusted.misfit(codec, {"name": str}) is None for codec in codecs)
    return tuple(codec["name"] for codec in codecs) if named else None


def _covers(chunk: Any, shape: Sequence[int]) -> bool:
    fits = isinstance(chunk, list) and len(chunk) == len(shape) and _are_sizes(chunk)
    return fits and all(size >= part for size, part in zip(chunk, shape, strict=True))


def _are_sizes(shape: Sequence[Any]) -> bool:
    return all(type(size) is int and size >= 1 for size in shape)


def _setting(named: Any, name: str, setting: str) -> Any:
    """A setting of {"name": name, "configuration": {...}}; None if there is none."""
    fits = untrusted.misfit(named, _NAMED) is None and named["name"] == name
    return named["configuration"].get(setting) if fits else None


def _suffix(array: Array) -> str:
    return ", ".join("any" if size is None else str(size) for size in array.suffix)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
