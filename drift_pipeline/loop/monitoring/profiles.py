"""Stored profiles: what a monitor has counted is in the lake, so that another process goes on from there."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY, HOUR, Window, Zone
from drift_pipeline.detection.counting.slices import Part
from drift_pipeline.detection.counting.stored import decode, encode
from drift_pipeline.errors import ConflictError
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline
from drift_pipeline.telemetry.lake import Cursor, Lake

# batches are numbered by the hour, and none is below 0: histories begin before 1970
_FIRST_HOUR = datetime(1, 1, 1, tzinfo=UTC)
_CURSOR = pl.Struct({"version": pl.Int64, "batch": pl.Int64, "source": pl.String})
_STORED: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "_time": pl.Datetime("us", "UTC"),
    "_version": pl.String,
    "binning": pl.String,
    "cursor": pl.Datetime("us", "UTC"),
    "predictions": _CURSOR,
    "outcomes": _CURSOR,
    "hours": pl.Int64,
    "labelled": pl.List(pl.Int64),
    "profile": pl.Binary,
}


@dataclass(frozen=True)
class Restored:
    """All that was counted until `counted_until`, when the tables stood at the cursors `landed`.

    `before`, `outcomes_before`: the same of the time they were stored before that; None where this was the first.
    """

    parts: list[Part]
    counted_until: datetime
    landed: dict[str, Cursor]
    before: datetime | None
    outcomes_before: Cursor | None


class StoredProfiles:
    """Of one champion and reference. Two processes that store the same hour: the second is refused."""

    def __init__(self, baseline: MonitoringBaseline, lake: Lake, model: str) -> None:
        self._since, self._began, self._champion = baseline.since, baseline.landed, baseline.champion.name
        self._binning, self._zone = baseline.reference.binning, baseline.reference.zone
        self._lake, self._model = lake, model
        self._last_batch = -1

    def append(self, parts: Iterable[Part], hour: datetime, landed: Mapping[str, Cursor]) -> None:
        """Keep the profiles of what was counted until the hour, and the cursors that they end at.

        Raises:
            ConflictError: another process stored profiles since `read`.
        """
        rows = [self._row(part, hour, landed) for part in parts]
        if not rows:
            return
        batch = (hour - _FIRST_HOUR) // HOUR
        if self._lake.last_batch("profiles") != self._last_batch or not self._lake.append(
            "profiles", pl.DataFrame(rows, schema=_STORED), batch
        ):
            raise ConflictError(f"{self._model}: another process stored this hour's profiles; take them up again")
        self._last_batch = batch

    def read(self, now: datetime) -> Restored | None:
        """What was stored by whichever process; None where nothing was."""
        self._last_batch = self._lake.last_batch("profiles")
        stored = self._lake.read("profiles", Window(self._zone.floor(self._since, DAY), max(now, self._since)))
        if stored.is_empty():
            return None
        ours = (pl.col("_version") == self._champion) & (pl.col("binning") == self._binning.digest)
        later = _beyond("predictions", self._began) | _beyond("outcomes", self._began)  # whatever a clock said
        stored = stored.filter(ours & (pl.col("cursor") > self._since) & later)
        if stored.is_empty():
            return None
        times = stored.unique("cursor").sort("cursor").tail(2).to_dicts()
        newest, before = times[-1], times[0] if len(times) == 2 else None
        landed = {table: Cursor(**newest[table]) for table in ("predictions", "outcomes")}
        parts = list(map(self._part, _without_replaced(stored, self._zone)))
        told = (before["cursor"], Cursor(**before["outcomes"])) if before else (None, None)
        return Restored(parts, newest["cursor"], landed, *told)

    def _row(self, part: Part, hour: datetime, landed: Mapping[str, Cursor]) -> dict[str, Any]:
        return {
            "_id": f"{self._champion} {part.start.isoformat()} {hour.isoformat()} {part.length / HOUR:g}h",
            "_time": part.start,
            "_version": self._champion,
            "binning": self._binning.digest,
            "cursor": hour,
            **{table: asdict(cursor) for table, cursor in landed.items()},
            "hours": round(part.length / HOUR),
            "labelled": list(part.labelled),
            "profile": encode(part.profile),
        }

    def _part(self, row: Mapping[str, Any]) -> Part:
        return Part(row["_time"], row["hours"] * HOUR, decode(self._binning, row["profile"]), tuple(row["labelled"]))


def _beyond(table: str, cursors: Mapping[str, Cursor]) -> pl.Expr:
    """Whether something of the table was counted that landed after the cursor."""
    version, batch = (pl.col(table).struct.field(name) for name in ("version", "batch"))
    began = cursors[table]
    return (version > began.version) | ((version == began.version) & (batch > began.batch))


def _without_replaced(stored: pl.DataFrame, zone: Zone) -> list[dict[str, Any]]:
    """The parts that count: a day takes the place of all parts of it that were stored by then."""
    days = [zone.floor(start, DAY) for start in stored["_time"]]
    folded = stored.filter(pl.col("hours") == 24).group_by(_day="_time").agg(pl.col("cursor").max().alias("_folded"))
    beside = stored.with_columns(_day=pl.Series(days, dtype=stored["_time"].dtype)).join(folded, on="_day", how="left")
    is_day = (pl.col("hours") == 24) & (pl.col("cursor") == pl.col("_folded"))
    counts = beside.filter(pl.col("_folded").is_null() | (pl.col("cursor") > pl.col("_folded")) | is_day)
    return counts.sort("hours", "_time", descending=[True, False]).to_dicts()
