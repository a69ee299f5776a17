"""Whole tables of a lake, whatever the time of their rows: looked through, deleted from, merged."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Literal

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.telemetry.delta import DAY, LANDED, Delta, Handle, days_of, scan

Table = Literal["predictions", "outcomes", "shadow", "profiles", "kpis", "late", "dead_letters"]
OWNER = "_producer"  # whose a row is; adopted rows lack it
_AT_ONCE = 500  # values in one condition


class Upkeep(ABC):
    """What any process may do to a lake beside its traffic; who reads or appends meanwhile misses nothing."""

    _tables: dict[Table, Delta]

    @abstractmethod
    def flush(self, table: Table) -> None:
        """Write what waits."""

    def size(self, table: Table, before: date, but: tuple[date, date]) -> tuple[int, int]:
        """Rows and bytes of the days before the date, but for those from one date to another."""
        files = self._tables[table].look(lambda at: pl.DataFrame(at.get_add_actions(flatten=True)), pl.DataFrame())
        if files.is_empty():
            return 0, 0
        day = pl.col(f"partition.{DAY}")
        old = files.filter(
            day < before.isoformat(), ~day.is_between(pl.lit(but[0].isoformat()), pl.lit(but[1].isoformat()))
        )
        return int(old["num_records"].sum()), int(old["size_bytes"].sum())

    def find(self, table: Table, rows: pl.Expr, columns: Sequence[str], window: Window | None = None) -> pl.DataFrame:
        """Rows on disk, read file by file; columns that the table lacks are left out, and no row has a value of them.

        Args:
            window: only the files of its days are looked at; None = rows of any time.
        """

        def found(handle: Handle) -> pl.DataFrame:
            stored = scan(handle, days_of(window) if window else ())
            names = stored.collect_schema().names()
            asked = stored.filter(rows) if set(rows.meta.root_names()) <= set(names) else stored.clear()
            return asked.select([name for name in columns if name in names]).collect()

        return self._tables[table].look(found, pl.DataFrame())

    def landed_beside(
        self, table: Table, since: int, ours: Collection[int], columns: Collection[str]
    ) -> tuple[pl.DataFrame, int]:
        """What landed after the version `since` in other versions than `ours`, and the version now."""

        def found(handle: Handle) -> tuple[pl.DataFrame, int]:
            now = handle.version()
            if all(version in ours for version in range(since + 1, now + 1)):
                return pl.DataFrame(), now
            rows = scan(handle, [(LANDED, ">", since)])
            beside = rows.filter(pl.col(LANDED) > since, ~pl.col(LANDED).is_in(list(ours)))
            return beside.select(name for name in rows.collect_schema().names() if name in columns).collect(), now

        return self._tables[table].look(found, (pl.DataFrame(), -1))

    def distinct(self, table: Table, column: str) -> list[str]:
        """The texts of a column, or of its lists."""

        def found(handle: Handle) -> list[str]:
            stored = scan(handle)
            kind = stored.collect_schema().get(column)
            texts = pl.col(column).explode() if isinstance(kind, pl.List) else pl.col(column)
            return [] if kind is None else stored.select(texts.unique().drop_nulls()).collect()[column].to_list()

        return self._tables[table].look(found, [])

    def drop(self, table: Table, where: str) -> int:
        """Delete rows for good: nothing of them stays in a file or in the log. How many there were.

        Args:
            where: a condition in Delta's SQL.

        Raises:
            ConflictError: others wrote all the while; do it again.
            UnavailableError: the disk does not take it; do it again.
        """
        self.flush(table)
        return self._tables[table].drop([where])

    def erase(self, table: Table, column: str, values: Collection[str], but: Collection[tuple[str, str]] = ()) -> int:
        """Delete the rows whose column is one of the values, as `drop` does; the log is told their digests at most.

        What a killed writer left of the table goes with them, also where no row is found.

        Args:
            but: of what (value, `_producer`) stays; "" is nobody's.
        """
        self.flush(table)
        rows = self.find(table, pl.col(column).is_in(list(values)), (LANDED, OWNER))
        if rows.is_empty():
            return self._tables[table].drop([])
        versions = rows[LANDED].unique().sort().to_list()
        where = f"{LANDED} IN ({', '.join(map(str, versions))}) AND " if len(versions) <= _AT_ONCE else ""
        owner = f"coalesce({OWNER}, '')" if OWNER in rows.columns else "''"
        kept = {value: [whose for name, whose in but if name == value] for value, _ in but}
        parts = [sorted(values)[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE)]
        conditions = []
        for part in parts:
            stay = [_digest(value) + _digest(whose) for value in part for whose in kept.get(value, ())]
            pair = f"concat({_hashed(column)}, {_hashed(owner)})"
            unless = f" AND {pair} NOT IN ({_listed(stay)})" if stay else ""
            conditions.append(f"{where}{_hashed(column)} IN ({_listed(map(_digest, part))}){unless}")
        return self._tables[table].drop(conditions)

    def compact(self, table: Table) -> int:
        """Merge the small files of each day, as appending does now and then; how many went. Readers see the same."""
        return self._tables[table].compact()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hashed(column: str) -> str:
    """What `_digest` says, in Delta's SQL."""
    return f"encode(sha256({column}), 'hex')"


def _listed(texts: Iterable[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)
