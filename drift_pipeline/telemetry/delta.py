"""One Delta table of a lake: who writes takes turns, and each row carries the version that it landed with.

That number stays with the row whatever file it is moved to, so that small files are merged, logs shortened and rows
erased at any time, and a reader that knows how far it came misses nothing. Old versions of the table are not kept:
what a version held is what landed until then.
"""

import fcntl
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from drift_pipeline import bucket
from drift_pipeline.bucket import Bucket, Objects, Place
from drift_pipeline.clock import Window
from drift_pipeline.errors import ConflictError, DriftError, IntegrityError, UnavailableError
from drift_pipeline.files import keep_private

T = TypeVar("T")
Handle = DeltaTable
log = logging.getLogger(__name__)
LANDED, WRITER, BATCH, DAY = "_landed", "_writer", "_batch", "_day"
OURS = (LANDED, WRITER, BATCH)  # the columns that say how a row came here

_PROPERTIES = {
    "delta.dataSkippingStatsColumns": LANDED,  # of any other column they would be somebody's values
    "delta.checkpointInterval": "32",
    "delta.deletedFileRetentionDuration": "interval 0 seconds",  # nobody asks for old versions: see the top
    "delta.logRetentionDuration": "interval 0 seconds",
}
# in a bucket a writer may hang while others go on: an entry that is gone would be put a second time, and be lost
_LONGER_LOG = {"delta.logRetentionDuration": "interval 1 hours"}
_MERGES = ((32, 1 << 20), (1024, 1 << 24))  # each so many commits, files are merged up to so many bytes
_VACUUM_EVERY = 1024  # commits
_GRACE_HOURS = 1  # a merged file stays for whoever began to read before
_ATTEMPTS, _ATTEMPTS_IN_BUCKET = 5, 20  # of who writes a bucket, many may be faster
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # before the second attempt; doubled before each further one
_ONCE = CommitProperties(max_commit_retries=0)  # never moved behind somebody else's commit
PATIENCE_S = 60.0  # for another process's turn; an erasure of many rows takes long


class Delta:
    """A table in a folder or a bucket, which may not be there yet. Its rows are partitioned by UTC day."""

    def __init__(self, path: Place, patience_s: float = PATIENCE_S) -> None:
        self.path, self._patience_s = path, patience_s
        self._shared = isinstance(path, Bucket)
        self._table: DeltaTable | None = None

    def handle(self) -> DeltaTable | None:
        """The table as it is now, other processes' commits included; None before the first row.

        Raises:
            IntegrityError: what is there is no whole table.
            UnavailableError: disk or bucket does not answer.
        """
        for _ in _attempts():
            try:
                if self._table is None:
                    self._table = DeltaTable(str(self.path), storage_options=self._options())
                else:
                    self._table.update_incremental()
                return self._table
            except TableNotFoundError:
                return None
            except (DeltaError, OSError) as error:  # also where a checkpoint took the place of what was being read
                self._table, failed = None, error
                self._raise_away(error, "read")
        if isinstance(failed, OSError) and not self._shared:
            raise UnavailableError(f"{self.path}: cannot be read: {failed}") from failed
        raise IntegrityError(f"{self.path}: cannot be read: {_why(failed)}; restore it from a copy") from failed

    def version(self) -> int:
        """-1 before the first row."""
        handle = self.handle()
        return -1 if handle is None else handle.version()

    def last_batch(self, source: str) -> int:
        """The number of the source's last batch, -1 before the first."""
        handle = self.handle()
        return -1 if handle is None else _last_batch(handle, source)

    def look(self, at: Callable[[Handle], T], absent: T) -> T:
        """What is found in the table as it is now; looked at anew where files were rewritten meanwhile.

        Args:
            absent: the answer where there is no table yet.

        Raises:
            IntegrityError: a file of the table is gone, or its bytes are no table.
            UnavailableError: disk or bucket does not give them.
        """
        for _ in _attempts():
            handle = self.handle()
            if handle is None:
                return absent
            try:
                return at(handle)
            except FileNotFoundError as error:
                self._table, gone = None, error
            except (DeltaError, pl.exceptions.PolarsError) as error:
                self._raise_away(error, "read")
                raise IntegrityError(
                    f"{self.path}: cannot be read: {_why(error)}; restore the table from a copy"
                ) from error
            except OSError as error:
                self._raise_away(error, "read")
                raise UnavailableError(f"{self.path}: cannot be read: {_why(error)}") from error
        raise IntegrityError(f"{self.path}: a file of the table is gone: {gone}; restore it from a copy") from gone

    def append(self, parts: Sequence[tuple[int, pl.DataFrame]], source: str, time_column: str) -> int:
        """Write batches that are not here yet, as one commit that also records the last one's number, which is told.

        Raises:
            ConflictError, UnavailableError: as for `change`; nothing is written.
        """

        def write() -> tuple[int, int]:
            handle = self.handle()
            last = -1 if handle is None else _last_batch(handle, source)
            version = -1 if handle is None else handle.version()
            fresh = [part.with_columns(pl.lit(n, pl.Int64).alias(BATCH)) for n, part in parts if n > last]
            if not fresh:
                return last, version
            frame = pl.concat(fresh).with_columns(
                pl.lit(version + 1, pl.Int64).alias(LANDED),
                pl.lit(source).alias(WRITER),
                pl.col(time_column).dt.strftime("%Y-%m-%d").alias(DAY),
            )
            write_deltalake(
                str(self.path) if handle is None else handle,
                frame,
                mode="append",
                schema_mode="merge",  # a spec that gains a column leaves null in older rows
                partition_by=[DAY],
                configuration=(_PROPERTIES | (_LONGER_LOG if self._shared else {})) if handle is None else None,
                storage_options=self._options(),
                # never moved behind somebody else's commit, where its rows' number would be another's
                commit_properties=CommitProperties(
                    max_commit_retries=0, app_transactions=[Transaction(source, parts[-1][0])]
                ),
            )
            return parts[-1][0], version

        written, before = self.change(write)
        self._tidy(before)
        return written

    def change(self, do: Callable[[], T]) -> T:
        """Do what writes, in this process's turn; again where a writer that knows of no turns was faster.

        Raises:
            ConflictError: others did not end their turn, or were faster every time; nothing is written.
            UnavailableError: disk or bucket does not take it.
        """
        tries = _ATTEMPTS_IN_BUCKET if self._shared else _ATTEMPTS
        for _ in _attempts(tries):
            try:
                with self._turn():
                    return do()
            except CommitFailedError:
                self._table = None
            except (DeltaError, OSError) as error:  # a full disk, a folder that went away
                self._table = None
                self._raise_away(error, "written")
                raise UnavailableError(f"{self.path}: cannot be written: {_why(error)}") from error
        raise ConflictError(f"{self.path}: {tries} commits were lost to other writers; do it again")

    def compact(self) -> int:
        """Merge the small files of each day, and delete what nothing names; how many files were merged."""

        def merge() -> int:
            handle = self.handle()
            if handle is None:
                return 0
            merged = int(_merge(handle, _MERGES[-1][1])["numFilesRemoved"])
            _vacuum(handle, _GRACE_HOURS)
            return merged

        return self.change(merge)

    def drop(self, conditions: Sequence[str]) -> int:
        """Delete rows for good, from files and log, with all that a killed writer left. How many there were.

        Args:
            conditions: each in Delta's SQL, one after the other; they stand in the log until this is done.
        """

        told = list[int]()  # also of tries that others outran after the rows were gone

        def delete() -> None:
            handle = self.handle()
            if handle is None:
                return
            for one in conditions:
                told.append(handle.delete(one, commit_properties=_ONCE).get("num_deleted_rows") or 0)
            if isinstance(self.path, Bucket):
                self._sweep(handle, self.path)
            else:
                _vacuum(handle, 0)  # in our turn no file is being written, so that what no commit names is nobody's
            _shorten(handle)

        self.change(delete)
        return sum(told)

    def _tidy(self, before: int) -> None:
        """Now and then, after a commit on the version `before`: merge small files, which are then few at any age.

        A merge that fails is left to the next one: what was to be written is written.
        """
        now = -1 if self._table is None else self._table.version()
        if now // _MERGES[0][0] == before // _MERGES[0][0]:
            return

        def merge() -> None:
            handle = self.handle()
            for every, size in _MERGES:
                if handle is not None and now // every > before // every:
                    _merge(handle, size)
            if handle is not None and now // _VACUUM_EVERY > before // _VACUUM_EVERY:
                _vacuum(handle, _GRACE_HOURS)

        try:
            self.change(merge)
        except DriftError as error:
            log.warning("%s; its small files are merged later", error)

    def _sweep(self, handle: DeltaTable, path: Bucket) -> None:
        """Delete each data file that lies there now and that no commit names after the next one, which is ours: its
        writer looked at an older version, and cannot commit any more."""
        files = Objects(path)
        names = sorted(files.names())
        lying = [name for name in names if not name.startswith("_delta_log/")]
        handle.create_write_transaction([], "append", handle.schema(), [DAY], commit_properties=_ONCE)
        handle.update_incremental()
        named = {unquote(uri).removeprefix(f"{path}/") for uri in handle.file_uris()}
        files.delete([name for name in lying if unquote(name) not in named])
        if files.keeps_versions(next((name for name in names if name not in lying), "")):
            log.warning("%s: the bucket keeps versions of what is deleted; delete those, or rows are not gone", path)

    def _options(self) -> dict[str, str] | None:
        return bucket.delta_options() if self._shared else None

    def _raise_away(self, error: Exception, done: str) -> None:
        """Raises UnavailableError where it is the bucket that does not answer, without the client's own words."""
        if self._shared and bucket.is_away(error):
            raise UnavailableError(f"{self.path}: cannot be {done}: {bucket.why(error)}") from None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One process of this machine at a time.

        Raises ConflictError where others keep it for longer than patience lasts.
        """
        here = self.path.beside if isinstance(self.path, Bucket) else self.path
        here.parent.mkdir(parents=True, exist_ok=True)
        keep_private(here.parent)
        lock = os.open(here.with_name(f"{here.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until, pause = time.monotonic() + self._patience_s, 0.002
            while not _locked(lock):
                if time.monotonic() > until:
                    raise ConflictError(
                        f"{self.path}: another process writes it for {self._patience_s:.0f} s; try again"
                    )
                time.sleep(pause)
                pause = min(2 * pause, 0.1)
            yield
        finally:
            os.close(lock)


def _attempts(count: int = _ATTEMPTS) -> Iterator[int]:
    """A few, with longer and longer pauses between them, which are no two writers' same."""
    for attempt in range(count):
        if attempt:
            time.sleep(min(_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S) * random.uniform(0.5, 1.5))
        yield attempt


def _last_batch(handle: DeltaTable, source: str) -> int:
    version = handle.transaction_version(source)
    return -1 if version is None else version


def days_of(window: Window) -> list[tuple[str, str, str]]:
    """What `scan` is told to look only at the files of the window's days."""
    days = list(window.days()) or [window.start.date().isoformat()]
    return [(DAY, ">=", days[0]), (DAY, "<=", days[-1])]


def scan(handle: DeltaTable, among: Sequence[tuple[str, str, Any]] = ()) -> pl.LazyFrame:
    """The rows of the files that may hold some that fit `among`: all of its (column, operator, value)."""
    schema = pl.Schema(handle.schema().to_arrow())
    schema.pop(DAY)  # tells of folders
    files = [unquote(file) for file in handle.file_uris(file_pruning_predicate=list(among) or None)]
    if not files:
        return pl.LazyFrame(schema=schema)
    far: dict[str, Any] = {}
    if handle.table_uri.startswith(bucket.SCHEME):
        far = {"storage_options": bucket.polars_options(), "credential_provider": None}
    return pl.scan_parquet(files, schema=schema, hive_partitioning=False, glob=False, missing_columns="insert", **far)


def _merge(handle: DeltaTable, size: int) -> dict[str, Any]:
    return handle.optimize.compact(target_size=size, commit_properties=_ONCE)


def _why(error: Exception) -> str:
    """Without the stack that delta-rs appends."""
    return str(error).partition("\n")[0]


def _shorten(handle: DeltaTable) -> None:
    """Leave of the log what tells of the table as it is now."""
    handle.create_checkpoint()
    handle.cleanup_metadata()


def _vacuum(handle: DeltaTable, hours: int) -> None:
    handle.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False, full=True)
    handle.update_incremental()


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
