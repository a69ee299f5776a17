"""Recent: what a model's lake holds of late, so that each event counts once, and what is too late is told apart.

Of the last hour whose ids they are, and what was told of them, is in memory; what is older is looked up in the lake.
So memory is bounded, and nothing that was remembered has to outlive a restart.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from drift_pipeline.clock import DAY, WEEK, Window
from drift_pipeline.telemetry.event import EXTERNAL, OutcomeKnown, Prediction
from drift_pipeline.telemetry.lake import Cursor, Lake, Table

READMITTED = WEEK  # behind the newest: for so long the slices of an event are kept, and its label is waited for
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORGET_ABOVE = 10_000  # ids: to look for those that can go costs a look at all
_TICK = timedelta(microseconds=1)
_OWNED = ("_id", "_time", "_producer", "_route")
_TOLD = ("_id", "_producer", "_told_at", "_label", "_observed_at")
_COLUMNS: Mapping[Table, tuple[str, ...]] = {"predictions": _OWNED, "outcomes": _TOLD}
_Keys = Collection[tuple[str, str]]  # of predictions: id, whose
_Key = tuple[str, str, datetime | None]  # of an outcome: id, who told it, and when as its producer said


@dataclass(frozen=True)
class Sorted:
    """Predictions to land and those that are too late. `shared`: how many to land whose id is another's as well."""

    fresh: list[Prediction] = field(default_factory=list)
    late: list[Prediction] = field(default_factory=list)
    shared: int = 0
    duplicates: int = 0


@dataclass(frozen=True)
class Told:
    """Outcomes to land, and from when on each counts as known; the late ones, from now."""

    outcomes: list[OutcomeKnown] = field(default_factory=list)
    observed: list[datetime] = field(default_factory=list)
    late: int = 0
    duplicates: int = 0


class Recent:
    """Of one model; whatever its lake's writers are called."""

    def __init__(self, lake: Lake, now: datetime, lateness: timedelta) -> None:
        """
        Args:
            lateness: how far behind the model's newest event one may come and still be found in memory.
        """
        self._lake, self._lateness, self._limit = lake, lateness, now - lateness
        self._watermark = self._since = self._behind(_newest(lake, "predictions", "_time", now))
        self._told_watermark = self._told_since = self._behind(_newest(lake, "outcomes", "_observed_at", now))
        self._ids: dict[str, tuple[str, datetime]] = {}
        self._shared: dict[tuple[str, str], datetime] = {}
        self._told: dict[_Key, tuple[tuple[float, ...], datetime]] = {}
        self._kept = 0
        self._seen: dict[Table, int] = {table: lake.cursor(table).version for table in _COLUMNS}
        self._ours: dict[Table, set[int]] = {table: set() for table in _COLUMNS}
        self._remember(now + 2 * DAY)

    @property
    def ids(self) -> int:
        """How many are in memory."""
        return len(self._ids) + len(self._shared) + len(self._told)

    def wrote(self, table: Table, version: int) -> None:
        """What is in memory landed as this version."""
        if table in self._ours:
            self._ours[table].add(version)

    def catch_up(self) -> None:
        """Remember what other processes landed since.

        Raises:
            IntegrityError, UnavailableError: as the lake's reading does.
        """
        for table, columns in _COLUMNS.items():
            rows, version = self._lake.landed_beside(table, self._seen[table], self._ours[table], columns)
            self._seen[table] = version
            self._ours[table] = {one for one in self._ours[table] if one > version}
            if rows.height and table == "predictions":
                self._know(_owners(rows))
            elif rows.height:
                for key, (labels, time) in _said(rows).items():
                    before = self._told[key][0] if key in self._told else ()
                    self._told[key] = (*before, *labels), time
                    self._told_watermark = max(self._told_watermark, self._behind(time))

    def _know(self, owners: Iterable[tuple[str, datetime, str]]) -> None:
        for name, time, whose in owners:
            if name not in self._ids:
                self._ids[name] = whose, time
            elif self._ids[name][0] != whose:
                self._shared[name, whose] = time
            self._watermark = max(self._watermark, self._behind(time))

    def is_ahead(self, now: datetime) -> bool:
        """Whether the clock went back behind what is in memory: then memory has to be made again."""
        return max(self._watermark, self._told_watermark) > now - self._lateness

    def is_old(self, predictions: Iterable[Prediction]) -> bool:
        """Whether any of them is so far behind that it may be late, whatever came meanwhile."""
        return any(one.time < self._watermark - DAY for one in predictions)

    def sort(self, predictions: Sequence[Prediction], now: datetime, landed_late: _Keys | None) -> Sorted:
        """What is to become of each.

        Args:
            landed_late: (id, whose) of what an earlier try of this batch laid aside as late: that is, and nothing else.
                None = there was none, and time decides.
        """
        self._limit = now - self._lateness
        before, found, shared, duplicates = self._landed_before(predictions), Sorted(), 0, 0
        for one in predictions:
            if self._has(one) or not before.get(one.id, set()).isdisjoint((one.whose, one.nobodys)):
                duplicates += 1
            elif self._is_late(one, landed_late):
                found.late.append(one)
            else:
                shared += self._take(one)
                found.fresh.append(one)
        self._forget()
        return Sorted(found.fresh, found.late, shared, duplicates)

    def told(self, outcomes: Sequence[OutcomeKnown], now: datetime) -> Told:
        """Without repeats: what the same producer told of the same id with the same time, or with no time of its own.

        A late one counts as known from now on, lest who reads in that order has passed it already; and so does one that
        contradicts another of the same time, so that the later one wins.
        """
        self._limit = now - self._lateness
        before, found, late, duplicates = self._told_before(outcomes), Told(), 0, 0
        for one in outcomes:
            key = (one.id, one.producer, one.time if one.told else None)
            said = self._told[key][0] if key in self._told else before.get(key, ())
            if one.label in (said if one.told else said[-1:]):
                duplicates += 1
                continue
            self._told[key] = (*said, one.label), one.time
            is_late = one.time < self._told_watermark
            late += is_late
            found.outcomes.append(one)
            found.observed.append(max(now, one.time + _TICK) if is_late or (said and one.told) else one.time)
            self._told_watermark = max(self._told_watermark, self._behind(one.time))
        self._forget()
        return Told(found.outcomes, found.observed, late, duplicates)

    def _behind(self, time: datetime) -> datetime:
        """Where the watermark stands once an event of this time has come.

        Not beyond the hour before now, so that an event that is dated ahead makes no other late.
        """
        return max(_EPOCH, min(time - self._lateness, self._limit)) if time > _EPOCH else _EPOCH

    def _is_late(self, one: Prediction, landed_late: _Keys | None) -> bool:
        if landed_late is not None:
            return (one.id, one.whose) in landed_late
        return one.time < self._watermark - READMITTED

    def _has(self, one: Prediction) -> bool:
        """An id that was landed under nobody's name, such as by another way than the gateway, is whoever's comes."""
        first = self._ids.get(one.id)
        if first is None:
            return False
        return first[0] in (one.whose, one.nobodys) or (one.id, one.whose) in self._shared

    def _take(self, one: Prediction) -> bool:
        """Remember it; whether its id is another's as well."""
        self._watermark = max(self._watermark, self._behind(one.time))
        if one.id in self._ids:
            self._shared[one.id, one.whose] = one.time
            return True
        self._ids[one.id] = one.whose, one.time
        return False

    def _forget(self) -> None:
        """Drop what is behind the watermarks, once it may be half of all."""
        if self.ids <= max(_FORGET_ABOVE, 2 * self._kept):
            return
        self._since, self._told_since = self._watermark, self._told_watermark
        self._ids = {name: seen for name, seen in self._ids.items() if seen[1] >= self._since}
        self._shared = {key: time for key, time in self._shared.items() if time >= self._since}
        self._told = {key: said for key, said in self._told.items() if said[1] >= self._told_since}
        self._kept = self.ids

    def _remember(self, until: datetime) -> None:
        if self._since > _EPOCH:
            window = Window(self._since, until)
            for name, time, whose in _owners(self._lake.find("predictions", _inside("_time", window), _OWNED, window)):
                if name in self._ids:
                    self._shared[name, whose] = time
                else:
                    self._ids[name] = whose, time
        if self._told_since > _EPOCH:
            window = Window(self._told_since, until)
            self._told = _said(self._lake.find("outcomes", _inside("_observed_at", window), _TOLD, window))

    def _landed_before(self, predictions: Iterable[Prediction]) -> Mapping[str, set[str]]:
        """Of those that are too old for memory: who has an event of each id in the lake, by id."""
        old = [one for one in predictions if self._watermark - READMITTED <= one.time < self._since]
        if not old:
            return {}
        window = Window(min(one.time for one in old), max(one.time for one in old) + _TICK)
        rows = pl.col("_id").is_in([one.id for one in old])
        found: dict[str, set[str]] = {}
        for name, _, whose in _owners(self._lake.find("predictions", rows, _OWNED, window)):
            found.setdefault(name, set()).add(whose)
        return found

    def _told_before(self, outcomes: Iterable[OutcomeKnown]) -> Mapping[_Key, tuple[float, ...]]:
        """Of those that are too old for memory, as far as a week back: what was told in the lake."""
        old = [one for one in outcomes if self._limit - READMITTED <= one.time < self._told_since]
        if not old:
            return {}
        window = Window(min(one.time for one in old), self._limit + 2 * self._lateness + DAY)
        rows = pl.col("_id").is_in([one.id for one in old])
        said = _said(self._lake.find("outcomes", rows, _TOLD, window))
        return {key: labels for key, (labels, _) in said.items()}


def late_before(lake: Lake, predictions: Iterable[Prediction]) -> _Keys:
    """(id, whose) of those that are in the lake's `late`, on disk or waiting in memory."""
    named = {one.id: one.time for one in predictions}
    window = Window(min(named.values()), max(named.values()) + _TICK)
    return {(name, whose) for name, _, whose in _owners(lake.read("late", window)) if name in named}


def _newest(lake: Lake, table: Table, column: str, now: datetime) -> datetime:
    """The largest time in the table, sought from now backwards; 1970 in an empty one."""
    end, span = now + DAY, 2 * DAY
    while end > _EPOCH and lake.cursor(table) != Cursor():
        window = Window(max(_EPOCH, end - span), end)
        rows = lake.find(table, _inside(column, window), (column,), window)
        if rows.height:
            newest = rows[column].max()
            assert isinstance(newest, datetime)
            return newest
        end, span = window.start, 2 * span
    return _EPOCH


def _inside(column: str, window: Window) -> pl.Expr:
    return pl.col(column).is_between(window.start, window.end, closed="left")


def _owners(rows: pl.DataFrame) -> Iterable[tuple[str, datetime, str]]:
    """(id, time, whose)."""
    for row in rows.iter_rows(named=True):
        yield (
            row["_id"],
            row["_time"],
            (row.get("_producer") or "") + (f"/{EXTERNAL}" if row["_route"] == EXTERNAL else ""),
        )


def _said(found: pl.DataFrame) -> dict[_Key, tuple[tuple[float, ...], datetime]]:
    """What was told, each label once and the last one last."""
    said: dict[_Key, tuple[tuple[float, ...], datetime]] = {}
    for row in (found.sort("_observed_at") if found.height else found).iter_rows(named=True):
        told_at = row.get("_told_at")
        key = (row["_id"], row.get("_producer") or "", told_at)
        said[key] = (*(said[key][0] if key in said else ()), row["_label"]), told_at or row["_observed_at"]
    return said
