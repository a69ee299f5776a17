"""Capture: what producers handed over, landed in the lakes of its models, each event once.

Models stand for themselves: what the lake of one does not take waits apart (`set_aside`), and the segment goes on with
the others. It is tried again before anything newer of that model, so that all land in order.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Event as Stop

import polars as pl

from drift_pipeline.clock import HOUR, Clock
from drift_pipeline.errors import DriftError, IntegrityError, UnavailableError
from drift_pipeline.logs import told
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.delta import OvertakenError
from drift_pipeline.telemetry.event import Prediction
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.landing import Captured, Landing
from drift_pipeline.telemetry.parsed import Parsed, read_lines, refused_of
from drift_pipeline.telemetry.refusals import Concern, Refusals, Waiting, What
from drift_pipeline.telemetry.sources import Batch, Source
from drift_pipeline.telemetry.sources.set_aside import SetAside, oldest
from drift_pipeline.telemetry.sources.spool import Segment, SpoolReader
from drift_pipeline.telemetry.tries import Tries

__all__ = ["Capture", "Captured"]

WAITS_LONG_S = 300.0
_TOLD = {"late": What.LATE, "shared_ids": What.SHARED}  # of what is counted, what people hear of where it is much
PATIENCE_S = 60.0  # of a source that is to be read once, for its first and for each further message

log = logging.getLogger(__name__)


class Capture:
    """The one reader of a spool: a folder a source, each with segments. And of logs, which others may read as well."""

    def __init__(
        self,
        spool: Path,
        lake_of: Callable[[str, str], Lake],
        specs: Mapping[str, ModelSpec],
        clock: Clock,
        mirror: Callable[[str, pl.DataFrame], pl.DataFrame | None],
        lateness: timedelta = HOUR,
        failed: Callable[[Exception], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        logs: Sequence[Source] = (),
        beat: Callable[[Mapping[str, int]], None] = lambda _: None,
        landed: Callable[[str, str, int, Sequence[str]], None] | None = None,
        machine: str = "",
    ) -> None:
        """
        Args:
            lake_of: of (model, source) the model's lake with batches named by that source, the same object each time;
                of ("", source) the one for dead letters.
            mirror: of a model and the predictions that are about to land, the rows of `shadow`, or None.
            lateness: how far behind the model's newest event an id is found in memory; older ones are looked up.
            failed: is told what `run` and the mirror survived; None = the log.
            logs: what is read beside the spool.
            beat: is told after each step what it did, as `Captured` names it, also of one that failed.
            landed: is told of predictions that landed: their model, source, batch, and the traceparents that they have.
            machine: ends the names of sources that lie on this machine, where the lake has those of others too; a log
                is the same on all.
        """
        self._spool, self._specs, self._clock = spool, specs, clock
        self._failed, self._logged = failed or self._log, deque[str](maxlen=100)
        self._landing = Landing(lake_of, specs, mirror, lateness, self._failed)
        self._counts: Counter[str] = Counter()
        self._refusals, self._tries, self._monotonic = Refusals(), Tries(monotonic), monotonic
        self._logs, self._beat, self._landed, self._machine = tuple(logs), beat, landed, machine

    def run(self, stop: Stop, interval_s: float, tell: Callable[[Sequence[Concern]], None] = lambda _: None) -> None:
        """Step until `stop` is set; what fails is told, and tried again after the interval.

        Args:
            tell: is told after each step what people should know, as long as it is so.
        """
        log.info("capture of %s begins, each %g s", self._spool, interval_s)
        while not stop.is_set():
            wrong = list[Exception]()
            for do in (partial(self.step, stop), lambda: self._beat(self._counts), lambda: tell(self.refused())):
                try:
                    do()
                except Exception as error:  # the edge of the process: capture outlives whatever a step meets
                    wrong.append(error)
                    self._failed(error)
            if wrong or not any(one.is_behind for one in self._logs):
                stop.wait(interval_s)

    def once(self, stop: Stop, patience_s: float = PATIENCE_S) -> Captured:
        """Land what is there, of logs until they are at their ends.

        Raises:
            UnavailableError: a log told nothing for so long and is not there; or as `step`.
        """
        total, until = Counter(asdict(self.step(stop))), self._monotonic() + patience_s
        while not stop.is_set() and not all(one.is_at_end for one in self._logs):
            if self._monotonic() > until:
                raise UnavailableError(f"a --source told nothing for {patience_s:.0f} s and is not at its end")
            found = asdict(self.step(stop))
            total.update(found)
            until = self._monotonic() + patience_s if any(found.values()) else until
        log.info("landed %s", ", ".join(f"{name} {count}" for name, count in total.items()))
        self._beat(total)
        return Captured(**total)

    def refused(self) -> list[Concern]:
        """Of what models much was laid aside, late, or of an id that is another's, within the last hour; and what
        waits for long."""
        return [*self._refusals.found(self._clock.now()), *_waiting(oldest(self._spool), self._logs)]

    def step(self, stop: Stop | None = None) -> Captured:
        """Land all closed segments, and what was set aside. What fails waits, and the rest goes on before it is told.

        Args:
            stop: once it is set, the segment under way is the last one, however many there are.

        Raises:
            UnavailableError: a disk does not answer.
            ConflictError: a lake's other writers were faster, or do not come to an end.
            IntegrityError: a lake cannot be read, or holds later segments of this name: the spool is not the one it
                was.
        """
        self._counts, errors, stop = Counter(), list[Exception](), stop or Stop()
        for folder in sorted(self._spool.iterdir()) if self._spool.is_dir() else []:
            try:
                errors += self._drain(folder, stop)
            except (DriftError, OSError) as error:
                errors.append(error)
        for source in self._logs:
            try:
                errors += self._follow(source, stop)
            except (DriftError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return Captured(**self._counts)

    def _follow(self, source: Source, stop: Stop) -> Iterator[Exception]:
        """What waits of a log lies in a folder of its own, and lands from there as the segments of a spool do."""
        with closing(source.batches(stop)) as batches:
            for batch in batches:
                aside = SetAside(self._spool / f"{batch.source}.waiting")
                said = yield from self._take(batch, batch.source, aside, set(aside.models()))
                source.done(batch, refused_of(said))
                self._seen(said)
        self._refusals.settle(self._clock.now())

    def _drain(self, folder: Path, stop: Stop) -> Iterator[Exception]:
        if folder.is_symlink():
            self._failed(_is_a_link(folder))
            return
        reader, aside, blocked = SpoolReader(folder), SetAside(folder), set[str]()
        for model in aside.models():
            error = self._tries.rests(model) or self._land_waiting(model, folder.name, aside)
            if error is not None:
                blocked.add(model)
                yield error
        for link in reader.links():
            self._failed(_is_a_link(link))
        for segment in reader.closed():
            if stop.is_set():
                break
            said = yield from self._take(segment, folder.name, aside, blocked)
            reader.done(segment)
            self._seen(said)
        self._refusals.settle(self._clock.now())

    def _seen(self, said: Mapping[str, Parsed]) -> None:
        """Of a batch that is gone, so that no try counts twice."""
        self._refusals.add([event for one in said.values() for event in one.events], self._clock.now())
        self._counts["segments"] += 1

    def _land_waiting(self, model: str, source: str, aside: SetAside) -> Exception | None:
        """In order, until one does not land. What is no event any more goes to the dead letters, a batch of its own."""
        for part in aside.parts(model):
            try:
                kept = aside.read(part)
            except DriftError as unreadable:
                return unreadable
            said, unread = read_lines(kept.lines, self._specs, source, kept.judged_at)
            if model in unread:
                return unread[model]
            for name, one in said.items():
                of = f"{source}.{model}" if model and not name else source
                land = partial(self._land, name, of + self._machine, part.number, one, self._clock.now())
                if (error := self._tries.land(model, part, land)) is not None:
                    return error
            aside.done(model, part)
        return None

    def _take(
        self, segment: Segment, source: str, aside: SetAside, blocked: set[str]
    ) -> Generator[Exception, None, Mapping[str, Parsed]]:
        """Of models that are blocked, and of those that fail now, the part is set aside. Returns what all lines say."""
        now, batch = self._clock.now(), segment if isinstance(segment, Batch) else None
        named = source if batch else source + self._machine
        said, unread = read_lines(segment.lines(), self._specs, source, now, batch)
        for model, one in said.items():
            error: Exception | None = unread.get(model)
            if error is None and model not in blocked:
                land = partial(self._land, model, named, segment.number, one, now)
                error = self._tries.rests(model) or self._tries.land(model, segment, land)
                if error is None:
                    continue
            if isinstance(error, OvertakenError):  # they are another capture's by now
                raise error
            if error is not None:
                blocked.add(model)
                yield error
            aside.add(model, segment, now, one.lines)
        return said

    def _land(self, model: str, source: str, number: int, parsed: Parsed, now: datetime) -> None:
        counts = self._landing.land(model, source, number, parsed.events, now, parsed.places)
        self._counts.update(counts)
        if self._landed is not None and counts["predictions"]:
            told = (one.traceparent for one in parsed.events if isinstance(one, Prediction) and one.traceparent)
            self._landed(model, source, number, [*dict.fromkeys(told)])
        for name, what in _TOLD.items():
            if counts[name]:
                self._refusals.note(model, what, counts[name])

    def _log(self, error: Exception) -> None:
        """Once, however often it fails in the same way; of endless ways, only the last ones are remembered."""
        if (said := told(error)) not in self._logged:
            self._logged.append(said)
            log.warning("%s", said)


def _waiting(since: Mapping[str, float], logs: Sequence[Source]) -> list[Waiting]:
    """What waits for long, below the spool or in a log, of which nobody knows whose it is."""
    seen = [("", at) for at in (one.waiting_since() for one in logs) if at is not None]
    newest_first = dict(sorted([*since.items(), *seen], key=lambda one: one[1], reverse=True))
    ages = {model: time.time() - at for model, at in newest_first.items()}
    return [Waiting(model, age) for model, age in sorted(ages.items()) if age >= WAITS_LONG_S]


def _is_a_link(path: Path) -> IntegrityError:
    return IntegrityError(f"{path}: is a link, and a spool is not read through one; remove it")
