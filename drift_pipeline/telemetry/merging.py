"""Merging: the files of a Delta table stay few at any age. Readers see the same rows before and after."""

from deltalake import DeltaTable

from drift_pipeline.telemetry.storage import ONCE, Storage, vacuum

_MERGES = ((32, 1 << 20), (1024, 1 << 24))  # each so many commits, files are merged up to so many bytes
_VACUUM_EVERY = 1024  # commits
_GRACE_HOURS = 1  # a merged file stays for whoever began to read before


def is_due(before: int, now: int) -> bool:
    """Whether `merge_due` would do anything after the commits from the version `before` to `now`."""
    return now // _MERGES[0][0] != before // _MERGES[0][0]


def merge_due(handle: DeltaTable, storage: Storage, before: int, now: int) -> None:
    """Merge the small files, the larger ones more seldom. Raises CommitFailedError where another machine does."""
    for every, size in _MERGES:
        if now // every > before // every:
            _merge(handle, storage, size)
    if now // _VACUUM_EVERY > before // _VACUUM_EVERY:
        vacuum(handle, _GRACE_HOURS)


def merge_all(handle: DeltaTable, storage: Storage) -> int:
    """Merge the small files of each day, and delete what nothing names; how many files were merged. Raises
    CommitFailedError where another machine does."""
    merged = _merge(handle, storage, _MERGES[-1][1])
    vacuum(handle, _GRACE_HOURS)
    return merged


def _merge(handle: DeltaTable, storage: Storage, size: int) -> int:
    storage.outdate(handle)
    return int(handle.optimize.compact(target_size=size, commit_properties=ONCE)["numFilesRemoved"])
