"""One Delta table of a lake: who writes takes turns, and each row carries the version that it landed with.

That number stays with the row whatever file it is moved to, so that small files are merged, logs shortened and rows
erased at any time, and a reader that knows how far it came misses nothing. Old versions of the table are not kept:
what a version held is what landed until then.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from drift_pipeline import bucket
from drift_pipeline.bucket import Place
from drift_pipeline.clock import Window
from drift_pipeline.errors import ConflictError, DriftError, IntegrityError, UnavailableError
from drift_pipeline.telemetry.merging import is_due, merge_all, merge_due
from drift_pipeline.telemetry.storage import ONCE, storage_of, turn

T = TypeVar("T")
Handle = DeltaTable
log = logging.getLogger(__name__)
LANDED, WRITER, BATCH, DAY = "_landed", "_writer", "_batch", "_day"
OURS = (LANDED, WRITER, BATCH)  # the columns that say how a row came here

_SKIPPING = {"delta.dataSkippingStatsColumns": LANDED}  # of any other column they would be somebody's values
_ATTEMPTS = 5
_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0  # before the second attempt; doubled before each further one
PATIENCE_S = 60.0  # for another process's turn; an erasure of many rows takes long
_known: dict[tuple[str, str], tuple[int, dict[str, int]]] = {}  # by path and id of a table: see `_last_batch`


class OvertakenError(ConflictError):
    """Another process wrote a batch of the source meanwhile."""


class Delta:
    """A table in a folder or a bucket, which may not be there yet. Its rows are partitioned by UTC day."""

    def __init__(self, path: Place, patience_s: float = PATIENCE_S) -> None:
        self.path, self._patience_s = path, patience_s
        self._storage = storage_of(path)
        self._table: DeltaTable | None = None
        self.wrote = -1  # the version that the last `append` made

    def handle(self) -> DeltaTable | None:
        """The table as it is now, other processes' commits included; None before the first row.

        Raises:
            IntegrityError: what is there is no whole table.
            UnavailableError: disk or bucket does not answer.
        """
        for _ in _attempts():
            try:
                if self._table is None:
                    self._table = DeltaTable(str(self.path), storage_options=self._storage.options())
                else:
                    self._table.update_incremental()
                return self._table
            except TableNotFoundError:
                return None
            except (DeltaError, OSError) as error:  # also where a checkpoint took the place of what was being read
                self._table, failed = None, error
                self._raise_away(error, "read")
        if isinstance(failed, OSError):
            raise UnavailableError(f"{self.path}: cannot be read: {failed}") from failed
        raise IntegrityError(f"{self.path}: cannot be read: {_why(failed)}; restore it from a copy") from failed

    def version(self) -> int:
        """-1 before the first row."""
        handle = self.handle()
        return -1 if handle is None else handle.version()

    def last_batch(self, source: str, *, anew: bool = True) -> int:
        """The number of the source's last batch, -1 before the first.

        Args:
            anew: else as the table stood when it was last looked at.
        """
        handle = self.handle() if anew or self._table is None else self._table
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

    def append(
        self,
        parts: Sequence[tuple[int, pl.DataFrame]],
        source: str,
        time_column: str,
        after: int | None = None,
        settle: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    ) -> int:
        """Write batches that are not here yet, as one commit that also records the last one's number, which is told.

        Args:
            after: the number that the source's last batch has to have; None = any.
            settle: what is to be written of a batch that comes alone, if only its number. It ends with a `look` at this
                table, and nobody's commit comes between that and this one; it is asked again where one did, of what
                it left.

        Raises:
            OvertakenError: it has another. ConflictError, UnavailableError: as for `change`. Nothing is written.
        """

        def write() -> tuple[int, int]:
            nonlocal parts
            if settle is not None:
                ((number, frame),) = parts
                parts = [(number, settle(frame))]
            handle = self.handle() if settle is None else self._table
            last = -1 if handle is None else _last_batch(handle, source)
            version = -1 if handle is None else handle.version()
            if after not in (None, last):
                raise OvertakenError(f"{self.path}: {source} came to {last}, not {after}: another process reads it")
            fresh = [part.with_columns(pl.lit(n, pl.Int64).alias(BATCH)) for n, part in parts if n > last]
            if not fresh:
                return last, version
            if handle is None:
                self._storage.begin()
            frame = _marked(pl.concat(fresh), version + 1, source, time_column)
            # never moved behind somebody else's commit, where its rows' number would be another's
            properties = CommitProperties(max_commit_retries=0, app_transactions=[Transaction(source, parts[-1][0])])
            if handle is None:
                self._make(frame, properties)
            else:  # a spec that gains a column leaves null in older rows
                known = _batches(handle)
                write_deltalake(handle, frame, mode="append", schema_mode="merge", commit_properties=properties)
                _known[_name(handle)] = version + 1, {**known, source: parts[-1][0]}
            self.wrote = version + 1
            return parts[-1][0], version

        written, before = self.change(write)
        self._tidy(before)
        return written

    def _make(self, frame: pl.DataFrame, properties: CommitProperties) -> None:
        """The table with its first rows. Raises CommitFailedError where another process was faster."""
        try:
            write_deltalake(
                str(self.path),
                frame,
                mode="error",
                partition_by=[DAY],
                configuration={**_SKIPPING, **self._storage.properties},
                storage_options=self._storage.options(),
                commit_properties=properties,
            )
        except DeltaError:
            if self.handle() is None:
                raise
            raise CommitFailedError(f"{self.path}: another process made it") from None

    def change(self, do: Callable[[], T]) -> T:
        """Do what writes, in this process's turn; again where a writer that knows of no turns was faster.

        Raises:
            ConflictError: others did not end their turn, or were faster every time; nothing is written.
            UnavailableError: disk or bucket does not take it.
        """
        for _ in _attempts(self._storage.tries):
            try:
                with turn(self._storage.lock, self.path, self._patience_s):
                    return do()
            except CommitFailedError:
                self._table = None
            except (DeltaError, OSError) as error:  # a full disk, a folder that went away
                self._table = None
                self._raise_away(error, "written")
                raise UnavailableError(f"{self.path}: cannot be written: {_why(error)}") from error
        raise ConflictError(f"{self.path}: {self._storage.tries} commits were lost to other writers; do it again")

    def compact(self) -> int:
        """Merge the small files of each day, and delete what nothing names; how many files were merged."""

        def merge() -> int:
            handle = self.handle()
            return 0 if handle is None else merge_all(handle, self._storage)

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
                told.append(handle.delete(one, commit_properties=ONCE).get("num_deleted_rows") or 0)
            self._storage.clear(handle, DAY)
            _shorten(handle)

        self.change(delete)
        return sum(told)

    def _tidy(self, before: int) -> None:
        """Merge what is due after a commit on the version `before`. A merge that fails is left to the next one: what
        was to be written is written."""
        now = -1 if self._table is None else self._table.version()
        if not is_due(before, now):
            return

        def merge() -> None:
            if (handle := self.handle()) is not None:
                merge_due(handle, self._storage, before, now)

        try:
            self.change(merge)
        except DriftError as error:
            log.warning("%s; its small files are merged later", error)

    def _raise_away(self, error: Exception, done: str) -> None:
        """Raises UnavailableError where it is the place that does not answer, without the client's own words."""
        if (reason := self._storage.away(error)) is not None:
            raise UnavailableError(f"{self.path}: cannot be {done}: {reason}") from None


def _attempts(count: int = _ATTEMPTS) -> Iterator[int]:
    """A few, with longer and longer pauses between them, which are no two writers' same."""
    for attempt in range(count):
        if attempt:
            time.sleep(min(_PAUSE_S * 2 ** (attempt - 1), _LONGEST_PAUSE_S) * random.uniform(0.5, 1.5))
        yield attempt


def _marked(frame: pl.DataFrame, version: int, source: str, time_column: str) -> pl.DataFrame:
    """With what tells as which version, by whom and of which day the rows landed."""
    return frame.with_columns(
        pl.lit(version, pl.Int64).alias(LANDED),
        pl.lit(source).alias(WRITER),
        pl.col(time_column).dt.strftime("%Y-%m-%d").alias(DAY),
    )


def _last_batch(handle: DeltaTable, source: str) -> int:
    """Kept while the table stands at its version: delta-rs reads the log back to its checkpoint each time it is asked,
    in a bucket a request an entry."""
    known = _batches(handle)
    if source not in known:
        version = handle.transaction_version(source)
        known[source] = -1 if version is None else version
    return known[source]


def _batches(handle: DeltaTable) -> dict[str, int]:
    """The sources' last batches as far as they are known at the table's version."""
    now = handle.version()
    version, known = _known.get(_name(handle), (-1, {}))
    if version != now:
        known = {}
        _known[_name(handle)] = now, known
    return known


def _name(handle: DeltaTable) -> tuple[str, str]:
    return handle.table_uri, str(handle.metadata().id)


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


def _why(error: Exception) -> str:
    """Without the stack that delta-rs appends."""
    return str(error).partition("\n")[0]


def _shorten(handle: DeltaTable) -> None:
    """Leave of the log what tells of the table as it is now."""
    handle.create_checkpoint()
    handle.cleanup_metadata()
