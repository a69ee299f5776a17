"""Recent: what a model's lake holds of late, so that each event counts once, and what is too late is told apart.

Of the last hour whose ids they are, and what was told of them, is in memory; what is older is looked up in the lake.
So memory is bounded, and nothing that was remembered has to outlive a restart.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from drift_pipeline.clock import DAY, WEEK, Window
from drift_pipeline.telemetry.event import OutcomeKnown, Prediction
from drift_pipeline.telemetry.lake import Cursor, Lake, Table
from drift_pipeline.telemetry.remembered import Key, Labels, Owners, Tellings, is_repeat, owners, told

READMITTED = WEEK  # behind the newest: for so long the slices of an event are kept, and its label is waited for
_TIME = pl.Datetime("us", "UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORGET_ABOVE = 10_000  # ids: to look for those that can go costs a look at all
_TICK = timedelta(microseconds=1)
_OWNED = ("_id", "_time", "_producer", "_route")
_TOLD = ("_id", "_producer", "_told_at", "_label", "_observed_at")
_COLUMNS: Mapping[Table, tuple[str, ...]] = {"predictions": _OWNED, "outcomes": _TOLD}
_Keys = Collection[tuple[str, str]]  # of predictions: id, whose


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
        self._owners, self._tellings, self._kept = Owners(), Tellings(), 0
        self._seen: dict[Table, int] = {table: lake.cursor(table).version for table in _COLUMNS}
        self._ours: dict[Table, set[int]] = {table: set() for table in _COLUMNS}
        self._remember(now + 2 * DAY)

    @property
    def ids(self) -> int:
        """How many are in memory."""
        return len(self._owners) + len(self._tellings)

    def wrote(self, table: Table, version: int) -> None:
        """What is in memory landed as this version."""
        if table in self._ours:
            self._ours[table].add(version)

    def catch_up(self, lake: Lake, tables: Collection[Table]) -> None:
        """Remember what other processes landed since.

        Args:
            lake: of the same model.
            tables: of outcomes, predictions or both.

        Raises:
            IntegrityError, UnavailableError: as the lake's reading does.
        """
        for table in tables:
            self._know(table, self._beside(lake, table))

    def settle(self, lake: Lake, table: Table, frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """What of a frame is to land still: each row that another process landed one beside, since it was sorted or
        told, is so again, as if that one had come first. And of how many more the id is another's as well.

        Args:
            lake: the one that is about to write the frame.

        Raises:
            IntegrityError, UnavailableError: as the lake's reading does.
        """
        beside = self._beside(lake, table)
        if beside.is_empty():
            return frame, 0
        again = self._sort_again if table == "predictions" else self._tell_again
        return again(frame, frame["_id"].is_in(beside["_id"].to_list()), beside)

    def _beside(self, lake: Lake, table: Table) -> pl.DataFrame:
        """What other processes landed since the last look at the table."""
        rows, version = lake.landed_beside(table, self._seen[table], self._ours[table], _COLUMNS[table])
        self._seen[table] = version
        self._ours[table] = {one for one in self._ours[table] if one > version}
        return rows

    def _know(self, table: Table, beside: pl.DataFrame) -> None:
        if table == "predictions":
            for one in owners(beside):
                self._owners.add(one)
                self._watermark = max(self._watermark, self._behind(one.time))
        else:
            for key, label, time in _by_time(beside):
                self._tellings.add(key, (label,), time)
                self._told_watermark = max(self._told_watermark, self._behind(time))

    def _sort_again(self, frame: pl.DataFrame, same: pl.Series, beside: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        ours, kept = [*owners(frame.filter(same))], list[bool]()
        shared = -sum(self._owners.remove(one) for one in ours)
        self._know("predictions", beside)
        for one in ours:
            kept.append(not self._owners.has(one))
            shared += kept[-1] and self._owners.add(one)
        return _with(frame, same, kept), shared

    def _tell_again(self, frame: pl.DataFrame, same: pl.Series, beside: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        ours, kept, observed = [*told(frame.filter(same))], list[bool](), frame["_observed_at"].to_list()
        theirs = {key for key, _, _ in told(beside)}
        for key, label, _ in reversed(ours):
            self._tellings.remove(key, label)
        self._know("outcomes", beside)
        for place, (key, label, time) in zip(same.arg_true(), ours, strict=True):
            kept.append(not is_repeat(key, label, self._tellings.of(key)))
            if kept[-1] and key in theirs and key[2] is not None:  # the later one wins
                observed[place] = max(observed[place], self._limit + self._lateness, time + _TICK)
            if kept[-1]:
                self._tellings.add(key, (label,), time)
        return _with(frame.with_columns(pl.Series("_observed_at", observed, _TIME)), same, kept), 0

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
            if self._owners.has(one) or not before.get(one.id, set()).isdisjoint((one.whose, one.nobodys)):
                duplicates += 1
            elif self._is_late(one, landed_late):
                found.late.append(one)
            else:
                self._watermark = max(self._watermark, self._behind(one.time))
                shared += self._owners.add(one)
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
            said = self._tellings.of(key) or before.get(key, ())
            if is_repeat(key, one.label, said):
                duplicates += 1
                continue
            self._tellings.replace(key, (*said, one.label), one.time)
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

    def _forget(self) -> None:
        """Drop what is behind the watermarks, once it may be half of all."""
        if self.ids <= max(_FORGET_ABOVE, 2 * self._kept):
            return
        self._since, self._told_since = self._watermark, self._told_watermark
        self._owners.forget(self._since)
        self._tellings.forget(self._told_since)
        self._kept = self.ids

    def _remember(self, until: datetime) -> None:
        if self._since > _EPOCH:
            window = Window(self._since, until)
            for one in owners(self._lake.find("predictions", _inside("_time", window), _OWNED, window)):
                self._owners.add(one)
        if self._told_since > _EPOCH:
            window = Window(self._told_since, until)
            for key, label, time in _by_time(
                self._lake.find("outcomes", _inside("_observed_at", window), _TOLD, window)
            ):
                self._tellings.add(key, (label,), time)

    def _landed_before(self, predictions: Iterable[Prediction]) -> Mapping[str, set[str]]:
        """Of those that are too old for memory: who has an event of each id in the lake, by id."""
        old = [one for one in predictions if self._watermark - READMITTED <= one.time < self._since]
        if not old:
            return {}
        window = Window(min(one.time for one in old), max(one.time for one in old) + _TICK)
        rows = pl.col("_id").is_in([one.id for one in old])
        found: dict[str, set[str]] = {}
        for one in owners(self._lake.find("predictions", rows, _OWNED, window)):
            found.setdefault(one.id, set()).add(one.whose)
        return found

    def _told_before(self, outcomes: Iterable[OutcomeKnown]) -> Mapping[Key, Labels]:
        """Of those that are too old for memory, as far as a week back: what was told in the lake."""
        old = [one for one in outcomes if self._limit - READMITTED <= one.time < self._told_since]
        if not old:
            return {}
        window = Window(min(one.time for one in old), self._limit + 2 * self._lateness + DAY)
        rows = pl.col("_id").is_in([one.id for one in old])
        said: dict[Key, Labels] = {}
        for key, label, _ in _by_time(self._lake.find("outcomes", rows, _TOLD, window)):
            said[key] = *said.get(key, ()), label
        return said


def late_before(lake: Lake, predictions: Iterable[Prediction]) -> _Keys:
    """(id, whose) of those that are in the lake's `late`, on disk or waiting in memory."""
    named = {one.id: one.time for one in predictions}
    window = Window(min(named.values()), max(named.values()) + _TICK)
    return {(one.id, one.whose) for one in owners(lake.read("late", window)) if one.id in named}


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


def _by_time(rows: pl.DataFrame) -> Iterable[tuple[Key, float, datetime]]:
    return told(rows.sort("_observed_at") if rows.height else rows)


def _with(frame: pl.DataFrame, some: pl.Series, kept: Sequence[bool]) -> pl.DataFrame:
    """The frame with those of some rows that are kept, and with all the others."""
    all_kept = pl.repeat(True, frame.height, dtype=pl.Boolean, eager=True)
    return frame.filter(all_kept.scatter(some.arg_true(), pl.Series(kept, dtype=pl.Boolean)))
