"""The lake of one model: append-only Delta tables, partitioned by UTC day.

A batch is named by its source and a growing number; one that was written already is not written again, so a
producer may send it twice. Small batches wait in memory until `flush_rows` have come: readers see them at once,
and a producer that needs them on disk (to commit its offset) calls `flush`.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from drift_pipeline.clock import Window
from drift_pipeline.errors import ConflictError, InputError, IntegrityError, UnavailableError

Table = Literal["predictions", "outcomes", "shadow", "profiles", "late", "dead_letters"]
_TIME: dict[Table, str] = {
    "predictions": "_time",
    "outcomes": "_observed_at",
    "shadow": "_time",
    "profiles": "_time",
    "late": "_time",
    "dead_letters": "_time",
}
TABLES: tuple[Table, ...] = tuple(_TIME)
_BATCH = "_batch"
_CHECKPOINT_EVERY = 20  # commits; a log without checkpoints is read again whole at each append
_ATTEMPTS = 5  # at one commit; each is lost only to another writer's


@dataclass(frozen=True)
class Cursor:
    """How far a reader has come in the order in which rows landed: a Delta version, and the last batch of the source
    that was read while it still waited in its writer's memory."""

    version: int = -1
    batch: int = -1
    source: str = ""


class Lake:
    """Predictions as they were served and outcomes as they became known.

    `predictions`: `_id, _time, _version, _route, _score`, the spec's other columns and features.
    `shadow`: `_id, _time, _version, _score` of the model that did not answer, while a rollout mirrors traffic.
    `outcomes`: `_id, _observed_at, _label` (0 or 1, or a regression's number).
    `profiles`: `_id, _time, _version`, and what `loop.watch` keeps of each hour, or whole day, of that version.
    `late`: rows of `predictions` that came too late to be counted.
    `dead_letters`: `_id, _time, _source, _model, _reason, _payload` of what was no event.
    """

    def __init__(self, root: Path, source: str = "capture", flush_rows: int = 1) -> None:
        """Raises InputError where delta-rs could not write: it dies on these signs in a path, or writes elsewhere."""
        if odd := sorted(set(str(root.absolute())) & set("[]^|\\%")):
            raise InputError(f"{root}: a lake's path cannot hold {' '.join(odd)}; choose another folder")
        self.root = root
        self._source = source
        self._flush_rows = flush_rows
        self._waiting: dict[Table, list[tuple[int, pl.DataFrame]]] = {table: [] for table in _TIME}
        self._tables: dict[Table, DeltaTable] = {}
        self._written = {table: self._last_batch(table) for table in _TIME}

    def append(self, table: Table, frame: pl.DataFrame, batch: int) -> bool:
        """Take a batch; False, and nothing is done, when this or a later number of the source was taken before."""
        waiting = self._waiting[table]
        if batch <= max(self._written[table], waiting[-1][0] if waiting else -1):
            return False
        waiting.append((batch, frame))
        if sum(part.height for _, part in waiting) >= self._flush_rows:
            self.flush(table)
        return True

    def flush(self, table: Table) -> None:
        """Write what waits, as one Delta commit that also records the last batch's number.

        Batches that another process of the same source wrote meanwhile are dropped, not written twice.

        Raises:
            ConflictError: other writers were faster every time; what waits still waits.
            UnavailableError: the disk does not take it; what waits still waits.
        """
        for _ in range(_ATTEMPTS):
            self._written[table] = self._last_batch(table)
            waiting = [(batch, part) for batch, part in self._waiting[table] if batch > self._written[table]]
            self._waiting[table] = waiting
            if not waiting:
                return
            try:
                self._write(table, waiting[-1][0], pl.concat([_numbered(part, batch) for batch, part in waiting]))
            except CommitFailedError:  # the handle is older than somebody else's commit
                self._tables.pop(table, None)
                continue
            except (DeltaError, OSError) as error:  # a full disk, a folder that went away: what waits still waits
                self._tables.pop(table, None)
                raise UnavailableError(f"{self.root / table}: cannot be written: {error}") from error
            self._written[table] = waiting[-1][0]
            waiting.clear()
            return
        raise ConflictError(f"{self.root / table}: {_ATTEMPTS} commits were lost to other writers; flush again")

    def _write(self, table: Table, last: int, rows: pl.DataFrame) -> None:
        frame = rows.with_columns(_day=pl.col(_TIME[table]).dt.strftime("%Y-%m-%d"))
        handle = self._tables.get(table)
        write_deltalake(
            handle if handle is not None else str(self.root / table),
            frame,
            mode="append",
            schema_mode="merge",  # a spec that gains a column leaves null in older rows
            partition_by=["_day"],
            commit_properties=CommitProperties(app_transactions=[Transaction(self._source, last)]),
        )
        if handle is not None and handle.version() % _CHECKPOINT_EVERY == 0:
            handle.create_checkpoint()
            del self._tables[table]

    def close(self) -> None:
        for table in _TIME:
            self.flush(table)

    def version(self, table: Table) -> int:
        """The Delta version that holds every batch taken so far (flushes), -1 for an empty table."""
        self.flush(table)
        handle = self._handle(table)
        return -1 if handle is None else handle.version()

    def read(
        self, table: Table, window: Window, version: int | None = None, columns: Collection[str] = ()
    ) -> pl.DataFrame:
        """Rows with their time (`_time` or `_observed_at`) in the window, in order of time and then id.

        Args:
            version: the table as it was then, as `version` told it; None = as it is now, with what still waits.
            columns: those that are wanted beside time and id, where the table has them; none = all.
        """
        wanted = {*columns, _TIME[table], "_id"} if columns else set[str]()
        column = pl.col(_TIME[table])
        inside = (column >= window.start) & (column < window.end)
        waiting = self._waiting[table] if version is None else []
        frames = [part.filter(inside) for _, part in waiting if _touches(part[_TIME[table]], window)]
        handle = self._handle(table) if version is None else self._at(table, version)
        if handle is not None and (files := handle.file_uris(file_pruning_predicate=_days(window))):
            paths = [unquote(file) for file in files]
            frames.insert(0, _read(paths, wanted).drop(_BATCH, strict=False).filter(inside))
        if wanted:
            frames = [frame.select(name for name in frame.columns if name in wanted) for frame in frames]
        return self._in_order(table, frames)

    def last_batch(self, table: Table) -> int:
        """The number of this source's last batch in the table, -1 before the first."""
        return max(self._last_batch(table), self._waiting[table][-1][0] if self._waiting[table] else -1)

    def landed(self, table: Table, since: Cursor) -> tuple[pl.DataFrame, Cursor]:
        """Rows that landed after the cursor, whatever their time, and the cursor after them.

        No row is told twice and none is left out, however late it is and whoever writes meanwhile: what counts is the
        order of commits. Rewritten files (compaction, erasure) land nothing.

        Raises:
            IntegrityError: the log does not reach back to the cursor any more.
        """
        handle, waiting = self._handle(table), self._waiting[table]
        version, frames = -1 if handle is None else handle.version(), []
        for number in range(since.version + 1, version + 1):
            source, files = self._appended(table, number)
            if files:
                rows = _read(files)
                known = since.batch if source == since.source and _BATCH in rows.columns else -1
                frames.append((rows.filter(pl.col(_BATCH) > known) if known >= 0 else rows).drop(_BATCH, strict=False))
        seen = since.batch if since.source == self._source else -1
        frames += [part for batch, part in waiting if batch > seen]
        return self._in_order(table, [frame for frame in frames if frame.height]), self._at_end(table, version)

    def cursor(self, table: Table) -> Cursor:
        """After everything that has landed by now."""
        handle = self._handle(table)
        return self._at_end(table, -1 if handle is None else handle.version())

    def _at_end(self, table: Table, version: int) -> Cursor:
        waiting = self._waiting[table]
        return Cursor(version, waiting[-1][0], self._source) if waiting else Cursor(version)

    def _in_order(self, table: Table, frames: list[pl.DataFrame]) -> pl.DataFrame:
        return pl.concat(frames, how="diagonal_relaxed").sort(_TIME[table], "_id") if frames else pl.DataFrame()

    def _appended(self, table: Table, version: int) -> tuple[str, list[str]]:
        """The source of one commit, and the files that it appended, off Delta's own log."""
        log = self.root / table / "_delta_log" / f"{version:020}.json"
        try:
            actions = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        except OSError as error:
            raise IntegrityError(
                f"{log}: cannot be read; what landed since can only be counted anew: {error}"
            ) from error
        told = {kind: action[kind] for action in actions for kind in ("commitInfo", "txn") if kind in action}
        if told.get("commitInfo", {}).get("operation") != "WRITE":
            return "", []
        added = [str(self.root / table / unquote(a["add"]["path"])) for a in actions if "add" in a]
        kept = [file for file in added if Path(file).exists()]  # the rest was erased, or merged more than a day ago
        return told.get("txn", {}).get("appId", ""), kept

    def versions(self) -> dict[str, int]:
        """The Delta versions of `predictions` and `outcomes`, for `labelled` to read the same rows again."""
        return {"predictions": self.version("predictions"), "outcomes": self.version("outcomes")}

    def labelled(
        self, window: Window, as_of: datetime, delay: timedelta, versions: Mapping[str, int] | None = None
    ) -> pl.DataFrame:
        """Predictions of the window whose outcome was observed before `as_of`, with `_label`; in order of time.

        Of several outcomes of one prediction the last observed counts. `delay` only bounds which days of outcomes are
        looked at: labels later than twice the delay and a week after the window do not count as training data.
        """
        until = min(as_of, window.end + 2 * delay + timedelta(days=7))
        pinned = versions or {}
        predictions = self.read("predictions", window, pinned.get("predictions"))
        known = self.read("outcomes", Window(window.start, max(window.start, until)), pinned.get("outcomes"))
        if predictions.is_empty() or known.is_empty():
            return pl.DataFrame()
        last = known.select("_id", "_label").unique("_id", keep="last", maintain_order=True)
        return predictions.join(last, on="_id", how="inner", maintain_order="left")

    def compact(self, table: Table, before: date) -> int:
        """Merge the many small files of each day before the date; how many files went. Readers see the same rows."""
        handle = self._handle(table)
        if handle is None:
            return 0
        with self._changing(table):
            told = handle.optimize.compact(partition_filters=[("_day", "<", before.isoformat())])
            handle.create_checkpoint()
            # what a reader began with stays for a day
            handle.vacuum(retention_hours=24, dry_run=False, enforce_retention_duration=False)
        return int(told["numFilesRemoved"])

    def size(self, table: Table, before: date, but: tuple[date, date]) -> tuple[int, int]:
        """Rows and bytes of the days before the date, but for those from one date to another."""
        handle = self._handle(table)
        if handle is None:
            return 0, 0
        files = pl.DataFrame(handle.get_add_actions(flatten=True))
        day = pl.col("partition._day")
        old = files.filter(
            day < before.isoformat(), ~day.is_between(pl.lit(but[0].isoformat()), pl.lit(but[1].isoformat()))
        )
        return int(old["num_records"].sum()), int(old["size_bytes"].sum())

    def rows(self, table: Table) -> int:
        """How many rows the table holds, those that wait included; off Delta's log, without reading one."""
        handle = self._handle(table)
        written = 0 if handle is None else int(pl.DataFrame(handle.get_add_actions(flatten=True))["num_records"].sum())
        return written + sum(part.height for _, part in self._waiting[table])

    def find(self, table: Table, rows: pl.Expr, columns: Sequence[str]) -> pl.DataFrame:
        """Rows of any time, read file by file; columns that the table lacks are left out."""
        handle = self._handle(table)
        files = [] if handle is None else [unquote(file) for file in handle.file_uris()]
        if not files:
            return pl.DataFrame()
        scan = pl.scan_parquet(
            files, hive_partitioning=False, glob=False, missing_columns="insert", extra_columns="ignore"
        )
        known = [name for name in columns if name in scan.collect_schema()]
        return scan.filter(rows).select(known).collect()

    def drop(self, table: Table, where: str) -> int:
        """Delete rows for good, in all versions: what was pinned before cannot be read any more. How many there were.

        Args:
            where: a condition in Delta's SQL.
        """
        self.flush(table)
        handle = self._handle(table)
        if handle is None:
            return 0
        with self._changing(table):
            told = handle.delete(where)
            handle.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)
        return int(told["num_deleted_rows"] or 0)

    @contextmanager
    def _changing(self, table: Table) -> Iterator[None]:
        try:
            yield
        except CommitFailedError as error:
            raise ConflictError(f"{self.root / table}: another writer was faster; do it again") from error
        except (DeltaError, OSError) as error:
            raise UnavailableError(f"{self.root / table}: cannot be rewritten: {error}") from error
        finally:
            self._tables.pop(table, None)

    def _handle(self, table: Table) -> DeltaTable | None:
        """The table as it is now, other processes' commits included."""
        if table in self._tables:
            self._tables[table].update_incremental()
        else:
            try:
                self._tables[table] = DeltaTable(str(self.root / table))
            except TableNotFoundError:
                return None
        return self._tables[table]

    def _at(self, table: Table, version: int) -> DeltaTable | None:
        """The table as it was. Raises IntegrityError where that version is not there any more."""
        if version < 0:
            return None
        try:
            return DeltaTable(str(self.root / table), version=version)
        except (DeltaError, TableNotFoundError) as error:
            raise IntegrityError(f"{self.root / table}: version {version} cannot be read: {error}") from error

    def _last_batch(self, table: Table) -> int:
        handle = self._handle(table)
        version = None if handle is None else handle.transaction_version(self._source)
        return -1 if version is None else version


def _numbered(part: pl.DataFrame, batch: int) -> pl.DataFrame:
    return part.with_columns(pl.lit(batch, dtype=pl.Int64).alias(_BATCH))


def _read(files: list[str], columns: Collection[str] = ()) -> pl.DataFrame:
    """Rows of Parquet files; of the columns only those that are named, if any is: no other is read from the disk."""
    scan = pl.scan_parquet(files, hive_partitioning=False, glob=False)
    return scan.select(name for name in scan.collect_schema() if not columns or name in columns).collect()


def _touches(times: pl.Series, window: Window) -> bool:
    """Whether any time may lie in the window: far cheaper than a filter on each of many small batches."""
    if times.is_sorted():
        return bool(times.len() and times[0] < window.end and times[-1] >= window.start)
    return True


def _days(window: Window) -> list[tuple[str, str, str]]:
    days = list(window.days()) or [window.start.date().isoformat()]
    return [("_day", ">=", days[0]), ("_day", "<=", days[-1])]
