"""A folder that is written again and again, in which others may have files: none is touched that was not written here.

`SHA256SUMS` has what was written, as sha256sum has it: `sha256sum -c SHA256SUMS` checks the folder.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline.files import locked, write_whole

LIST = "SHA256SUMS"
_PART = r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"  # never hidden, and no `..`
_LINE = re.compile(rf"([0-9a-f]{{64}})  ({_PART}(?:/{_PART})*)")


@dataclass(frozen=True)
class Changed:
    """Names of files that were written, and that were removed."""

    written: tuple[str, ...]
    removed: tuple[str, ...]


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Changed:
    """Make the folder hold these files, and no more those that it had of an earlier call. Killed at any time, the next
    call goes on.

    Args:
        files: by path below the folder.

    Raises:
        InputError: a file there was not written here, or was changed since; nothing is changed then.
        ConflictError: another process writes it.
    """
    with _alone(folder):
        known = _listed(folder)
        wanted = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        held = {name: _held(folder, name) for name in {*known, *wanted}}
        ours = {name: {None, wanted.get(name), *known.get(name, ())} for name in held}
        if strange := sorted(name for name, digest in held.items() if digest not in ours[name]):
            raise InputError(f"{folder / strange[0]}: was not written here, or was changed since; move it away")
        written = tuple(sorted(name for name, digest in wanted.items() if held[name] != digest))
        removed = tuple(sorted(name for name in known if name not in wanted and held[name]))
        pairs = set(wanted.items())
        before = {(name, digest) for name, digests in known.items() for digest in digests}
        if before != pairs:
            _list(folder, before | pairs)
        for name in written:
            write_whole(folder / name, files[name])
        for name in removed:
            (folder / name).unlink()
            with suppress(OSError):  # there is more in it
                for above in _above(folder, name):
                    above.rmdir()
        if before != pairs:
            _list(folder, pairs)
    return Changed(written, removed)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(f"{folder}: is no folder to write to: {error.strerror}") from error
    try:
        if not locked(lock):
            raise ConflictError(f"{folder}: another process writes it; try again")
        yield
    finally:
        os.close(lock)


def _listed(folder: Path) -> dict[str, set[str]]:
    """What was written, by name; of one that a killed process was about to write both digests."""
    path, found = folder / LIST, dict[str, set[str]]()
    try:
        lines = path.read_text().splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}; move it away") from error
    for line in lines:
        if not (match := _LINE.fullmatch(line)):
            raise InputError(f"{path}: {line[:100]!r} is not of a list that was written here; move it away")
        found.setdefault(match[2], set()).add(match[1])
    return found


def _held(folder: Path, name: str) -> str | None:
    """The digest of what lies there, None where nothing does; "" of what is no plain file, or lies behind a link."""
    path, above = folder / name, _above(folder, name)
    if path.is_symlink() or any(one.is_symlink() or (one.exists() and not one.is_dir()) for one in above):
        return ""
    if not path.exists():
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    except OSError:
        return ""


def _above(folder: Path, name: str) -> list[Path]:
    """The folders between it and the file, the innermost first."""
    return [folder / part for part in Path(name).parents if part.parts]


def _list(folder: Path, pairs: set[tuple[str, str]]) -> None:
    write_whole(folder / LIST, "".join(f"{digest}  {name}\n" for name, digest in sorted(pairs)))
