"""Where a Delta table lies: in a folder, whose writers take turns, or in a bucket, where other machines' cannot.

In a bucket every commit is tried once, on the version that was looked at, and whoever is slower begins anew: so a
commit of one's own parts those who can still commit from those who cannot any more.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote

from deltalake import CommitProperties, DeltaTable

from drift_pipeline import bucket
from drift_pipeline.bucket import Bucket, Objects, Place
from drift_pipeline.errors import ConflictError
from drift_pipeline.files import keep_private, locked

log = logging.getLogger(__name__)
ONCE = CommitProperties(max_commit_retries=0)  # never moved behind somebody else's commit
_PROPERTIES = {
    "delta.checkpointInterval": "32",
    "delta.deletedFileRetentionDuration": "interval 0 seconds",  # nobody asks for old versions: see `delta`
    "delta.logRetentionDuration": "interval 0 seconds",
}


class Storage(Protocol):
    """`lock` is a file of this machine; `tries` is how often a commit may be lost to others."""

    @property
    def lock(self) -> Path: ...

    @property
    def tries(self) -> int: ...

    @property
    def properties(self) -> Mapping[str, str]: ...

    def options(self) -> dict[str, str] | None:
        """What delta-rs has to be told."""

    def begin(self) -> None:
        """Before a table is made. Raises InputError where two might make one."""

    def outdate(self, handle: DeltaTable, /) -> None:
        """From here on no merge is committed that looked at the table before."""

    def clear(self, handle: DeltaTable, day: str, /) -> None:
        """Delete every file that no commit names, also those of writers that were killed, and of none that works."""

    def away(self, error: Exception, /) -> str | None:
        """Why the place does not answer, where it is that."""


def storage_of(place: Place) -> Storage:
    return InBucket(place) if isinstance(place, Bucket) else InFolder(place)


class InFolder:
    """Here one writer works at a time, so that what no commit names is nobody's."""

    tries = 5
    properties = _PROPERTIES

    def __init__(self, path: Path) -> None:
        self.lock = path.with_name(f"{path.name}.lock")

    def options(self) -> None:
        return None

    def begin(self) -> None:
        pass

    def outdate(self, _handle: DeltaTable) -> None:
        pass

    def clear(self, handle: DeltaTable, _day: str) -> None:
        vacuum(handle, 0)

    def away(self, _error: Exception) -> None:
        return None


class InBucket:
    """`lock` keeps only this machine's writers from outrunning each other."""

    tries = 60
    # a writer may hang while others go on: an entry of the log that is gone would be put a second time, and be lost
    properties: Mapping[str, str] = {**_PROPERTIES, "delta.logRetentionDuration": "interval 1 hours"}

    def __init__(self, place: Bucket) -> None:
        self._place = place
        self.lock = place.beside.with_name(f"{place.beside.name}.lock")

    def options(self) -> dict[str, str]:
        return bucket.delta_options()

    def begin(self) -> None:
        Objects(self._place).require_conditional()

    def outdate(self, handle: DeltaTable) -> None:
        """By a change of the metadata, which every commit of delta-rs is checked against.

        It moves a merge behind other commits whatever it is told, and finds no conflict where one of them merged the
        same files (delta-io/delta-rs#3982): their rows would be there twice.
        """
        told = {"drift.merged": str(handle.version())}
        handle.alter.set_table_properties(told, raise_if_not_exists=False, commit_properties=ONCE)
        handle.update_incremental()

    def clear(self, handle: DeltaTable, day: str) -> None:
        """Each data file that lies there now and that no commit names after the next one, which is ours: its writer
        looked at an older version, and cannot commit any more."""
        objects = Objects(self._place)
        names = sorted(objects.names())
        lying = [name for name in names if not name.startswith("_delta_log/")]
        handle.create_write_transaction([], "append", handle.schema(), [day], commit_properties=ONCE)
        handle.update_incremental()
        named = {unquote(uri).removeprefix(f"{self._place}/") for uri in handle.file_uris()}
        objects.delete([name for name in lying if unquote(name) not in named])
        if objects.keeps_versions(next((name for name in names if name not in lying), "")):
            told = "the bucket keeps versions of what is deleted; delete those, or rows are not gone"
            log.warning("%s: %s", self._place, told)

    def away(self, error: Exception) -> str | None:
        return bucket.why(error) if bucket.is_away(error) else None


def vacuum(handle: DeltaTable, hours: int) -> None:
    """Delete what no commit names since so long."""
    handle.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=True)
    handle.update_incremental()


@contextmanager
def turn(lock: Path, what: Place, patience_s: float) -> Iterator[None]:
    """One process of this machine at a time. Raises ConflictError where others keep it for longer than that."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    keep_private(lock.parent)
    held = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until, pause = time.monotonic() + patience_s, 0.002
        while not locked(held):
            if time.monotonic() > until:
                raise ConflictError(f"{what}: another process writes it for {patience_s:.0f} s; try again")
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        yield
    finally:
        os.close(held)
