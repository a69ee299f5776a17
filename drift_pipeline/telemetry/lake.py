"""The lake: two append-only Delta tables, `predictions` and `outcomes`, partitioned by UTC day.

A batch is named by its source and a growing number; one that was written already is not written again, so a
producer may send it twice. Small batches wait in memory until `flush_rows` have come: readers see them at once,
and a producer that needs them on disk (to commit its offset) calls `flush`.
"""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import TableNotFoundError

from drift_pipeline.clock import Window

Table = Literal["predictions", "outcomes"]
_TIME: dict[Table, str] = {"predictions": "_time", "outcomes": "_observed_at"}
_CHECKPOINT_EVERY = 20  # commits; a log without checkpoints is read again whole at each append


class Lake:
    """Predictions as they were served and outcomes as they became known.

    `predictions`: `_id, _time, _version, _route, _score`, the spec's other columns and features.
    `outcomes`: `_id, _observed_at, _label` (0 or 1).
    """

    def __init__(self, root: Path, source: str = "capture", flush_rows: int = 1) -> None:
        self._root = root
        self._source = source
        self._flush_rows = flush_rows
        self._waiting: dict[Table, list[tuple[int, pl.DataFrame]]] = {"predictions": [], "outcomes": []}
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
        """Write what waits, as one Delta commit that also records the last batch's number."""
        waiting = self._waiting[table]
        if not waiting:
            return
        last = waiting[-1][0]
        frame = pl.concat([part for _, part in waiting]).with_columns(_day=pl.col(_TIME[table]).dt.strftime("%Y-%m-%d"))
        handle = self._handle(table)
        write_deltalake(
            handle if handle is not None else str(self._root / table),
            frame,
            mode="append",
            partition_by=["_day"],
            commit_properties=CommitProperties(app_transactions=[Transaction(self._source, last)]),
        )
        if handle is not None and handle.version() % _CHECKPOINT_EVERY == 0:
            handle.create_checkpoint()
            del self._tables[table]
        self._written[table] = last
        waiting.clear()

    def close(self) -> None:
        for table in _TIME:
            self.flush(table)

    def version(self, table: Table) -> int:
        """The Delta version that holds every batch taken so far (flushes), -1 for an empty table."""
        self.flush(table)
        handle = self._handle(table)
        return -1 if handle is None else handle.version()

    def read(self, table: Table, window: Window) -> pl.DataFrame:
        """Rows with their time (`_time` or `_observed_at`) in the window, in order of time and then id."""
        column = pl.col(_TIME[table])
        inside = (column >= window.start) & (column < window.end)
        frames = [part.filter(inside) for _, part in self._waiting[table]]
        handle = self._handle(table)
        if handle is not None and (files := handle.file_uris(file_pruning_predicate=_days(window))):
            frames.insert(0, pl.read_parquet(files, hive_partitioning=False).filter(inside))
        if not frames:
            return pl.DataFrame()
        return pl.concat(frames, how="diagonal_relaxed").sort(_TIME[table], "_id")

    def labelled(self, window: Window, as_of: datetime, delay: timedelta) -> pl.DataFrame:
        """Predictions of the window whose outcome was known at `as_of`, with `_label`; in order of time.

        `delay` only bounds which days of outcomes are looked at: labels later than twice the delay and a week
        after the window do not count as training data.
        """
        predictions = self.read("predictions", window)
        known = self.read("outcomes", Window(window.start, min(as_of, window.end + 2 * delay + timedelta(days=7))))
        if predictions.is_empty() or known.is_empty():
            return pl.DataFrame()
        return predictions.join(known.select("_id", "_label"), on="_id", how="inner", maintain_order="left")

    def _handle(self, table: Table) -> DeltaTable | None:
        if table not in self._tables:
            try:
                self._tables[table] = DeltaTable(str(self._root / table))
            except TableNotFoundError:
                return None
        return self._tables[table]

    def _last_batch(self, table: Table) -> int:
        handle = self._handle(table)
        version = None if handle is None else handle.transaction_version(self._source)
        return -1 if version is None else version


def _days(window: Window) -> list[tuple[str, str, str]]:
    days = list(window.days()) or [window.start.date().isoformat()]
    return [("_day", ">=", days[0]), ("_day", "<=", days[-1])]
