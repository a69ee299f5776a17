"""Delivery to the channels of DRIFT_ALERTS, each by a cursor of its own over the audit, so that none waits for another.

What comes of an audit record: the messages that the outbox has of it, and what it says became of an incident (reopened,
acknowledged, over). At least once, in order: the cursor moves on only once the receiver has the alert.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from drift_pipeline.alerts.alert import Action, Alert, Teller
from drift_pipeline.alerts.channels import Receiver
from drift_pipeline.alerts.outbox import ALERTS
from drift_pipeline.clock import HOUR, Clock
from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.errors import ConflictError, DriftError, InputError, IntegrityError, UnavailableError
from drift_pipeline.settings import Settings, secret

if TYPE_CHECKING:
    from drift_pipeline.alerts.routing import Routing

log = logging.getLogger(__name__)
SECONDS = 5.0  # for which one call waits for its channels
LEASE_S = 20.0  # of this process; a killed one's channel is another's after it
PAUSES_S = (5.0, 300.0)  # after the first failure, and at most
_KEY = "_alerts/"  # no model's name begins with an underscore
_RECORDS = 500  # read at once
_KEPT, _MOST_TOLD = 50, 1000  # parked alerts, and incidents, that are remembered one by one
_SUSPECT_AFTER, _SUSPECTS = 5, 20  # failures in a row of one alert; alerts refused in a row before it is the channel
_EVER, _EVERY = 2**52, 10**6


@dataclass(frozen=True)
class Progress:
    """How far one channel was told; what is kept of it.

    seq, number: the audit record that was come to, and how many of its alerts are done. told: of each incident the last
    action, and when. failures, error, again_at: of the last attempts, and when to try again. busy_until: the lease of
    the process that is at it. parked, lost: what the receiver refuses, the last ones and how many in all.
    """

    seq: int = 0
    number: int = 0
    told: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sent: int = 0
    failures: int = 0
    error: str = ""
    again_at: float = 0.0
    busy_until: float = 0.0
    parked: Sequence[Mapping[str, str]] = ()
    lost: int = 0

    @property
    def place(self) -> tuple[int, int]:
        return self.seq, self.number

    def with_told(self, alert: Alert) -> "Progress":
        kept = {key: value for key, value in self.told.items() if key != alert.incident}
        while len(kept) >= _MOST_TOLD:
            kept.pop(next(iter(kept)))
        return replace(self, told={**kept, alert.incident: [str(alert.action), alert.at]}, sent=self.sent + 1)

    def news(self, alert: Alert, wanted: Callable[[Alert], bool]) -> bool:
        """Whether the channel has to hear it: a trigger once an incident, what has no end once an hour; what became of
        an incident only where it was told of that."""
        action, at = self.told.get(alert.incident, (None, ""))
        if alert.action is Action.ACKNOWLEDGE:
            return action == Action.TRIGGER
        if alert.action is Action.RESOLVE:
            return action not in (None, Action.RESOLVE)
        if action is None:
            return wanted(alert)
        return action == Action.RESOLVE or (not alert.lasts and wanted(alert) and _later(at, alert.at))


def _later(before: str, at: str) -> bool:
    try:
        return datetime.fromisoformat(at) - datetime.fromisoformat(before) >= HOUR
    except (ValueError, TypeError):  # a time that nobody can read is not kept back
        return True


def recalled(store: ControlReader, channel: str) -> tuple[Progress | None, int]:
    """A channel's progress, and its generation; None before the first."""
    found = store.recall(f"{_KEY}{channel}")
    return (Progress(**found.body), found.generation) if found else (None, 0)


def alerts_after(
    store: ControlReader, teller: Teller, place: tuple[int, int]
) -> Iterator[tuple[tuple[int, int], Alert | None]]:
    """What comes after the place, in order; None where a record says nothing. Beyond a record that is damaged, the
    outbox alone."""
    done, records, last = place[0], list[AuditRecord](), _EVER
    try:
        records += islice(store.records(after=done - 1), _RECORDS)
        last = records[-1].seq if len(records) == _RECORDS else _EVER
    except IntegrityError as error:
        log.error("what became of incidents cannot be told: %s", error)
    messages = store.messages(ALERTS, done, last)
    by_seq: dict[int, AuditRecord | None] = dict.fromkeys(message.seq for message in messages)
    by_seq |= {record.seq: record for record in records}
    for seq in sorted(by_seq):
        found = [teller.triggered(message, records) for message in messages if message.seq == seq]
        record = by_seq[seq]
        if record is not None and (then := teller.followed(record)) is not None:
            found.append(then)
        for number, alert in enumerate(found, 1):
            if (seq, number) > place:
                yield (seq, number), alert
        if (seq, len(found)) > place:
            yield (seq, len(found)), None


class ChannelRun:
    """One call's delivery to one channel."""

    def __init__(
        self,
        name: str,
        store: ControlStore,
        teller: Teller,
        clock: Clock,
        wanted: Callable[[Alert], bool],
        receiver: Callable[[], Receiver],
    ) -> None:
        self._name, self._store, self._teller, self._clock = name, store, teller, clock
        self._wanted, self._made = wanted, receiver
        found, self._generation = recalled(store, name)
        self._receiver: Receiver | None = None
        self._at = found or Progress()

    def run(self, until: float) -> None:
        """
        Args:
            until: by the monotonic clock; after it nothing more is sent.

        Raises:
            ConflictError: another process is at it.
        """
        now, wall = self._clock.now().timestamp(), time.time()
        pausing, held = self._at.again_at - now, self._at.busy_until - wall
        if 0 < pausing <= PAUSES_S[1] or 0 < held <= LEASE_S:  # what is longer is of a clock that was set back
            return
        while self._page(until):
            pass
        if self._at.busy_until:
            self._keep(replace(self._at, busy_until=0.0))

    def _page(self, until: float) -> bool:
        """Whether there may be more."""
        suspects, came_to, start = list[tuple[Alert, str]](), self._at, self._at.place
        for place, alert in alerts_after(self._store, self._teller, start):
            if suspects and time.monotonic() > until:
                break
            known = any(alert is not None and alert.incident == other.incident for other, _ in suspects)
            if alert is None or not (known or came_to.news(alert, self._wanted)):
                came_to = came_to if suspects else replace(came_to, seq=place[0], number=place[1])
                continue
            if time.monotonic() > until:
                break
            if known:
                suspects.append((alert, ""))
                continue
            refused, why = self._try(alert)
            if not why:
                came_to = self._settled(came_to.with_told(alert), suspects)
                came_to = replace(came_to, seq=place[0], number=place[1], failures=0, error="", again_at=0.0)
                suspects = []
                self._keep(replace(came_to, busy_until=time.time() + LEASE_S))
                came_to = self._at
            elif len(suspects) < _SUSPECTS and (refused or (not suspects and self._at.failures >= _SUSPECT_AFTER)):
                suspects.append((alert, why))
            else:
                return self._failed(suspects[0][1] if suspects else why, came_to)
        if suspects:
            return self._failed(suspects[0][1], came_to)
        if came_to.place != start:
            self._keep(came_to)
        return came_to.place != start and time.monotonic() <= until

    def _try(self, alert: Alert) -> tuple[bool, str]:
        """Whether it is refused, and why it did not go; ("" where it went)."""
        try:
            if self._receiver is None:
                self._receiver = self._made()
        except InputError as error:  # of the channel, not of the alert
            return False, str(error)
        if not self._at.busy_until:
            self._keep(replace(self._at, busy_until=time.time() + LEASE_S))
        try:
            self._receiver.send(alert)
        except InputError as error:
            return True, str(error)
        except UnavailableError as error:
            return False, str(error)
        except Exception as error:  # the edge to others' code, whose words may tell a secret
            log.error("alerts: %s: %s while sending %s", self._name, type(error).__name__, alert.id)
            return True, f"fails: {type(error).__name__}"
        return False, ""

    def _settled(self, progress: Progress, suspects: Sequence[tuple[Alert, str]]) -> Progress:
        """Another alert went, so it is not the channel: those before it are tried once more, and parked where that
        fails again."""
        for alert, _ in suspects:
            if not progress.news(alert, self._wanted):
                continue
            _, why = self._try(alert)
            if not why:
                progress = progress.with_told(alert)
                continue
            log.error("alerts: %s: %s is parked: %s", self._name, alert.id, why)
            told = {"id": alert.id, "incident": alert.incident, "at": alert.at, "why": why}
            progress = replace(progress, parked=[*progress.parked, told][-_KEPT:], lost=progress.lost + 1)
        return progress

    def _failed(self, why: str, came_to: Progress) -> bool:
        failures = self._at.failures + 1
        pause = min(PAUSES_S[0] * 2 ** min(failures - 1, 16), PAUSES_S[1])
        again_at = self._clock.now().timestamp() + pause
        self._keep(replace(came_to, failures=failures, error=why[:300], again_at=again_at, busy_until=0.0))
        log.warning("alerts: %s: %s; tried again in %.0f s", self._name, why[:300], pause)
        return False

    def _keep(self, progress: Progress) -> None:
        self._store.remember(Put("", f"{_KEY}{self._name}", asdict(progress), self._generation))
        self._generation, self._at = self._generation + 1, progress


class Alerting:
    """One process's delivery; kept between ticks. Without DRIFT_ALERTS there is nothing to do."""

    def __init__(self, settings: Settings, store: ControlStore, clock: Clock) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._threads: dict[str, threading.Thread] = {}
        if settings.alerts_file is not None:
            with suppress(DriftError):  # told at the first delivery
                self._routing()

    def deliver(self, seconds: float = SECONDS) -> None:
        """Tell every channel what is new to it, side by side. What is wrong with one is kept for `drift status`.

        Args:
            seconds: are waited for them; what takes longer goes on behind.
        """
        if self._settings.alerts_file is None:
            return
        until = time.monotonic() + seconds
        try:
            routing = self._routing()
        except DriftError as error:
            log.error("alerts go to alerts.jsonl alone: %s", error)
            return
        for name in routing.channels:
            if (before := self._threads.get(name)) is not None and before.is_alive():
                continue
            run = partial(self._one, name, routing, until)
            self._threads[name] = threading.Thread(target=run, name=f"alerts-{name}", daemon=True)
            self._threads[name].start()
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()) + 0.1)

    def _routing(self) -> "Routing":
        """The YAML as it is now; a channel that is new in it is told what comes from now on."""
        from drift_pipeline.alerts.routing import read_routing

        assert self._settings.alerts_file is not None
        routing = read_routing(self._settings.alerts_file)
        for name in routing.channels:
            if recalled(self._store, name)[0] is None:
                with suppress(ConflictError):  # another process does the same
                    self._store.remember(Put("", f"{_KEY}{name}", asdict(self._now())))
        return routing

    def _now(self) -> Progress:
        """What the file has not yet is still to come."""
        if pending := self._store.pending(1, ALERTS):
            return Progress(pending[0].seq)
        head = self._store.head()
        return Progress(head.seq, _EVERY) if head else Progress()

    def _one(self, name: str, routing: "Routing", until: float) -> None:
        settings = self._settings
        teller = Teller(self._store, settings.environment, settings.pages)
        try:
            receiver = partial(routing.channels[name].receiver, secret)
            run = ChannelRun(name, self._store, teller, self._clock, partial(routing.wants, name), receiver)
            run.run(until)
        except ConflictError:  # another process is at it
            return
        except DriftError as error:  # of the store, of which the models' own steps tell
            log.warning("alerts: %s: %s", name, error)
        except Exception:  # the edge of the thread: the next call tries again
            log.exception("alerts: %s", name)
