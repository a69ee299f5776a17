"""Profiles as bytes: counters cut into byte planes, small at any traffic, merged as fast at any traffic.

A fine bin holds about as many rows as its neighbours, so the planes of higher bytes are nearly constant and zstd
makes next to nothing of them; the lowest plane costs what its noise is worth, some 4 bits a counter at 14,000 rows
and 7 at a million. Bytes of that much noise unpack slowly, so such a plane stays as it is while the whole fits into
32 KB. Layout, little-endian: magic, digest of the bins (32), rows, counters, sums, planes, CRC-32 of all the rest;
then the sums as floats and of each plane, lowest first, how it is kept (0 as it is, 1 zstd), its length, its bytes.
"""

import struct
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.counting.binning import Binning
from drift_pipeline.detection.counting.kernel import Floats
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.errors import IntegrityError

Bytes = npt.NDArray[np.uint8]

_MAGIC = b"DPP2"
_HEAD = struct.Struct("<4s32sqIIB")
_CRC = struct.Struct("<I")
_PLANE = struct.Struct("<BI")
_RAW, _ZSTD = 0, 1
_LEVEL = 9
_NOISY = 1 / 5  # of its size; a plane that zstd leaves larger takes longer to unpack than to read
_MOST_BYTES = 32_768
_FEW_ROWS = 8  # of which sums would tell single values
_COARSE = 0.25  # reference sd: what sums of few rows are rounded to, whose errors cancel over the hours of a window
_FOLD_EVERY = 1 << 24  # planes of bytes that a sum of 32 bits holds


def encode(profile: Profile) -> bytes:
    """A profile as bytes that know the digest of its bins; about 27 KB an hour of 14,000 rows in 25 columns."""
    counts = np.ascontiguousarray(profile.counts, "<i8")
    number = (int(counts.max(initial=0)).bit_length() + 7) // 8
    sums = _of_nobody(profile).astype("<f8").tobytes()
    room = _MOST_BYTES - _HEAD.size - _CRC.size - len(sums)
    planes = _packed([plane.tobytes() for plane in counts.view(np.uint8).reshape(-1, 8).T[:number]], room)
    body = sums + b"".join(_PLANE.pack(how, len(kept)) + kept for how, kept in planes)
    head = _HEAD.pack(_MAGIC, _digest(profile.binning), profile.rows, len(counts), len(profile.sums), number)
    return head + _CRC.pack(zlib.crc32(body, zlib.crc32(head))) + body


def _of_nobody(profile: Profile) -> Floats:
    """The sums, which of an hour of one row tell its values no closer than the bins do."""
    return profile.sums if profile.rows >= _FEW_ROWS else np.round(profile.sums / _COARSE) * _COARSE


def _packed(planes: list[bytes], room: int) -> list[tuple[int, bytes]]:
    """How each plane is kept, and its bytes: zstd, but for noisy planes as long as they fit into `room` as they are."""
    kept: list[tuple[int, bytes]] = [(_ZSTD, _codec(_LEVEL).compress(plane).to_pybytes()) for plane in planes]
    room -= sum(_PLANE.size + len(packed) for _, packed in kept)
    for place, plane in enumerate(planes):
        packed = len(kept[place][1])
        if packed > _NOISY * len(plane) and len(plane) - packed <= room:
            kept[place] = _RAW, plane
            room -= len(plane) - packed
    return kept


def decode(binning: Binning, data: bytes) -> Profile:
    """The profile whose bytes these are.

    Raises:
        IntegrityError: the bytes are damaged, no profile, or of other bins.
    """
    return merge_stored(binning, [data])


def merge_stored(binning: Binning, stored: Iterable[bytes]) -> Profile:
    """The sum of stored profiles, without making each; the empty sum is the empty profile.

    Raises:
        IntegrityError: as for `decode`.
    """
    digest, rows, sums = _digest(binning), 0, np.zeros(2 * len(binning.numeric))
    counts, partial = np.zeros(binning.size, np.int64), np.zeros((8, binning.size), np.uint32)
    for number, data in enumerate(stored, 1):
        found, added, planes = _opened(digest, binning, data)
        rows += found
        sums += added
        for total, plane in zip(partial, planes, strict=False):
            np.add(total, plane, out=total)
        if number % _FOLD_EVERY == 0:
            counts += _folded(partial)
            partial[:] = 0
    return Profile(binning, rows, counts + _folded(partial), sums)


def _folded(partial: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    total = np.zeros(partial.shape[1], np.int64)
    for place in range(len(partial)):
        total += partial[place].astype(np.int64) << (8 * place)
    return total


def _opened(digest: bytes, binning: Binning, data: bytes) -> tuple[int, Floats, list[Bytes]]:
    """Rows, sums and planes of checked bytes."""
    body, whole = _HEAD.size + _CRC.size, memoryview(data)
    if len(data) < body or data[:4] != _MAGIC:
        raise IntegrityError(f"{len(data)} bytes are no stored profile: they have no {_MAGIC.decode()} head")
    _, of, rows, size, summed, planes = _HEAD.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEAD.size)
    if crc != zlib.crc32(whole[body:], zlib.crc32(whole[: _HEAD.size])):
        raise IntegrityError("a stored profile is damaged: its checksum does not fit; profile these rows again")
    if of != digest or (size, summed) != (binning.size, 2 * len(binning.numeric)):
        raise IntegrityError(f"a stored profile is of other bins: sha256:{of.hex()}, not {binning.digest}")
    found, at = [], body + 8 * summed
    for _ in range(planes):
        how, length = _PLANE.unpack_from(data, at)
        at += _PLANE.size + length
        kept = whole[at - length : at]
        found.append(np.frombuffer(kept if how == _RAW else _codec(_LEVEL).decompress(kept, size), np.uint8))
    return rows, np.frombuffer(data, "<f8", summed, body), found


def _digest(binning: Binning) -> bytes:
    return bytes.fromhex(binning.digest.removeprefix("sha256:"))


@cache
def _codec(level: int) -> Any:
    """Zstandard from Arrow, which Polars and Delta bring along and the standard library lacks before 3.14."""
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow.Codec("zstd", compression_level=level)
