"""Counting: rows and labels go into profiles in the order in which they land, none missed and none twice."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from drift_pipeline.clock import DAY, Window
from drift_pipeline.detection.counting.slices import MINUTES_KEPT, Slices
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline
from drift_pipeline.telemetry.event import EXTERNAL
from drift_pipeline.telemetry.labels import labelled, owned

_WAITING = ("_id", "_producer", "_time", "_score")


class Counting:
    """What of a champion's rows is counted: a row waits here for its label, and an early label for its row.

    A row is counted with the label that is known when it is first joined. A correction that comes later counts for who
    reads the lake anew (training, rollouts, the next reference), and does not move what was counted.

    In memory a row waits for the delay of outcomes and two hours, however many never get a label. A label that comes
    later finds no row here: `late` tells of it once the profiles were stored, for the row to be looked up in the lake,
    once. Which labels these are follows from what is stored alone, so that it is the same whoever carries on.
    """

    def __init__(self, baseline: MonitoringBaseline, slices: Slices, delay: timedelta, longest: timedelta) -> None:
        """
        Args:
            delay: of outcomes; a label that comes later than twice that, and a week, counts no more.
            longest: of the windows that are judged.
        """
        self._champion, self._since, self._slices = baseline.champion, baseline.since, slices
        self._patience, self._kept = 2 * delay + 7 * DAY, longest + 7 * DAY + delay
        self._in_memory = delay + MINUTES_KEPT
        self._unlabelled = self._early = pl.DataFrame()
        self._stored_at, self._oldest = baseline.since, baseline.since

    @property
    def waiting(self) -> int:
        """Rows in memory that have no label."""
        return self._unlabelled.height

    def add(self, landed: pl.DataFrame, outcomes: pl.DataFrame, now: datetime) -> None:
        """Count rows of `predictions` and of `outcomes` as the lake has them."""
        if not landed.is_empty():
            served = landed.filter(self._answered() & (pl.col("_time") >= self._since))
            self._slices.add(served, now)
            waiting = owned(served).select(_WAITING).filter(pl.col("_time") >= self._oldest)
            self._unlabelled = pl.concat([self._unlabelled, waiting])
        self._add_labels(outcomes, now)
        if self._unlabelled.height:  # whose label did not come until now, in whatever long time was read at once
            self._unlabelled = self._unlabelled.filter(pl.col("_time") >= now - self._patience)
        self._slices.consolidate(now)
        self._slices.forget(now - self._kept)

    def stored(self, now: datetime, hour: datetime) -> None:
        """The profiles of what was counted until the hour are stored: who waits longer is looked up from now on."""
        if self._early.height:
            self._early = self._early.filter(pl.col("_read_at") > self._stored_at)
        self._stored_at, self._oldest = now, self._waiting_from(hour)
        if self._unlabelled.height:
            self._unlabelled = self._unlabelled.filter(pl.col("_time") >= self._oldest).rechunk()

    def late(self, now: datetime) -> tuple[pl.DataFrame, Window]:
        """Labels that had come before the profiles were last stored and found no row, and where their rows may be."""
        labels = self._early.filter(pl.col("_read_at") <= self._stored_at) if self._early.height else self._early
        return labels, Window(min(max(self._since, now - self._patience), self._oldest), self._oldest)

    def add_late(self, rows: pl.DataFrame, outcomes: pl.DataFrame, labels: pl.DataFrame, now: datetime) -> None:
        """Count the labels of `late`.

        Args:
            rows: of `predictions`, those of their ids in their window.
            outcomes: all of their ids: a row that had a label before has been counted with that.
        """
        rows = owned(rows.filter(self._answered())) if rows.height else rows
        if rows.is_empty():
            return
        first = labels.group_by("_id").agg(pl.col("_observed_at").min().alias("_first"))
        before = outcomes.join(first, on="_id").filter(pl.col("_observed_at") < pl.col("_first")).drop("_first")
        rows = _without(rows.select(_WAITING), labelled(rows, before))
        self._slices.add_labels(labelled(rows, labels), now)

    def open_from(self, stored: datetime, before: datetime) -> datetime:
        """The oldest row that `take_up` wants, where profiles were stored at one time, and at another before it."""
        return min(self._waiting_from(before), max(self._since, stored - MINUTES_KEPT))

    def take_up(
        self,
        rows: pl.DataFrame,
        outcomes: pl.DataFrame,
        since: pl.DataFrame,
        stored: tuple[datetime, datetime],
        leave_out: Sequence[Window],
    ) -> None:
        """Of rows that the restored profiles hold already: which still wait for a label, and the newest ones by the
        minute; and the labels that wait for their row.

        Args:
            rows: of `predictions`, all that had landed when the profiles were stored, from `open_from` on.
            outcomes: of the same time, and those of them that landed `since` the profiles were stored before that.
            stored: until when all was counted, and had been when they were stored before that.
            leave_out: rows of these spans were not counted.
        """
        counted_until, before = stored
        self._stored_at, self._oldest = counted_until, self._waiting_from(counted_until)
        if since.height:
            there = rows.filter(pl.col("_time") >= self._waiting_from(before)) if rows.height else rows
            early = since.join(there, on="_id", how="anti", maintain_order="left") if there.height else since
            self._early = early.with_columns(_read_at=pl.lit(counted_until))
        rows = outside(rows, leave_out)
        rows = rows if rows.is_empty() else rows.filter(self._answered())
        if rows.is_empty():
            return
        waiting, first = owned(rows), _first_known(outcomes)
        minutes = waiting.filter(pl.col("_time") >= counted_until - MINUTES_KEPT)
        self._slices.add_minutes(minutes, labelled(minutes, first))
        waiting = waiting.filter(pl.col("_time") >= self._oldest)
        self._unlabelled = _without(waiting.select(_WAITING), labelled(waiting, first))

    def _waiting_from(self, hour: datetime) -> datetime:
        """The oldest row that waits in memory once the profiles of the hour are stored."""
        return max(self._since, hour - self._in_memory)

    def _add_labels(self, outcomes: pl.DataFrame, now: datetime) -> None:
        """A label that is read before its prediction waits for it."""
        read = outcomes.with_columns(_read_at=pl.lit(now)) if outcomes.height else outcomes
        told = [frame for frame in (self._early, read) if frame.height]
        if not told:
            return
        self._early = pl.concat(told, how="diagonal_relaxed")
        if self._unlabelled.height:
            ids = self._early.select(pl.col("_id").unique())
            asked = self._unlabelled.join(ids, on="_id", how="semi", maintain_order="left")
            if asked.is_empty():
                return
            joined = labelled(asked, self._early)
            self._slices.add_labels(joined, now)
            self._early = self._early.join(asked, on="_id", how="anti", maintain_order="left")
            others = self._unlabelled.join(ids, on="_id", how="anti", maintain_order="left")
            self._unlabelled = pl.concat([others, _without(asked, joined)])

    def _answered(self) -> pl.Expr:
        """Which rows the champion answered: a recorded one's name elsewhere is not known here."""
        ours, elsewhere = pl.col("_version") == self._champion.name, pl.col("_route").eq_missing(EXTERNAL)
        return ours | elsewhere if self._champion.recorded else ours & ~elsewhere


def outside(rows: pl.DataFrame, spans: Sequence[Window]) -> pl.DataFrame:
    """The rows whose `_time` lies in none of the spans."""
    for span in spans if rows.height else ():
        rows = rows.filter(~pl.col("_time").is_between(span.start, span.end, closed="left"))
    return rows


def _without(rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    return rows.join(others, on=["_id", "_producer", "_time"], how="anti", maintain_order="left")


def _first_known(outcomes: pl.DataFrame) -> pl.DataFrame:
    """What each teller first said of an id: with that it was counted, by whoever stored the profiles."""
    return (
        outcomes
        if outcomes.is_empty()
        else owned(outcomes).unique(["_id", "_producer"], keep="first", maintain_order=True)
    )
