"""A frozen reference as bytes: whole, exact, and the same bytes for the same reference, so that a digest can name it.

The annotations of `Reference` are the schema: a field is written as JSON by its declared type, floats in hex, which
spells NaN and infinities too. Arrays are words of 64 bits cut into byte planes, without the upper planes that are 0
throughout. Profiles are one table, hours x counters: one by one, as `stored` keeps them to be merged, those of a
million rows take twice the bytes and four times as long to read. A field added with a default leaves older bytes
readable.

Layout, little-endian: magic, CRC-32 of all the rest, size unpacked; then, zstd, the length of the JSON, the JSON, the
planes. Another release of zstd may pack the same reference into other bytes; it reads these.
"""

import io
import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from types import NoneType, UnionType
from typing import Any, Protocol, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.counting.binning import Binning, Floats, Ints
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.errors import IntegrityError

_MAGIC = b"DPR1"
_HEAD = struct.Struct("<4sIQ")
_SIZE = struct.Struct("<Q")
_MICROSECOND = timedelta(microseconds=1)


def encode_reference(reference: Reference) -> bytes:
    """A reference as bytes; 2 MB for 24 columns by hour of the week at 15,000 rows a day, 90 days."""
    planes = io.BytesIO()
    told = json.dumps(_form(Reference).write(reference, planes), separators=(",", ":")).encode()
    body = _SIZE.pack(len(told)) + told + planes.getvalue()
    packed: bytes = _codec().compress(body, asbytes=True)
    return _HEAD.pack(_MAGIC, _checksum(len(body), packed), len(body)) + packed


def decode_reference(data: bytes) -> Reference:
    """The reference whose bytes these are.

    Raises:
        IntegrityError: the bytes are damaged, no reference, or of a form that this version does not know.
    """
    if len(data) < _HEAD.size or data[:4] != _MAGIC:
        raise IntegrityError(
            f"{len(data)} bytes are no frozen reference: they have no {_MAGIC.decode()} head; freeze it from its rows"
        )
    _, crc, size = _HEAD.unpack_from(data)
    packed = memoryview(data)[_HEAD.size :]
    if crc != _checksum(size, packed):
        raise IntegrityError("a frozen reference is damaged: its checksum does not fit; freeze it again from its rows")
    try:
        body = io.BytesIO(_codec().decompress(packed, size, asbytes=True))
        told = json.loads(body.read(*_SIZE.unpack(body.read(_SIZE.size))))
        reference: Reference = _form(Reference).read(told, body)
    except (ValueError, TypeError, LookupError, AttributeError, OSError, OverflowError, struct.error) as error:
        raise IntegrityError(
            f"a frozen reference has a form that this version does not know ({error!r}); freeze it again from its rows"
        ) from error
    return reference


def _checksum(size: int, packed: bytes | memoryview) -> int:
    return zlib.crc32(packed, zlib.crc32(_SIZE.pack(size)))


@cache
def _codec() -> Any:
    import pyarrow  # type: ignore[import-untyped]

    return pyarrow.Codec("zstd", compression_level=1)  # planes of noise: a higher level gains next to nothing


class _Form(Protocol):
    """How values of one declared type are told in JSON, their arrays put aside in `planes`; read in the same order."""

    def write(self, value: Any, planes: io.BytesIO) -> Any: ...

    def read(self, told: Any, planes: io.BytesIO) -> Any: ...


@dataclass(frozen=True)
class _Scalar:
    spell: Callable[[Any], Any]
    parse: Callable[[Any], Any]

    def write(self, value: Any, _planes: io.BytesIO) -> Any:
        return self.spell(value)

    def read(self, told: Any, _planes: io.BytesIO) -> Any:
        return self.parse(told)


_SCALARS: dict[Any, _Scalar] = {
    NoneType: _Scalar(lambda none: none, lambda none: none),
    str: _Scalar(str, str),
    int: _Scalar(int, int),
    float: _Scalar(lambda value: float(value).hex(), float.fromhex),
    datetime: _Scalar(datetime.isoformat, datetime.fromisoformat),
    timedelta: _Scalar(lambda value: value // _MICROSECOND, lambda count: count * _MICROSECOND),
    frozenset[str]: _Scalar(sorted, frozenset),
}


@dataclass(frozen=True)
class _Array:
    dtype: type[np.generic]

    def write(self, value: npt.NDArray[Any], planes: io.BytesIO) -> list[int]:
        """Number of planes, then the shape."""
        words = np.ascontiguousarray(value, np.uint64 if self.dtype is np.bool_ else self.dtype).ravel().view("<u8")
        number = (int(words.max(initial=0)).bit_length() + 7) // 8
        planes.write(words.view(np.uint8).reshape(-1, 8).T[:number].tobytes())
        return [number, *value.shape]

    def read(self, told: list[int], planes: io.BytesIO) -> npt.NDArray[Any]:
        number, *shape = told
        size = math.prod(shape)
        words = np.zeros(size, "<u8")
        for place in range(number):
            words.view(np.uint8)[place::8] = np.frombuffer(planes.read(size), np.uint8)
        return (words.astype(bool) if self.dtype is np.bool_ else words.view(self.dtype)).reshape(shape)


@dataclass(frozen=True)
class _Tuple:
    """Of parts of their own types, or of any number of one."""

    parts: tuple[Any, ...]

    def write(self, value: tuple[Any, ...], planes: io.BytesIO) -> list[Any]:
        return [form.write(part, planes) for form, part in zip(self._forms(len(value)), value, strict=True)]

    def read(self, told: list[Any], planes: io.BytesIO) -> tuple[Any, ...]:
        return tuple(form.read(part, planes) for form, part in zip(self._forms(len(told)), told, strict=True))

    def _forms(self, number: int) -> list[_Form]:
        return [_form(self.parts[0])] * number if self.parts[-1] is ... else [_form(part) for part in self.parts]


@dataclass(frozen=True)
class _Mapping:
    """Pairs in their order, which JSON's objects need not keep; their keys need not be strings."""

    pair: _Tuple

    def write(self, value: dict[Any, Any], planes: io.BytesIO) -> list[Any]:
        return [self.pair.write(pair, planes) for pair in value.items()]

    def read(self, told: list[Any], planes: io.BytesIO) -> dict[Any, Any]:
        return dict(self.pair.read(pair, planes) for pair in told)


@dataclass(frozen=True)
class _Union:
    parts: tuple[Any, ...]

    def write(self, value: Any, planes: io.BytesIO) -> list[Any]:
        """Which of the types it is, then the value."""
        place = next(k for k, part in enumerate(self.parts) if isinstance(value, get_origin(part) or part))
        return [place, _form(self.parts[place]).write(value, planes)]

    def read(self, told: list[Any], planes: io.BytesIO) -> Any:
        place, value = told
        return _form(self.parts[place]).read(value, planes)


@dataclass(frozen=True)
class _Record:
    make: Callable[..., Any]
    fields: dict[str, Any]

    def write(self, value: Any, planes: io.BytesIO) -> dict[str, Any]:
        return {name: _form(kind).write(getattr(value, name), planes) for name, kind in self.fields.items()}

    def read(self, told: dict[str, Any], planes: io.BytesIO) -> Any:
        return self.make(**{name: _form(self.fields[name]).read(value, planes) for name, value in told.items()})


class _Profiles:
    """Profiles of one binning: rows (H,), counts (H, C), sums (H, 2 x numeric columns)."""

    arrays = _Tuple((Ints, Ints, Floats))

    def write(self, profiles: list[Profile], planes: io.BytesIO) -> list[Any]:
        rows = np.array([profile.rows for profile in profiles])
        counts, sums = np.stack([p.counts for p in profiles]), np.stack([p.sums for p in profiles])
        return self.arrays.write((rows, counts, sums), planes)

    def read(self, told: list[Any], planes: io.BytesIO) -> Callable[[Binning], list[Profile]]:
        """The profiles as soon as their binning is known."""
        rows, counts, sums = self.arrays.read(told, planes)
        return lambda binning: [Profile(binning, *of) for of in zip(rows.tolist(), counts, sums, strict=True)]


def _reference(*, binning: Binning, by_hour: Callable[[Binning], list[Profile]], **more: Any) -> Reference:
    return Reference(binning=binning, by_hour=by_hour(binning), **more)


@cache
def _form(kind: Any) -> _Form:
    """The form of an annotation. Raises KeyError for one that no field has yet."""
    parts = get_args(kind)
    composed: dict[Any, Callable[[], _Form]] = {
        None: lambda: _Record(_reference if kind is Reference else kind, get_type_hints(kind)),
        UnionType: lambda: _Union(parts),
        np.ndarray: lambda: _Array(get_args(parts[1])[0]),
        tuple: lambda: _Tuple(parts),
        dict: lambda: _Mapping(_Tuple(parts)),
        list: _Profiles,  # the one list there is
    }
    return _SCALARS[kind] if kind in _SCALARS else composed[get_origin(kind)]()
