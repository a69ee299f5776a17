"""Mirroring: what the audit tells of versions, written as W&B runs below the home and sent from there.

Nothing is queued for it, as for lineage: the audit holds every fact, so that a cursor in the store is all that is kept,
and nothing can be forgotten, or told though it was never committed. Three steps, each of which goes on where the last
call, of whichever process, came to: write runs, which asks no network; send them; tell how versions stand.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.errors import ConflictError, DriftError, InputError, IntegrityError, UnavailableError
from drift_pipeline.evidence.mirrored import Mirrored, Told
from drift_pipeline.files import alone
from drift_pipeline.registry.backends import kept_registry
from drift_pipeline.registry.backends.wandb import Wandb, require_wandb
from drift_pipeline.registry.mirror import Run, Standing, Use, folded, uses_of
from drift_pipeline.settings import Settings

log = logging.getLogger(__name__)
SECONDS = 20.0  # for which one call goes on
LEAST_S = 5.0  # below which no client is started any more
_KEY = "_wandb"  # no model's name begins with an underscore
_RUNS = 20  # written by one client
_KEPT = 50  # refusals that are told one by one; more are only counted
_PAUSE_S = (5.0, 600.0)  # after the first failure, and at most
_WRONG = (LookupError, TypeError, ValueError, AttributeError)  # of a record that has not the form of its event


@dataclass(frozen=True)
class Cursor:
    """How far one destination was told.

    to: which. written, told: the last record of which there are runs, and of which versions stand as it says.
    failures, error, again_at: of the last calls, and when to try again. refused, count: what will never be taken.
    """

    to: str = ""
    written: int = 0
    told: int = 0
    failures: int = 0
    error: str = ""
    again_at: float = 0.0
    refused: Sequence[str] = ()
    count: int = 0


def deliver_mirror(
    settings: Settings, store: ControlStore, *, seconds: float = SECONDS, at_once: bool = False, sends: bool = True
) -> int:
    """Tell W&B what is new; returns how many runs were written. Beside another process that is at it, none.

    Whatever is wrong with W&B, or its client, is noted for `drift status` and tried again later, and is not raised.

    Args:
        seconds: after so long nothing more begins, and what goes on is ended.
        at_once: no pause after a failure is kept.
        sends: whether a network may be asked at all.

    Raises:
        InputError: the package is not installed.
    """
    if settings.registry_kind != "wandb" or settings.wandb_mode == "disabled":
        return 0
    require_wandb()
    try:
        delivery = _Delivery(settings, store, seconds)
        return delivery.run(sends=sends and settings.wandb_sends) if at_once or delivery.due else 0
    except ConflictError:  # another machine told it
        return 0
    except DriftError as error:  # of the store or the disk, which others need more: they tell it, too
        log.warning("W&B is told nothing: %s", error)
        return 0


def told(settings: Settings, store: ControlReader) -> list[str]:
    """What waits, and why, in words; nothing where all is told, or W&B is not in use."""
    if settings.registry_kind != "wandb":
        return []
    if settings.wandb_mode == "disabled":
        return ["nothing is written: WANDB_MODE=disabled is set"]
    cursor, waiting = _recalled(settings, store)[0], len(Wandb(settings).unsent())
    by = f"wandb sync {settings.wandb}/offline-run-*"
    lacks = "WANDB_API_KEY is not set" if not settings.wandb_api_key.get_secret_value() else "WANDB_MODE says so"
    lines = []
    if waiting and not settings.wandb_sends:
        lines.append(f"{waiting:,} runs are kept offline, since {lacks}; to send them: {by}")
    elif waiting:
        lines.append(f"{waiting:,} runs wait for {settings.wandb_base_url}")
    if cursor.error:
        lines = [f"{'; '.join(lines) or 'not everything is told'}: {cursor.error}"]
    if cursor.count:
        lines.append(f"{cursor.count:,} records were left out; the last: {cursor.refused[-1]}")
    return lines


def _recalled(settings: Settings, store: ControlReader) -> tuple[Cursor, int]:
    """Another destination is told everything."""
    found, to = store.recall(_KEY), Wandb(settings).destination
    cursor = Cursor(**found.body) if found else Cursor()
    return cursor if cursor.to == to else Cursor(to), found.generation if found else 0


class _Delivery:
    """One call's."""

    def __init__(self, settings: Settings, store: ControlStore, seconds: float) -> None:
        self._settings, self._store, self._wandb = settings, store, Wandb(settings)
        self._until = time.monotonic() + seconds
        self._cursor, self._generation = _recalled(settings, store)
        self._refused, self._count = list(self._cursor.refused), self._cursor.count

    @property
    def due(self) -> bool:
        """Whether the pause after the last failure is over; a longer one is of a clock that was set back."""
        return not 0 < self._cursor.again_at - time.time() <= _PAUSE_S[1]

    def run(self, *, sends: bool) -> int:
        """Raises ConflictError where another process or machine was at it since this one looked."""
        written = 0
        try:
            with alone(self._settings.wandb) as free:
                if not free:
                    return 0
                written = self._write(sends=sends)
                if sends:
                    self._send()
                    self._stand()
                self._wandb.tidy()
            if self._cursor.error:
                self._keep(replace(self._cursor, failures=0, error="", again_at=0.0))
        except (UnavailableError, InputError) as error:
            failures = self._cursor.failures + 1
            pause = min(_PAUSE_S[0] * 2 ** min(failures - 1, 16), _PAUSE_S[1])
            self._keep(replace(self._cursor, failures=failures, error=str(error), again_at=time.time() + pause))
        return written

    @property
    def _left(self) -> float:
        return self._until - time.monotonic()

    def _write(self, *, sends: bool) -> int:
        """Runs of what is new; how versions stand, too, where it cannot be told otherwise."""
        runs, standings, written, last = list[Run](), list[Standing](), 0, self._cursor.written
        teller = self._teller()
        for record in self._store.records(after=last):
            found, last = self._told(teller, record), record.seq
            runs += [found.run] if found.run else []
            standings += () if sends else found.standings
            if len(runs) >= _RUNS:
                written += self._flush(teller, runs, standings, last)
                runs, standings = [], []
            if self._left < LEAST_S:
                break
        return written + self._flush(teller, runs, standings, last)

    def _flush(self, teller: Mirrored, runs: list[Run], standings: list[Standing], last: int) -> int:
        if standings:
            try:
                runs = [*runs, teller.standing(last, folded(standings))]
            except (IntegrityError, InputError) as error:
                self._refuse(f"up to record {last}: {error}")
        if runs:
            self._wandb.write(runs, max(self._left, LEAST_S))
        if last > self._cursor.written:
            self._keep(replace(self._cursor, written=last))
        return len(runs)

    def _send(self) -> None:
        if (runs := self._wandb.unsent()) and self._left >= LEAST_S:
            self._wandb.send(runs, self._left)

    def _stand(self) -> None:
        """Once all runs are there: a version that is not cannot stand anyhow."""
        if self._wandb.unsent() or self._left < LEAST_S:
            return
        teller, standings, uses, last = self._teller(), list[Standing](), list[Use](), self._cursor.told
        for record in self._store.records(after=last):
            if record.seq > self._cursor.written:
                break
            found, last = self._told(teller, record, again=True), record.seq
            standings += found.standings
            uses += uses_of(found.run) if found.run else []
        if standings or uses:
            for why in self._wandb.stand(folded(standings), uses, max(self._left, LEAST_S)):
                self._refuse(why)
        if last > self._cursor.told:
            self._keep(replace(self._cursor, told=last))
        self._wandb.forget_sent()

    def _teller(self) -> Mirrored:
        first = next(self._store.records(), None)
        local = kept_registry(self._settings)
        return Mirrored(self._settings, self._store, local, first.hash if first else "")

    def _told(self, teller: Mirrored, record: AuditRecord, *, again: bool = False) -> Told:
        """What cannot be told is left out, and noted once."""
        try:
            return teller.of(record)
        except (IntegrityError, InputError) as error:
            why = f"record {record.seq}, {record.event}: {error}"
        except _WRONG as error:
            why = f"record {record.seq} has not the form of {record.event}: {error!r}"
        if not again:
            self._refuse(why)
        return Told()

    def _refuse(self, what: str) -> None:
        if what[:300] not in self._refused:
            self._refused, self._count = [*self._refused, what[:300]][-_KEPT:], self._count + 1

    def _keep(self, cursor: Cursor) -> None:
        cursor = replace(cursor, refused=self._refused, count=self._count)
        self._store.remember(Put("", _KEY, asdict(cursor), self._generation))
        self._generation, self._cursor = self._generation + 1, cursor
