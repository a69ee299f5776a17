"""The lake of one model: append-only Delta tables, partitioned by UTC day.

A batch is named by its source and a growing number; one that was written already is not written again, so a
producer may send it twice. Small batches wait in memory until `flush_rows` have come: readers see them at once,
and a producer that needs them on disk (to commit its offset) calls `flush`. `delta.py` is one table, `upkeep.py` what
is done with whole ones.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from drift_pipeline.bucket import Place
from drift_pipeline.clock import Window
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.telemetry.delta import (
    BATCH,
    DAY,
    LANDED,
    OURS,
    PATIENCE_S,
    WRITER,
    Delta,
    Handle,
    days_of,
    scan,
)
from drift_pipeline.telemetry.labels import labelled
from drift_pipeline.telemetry.upkeep import Table, Upkeep

_TIME: dict[Table, str] = {
    "predictions": "_time",
    "outcomes": "_observed_at",
    "shadow": "_time",
    "profiles": "_time",
    "kpis": "_time",
    "late": "_time",
    "dead_letters": "_time",
}
TABLES: tuple[Table, ...] = tuple(_TIME)
__all__ = ["TABLES", "Cursor", "Lake", "Table"]


@dataclass(frozen=True)
class Cursor:
    """How far a reader has come in the order in which rows landed: the Delta version that they landed with, and the
    last batch of the source that was read while it still waited in its writer's memory."""

    version: int = -1
    batch: int = -1
    source: str = ""


class Lake(Upkeep):
    """Predictions as they were served and outcomes as they became known.

    `predictions`: `_id, _time, _version, _route, _score`, the spec's other columns and features.
    `shadow`: `_id, _time, _version, _score` of the model that did not answer, while a rollout mirrors traffic.
    `outcomes`: `_id, _observed_at, _label` (0 or 1, or a regression's number).
    `profiles`: `_id, _time, _version`, and what `loop.monitoring.profiles` keeps of that version's hours and days.
    `kpis`: `_id, _time, _version`, and what `loop.monitoring.kpi_history` keeps of each tick's verdicts.
    `late`: rows of `predictions` that came too late to be counted.
    `dead_letters`: `_id, _time, _source, _model, _reason, _payload, _names` of what was no event.
    """

    def __init__(
        self, root: Place, source: str = "capture", flush_rows: int = 1, patience_s: float = PATIENCE_S
    ) -> None:
        """
        Args:
            patience_s: for another process that writes.

        Raises:
            InputError: delta-rs could not write here: it dies on these signs in a path, or writes elsewhere.
        """
        if isinstance(root, Path) and (odd := sorted(set(str(root.absolute())) & set("[]^|\\%"))):
            raise InputError(f"{root}: a lake's path cannot hold {' '.join(odd)}; choose another folder")
        self.root = root
        self._source = source
        self._flush_rows = flush_rows
        self._waiting: dict[Table, list[tuple[int, pl.DataFrame]]] = {table: [] for table in _TIME}
        self._tables: dict[Table, Delta] = {table: Delta(root / table, patience_s) for table in _TIME}
        self._written: dict[Table, int] = {}  # the source's last batch, once it was asked for: it costs a look at a log

    def append(self, table: Table, frame: pl.DataFrame, batch: int) -> bool:
        """Take a batch; False, and nothing is done, when this or a later number of the source was taken before."""
        waiting = self._waiting[table]
        if table not in self._written:
            self._written[table] = self._tables[table].last_batch(self._source)
        if batch <= max(self._written[table], waiting[-1][0] if waiting else -1):
            return False
        waiting.append((batch, frame))
        if sum(part.height for _, part in waiting) >= self._flush_rows:
            self.flush(table)
        return True

    def append_next(
        self,
        table: Table,
        frame: pl.DataFrame,
        batch: int,
        after: int | None = None,
        settle: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
    ) -> int:
        """Write a batch, or only its number, at once behind the source's batch `after`; as which version.

        Args:
            after: None = whichever is the last, unless that is this one or a later one: then nothing is written.
            settle: what of the rows is still to be written; it ends with `landed_beside` of this table, and nobody's
                commit comes between that and this one.

        Raises OvertakenError, ConflictError and UnavailableError as `Delta.append`; nothing waits in memory then.
        """
        delta = self._tables[table]
        self._written[table] = delta.append([(batch, frame)], self._source, _TIME[table], after, settle)
        return delta.wrote

    def flush(self, table: Table) -> None:
        """Write what waits, as one Delta commit that also records the last batch's number.

        Batches that another process of the same source wrote meanwhile are dropped, not written twice.

        Raises:
            ConflictError: other writers were faster every time; what waits still waits.
            UnavailableError: disk or bucket does not take it; what waits still waits.
        """
        waiting = self._waiting[table]
        if waiting:
            self._written[table] = self._tables[table].append(waiting, self._source, _TIME[table])
            waiting.clear()

    def close(self) -> None:
        for table in _TIME:
            self.flush(table)

    def last_batch(self, table: Table, *, anew: bool = True) -> int:
        """The number of this source's last batch in the table, -1 before the first.

        Args:
            anew: else as the table stood when it was last looked at, which costs nothing.
        """
        stored = self._tables[table].last_batch(self._source, anew=anew)
        return max(stored, self._waiting[table][-1][0] if self._waiting[table] else -1)

    def version(self, table: Table) -> int:
        """The Delta version that holds every batch taken so far (flushes), -1 for an empty table."""
        self.flush(table)
        return self._tables[table].version()

    def versions(self) -> dict[str, int]:
        """The Delta versions of `predictions` and `outcomes`, for `labelled` to read the same rows again."""
        return {"predictions": self.version("predictions"), "outcomes": self.version("outcomes")}

    def read(
        self, table: Table, window: Window, version: int | None = None, columns: Collection[str] = ()
    ) -> pl.DataFrame:
        """Rows with their time (`_time` or `_observed_at`) in the window, in order of time and then id.

        Args:
            version: what had landed by then, as `version` told it, without what was erased since; None = all there is
                now, with what still waits.
            columns: those that are wanted beside time and id, where the table has them; none = all.

        Raises:
            IntegrityError: the table never came to that version: it is an older copy.
        """
        wanted = {*columns, _TIME[table], "_id"} if columns else set[str]()
        column = pl.col(_TIME[table])
        inside = (column >= window.start) & (column < window.end)
        waiting = self._waiting[table] if version is None else []
        frames = [part.filter(inside) for _, part in waiting if _touches(part[_TIME[table]], window)]
        known = inside if version is None else inside & (pl.col(LANDED) <= version)
        _, stored = self._stored(table, known, days_of(window), version, columns=wanted)
        frames = [*stored, *(_only(frame, wanted) for frame in frames)]
        return _in_order(table, frames)

    def landed(self, table: Table, since: Cursor) -> tuple[pl.DataFrame, Cursor]:
        """Rows that landed after the cursor, whatever their time, and the cursor after them.

        No row is told twice and none is left out, however late it is, whoever writes meanwhile and whatever is merged
        or erased.

        Raises:
            IntegrityError: the table never came as far as the cursor: it is an older copy.
        """
        among = [(LANDED, ">", since.version)]
        version, stored = self._stored(table, _after(since), among, since.version, since.version)
        frames = [frame for frame in (*stored, *self._waiting_after(table, since)) if frame.height]
        return _in_order(table, frames), self._at_end(table, version)

    def daily(self, table: Table, window: Window) -> pl.DataFrame:
        """Of each UTC day of the window that has rows on disk, one: `_day` (a date), `_rows`, `_landed` (the Delta
        version that held the last of them), and how many lack a value of each other column. No row is read as a whole.
        """

        def found(handle: Handle) -> pl.DataFrame:
            stored, time = scan(handle, days_of(window)), pl.col(_TIME[table])
            others = [name for name in stored.collect_schema().names() if name not in (*OURS, _TIME[table])]
            inside = stored.filter((time >= window.start) & (time < window.end))
            counted = [pl.len().alias("_rows"), pl.col(LANDED).max(), *(pl.col(name).null_count() for name in others)]
            return inside.group_by(time.dt.date().alias(DAY)).agg(counted).sort(DAY).collect()

        return self._tables[table].look(found, pl.DataFrame())

    def landed_rows(self, table: Table, since: Cursor) -> int:
        """How many rows `landed` would tell of."""

        def found(handle: Handle) -> int:
            new = scan(handle, [(LANDED, ">", since.version)]).filter(_after(since))
            return int(new.select(pl.len()).collect().item())

        return self._tables[table].look(found, 0) + sum(map(len, self._waiting_after(table, since)))

    def cursor(self, table: Table) -> Cursor:
        """After everything that has landed by now."""
        return self._at_end(table, self._tables[table].version())

    def labelled(
        self, window: Window, as_of: datetime, delay: timedelta, versions: Mapping[str, int] | None = None
    ) -> pl.DataFrame:
        """Predictions of the window whose outcome was observed before `as_of`, with `_label`; in order of time.

        Of several outcomes of one prediction the last told counts (`labels`). `delay` bounds which days of outcomes are
        looked at: labels later than twice the delay and a week after the window do not count as training data.
        """
        until = min(as_of, window.end + 2 * delay + timedelta(days=7))
        pinned = versions or {}
        predictions = self.read("predictions", window, pinned.get("predictions"))
        known = self.read("outcomes", Window(window.start, max(window.start, until)), pinned.get("outcomes"))
        if predictions.is_empty() or known.is_empty():
            return pl.DataFrame()
        return labelled(predictions, known)

    def _stored(
        self,
        table: Table,
        where: pl.Expr,
        among: Sequence[tuple[str, str, Any]],
        least: int | None,
        nothing_since: int | None = None,
        columns: Collection[str] = (),
    ) -> tuple[int, list[pl.DataFrame]]:
        """The table's version, which is to be `least` or more, and those of its rows; no frame where there are none, or
        where it stands at `nothing_since`. Of the columns only those that are named, if any is: no other is read."""

        def found(handle: Handle) -> tuple[int, list[pl.DataFrame]]:
            if handle.version() == nothing_since:
                return handle.version(), []
            rows = scan(handle, among).filter(where).drop(OURS, strict=False)
            names = [name for name in rows.collect_schema().names() if not columns or name in columns]
            some = rows.select(names).collect()
            return handle.version(), [some] if some.height else []

        absent: tuple[int, list[pl.DataFrame]] = -1, []
        version, rows = self._tables[table].look(found, absent)
        if least is not None and version < least:
            raise IntegrityError(
                f"{self.root / table}: stands at version {version}, and {least} was read before: it is an older copy; "
                f"restore the newer one"
            )
        return version, rows

    def _waiting_after(self, table: Table, since: Cursor) -> list[pl.DataFrame]:
        known = since.batch if since.source == self._source else -1
        return [part for batch, part in self._waiting[table] if batch > known]

    def _at_end(self, table: Table, version: int) -> Cursor:
        waiting = self._waiting[table]
        return Cursor(version, waiting[-1][0], self._source) if waiting else Cursor(version)


def _in_order(table: Table, frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames, how="diagonal_relaxed").sort(_TIME[table], "_id") if frames else pl.DataFrame()


def _after(cursor: Cursor) -> pl.Expr:
    """Which stored rows come after the cursor."""
    seen = (pl.col(WRITER) == cursor.source) & (pl.col(BATCH) <= cursor.batch)
    return (pl.col(LANDED) > cursor.version) & ~seen.fill_null(value=False)


def _only(frame: pl.DataFrame, wanted: Collection[str]) -> pl.DataFrame:
    return frame.select(name for name in frame.columns if name in wanted) if wanted else frame


def _touches(times: pl.Series, window: Window) -> bool:
    """Whether any time may lie in the window: far cheaper than a filter on each of many small batches."""
    if times.is_sorted():
        return bool(times.len() and times[0] < window.end and times[-1] >= window.start)
    return True
