"""Files that the audit names take their place once their record is written: a home verifies at every moment.

Until then each waits in `<home>/waiting/`: a copy of `evidence/` holds nothing but what is whole.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, unquote

from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.rows import Put
from drift_pipeline.control.store import ControlReader, ControlStore
from drift_pipeline.errors import InputError
from drift_pipeline.files import write_whole

FILE = "file"  # the kind of state: what a file has to hold, by its model and its path below the home
ALL = "_all"  # stands for the model of a file that is about all of them; no model's name begins with an underscore
_ABANDONED_S = 3600.0


def file_key(home: Path, model: str, path: Path) -> str:
    """The key of a file's state."""
    return f"{model}/{path.relative_to(home).as_posix()}"


def put_digests(store: ControlReader, home: Path, model: str, files: Mapping[Path, str]) -> list[Put]:
    """State that names what files of a model hold, of those of which it says something else by now.

    It goes with the audit record of what wrote them; `verify_home` reads them again.
    """
    puts = []
    for path, digest in files.items():
        key = file_key(home, model, path)
        before = store.get(FILE, key)
        if before is None or before.body["digest"] != digest:
            puts.append(Put(FILE, key, {"digest": digest}, before.generation if before else 0))
    return puts


def let_wait(home: Path, folder: Path, pages: Mapping[str, bytes]) -> dict[Path, str]:
    """Write what is to lie in the folder, to take its place later; each file's digest.

    Raises:
        InputError: the folder, or what waits for it, cannot be written.
    """
    _require_place(home, folder)
    files = {folder / name: sha256(page) for name, page in pages.items()}
    for path, digest in files.items():
        write_whole(waiting_for(home, path, digest), pages[path.name])
    return files


def waiting_for(home: Path, path: Path, digest: str) -> Path:
    """Where the content of a file lies until the record that names it is written, and it is put in its place."""
    place = quote(path.relative_to(home).as_posix(), safe="")
    return home / "waiting" / f"{place}.{digest.removeprefix('sha256:')[:16]}"


def put_in_place(home: Path, store: ControlStore) -> None:
    """What the audit names by now takes its file's place, and what it names no more goes: whoever wrote it, and
    wherever that was killed.

    What it does not name after an hour was written by nobody who still works.
    """
    if not any(_waiting(home)):
        return
    with store.alone():
        for waits, path in [*_waiting(home)]:
            beside = _beside(store, home, path)
            digest = beside.get(path)
            if digest is not None and waiting_for(home, path, digest) == waits:
                path.parent.mkdir(parents=True, exist_ok=True)
                waits.replace(path)
                for gone in (other for other, named in beside.items() if named is None):
                    gone.unlink(missing_ok=True)
            elif _is_abandoned(waits):
                waits.unlink()


def _require_place(home: Path, folder: Path) -> None:
    """What waits is renamed once its record is written: that must not fail then."""
    waiting = home / "waiting"
    try:
        for one in (waiting, folder):
            one.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
    if waiting.stat().st_dev != folder.stat().st_dev or not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: cannot be written, or is of another file system than {home}; move it there")


def _waiting(home: Path) -> Iterator[tuple[Path, Path]]:
    """What waits, each with the path that it is to take."""
    folder = home / "waiting"
    for waits in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield waits, home / unquote(waits.name.rpartition(".")[0])


def _is_abandoned(waits: Path) -> bool:
    """It may be one that is being written, and has its name by now."""
    with suppress(FileNotFoundError):
        return time.time() - waits.stat().st_mtime > _ABANDONED_S
    return False


def _beside(store: ControlReader, home: Path, path: Path) -> dict[Path, str | None]:
    """What the document and those in its folder, `evidence/` or one of a model's version, have to hold."""
    folder = path.relative_to(home).parent
    model = folder.parts[1] if len(folder.parts) > 1 else ALL
    found = store.find(FILE, f"{model}/{folder.as_posix()}/")
    return {home / record.key.partition("/")[2]: record.body["digest"] for record in found}
