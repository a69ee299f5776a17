"""Landing: a batch in the tables of one model, durably, whatever an earlier try of it came to.

A segment of the spool is one batch of each table. `predictions` land last and thereby close it for the model: all that
is decided by what landed before (late, duplicate) is decided the same way again after a crash, or not at all.

A log such as Kafka's gives a later try other neighbours. There each event has its place in the log, a batch's number
is its last place, and a table takes only what lies behind the number that was committed with its last rows: whoever
comes second, with however much of it, writes nothing twice.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import polars as pl

from drift_pipeline.errors import IntegrityError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import DeadLetter, Event, OutcomeKnown, Prediction
from drift_pipeline.telemetry.labels import owned
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.recent import Recent, Sorted, late_before
from drift_pipeline.telemetry.rows import outcomes_frame, predictions_frame

_TABLES: tuple[Table, ...] = ("outcomes", "late", "shadow", "predictions")
_ONCE: tuple[Table, ...] = ("outcomes", "predictions")  # that are told by more than one source land once
_KNOWN_BY: Mapping[Table, tuple[str, ...]] = {"dead_letters": ("_id",), "outcomes": ("_id", "_producer", "_label")}


@dataclass(frozen=True)
class Captured:
    """What one step did, in segments and events. `unmirrored`: predictions whose mirror failed; they landed.

    `shared_ids`: predictions that landed under an id that another producer used as well.
    """

    segments: int = 0
    predictions: int = 0
    outcomes: int = 0
    late: int = 0
    late_outcomes: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unmirrored: int = 0
    shared_ids: int = 0


class RenumberedError(IntegrityError):
    """The lake holds a later batch of the source, so this one would be taken for an old one and be lost."""


class _Writing:
    """One batch on its way into the tables of one model; `found`: what turned out at that, as `Captured` has it."""

    def __init__(self, lake: Lake, recent: Recent, number: int) -> None:
        self._lake, self._recent, self._number = lake, recent, number
        self.found: Counter[str] = Counter()

    def write(self, table: Table, frame: pl.DataFrame, after: int | None = None) -> None:
        """Rows that another process landed since they were sorted are left out, and the batch's number is written."""
        settle = partial(self._settle, table) if table in _ONCE else None
        self._recent.wrote(table, self._lake.append_next(table, frame, self._number, after, settle))

    def _settle(self, table: Table, frame: pl.DataFrame) -> pl.DataFrame:
        kept, shared = self._recent.settle(self._lake, table, frame)
        gone = frame.height - kept.height
        self.found.update({table: -gone, "duplicates": gone, "shared_ids": shared})
        return kept


class Landing:
    """Into the lakes of all models; arguments as for `Capture`."""

    def __init__(
        self,
        lake_of: Callable[[str, str], Lake],
        specs: Mapping[str, ModelSpec],
        mirror: Callable[[str, pl.DataFrame], pl.DataFrame | None],
        lateness: timedelta,
        failed: Callable[[Exception], None],
    ) -> None:
        self._lake_of, self._specs, self._mirror, self._lateness = lake_of, specs, mirror, lateness
        self._failed = failed
        self._recent: dict[str, Recent] = {}

    def land(
        self, model: str, source: str, number: int, events: Sequence[Event], now: datetime, places: Sequence[int] = ()
    ) -> Counter[str]:
        """One model's events of one batch; of "", which are dead letters. What came of them, as `Captured` has it.

        Args:
            places: of the events in the source's log, rising, none above `number`; () = the spool's, which has none.

        Raises:
            RenumberedError: the lake holds later batches of the source; without places only.
            OvertakenError: with places: another process reads the source by now.
            DriftError: as the lake's methods do; may be tried again.
        """
        if not model:
            return self._bury(source, number, events, places)
        try:
            if places:
                return self._land_placed(model, source, number, list(zip(places, events, strict=True)), now)
            return self._land(model, source, number, events, now)
        except BaseException:
            self._recent.pop(model, None)  # what was decided did not land: remember from the lake
            raise

    def _bury(self, source: str, number: int, events: Sequence[Event], places: Sequence[int]) -> Counter[str]:
        letters, lake = [event for event in events if isinstance(event, DeadLetter)], self._lake_of("", source)
        if not places:
            frame = dead_letters_frame(letters, [(number, n) for n in range(len(letters))])
            if _is_to_land(lake, "dead_letters", frame, number):
                lake.append_next("dead_letters", frame, number)
            return Counter(dead_letters=len(letters))
        last = lake.last_batch("dead_letters")
        behind = [(place, letter) for place, letter in zip(places, letters, strict=True) if place > last]
        frame = dead_letters_frame([letter for _, letter in behind], [(place, 0) for place, _ in behind])
        if behind:
            lake.append_next("dead_letters", frame, number, last)
        return Counter(dead_letters=len(behind))

    def _land_placed(
        self, model: str, source: str, number: int, placed: Sequence[tuple[int, Event]], now: datetime
    ) -> Counter[str]:
        """Of what an earlier try laid aside as late, that is late, and of what lies behind it time decides."""
        lake, spec = self._lake_of(model, source), self._specs[model]
        recent = self._recent_of(model, lake, now, _ONCE)
        last = {table: _last_of(lake, table) for table in _TABLES}
        outcomes = [one for at, one in placed if isinstance(one, OutcomeKnown) and at > last["outcomes"]]
        predictions = [(at, one) for at, one in placed if isinstance(one, Prediction) and at > last["predictions"]]
        writing = _Writing(lake, recent, number)

        def write(table: Table, frame: pl.DataFrame) -> None:
            if not frame.is_empty():
                writing.write(table, frame, last[table])

        told = recent.told(outcomes, now)
        write("outcomes", outcomes_frame(spec, told.outcomes, told.observed))
        tried = [one for at, one in predictions if at <= last["late"]]
        before = recent.sort(tried, now, late_before(lake, tried)) if tried else Sorted()
        found = recent.sort([one for at, one in predictions if at > last["late"]], now, None)
        write("late", predictions_frame(spec, found.late))
        fresh = [*before.fresh, *found.fresh]
        frame = predictions_frame(spec, fresh)
        mirrored = {id(one) for at, one in predictions if at <= last["shadow"]}
        unmirrored = frame.filter(pl.Series([id(one) not in mirrored for one in fresh], dtype=pl.Boolean))
        counts = writing.found
        counts.update(unmirrored=self._shadow(model, unmirrored, lambda rows: write("shadow", rows)))
        write("predictions", frame)
        counts.update(outcomes=len(told.outcomes), late=len(found.late), predictions=len(fresh))
        counts.update(late_outcomes=told.late, duplicates=told.duplicates + before.duplicates + found.duplicates)
        counts.update(shared_ids=before.shared + found.shared)
        return counts

    def _land(self, model: str, source: str, number: int, events: Sequence[Event], now: datetime) -> Counter[str]:
        lake, spec = self._lake_of(model, source), self._specs[model]
        outcomes = [one for one in events if isinstance(one, OutcomeKnown)]
        predictions = [one for one in events if isinstance(one, Prediction)]
        needed: dict[Table, bool] = {"outcomes": bool(outcomes), "predictions": bool(predictions)}
        recent = self._recent_of(model, lake, now, [table for table, some in needed.items() if some])
        if predictions and _last_of(lake, "predictions") == number:  # a former try came to its end here
            return Counter()
        writing = _Writing(lake, recent, number)

        def write(table: Table, frame: pl.DataFrame) -> None:
            if _is_to_land(lake, table, frame, number):
                writing.write(table, frame)

        told = recent.told(outcomes, now)
        write("outcomes", outcomes_frame(spec, told.outcomes, told.observed))
        landed_late = late_before(lake, predictions) if recent.is_old(predictions) and _is_retry(lake, number) else None
        found = recent.sort(predictions, now, landed_late)
        write("late", predictions_frame(spec, found.late))
        frame = predictions_frame(spec, found.fresh)
        counts = writing.found
        counts.update(unmirrored=self._shadow(model, frame, lambda rows: write("shadow", rows)))
        write("predictions", frame)
        counts.update(outcomes=len(told.outcomes), late=len(found.late), predictions=len(found.fresh))
        counts.update(late_outcomes=told.late, duplicates=told.duplicates + found.duplicates, shared_ids=found.shared)
        return counts

    def _shadow(self, model: str, frame: pl.DataFrame, write: Callable[[pl.DataFrame], None]) -> int:
        """Land what the mirror says; how many rows it failed for: what was served lands all the same."""
        if frame.is_empty():
            return 0
        try:
            mirrored = self._mirror(model, frame)
        except Exception as error:  # a candidate may fail in any way
            self._failed(error)
            return frame.height
        if mirrored is not None:
            write(_owned_as(frame, mirrored))
        return 0

    def _recent_of(self, model: str, lake: Lake, now: datetime, tables: Collection[Table]) -> Recent:
        """With what other processes landed by now in the tables."""
        if model not in self._recent or self._recent[model].is_ahead(now):
            self._recent[model] = Recent(lake, now, self._lateness)
        self._recent[model].catch_up(lake, tables)
        return self._recent[model]


def _owned_as(frame: pl.DataFrame, mirrored: pl.DataFrame) -> pl.DataFrame:
    """Whose a mirrored row is: the producer's of the row that it mirrors."""
    if "_producer" in mirrored.columns:
        return mirrored
    whose = frame.select("_id", "_time", "_producer").unique(["_id", "_time"])
    return mirrored.join(whose, on=["_id", "_time"], how="left", maintain_order="left")


def _last_of(lake: Lake, table: Table) -> int:
    """The source's last batch; where `Recent` has looked at the table, as of then: each look costs one at the disk."""
    return lake.last_batch(table, anew=table not in _ONCE)


def _is_retry(lake: Lake, number: int) -> bool:
    """Whether an earlier try of this batch laid something aside as late."""
    return lake.last_batch("late") == number


def _is_to_land(lake: Lake, table: Table, frame: pl.DataFrame, number: int) -> bool:
    """Whether a segment's rows are not there yet.

    Raises:
        RenumberedError: the table holds later segments, and not these rows.
    """
    if frame.is_empty():
        return False
    last = _last_of(lake, table)
    if last > number and not _is_there(lake, table, frame):  # else a capture that was slower had set it aside
        raise RenumberedError(
            f"{lake.root / table}: holds segment {last} of this source already, so segment {number} cannot land: was "
            f"the spool's folder replaced? Stop its writer and rename its segments, and those that wait in it, to "
            f"numbers above {last}"
        )
    return last < number


def _is_there(lake: Lake, table: Table, frame: pl.DataFrame) -> bool:
    """Whether the table holds each of the rows, whenever and as whatever batch it landed."""
    by = _KNOWN_BY.get(table, ("_id", "_producer"))
    landed = lake.find(table, pl.col("_id").is_in(frame["_id"].to_list()), by)
    return landed.height > 0 and owned(frame).join(owned(landed), on=by, how="anti").is_empty()


def dead_letters_frame(letters: Sequence[DeadLetter], places: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """The lake's `dead_letters`.

    Args:
        places: of each letter in its source.
    """
    rows = [
        (_digest(a.source, *place), a.time, a.source, a.model, a.reason, a.payload, list(a.names))
        for a, place in zip(letters, places, strict=True)
    ]
    texts = dict.fromkeys(("_source", "_model", "_reason", "_payload"), pl.String)
    times, lists = {"_time": pl.Datetime("us", "UTC")}, {"_names": pl.List(pl.String)}
    return pl.DataFrame(rows, {"_id": pl.String, **times, **texts, **lists}, orient="row")


def _digest(source: str, number: int, place: int) -> str:
    return hashlib.sha256(f"{source}/{number}/{place}".encode()).hexdigest()[:32]
