"""Capture: what producers handed over, landed in the lakes of its models, each event once.

A segment is one batch of each table. Of one model, `predictions` land last and thereby close the segment for it: all
that is decided by what landed before (late, duplicate) is decided the same way again after a crash, or not at all.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Stop

import polars as pl

from drift_pipeline.clock import DAY, HOUR, Clock, Window
from drift_pipeline.errors import DriftError, IntegrityError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import (
    DeadLetter,
    OutcomeKnown,
    Prediction,
    outcomes_frame,
    predictions_frame,
    read_event,
)
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.refusals import Refusals, Refused
from drift_pipeline.telemetry.sources.spool import Segment, SpoolReader

Event = Prediction | OutcomeKnown | DeadLetter

log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FORGET_ABOVE = 10_000  # ids: to look for those that can go costs a look at all


@dataclass(frozen=True)
class Captured:
    """What one step did, in segments and events. `unmirrored`: predictions whose mirror failed; they landed."""

    segments: int = 0
    predictions: int = 0
    outcomes: int = 0
    late: int = 0
    late_outcomes: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    unmirrored: int = 0


class Capture:
    """The one reader of a spool: a folder a source, each with segments."""

    def __init__(
        self,
        spool: Path,
        lake_of: Callable[[str, str], Lake],
        specs: Mapping[str, ModelSpec],
        clock: Clock,
        mirror: Callable[[str, pl.DataFrame], pl.DataFrame | None],
        lateness: timedelta = HOUR,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """
        Args:
            lake_of: of (model, source) the model's lake with batches named by that source, the same object each time;
                of ("", source) the one for dead letters.
            mirror: of a model and the predictions that are about to land, the rows of `shadow`, or None.
            lateness: how far behind the model's newest event one may come, and how long its id is remembered.
            failed: is told what `run` and the mirror survived; None = the log.
        """
        self._spool, self._lake_of, self._specs, self._clock = spool, lake_of, specs, clock
        self._mirror, self._lateness = mirror, lateness
        self._failed = failed or (lambda error: log.warning("%s: %s", type(error).__name__, error))
        self._recent: dict[str, _Recent] = {}
        self._repeats: set[OutcomeKnown] = set()
        self._counts: Counter[str] = Counter()
        self._refusals = Refusals()

    def run(self, stop: Stop, interval_s: float, tell: Callable[[Sequence[Refused]], None] = lambda _: None) -> None:
        """Step until `stop` is set; what fails is told, and tried again after the interval.

        Args:
            tell: is told after each step of what models much is laid aside, as long as it is.
        """
        while not stop.is_set():
            for do in (self.step, lambda: tell(self.refused())):
                try:
                    do()
                except Exception as error:  # the edge of the process: capture outlives whatever a step meets
                    self._failed(error)
            stop.wait(interval_s)

    def refused(self) -> list[Refused]:
        """Of what models much was laid aside within the last hour."""
        return self._refusals.found(self._clock.now())

    def step(self) -> Captured:
        """Land all closed segments. A source that fails keeps its segments, and the others go on before it is told.

        Raises:
            UnavailableError: a disk does not answer.
            ConflictError: a lake's other writers were faster.
            IntegrityError: the lake holds later segments of this name: the spool is not the one it was.
        """
        self._counts, self._repeats, errors = Counter(), set(), []
        for folder in sorted(self._spool.iterdir()) if self._spool.is_dir() else []:
            reader = SpoolReader(folder)
            try:
                for segment in reader.closed():
                    events = self._take(folder.name, segment)
                    reader.done(segment)
                    self._refusals.add(events, self._clock.now())  # once it is gone, so that no try counts twice
                    self._counts["segments"] += 1
            except DriftError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return Captured(**self._counts)

    def _take(self, source: str, segment: Segment) -> list[Event]:
        now = self._clock.now()
        events = [read_event(line, self._specs, now, source) for line in segment.lines()]
        try:
            self._bury(source, segment.number, events)
            for model, of_model in _by_model(events).items():
                self._land_model(model, source, segment.number, of_model, now)
        except BaseException:
            self._recent.clear()  # what was decided did not land: remember from the lake
            raise
        return events

    def _bury(self, source: str, number: int, events: Sequence[Event]) -> None:
        """First of all: an event refused for its time, which a later try may accept, then lies here as well."""
        letters = [(line, event) for line, event in enumerate(events) if isinstance(event, DeadLetter)]
        _land(self._lake_of("", source), "dead_letters", _dead_letters_frame(letters, number), number)
        self._counts["dead_letters"] += len(letters)

    def _land_model(self, model: str, source: str, number: int, events: Sequence[Event], now: datetime) -> None:
        lake, spec = self._lake_of(model, source), self._specs[model]
        if lake.last_batch("predictions") == number:  # a former try came to its end here
            lake.flush("predictions")
            return
        recent = self._recent_of(model, lake, now)
        outcomes = self._outcomes([event for event in events if isinstance(event, OutcomeKnown)], recent, now)
        fresh, late = self._sorted([event for event in events if isinstance(event, Prediction)], recent)
        frame = predictions_frame(spec, fresh)
        _land(lake, "outcomes", outcomes_frame(spec, outcomes), number)
        _land(lake, "late", predictions_frame(spec, late), number)
        if fresh and (mirrored := self._mirrored(model, frame)) is not None:
            _land(lake, "shadow", mirrored, number)
        _land(lake, "predictions", frame, number)
        self._counts.update(outcomes=len(outcomes), late=len(late), predictions=len(fresh))

    def _sorted(
        self, predictions: Iterable[Prediction], recent: "_Recent"
    ) -> tuple[list[Prediction], list[Prediction]]:
        """Those to land and the late ones. Only what lands moves the watermark, so that the lake tells it again."""
        fresh: list[Prediction] = []
        late: list[Prediction] = []
        for prediction in predictions:
            if prediction.time < recent.watermark:
                late.append(prediction)
            elif prediction.id in recent.ids:
                self._counts["duplicates"] += 1
            else:
                recent.ids[prediction.id] = prediction.time
                recent.watermark = max(recent.watermark, prediction.time - self._lateness)
                fresh.append(prediction)
        recent.forget()
        return fresh, late

    def _outcomes(self, outcomes: Iterable[OutcomeKnown], recent: "_Recent", now: datetime) -> list[OutcomeKnown]:
        """Without repeats; a late one counts as observed now, lest who reads in that order has passed it already."""
        kept = []
        for outcome in outcomes:
            if outcome in self._repeats:
                self._counts["duplicates"] += 1
                continue
            self._repeats.add(outcome)
            late = outcome.time < recent.outcomes_watermark
            self._counts["late_outcomes"] += late
            kept.append(replace(outcome, time=now) if late else outcome)
            if not late:
                recent.outcomes_watermark = max(recent.outcomes_watermark, outcome.time - self._lateness)
        return kept

    def _mirrored(self, model: str, frame: pl.DataFrame) -> pl.DataFrame | None:
        try:
            return self._mirror(model, frame)
        except Exception as error:  # a candidate may fail in any way; what was served lands all the same
            self._counts["unmirrored"] += frame.height
            self._failed(error)
            return None

    def _recent_of(self, model: str, lake: Lake, now: datetime) -> "_Recent":
        if model not in self._recent:
            self._recent[model] = _read_recent(lake, now, self._lateness)
        return self._recent[model]


def _by_model(events: Iterable[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = {}
    for event in events:
        if not isinstance(event, DeadLetter):
            found.setdefault(event.model, []).append(event)
    return found


@dataclass
class _Recent:
    """What a model's lake holds of late: ids with their times, and the times below which an event is late."""

    ids: dict[str, datetime]
    watermark: datetime
    outcomes_watermark: datetime
    kept: int = 0

    def forget(self) -> None:
        """Drop the ids whose events would be late, once they may be half of all."""
        if len(self.ids) > max(_FORGET_ABOVE, 2 * self.kept):
            self.ids = {name: time for name, time in self.ids.items() if time >= self.watermark}
            self.kept = len(self.ids)


def _read_recent(lake: Lake, now: datetime, lateness: timedelta) -> _Recent:
    watermark = _newest(lake, "predictions", "_time", now, lateness)
    ids: dict[str, datetime] = {}
    if watermark > _EPOCH:
        rows = lake.read("predictions", Window(watermark, max(watermark + lateness, now) + DAY))
        ids = dict(rows.select("_id", "_time").iter_rows())
    return _Recent(ids, watermark, _newest(lake, "outcomes", "_observed_at", now, lateness))


def _newest(lake: Lake, table: Table, column: str, now: datetime, lateness: timedelta) -> datetime:
    """The largest time in the table less the lateness, sought from now backwards; 1970 in an empty table."""
    end, span = now + DAY, 2 * DAY
    while end > _EPOCH and lake.version(table) >= 0:
        start = max(_EPOCH, end - span)
        rows = lake.read(table, Window(start, end))
        if rows.height:
            newest: datetime = rows[column][-1]
            return max(_EPOCH, newest - lateness)
        end, span = start, 2 * span
    return _EPOCH


def _land(lake: Lake, table: Table, frame: pl.DataFrame, number: int) -> None:
    """Durably, before the segment is deleted. An earlier try's batch, if only in memory so far, is written as it was.

    Raises:
        IntegrityError: the lake holds a later batch, so this one would be taken for an old one and be lost.
    """
    if frame.is_empty():
        return
    if (last := lake.last_batch(table)) > number:
        raise IntegrityError(
            f"{lake.root / table}: holds segment {last} of this source already, so segment {number} cannot land: was "
            f"the spool's folder replaced? Stop its writer and rename its segments to numbers above {last}"
        )
    lake.append(table, frame, number)
    lake.flush(table)


def _dead_letters_frame(letters: Sequence[tuple[int, DeadLetter]], number: int) -> pl.DataFrame:
    rows = [
        (_digest(a.source, number, line), a.time, a.source, a.model, a.reason, a.payload, list(a.names))
        for line, a in letters
    ]
    texts = dict.fromkeys(("_source", "_model", "_reason", "_payload"), pl.String)
    times, lists = {"_time": pl.Datetime("us", "UTC")}, {"_names": pl.List(pl.String)}
    return pl.DataFrame(rows, {"_id": pl.String, **times, **texts, **lists}, orient="row")


def _digest(source: str, number: int, line: int) -> str:
    return hashlib.sha256(f"{source}/{number}/{line}".encode()).hexdigest()[:32]
