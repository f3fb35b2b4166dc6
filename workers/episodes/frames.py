"""What the compressed chunks of an episode claim to unpack to, looked at before they are: no more than a chunk holds.

A few kilobytes of zstd can stand for gigabytes, and the memory for them would be taken first. The format is that of
RFC 8878, section 3.1.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from math import prod
from typing import BinaryIO

MAGIC = b"\x28\xb5\x2f\xfd"
_NO_CHUNK = 2**64 - 1
_INDEX_CHECKSUM_BYTES = 4
_DICTIONARY_BYTES, _SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)
_RUN_LENGTH_BLOCK = 1


def require_chunk(file: BinaryIO, chunk_bytes: int) -> None:
    """Raises ValueError unless the file is one zstd frame that unpacks to `chunk_bytes` bytes."""
    _require(file, os.fstat(file.fileno()).st_size, chunk_bytes)


def require_shard(file: BinaryIO, chunk: Sequence[int], inner: Sequence[int], item_bytes: int) -> None:
    """Raises ValueError unless each chunk of a shard is one zstd frame that unpacks to an inner chunk's size.

    The index is the shard's end: offset and length of each chunk, 64 bits little-endian, then a checksum.
    """
    count = prod(-(-size // part) for size, part in zip(chunk, inner, strict=True))
    index = file.seek(0, os.SEEK_END) - 16 * count - _INDEX_CHECKSUM_BYTES
    if index < 0:
        raise ValueError("the shard is shorter than its index")
    file.seek(index)
    for offset, length in struct.iter_unpack("<QQ", file.read(16 * count)):
        if offset == _NO_CHUNK or offset + length > index:
            raise ValueError("a chunk of the shard is missing")
        file.seek(offset)
        _require(file, length, prod(inner) * item_bytes)


def _require(file: BinaryIO, length: int, chunk_bytes: int) -> None:
    if length > chunk_bytes + chunk_bytes // 128 + 1024:  # what doesn't compress becomes so much longer at most
        raise ValueError(f"a chunk of {chunk_bytes} bytes takes {length}")
    data = file.read(length)
    if measure(data) != (chunk_bytes, length):
        raise ValueError(f"a chunk is no single zstd frame of {chunk_bytes} bytes")


def measure(data: bytes) -> tuple[int, int] | None:
    """(bytes that it unpacks to, bytes that it takes) of the zstd frame that `data` begins with; None if it is none, is
    cut off, or doesn't say what it unpacks to."""
    if len(data) < 6 or data[:4] != MAGIC:
        return None
    descriptor = data[4]
    is_single_segment, has_checksum = descriptor >> 5 & 1, descriptor >> 2 & 1
    size = _SIZE_BYTES[descriptor >> 6] or is_single_segment
    start = 6 - is_single_segment + _DICTIONARY_BYTES[descriptor & 3]
    unpacked = int.from_bytes(data[start : start + size], "little") + (256 if size == 2 else 0)
    position, is_last = start + size, False
    while not is_last:
        header = int.from_bytes(data[position : position + 3], "little")
        is_last, kind, length = bool(header & 1), header >> 1 & 3, header >> 3
        position += 3 + (1 if kind == _RUN_LENGTH_BLOCK else length)
        if position > len(data):
            return None
    return (unpacked, position + 4 * has_checksum) if size else None
