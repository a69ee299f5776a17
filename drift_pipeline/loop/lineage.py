"""Lineage, delivered: what the audit and the days since the last call tell, as OpenLineage events, to where they go.

Nothing is queued for it: the audit holds every stage's facts already, so a cursor in the store is all that is kept. A
backend that is down loses nothing, for what was not taken is told again, and blocks nothing: a call has its deadline.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import lru_cache
from itertools import chain
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.canonical import sha256
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.errors import ConflictError, DriftError
from drift_pipeline.evidence.lineage.events import Event, Naming
from drift_pipeline.evidence.lineage.sinks import FileSink, HttpSink, RefusedEventError, Sink
from drift_pipeline.evidence.lineage.telling import Day, Teller
from drift_pipeline.files import alone
from drift_pipeline.loop.monitoring.kpi_history import read_kpis
from drift_pipeline.loop.suspects import PATIENCE, Suspects
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

log = logging.getLogger(__name__)
SECONDS = 5.0  # for which one call goes on
GRACE = HOUR  # after which a day is over: its last rows have landed, and its last tick is told
LATE = 100  # records that wait, above which something is amiss
_AT_ONCE = 31 * DAY  # read together
_PARKED = 50  # told one by one; more are only counted
_PAUSE_S = (5.0, 600.0)  # after the first failure, and at most
_INSTANT = timedelta(microseconds=1)
_WRONG = (LookupError, TypeError, ValueError, AttributeError)  # of a record that has not the form of its event


@dataclass(frozen=True)
class Cursor:
    """How far one destination was told.

    home: as of `Naming`. days: the next day to tell, by model. runs: as of `Teller`.
    left: what the sink wants to find again. failures, error, again_at: of the last calls, and when to try again.
    parked, refused: what the destination will never take, the newest and how many; they are left out.
    """

    home: str = ""
    after: int = 0
    days: Mapping[str, str] = field(default_factory=dict)
    runs: Mapping[str, str] = field(default_factory=dict)
    left: Mapping[str, Any] = field(default_factory=dict)
    failures: int = 0
    error: str = ""
    again_at: float = 0.0
    parked: Sequence[str] = ()
    refused: int = 0


@dataclass(frozen=True)
class Standing:
    """How lineage stands: `waiting` records are not told yet, of which `error` says why, if anything is wrong."""

    where: str
    waiting: int
    error: str
    parked: Sequence[str]
    refused: int


def deliver_lineage(
    settings: Settings,
    store: ControlStore,
    specs: Mapping[str, ModelSpec],
    now: datetime,
    *,
    seconds: float = SECONDS,
    at_end: bool = False,
    at_once: bool = False,
) -> int:
    """Tell what is new, in order; returns how many events went. Beside another process that is at it, none.

    Whatever is wrong with the destination is noted for `drift status` and tried again later; nothing is raised of it.

    Args:
        now: by the home's clock; days that ended an hour before it are told.
        seconds: after so long nothing more begins.
        at_once: somebody asks for it, so that no pause after a failure is kept.
        at_end: nothing more comes, as after a replay: the day of `now` is told as far as it went.
    """
    if not settings.lineage:
        return 0
    try:
        with alone(settings.lineage_files) as free:
            delivery = _Delivery(settings, store, specs, now, at_end=at_end)
            return delivery.run(seconds) if free and (at_once or delivery.due) else 0
    except ConflictError:  # another machine told it
        return 0
    except DriftError as error:  # of the store or the disk, which others need more: they tell it, too
        log.warning("no lineage is told: %s", error)
        return 0


def standing(settings: Settings, store: ControlReader) -> Standing | None:
    """None where lineage is off."""
    if not settings.lineage:
        return None
    found, head = store.recall(_key(settings)), store.head()
    cursor = Cursor(**found.body) if found else Cursor()
    where = settings.lineage_url or str(settings.lineage_files)
    waiting = (head.seq if head else 0) - cursor.after
    return Standing(where, waiting, cursor.error, cursor.parked, cursor.refused)


def told(at: Standing) -> list[str]:
    """What is amiss, or late, in words; nothing where all is well."""
    late = at.waiting > LATE or at.error
    why = f": {at.error}" if at.error else ""
    last = f"; the last: {at.parked[-1]}" if at.parked else ""
    return [
        *([f"{at.waiting:,} records wait for {at.where}{why}"] if late else []),
        *([f"{at.refused:,} events were refused and are left out{last}"] if at.refused else []),
    ]


def _key(settings: Settings) -> str:
    """No model's name begins with an underscore. Another address is told everything."""
    return f"_lineage/{sha256(settings.lineage_url.encode())[7:19]}" if settings.lineage_url else "_lineage/files"


class _Delivery:
    """One call's."""

    def __init__(
        self,
        settings: Settings,
        store: ControlStore,
        specs: Mapping[str, ModelSpec],
        now: datetime,
        *,
        at_end: bool,
    ) -> None:
        self._settings, self._store, self._specs, self._now = settings, store, specs, now
        self._over = _midnight((now - _INSTANT).date()) + DAY if at_end else now - GRACE
        found = store.recall(_key(settings))
        self._generation = found.generation if found else 0
        self._cursor = self._ahead = Cursor(**found.body) if found else Cursor()
        self._facts: dict[str, tuple[Window, dict[date, Day]]] = {}
        self._parked, self._refused, self._sent = list(self._cursor.parked), self._cursor.refused, 0

    @property
    def due(self) -> bool:
        """Whether the pause after the last failure is over; a longer one is of a clock that was set back."""
        return not 0 < self._cursor.again_at - time.time() <= _PAUSE_S[1]

    def run(self, seconds: float) -> int:
        until = time.monotonic() + seconds
        try:
            self._tell(until)
        except ConflictError:
            raise
        except DriftError as error:
            self._fail(str(error))
        return self._sent

    def _tell(self, until: float) -> None:
        news = self._news()
        first = next(news, None)
        if first is None:
            return
        with closing(self._sink()) as sink:
            self._suspects = Suspects[Event](lambda event: self._send_one(sink, event, {}), RefusedEventError)
            waiting = list[Event]()
            for events in chain([first], news):
                waiting += events
                late = time.monotonic() >= until
                if len(waiting) >= sink.batch or late:
                    self._send(sink, waiting)
                    waiting = []
                if late:
                    break
            else:
                if self._ahead is not self._cursor:
                    self._send(sink, waiting)
            self._suspects.hold()

    def _send(self, sink: Sink, events: Sequence[Event]) -> None:
        """The cursor goes on when all of its events are taken, or refused for ever."""
        left = self._cursor.left
        for event in events if sink.batch == 1 else ():
            try:
                self._send_one(sink, event, left)
            except RefusedEventError as error:
                self._suspects.add(event, str(error))
                continue
            for one, why in self._suspects.again():
                self._park(f"{one['eventType']} of {one['job']['name']}, {one['run']['runId']}: {why}")
        if events and sink.batch > 1:
            left = sink.send(events, left)
            self._sent += len(events)
        if not self._suspects:
            self._keep(replace(self._ahead, left=left, failures=0, error="", again_at=0.0))

    def _send_one(self, sink: Sink, event: Event, left: Mapping[str, int]) -> None:
        sink.send([event], left)
        self._sent += 1

    def _park(self, what: str) -> None:
        if what[:300] not in self._parked:
            log.error("lineage: left out: %s", what[:300])
            self._parked, self._refused = [*self._parked, what[:300]][-_PARKED:], self._refused + 1

    def _fail(self, why: str) -> None:
        failures = self._cursor.failures + 1
        pause = min(_PAUSE_S[0] * 2 ** min(failures - 1, 16), _PAUSE_S[1])
        self._keep(replace(self._cursor, failures=failures, error=why, again_at=time.time() + pause))

    def _keep(self, cursor: Cursor) -> None:
        """Raises ConflictError where another machine was faster."""
        cursor = replace(cursor, parked=self._parked, refused=self._refused)
        self._store.remember(Put("", _key(self._settings), asdict(cursor), self._generation))
        self._generation, self._cursor, self._ahead = self._generation + 1, cursor, cursor

    def _sink(self) -> Sink:
        if self._settings.lineage_url:
            key, patient = self._settings.lineage_key.get_secret_value(), self._cursor.failures < PATIENCE
            return HttpSink(self._settings.lineage_url, key, patient=patient)
        return FileSink(self._settings.lineage_files)

    def _news(self) -> Iterator[list[Event]]:
        """What there is to tell, in order: before each record of a model the days that ended before it, and at last
        those that are over by now. Meanwhile `_ahead` is the cursor as it is when all of it was taken.
        """
        if not self._cursor.home and (first := next(self._store.records(), None)) is not None:
            self._ahead = replace(self._ahead, home=first.hash)
        teller = self._teller()
        for record in self._store.records(after=self._cursor.after):
            yield from self._days(teller, record.subject, _at(record) - GRACE)
            yield self._record(teller, record)
        for model in self._ahead.days:
            yield from self._days(teller, model, self._over)

    def _teller(self) -> Teller:
        @lru_cache(maxsize=64)
        def decided(model: str, digest: str) -> str:
            found = self._store.get("candidate", f"{model}/{digest}")
            return str(found.body.get("decision") or "") if found else ""

        naming = Naming(self._ahead.home, self._settings.lineage_namespace, self._settings.lake)
        return Teller(naming, self._specs, decided, dict(self._cursor.runs))

    def _record(self, teller: Teller, record: AuditRecord) -> list[Event]:
        days = self._ahead.days
        if record.event == "model.adopted":
            days = {**days, record.subject: _day_of(_at(record))}
        try:
            events = teller.of_record(record)
        except _WRONG as error:
            self._park(f"record {record.seq} has not the form of {record.event}: {error!r}")
            events = []
        self._ahead = replace(self._ahead, after=record.seq, days=days, runs=dict(teller.runs))
        return events

    def _days(self, teller: Teller, model: str, until: datetime) -> Iterator[list[Event]]:
        """The days of a model that are not told and ended until then."""
        begin = self._ahead.days.get(model)
        while begin is not None and _midnight(begin) + DAY <= until:
            day = date.fromisoformat(begin)
            facts = self._read(model, day).get(day)
            begin = (day + DAY).isoformat()
            self._ahead = replace(self._ahead, days={**self._ahead.days, model: begin})
            yield teller.of_day(model, facts) if facts else []

    def _read(self, model: str, day: date) -> dict[date, Day]:
        """The facts of the day, and of those after it that are over, read together."""
        known = self._facts.get(model)
        if known is None or not known[0].start <= _midnight(day) < known[0].end:
            span = Window(_midnight(day), max(min(_midnight(day) + _AT_ONCE, self._over), _midnight(day) + DAY))
            known = span, days_of(self._settings, self._store, model, span)
            self._facts[model] = known
        return known[1]


def days_of(settings: Settings, store: ControlReader, model: str, span: Window) -> dict[date, Day]:
    """What the lake and the KPI history tell of each day of the span, where there is anything."""
    lake = Lake(settings.lake / model, source="lineage")
    rows, labels = ({one["_day"]: one for one in lake.daily(t, span).to_dicts()} for t in ("predictions", "outcomes"))
    ticks_of = Window(span.start + _INSTANT, span.end + _INSTANT)  # a tick at midnight judges what came before
    said = read_kpis(store, lake, model, ticks_of).with_columns((pl.col("at") - _INSTANT).dt.date().alias("day"))
    ticks = dict(said.group_by("day").agg(pl.col("at").n_unique()).iter_rows())
    last = said.group_by("day", "name", maintain_order=True).last()
    kpis: dict[date, list[tuple[str, str, str]]] = {}
    for day, *kpi in last.select("day", "name", "verdict", "reason").iter_rows():
        kpis.setdefault(day, []).append((kpi[0], kpi[1], kpi[2] or ""))
    return {day: _day(day, rows.get(day), labels.get(day), kpis, ticks) for day in {*rows, *labels, *ticks}}


def _day(
    day: date,
    rows: Mapping[str, Any] | None,
    labels: Mapping[str, Any] | None,
    kpis: Mapping[date, Sequence[tuple[str, str, str]]],
    ticks: Mapping[date, int],
) -> Day:
    landed = {name: int(of["_landed"]) for name, of in (("predictions", rows), ("outcomes", labels)) if of}
    nulls = {name: int(count) for name, count in (rows or {}).items() if not name.startswith("_")}
    counts = [int(of["_rows"]) if of else 0 for of in (rows, labels)]
    return Day(day, counts[0], counts[1], landed, nulls, tuple(kpis.get(day, ())), ticks.get(day, 0))


def _midnight(day: date | str) -> datetime:
    found = date.fromisoformat(day) if isinstance(day, str) else day
    return datetime.combine(found, time_of_day(), UTC)


def _day_of(at: datetime) -> str:
    return at.astimezone(UTC).date().isoformat()


def _at(record: AuditRecord) -> datetime:
    return datetime.fromisoformat(record.at)
