"""How much memory reading a git object would take, known before it is read.

A pack of a megabyte can hold a file of a gigabyte. Each object's header says its size, and a delta
says the sizes of its base and of its result (gitformat-pack(5)): nothing need be inflated to know.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from dulwich.object_store import DiskObjectStore
from dulwich.objects import ObjectID, RawObjectID, ShaFile, hex_to_sha
from dulwich.pack import OFS_DELTA, REF_DELTA, Pack

MAX_CHAIN = 4096  # git's own limit is 4095
_BOUNDLESS = 1 << 62
_HASH_BYTES = 20
_TWO_SIZES = 20  # bytes: as much as two varints of 64 bits take


@dataclass(frozen=True, slots=True)
class Cost:
    """What reading an object takes: the size of the largest object on the way to it, and of all."""

    largest: int
    total: int


def load_within(store: DiskObjectStore, name: ObjectID, limit: int) -> ShaFile | None:
    """Read an object; None if that would take over `limit` bytes. Raises `KeyError` for none."""
    store.loose_object_size_limit = limit
    try:
        if packed_cost(store, name).largest <= limit:
            return store[name]
    except zlib.error:  # a loose object above the store's limit, or a broken one
        pass
    return None


def packed_cost(store: DiskObjectStore, name: ObjectID) -> Cost:
    """Return what must be inflated to read `name` from a pack.

    0 for what is in no pack; loose objects are bounded by `store.loose_object_size_limit`.
    """
    for pack in store.packs:
        try:
            offset = pack.index.object_offset(hex_to_sha(name))
        except KeyError:
            continue
        with Path(pack.data.path).open("rb") as file:
            return _cost(file, pack, offset)
    return Cost(0, 0)


def _cost(file: IO[bytes], pack: Pack, offset: int) -> Cost:
    largest = total = 0
    for _ in range(MAX_CHAIN):
        file.seek(offset)
        kind, size = _header(file)
        largest, total = max(largest, size), total + size
        if kind == OFS_DELTA:
            base = offset - _distance(file)
        elif kind == REF_DELTA:
            base = pack.index.object_offset(RawObjectID(file.read(_HASH_BYTES)))
        else:
            return Cost(largest, total)
        sizes = _delta_sizes(file)
        largest, total = max(largest, *sizes), total + sizes[1]
        offset = base
    return Cost(_BOUNDLESS, _BOUNDLESS)


def _header(file: IO[bytes]) -> tuple[int, int]:
    first = file.read(1)[0]
    size = first & 0x0F
    return (first >> 4) & 7, size + (_varint(file) << 4) if first & 0x80 else size


def _varint(file: IO[bytes]) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)[0]
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value
        shift += 7


def _distance(file: IO[bytes]) -> int:
    byte = file.read(1)[0]
    value = byte & 0x7F
    while byte & 0x80:
        byte = file.read(1)[0]
        value = ((value + 1) << 7) | (byte & 0x7F)
    return value


def _delta_sizes(file: IO[bytes]) -> tuple[int, int]:
    """Read the sizes of base and result, with which every delta begins."""
    begin = BytesIO(zlib.decompressobj().decompress(file.read(256), _TWO_SIZES))
    return _varint(begin), _varint(begin)
