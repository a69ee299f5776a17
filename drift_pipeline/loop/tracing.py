"""Traces, delivered: what the audit tells of incidents and of what came of them, as spans, to an OTLP exporter.

As for lineage nothing is queued: a cursor in the store is all that is kept. It moves once the spans are taken, and a
span's ids come of its record: what a killed process told and did not note is told again as the same spans.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.errors import ConflictError, DriftError, InputError
from drift_pipeline.files import alone
from drift_pipeline.loop.suspects import PATIENCE, Suspects
from drift_pipeline.observability.span_sink import RefusedSpansError, SpanSink, destination, traced
from drift_pipeline.observability.spans import Spans, ToldSpan
from drift_pipeline.settings import Settings

log = logging.getLogger(__name__)
SECONDS = 5.0  # for which one call goes on
LATE = 100  # records that wait, above which something is amiss
_KEY = "_traces"  # no model's name begins with an underscore
_AT_ONCE = 200  # spans sent together; fewer after failures, so that what is too slow or too large goes in the end
_PARKED = 50  # refusals told one by one; more are only counted
_PAUSE_S = (5.0, 600.0)  # after the first failure, and at most
_WRONG = (LookupError, TypeError, ValueError, AttributeError)  # of a record that has not the form of its event


@dataclass(frozen=True)
class Cursor:
    """How far the exporter was told.

    after: the last record. stages: as of `Spans`. failures, error, again_at: of the last calls, and when to try again.
    left_out: records that have not the form of their event. parked, refused: what the exporter will never take, the
    newest in words and how many spans.
    """

    after: int = 0
    stages: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    failures: int = 0
    error: str = ""
    again_at: float = 0.0
    left_out: int = 0
    parked: Sequence[str] = ()
    refused: int = 0


@dataclass(frozen=True)
class _Step:
    """Spans, and the cursor once they are told."""

    ahead: Cursor
    spans: Sequence[ToldSpan]


def deliver_traces(settings: Settings, store: ControlStore, *, seconds: float = SECONDS, at_once: bool = False) -> int:
    """Tell what is new, in order; returns how many spans went. Beside another process that is at it, none.

    Whatever is wrong with the exporter is noted for `drift status` and tried again later; nothing is raised of it.

    Args:
        seconds: after so long nothing more begins.
        at_once: no pause after a failure is kept.
    """
    try:
        if not traced():
            return 0
        with alone(settings.home / "traces") as free:
            delivery = _Delivery(settings, store)
            return delivery.run(seconds) if free and (at_once or delivery.due) else 0
    except ConflictError:  # another machine told it
        return 0
    except DriftError as error:  # of the store, the disk or the variables, which others need more
        log.warning("no trace is told: %s", error)
        return 0


def told(store: ControlReader) -> list[str]:
    """What is amiss, or late, in words; nothing where all is well, or nobody is to be told."""
    try:
        if not traced():
            return []
    except InputError as error:
        return [str(error)]
    found, head = store.recall(_KEY), store.head()
    cursor = Cursor(**found.body) if found else Cursor()
    waiting = (head.seq if head else 0) - cursor.after
    why = f": {cursor.error}" if cursor.error else ""
    return [
        *([f"{waiting:,} records wait for {destination()}{why}"] if waiting > LATE or why else []),
        *([f"{cursor.left_out:,} records were left out"] if cursor.left_out else []),
        *([f"{cursor.refused:,} spans were refused; the last: {cursor.parked[-1]}"] if cursor.refused else []),
    ]


class _Delivery:
    """One call's."""

    def __init__(self, settings: Settings, store: ControlStore) -> None:
        self._settings, self._store = settings, store
        found = store.recall(_KEY)
        self._generation = found.generation if found else 0
        self._cursor = Cursor(**found.body) if found else Cursor()
        self._parked, self._refused, self._sent = list(self._cursor.parked), self._cursor.refused, 0

    @property
    def due(self) -> bool:
        """Whether the pause after the last failure is over; a longer one is of a clock that was set back."""
        return not 0 < self._cursor.again_at - time.time() <= _PAUSE_S[1]

    def run(self, seconds: float) -> int:
        """Raises ConflictError where another machine was faster."""
        self._until = time.monotonic() + seconds
        head = self._store.head()
        try:
            if head is not None and head.seq > self._cursor.after:
                self._tell()
        except ConflictError:
            raise
        except DriftError as error:
            failures = self._cursor.failures + 1
            pause = min(_PAUSE_S[0] * 2 ** min(failures - 1, 16), _PAUSE_S[1])
            self._keep(replace(self._cursor, failures=failures, error=str(error), again_at=time.time() + pause))
        return self._sent

    @property
    def _late(self) -> bool:
        return time.monotonic() >= self._until

    def _tell(self) -> None:
        at_once = max(1, _AT_ONCE >> self._cursor.failures)
        with SpanSink(patient=self._cursor.failures < PATIENCE) as self._sink:
            self._suspects = Suspects(self._taken, RefusedSpansError)
            spans, steps, ahead = self._spans(), list[_Step](), self._cursor
            for record in self._store.records(after=self._cursor.after):
                found = self._of(spans, record)
                left_out = ahead.left_out + (found is None)
                ahead = replace(ahead, after=record.seq, stages=dict(spans.stages), left_out=left_out)
                if steps and not found:
                    steps[-1] = replace(steps[-1], ahead=ahead)
                else:
                    steps.append(_Step(ahead, found or []))
                if sum(len(step.spans) for step in steps) >= at_once or self._late:
                    if not self._send(steps) or self._late:
                        break
                    steps = []
            else:
                if steps:
                    self._send(steps)
            self._suspects.hold()

    def _spans(self) -> Spans:
        return Spans(self._store, self._settings.environment, dict(self._cursor.stages))

    def _of(self, spans: Spans, record: AuditRecord) -> list[ToldSpan] | None:
        """None of one that cannot be told."""
        try:
            return spans.of_record(record)
        except _WRONG as error:
            log.error("record %d has not the form of %s: %s", record.seq, record.event, type(error).__name__)
            return None

    def _send(self, steps: Sequence[_Step]) -> bool:
        """Whether there was time for all of them. What is refused is halved, until it is of one record."""
        whole, went = _Step(steps[-1].ahead, [span for step in steps for span in step.spans]), False
        try:
            went = bool(whole.spans) and self._taken(whole)
        except RefusedSpansError as error:
            if len(steps) > 1:
                half = len(steps) // 2
                return self._send(steps[:half]) and not self._late and self._send(steps[half:])
            self._suspects.add(whole, str(error))
        for step, why in self._suspects.again() if went else ():
            self._park(step, len(step.spans), why)
        if not self._suspects:
            self._keep(replace(whole.ahead, failures=0, error="", again_at=0.0))
        return True

    def _taken(self, step: _Step) -> bool:
        """Whether any of them was. Those that a partial success rejects are not to be sent again."""
        rejected, why = self._sink.send(step.spans)
        if rejected:
            self._park(step, rejected, why or "the receiver does not say why")
        self._sent += len(step.spans) - rejected
        return rejected < len(step.spans)

    def _park(self, step: _Step, count: int, why: str) -> None:
        what = f"{count} of {len(step.spans)} up to record {step.ahead.after}: {why}"
        log.error("spans are refused, and left out: %s", what)
        self._parked, self._refused = [*self._parked, what][-_PARKED:], self._refused + count

    def _keep(self, cursor: Cursor) -> None:
        cursor = replace(cursor, parked=self._parked, refused=self._refused)
        self._store.remember(Put("", _KEY, asdict(cursor), self._generation))
        self._generation, self._cursor = self._generation + 1, cursor
