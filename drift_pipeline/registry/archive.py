"""What a model's archive declares, held against what is in it, before anything is allocated for it."""

import io
import math
import zipfile

from numpy.lib import format as npy

from drift_pipeline.errors import IntegrityError

MOST_BYTES = 1 << 30  # of all files together, unpacked
MOST_SCHEMA_BYTES = 32 << 20  # JSON, which takes many times its size in memory
SCHEMA = "schema.json"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def unpacked_bytes(data: bytes) -> int:
    """Of an archive's files together, as it declares them.

    Raises:
        Exception: whatever zipfile raises on broken bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return sum(entry.file_size for entry in archive.infolist())


def check_archive(data: bytes, *, inner: bool = False) -> None:
    """An archive of skops, or inside of it one of a sparse matrix.

    Raises:
        IntegrityError: unpacked it is too large, or an array declares other bytes than there are.
        Exception: whatever else zipfile and numpy raise on broken bytes.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if (size := sum(entry.file_size for entry in entries)) > MOST_BYTES:
            raise IntegrityError(f"its files take {size:,} bytes, more than {MOST_BYTES:,}")
        for entry in entries:
            if entry.filename == SCHEMA and entry.file_size > MOST_SCHEMA_BYTES:
                raise IntegrityError(f"{SCHEMA} takes {entry.file_size:,} bytes, more than {MOST_SCHEMA_BYTES:,}")
            _check_entry(archive, entry, inner)


def _check_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, inner: bool) -> None:
    with archive.open(entry) as file:
        start = file.read(len(npy.MAGIC_PREFIX))
    if start == npy.MAGIC_PREFIX:
        with archive.open(entry) as file:
            _check_array(io.BytesIO(file.read(1 << 16)), entry)
    elif start.startswith(b"PK"):
        if inner:
            raise IntegrityError(f"{entry.filename}: an archive in an archive in an archive")
        check_archive(archive.read(entry), inner=True)


def _check_array(file: io.BytesIO, entry: zipfile.ZipInfo) -> None:
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise IntegrityError(f"{entry.filename}: an array in a format that is not read, {version}")
    shape, _, dtype = _HEADERS[version](file)
    wanted = file.tell() + math.prod(shape) * max(1, dtype.itemsize)
    if dtype.hasobject or wanted > entry.file_size or min(shape, default=0) < 0:
        told = f"{shape} of {dtype}, {wanted:,} bytes, and has {entry.file_size:,}"
        raise IntegrityError(f"{entry.filename}: an array that declares {told}")
