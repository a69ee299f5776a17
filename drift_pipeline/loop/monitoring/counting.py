"""Counting: rows and labels go into profiles in the order in which they land, none missed and none twice."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.windows import MINUTES_KEPT, Slices
from drift_pipeline.loop.monitoring.baselines import MonitoringBaseline
from drift_pipeline.telemetry.event import EXTERNAL
from drift_pipeline.telemetry.labels import labelled, owned

_WAITING = ("_id", "_producer", "_time", "_score")


class Counting:
    """What of a champion's rows is counted: a row waits here for its label, and an early label for its row.

    A row is counted with the label that is known when it is first joined. A correction that comes later counts for who
    reads the lake anew (training, rollouts, the next reference), and does not move what was counted.
    """

    def __init__(self, baseline: MonitoringBaseline, slices: Slices, delay: timedelta, longest: timedelta) -> None:
        """
        Args:
            delay: of outcomes; a label that comes later than twice that, and a week, counts no more.
            longest: of the windows that are judged.
        """
        self._champion, self._since, self._slices = baseline.champion, baseline.since, slices
        self._patience, self._kept = 2 * delay + 7 * DAY, longest + 7 * DAY + delay
        self._unlabelled = self._early = pl.DataFrame()

    @property
    def waiting(self) -> int:
        """Rows whose label may still come."""
        return self._unlabelled.height

    def add(self, landed: pl.DataFrame, outcomes: pl.DataFrame, now: datetime) -> None:
        """Count rows of `predictions` and of `outcomes` as the lake has them."""
        if not landed.is_empty():
            served = landed.filter(self._answered() & (pl.col("_time") >= self._since))
            self._slices.add(served, now)
            self._unlabelled = pl.concat([self._unlabelled, owned(served).select(_WAITING)], rechunk=True)
        self._add_labels(outcomes, now)
        if self._unlabelled.height:  # whose label did not come until now, in whatever long time was read at once
            self._unlabelled = self._unlabelled.filter(pl.col("_time") >= now - self._patience)
        self._slices.consolidate(now)
        self._slices.forget(now - self._kept)

    def still_open(self, counted_until: datetime) -> datetime:
        """The oldest row that may still get a label, where all was counted until the given time."""
        return max(self._since, counted_until - self._patience)

    def take_up(
        self, rows: pl.DataFrame, outcomes: pl.DataFrame, counted_until: datetime, leave_out: Sequence[Window]
    ) -> None:
        """Of rows that the restored profiles hold already: which still wait for a label, and the newest ones by the
        minute; and the labels that wait for their row.

        Args:
            rows: of `predictions`, all that had landed when the profiles were stored, from `still_open` on.
            outcomes: of the same time.
            leave_out: rows of these spans were not counted.
        """
        if outcomes.height:
            early = outcomes.join(rows, on="_id", how="anti", maintain_order="left") if rows.height else outcomes
            self._early = early.with_columns(_read_at=pl.lit(counted_until))
        rows = outside(rows, leave_out)
        rows = rows if rows.is_empty() else rows.filter(self._answered())
        if rows.is_empty():
            return
        waiting, first = owned(rows), _first_known(outcomes)
        minutes = waiting.filter(pl.col("_time") >= counted_until - MINUTES_KEPT)
        self._slices.add_minutes(minutes, labelled(minutes, first))
        self._unlabelled = _without(waiting.select(_WAITING), labelled(waiting, first))

    def _add_labels(self, outcomes: pl.DataFrame, now: datetime) -> None:
        """A label that is read before its prediction waits for it for an hour."""
        read = outcomes.with_columns(_read_at=pl.lit(now)) if outcomes.height else outcomes
        told = [frame for frame in (self._early, read) if frame.height]
        if not told:
            return
        known = pl.concat(told, how="diagonal_relaxed")
        early = known.filter(pl.col("_read_at") >= now - HOUR)
        if self._unlabelled.height:
            joined = labelled(self._unlabelled, known)
            self._slices.add_labels(joined, now)
            early = early.join(self._unlabelled, on="_id", how="anti", maintain_order="left")
            self._unlabelled = _without(self._unlabelled, joined)
        self._early = early

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
