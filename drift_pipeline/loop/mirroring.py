"""Mirroring: what the audit tells of versions, written as W&B runs below the home and sent from there.

Nothing is queued for it, as for lineage: the audit holds every fact, so that a cursor in the store is all that is kept,
and nothing can be forgotten, or told though it was never committed. Three steps, each of which goes on where the last
call, of whichever process, came to: write runs, which asks no network; send them; tell how versions stand.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.store import ControlStore, Put
from drift_pipeline.errors import ConflictError, DriftError, InputError, IntegrityError, UnavailableError
from drift_pipeline.evidence.mirrored import Mirrored, Told
from drift_pipeline.files import alone
from drift_pipeline.registry.backends import kept_registry
from drift_pipeline.registry.backends.wandb import RUN, Wandb, require_wandb
from drift_pipeline.registry.mirror import Made, Run, Standing, Use, anew, digest_alias, folded, made_by, uses_of
from drift_pipeline.settings import Settings

log = logging.getLogger(__name__)
SECONDS = 20.0  # for which one call goes on
LEAST_S = 5.0  # below which no client is started any more
_KEY = "_wandb"  # no model's name begins with an underscore
_RUNS = 20  # written by one client
_AT_ONCE = 30  # facts of versions that are told by one client
_FORM = 1  # of a cursor; before, nobody looked whether each artifact is there whole
_KEPT = 50  # refusals that are told one by one; more are only counted
_PAUSE_S = (5.0, 600.0)  # after the first failure, and at most
_WRONG = (LookupError, TypeError, ValueError, AttributeError)  # of a record that has not the form of its event


@dataclass(frozen=True)
class Cursor:
    """How far one destination was told.

    to: which. written, told: the last record of which there are runs, and of which versions stand as it says.
    failures, error, again_at: of the last calls, and when to try again. refused, count: what will never be taken, and
    aside: runs that are not, and stay where they lie. form: how the versions were told; those of an earlier form are
    told anew.
    """

    to: str = ""
    written: int = 0
    told: int = 0
    failures: int = 0
    error: str = ""
    again_at: float = 0.0
    refused: Sequence[str] = ()
    count: int = 0
    aside: Sequence[str] = ()
    form: int = 0


@dataclass
class _Facts:
    """What is told of versions, up to the record `last`."""

    standings: list[Standing] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)
    last: int = 0

    def __len__(self) -> int:
        return len(self.standings) + len(self.uses) + len(self.made)

    def add(self, found: Told, record: AuditRecord) -> None:
        stand = {Made(one.name, digest_alias(one.digest)) for one in found.standings}  # which is a look at it, too
        self.standings += found.standings
        self.uses += uses_of(found.run) if found.run else []
        self.made += [made for made in made_by(found.run) if made not in stand] if found.run else []
        if found == Told() and (digest := record.digests.get("bundle")):  # it may be gone here, and in part there
            self.made.append(Made(record.subject, digest_alias(digest)))
        self.last = record.seq


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
    cursor = _recalled(settings, store)[0]
    waiting = len([run for run in Wandb(settings).unsent() if run.name not in cursor.aside])
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
    cursor = cursor if cursor.to == to else Cursor(to)
    cursor = cursor if cursor.form == _FORM else replace(cursor, told=0, form=_FORM)
    return cursor, found.generation if found else 0


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
        if not (runs := self._unsent()) or self._left < LEAST_S:
            return
        for name, why in self._wandb.send(runs, self._left).items():
            log.error("W&B: %s is left out: %s", name, why)
            self._refuse(f"{name} is refused: {why}")
            self._keep(replace(self._cursor, aside=[*self._cursor.aside, name]))

    def _unsent(self) -> list[Path]:
        return [run for run in self._wandb.unsent() if run.name not in self._cursor.aside]

    def _stand(self) -> None:
        """Once all runs are there: a version that is not cannot stand anyhow."""
        if self._unsent() or self._left < LEAST_S:
            return
        teller, facts = self._teller(), _Facts()
        for record in self._store.records(after=self._cursor.told):
            if record.seq > self._cursor.written:
                break
            facts.add(self._told(teller, record, again=True), record)
            if len(facts) >= _AT_ONCE or self._left < LEAST_S:
                self._tell(teller, facts)
                facts = _Facts()
                if self._left < LEAST_S:
                    return
        self._tell(teller, facts)
        self._wandb.forget_sent()

    def _tell(self, teller: Mirrored, facts: _Facts) -> None:
        if facts:
            seconds = max(self._left, LEAST_S)
            stood = self._wandb.stand(folded(facts.standings), facts.uses, facts.made, seconds)
            for why in stood.refused:
                self._refuse(why)
            if stood.partial:
                self._finish(teller, stood.partial)
        if facts.last > self._cursor.told:
            self._keep(replace(self._cursor, told=facts.last))

    def _finish(self, teller: Mirrored, partial: Sequence[Made]) -> None:
        """Have the runs sent again that came with what is there in part only; those that are not kept any more are
        written anew from the audit. What no intact record tells of is noted, and left.

        Raises:
            UnavailableError: something is to be sent first.
        """
        found, aside = self._runs_with(teller, partial), self._cursor.aside
        runs = {made: run for made, run in found.items() if f"{RUN}{run.name}" not in aside}
        for made in (made for made in partial if made not in runs):
            self._refuse(f"{made.name} {made.alias} is there in part only, and nothing here has what it lacks")
        if not runs:
            return
        kept, first = self._wandb.kept(), next(iter(runs))
        what = f"{first.name} {first.alias} is there in part only"
        if gone := [anew(run) for run in runs.values() if run.name not in kept]:
            self._wandb.write(gone, max(self._left, LEAST_S))
            raise UnavailableError(f"{what}: its run is written anew, and sent next")
        self._wandb.send_again()
        raise UnavailableError(f"{what}: what was sent last is sent again")

    def _runs_with(self, teller: Mirrored, partial: Sequence[Made]) -> dict[Made, Run]:
        """The last run with which each of them came; whichever it is, it has all files."""
        found = dict[Made, Run]()
        for record in self._store.records():
            if record.seq > self._cursor.written:
                break
            run = self._told(teller, record, again=True).run
            found |= {made: run for made in made_by(run) if made in partial} if run else {}
        return found

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
