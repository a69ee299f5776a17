"""Erasure: a person's rows go when they ask, from every file of the home; what is begun is carried on by each tick.

What is known of a person's rows in numbers alone stays: counts in profiles, edges and shares of frozen references, a
trained model and its card. Versions that were trained on such rows are marked; to retrain them is for people to decide.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from drift_pipeline.control.audit import ERASED
from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import ConflictError, InputError, UnavailableError
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.labels import owned
from drift_pipeline.telemetry.lake import Lake, Table
from drift_pipeline.telemetry.mentions import mentions, names
from drift_pipeline.telemetry.sources.set_aside import SetAside
from drift_pipeline.telemetry.sources.spool import Segment, SpoolReader
from drift_pipeline.telemetry.upkeep import OWNER

_OF_PEOPLE: tuple[Table, ...] = ("predictions", "late")  # which say whose a row is
_BY_ID: tuple[Table, ...] = ("outcomes", "shadow")
_BEGUN = "erasures"  # state: those that have not come to their end, by the digest of the subject
_LOOK_AGAIN_S = 0.5
_Owned = tuple[str, str]  # an id, and the producer that used it


@dataclass(frozen=True)
class Erased:
    """What went of a subject: rows by table; `versions` were trained on some of them."""

    model: str
    rows: Mapping[Table, int]
    versions: tuple[str, ...]


def erase(home: Home, spec: ModelSpec, subject: str, reason: str, actor: str, patience_s: float = 0.0) -> Erased:
    """Delete the rows of one entity, their outcomes and mirrored scores, what was laid aside of it, and the pages that
    show them. The audit tells the subject's sha256 alone.

    Args:
        patience_s: how long to wait for capture to land what the spool holds of them.

    Raises:
        InputError: the spec names no entity, so that nothing says whose a row is.
        UnavailableError: it is begun and goes on with the next tick: capture has not landed the rest, or a disk does
            not answer.
        ConflictError: it is begun and goes on with the next tick: others wrote all the while.
    """
    if spec.columns.entity is None:
        raise InputError(f"{spec.name}: the spec names no columns.entity, so nothing says whose a row is")
    return _Erasure(home, spec, sha256(subject.encode())).begun(subject, reason, actor).ended(subject, patience_s)


def carry_on(home: Home, spec: ModelSpec) -> list[Erased]:
    """End the erasures that were begun and are not ended. Raises as `erase` does."""
    begun = Ledger(spec, home.store, home.clock).find(_BEGUN) or {}
    found = [_Erasure(home, spec, who) for who in begun]
    return [one.ended(subject, 0.0) for one in found for subject in [one.recognised()]]


class _Erasure:
    """Of one subject, known by its digest."""

    def __init__(self, home: Home, spec: ModelSpec, who: str) -> None:
        self._home, self._spec, self._who = home, spec, who
        self._ledger, self._lake = Ledger(spec, home.store, home.clock), home.backends(spec).lake
        self._letters = Lake(home.settings.dead_letters, source="loop")

    def begun(self, subject: str, reason: str, actor: str) -> "_Erasure":
        """Noted before anything is deleted, with the versions that were trained on what goes."""
        ledger, rows = self._ledger, self._rows(subject)
        times = rows["predictions"]["_time"].to_list() if rows["predictions"].height else []
        versions = _trained_on(ledger, times)
        marks: dict[str, Mapping[str, Any]] = {}
        for version in versions:
            before = ledger.find(f"affected/{version}") or {"erasures": []}
            marks[f"affected/{version}"] = {"erasures": sorted({*before["erasures"], self._who})}
        noted = {"reason": reason, "actor": actor, "versions": list(versions)}
        marks[_BEGUN] = {**(ledger.find(_BEGUN) or {}), self._who: noted}
        told = {"subject_sha256": self._who, "reason": reason, "versions": list(versions)}
        ledger.commit("erasure.begun", told, puts=marks, actor=actor)
        return self

    def recognised(self) -> str | None:
        """The subject in clear, of all that are named here; None where nothing names it any more."""
        told = [self._lake.distinct(table, "_entity") for table in _OF_PEOPLE]
        told += [self._letters.distinct("dead_letters", "_names")]
        told += [names(line) for segment in self._segments() for line in _lines(segment)]
        return next((name for some in told for name in some if sha256(name.encode()) == self._who), None)

    def ended(self, subject: str | None, patience_s: float) -> Erased:
        """All of it deleted, and the audit told so. Safe to repeat wherever it was interrupted."""
        self._landed(subject, patience_s)
        rows = self._rows(subject)
        ids, entities = _ids(rows), set[str]() if subject is None else {subject}
        gone: dict[Table, int] = {}
        for table in _BY_ID:  # first: their ids are known from the rows alone, so that a try that died can be repeated
            gone[table] = self._lake.erase(table, "_id", ids, self._others(table, subject, rows))
        gone["dead_letters"] = self._laid_aside((entities | ids) - {""})
        self._unrender([at for frame in rows.values() if frame.height for at in frame["_time"]])
        for table in _OF_PEOPLE:
            gone[table] = self._lake.erase(table, "_entity", entities)
        return self._told({table: count for table, count in gone.items() if count})

    def _landed(self, subject: str | None, patience_s: float) -> None:
        """Wait until no segment of the spool names the subject or one of its predictions."""
        until = time.monotonic() + patience_s
        while True:
            wanted = (_ids(self._rows(subject)) | {subject or ""}) - {""}
            waiting = [one for one in self._segments() if any(mentions(_text(line), wanted) for line in _lines(one))]
            if not waiting:
                return
            if time.monotonic() >= until:
                raise UnavailableError(
                    f"{waiting[0].path}: holds events of the subject, and capture has not landed it yet; the erasure "
                    f"is begun, and the next tick after that ends it (drift up or drift capture lands it)"
                )
            time.sleep(_LOOK_AGAIN_S)

    def _rows(self, subject: str | None) -> dict[Table, pl.DataFrame]:
        """Ids, times and producers of the subject's rows."""
        theirs = pl.lit(value=False) if subject is None else pl.col("_entity") == subject
        return {table: self._lake.find(table, theirs, ("_id", "_time", OWNER)) for table in _OF_PEOPLE}

    def _others(self, table: Table, subject: str | None, rows: Mapping[Table, pl.DataFrame]) -> set[_Owned]:
        """Of the subject's ids, those of another producer's own prediction of somebody else (`labels` says whose an
        outcome is). What nobody's own prediction explains is of the subject too, and goes."""
        ids, theirs = list(_ids(rows)), _owned(rows.values())
        somebodys = pl.col("_id").is_in(ids) & pl.col("_entity").ne_missing(pl.lit(subject))
        columns = ("_id", OWNER)
        others = _owned(self._lake.find(table, somebodys, columns) for table in _OF_PEOPLE)
        return others & _owned([self._lake.find(table, pl.col("_id").is_in(ids), columns)]) - theirs

    def _segments(self) -> list[Segment]:
        spool = self._home.settings.home / "spool"
        folders = sorted(spool.iterdir()) if spool.is_dir() else []
        waiting = [part for aside in map(SetAside, folders) for model in aside.models() for part in aside.parts(model)]
        return [segment for folder in folders for segment in SpoolReader(folder).present()] + waiting

    def _laid_aside(self, wanted: set[str]) -> int:
        """Dead letters of the model, or of none that is known here, that name one of the wanted texts."""
        columns = ("_id", "_names", "_payload", "_reason")
        found = self._letters.find("dead_letters", pl.col("_model").is_in([self._spec.name, ""]), columns)
        theirs = {
            row["_id"]
            for row in found.iter_rows(named=True)
            if not wanted.isdisjoint(row.get("_names") or ())
            or mentions(row["_payload"], wanted)
            or mentions(row["_reason"], wanted)
        }
        return self._letters.erase("dead_letters", "_id", theirs)

    def _unrender(self, times: Sequence[datetime]) -> None:
        """Delete the drift reports that show rows of these times; Dagster makes them anew."""
        from drift_pipeline.loop.day import rendered_of, unrender

        for day in rendered_of(self._home.settings, self._home.store, self._spec, times):
            unrender(self._home.settings, self._spec, day)

    def _told(self, gone: Mapping[Table, int]) -> Erased:
        begun = dict(self._ledger.find(_BEGUN) or {})
        noted = begun.pop(self._who, None)
        if noted is None:  # another process came to its end first
            return Erased(self._spec.name, gone, ())
        told = {"subject_sha256": self._who, "reason": noted["reason"], "versions": noted["versions"]}
        try:
            self._ledger.commit(ERASED, {**told, "rows": gone}, puts={_BEGUN: begun}, actor=noted["actor"])
        except ConflictError:
            return self._told(gone)
        return Erased(self._spec.name, gone, tuple(noted["versions"]))


def _trained_on(ledger: Ledger, times: Sequence[datetime]) -> tuple[str, ...]:
    """Versions whose training rows reach over any of the times; of a graph, those of each of its steps."""
    bodies = [body for kind in ("candidate", "reference") for _, body in ledger.all(kind)]
    found = set[str]()
    for body in bodies:
        start, end = (datetime.fromisoformat(body[name]) for name in ("trained_from", "unseen_from"))
        start = min(start, datetime.fromisoformat(body.get("oldest_from", body["trained_from"])))
        if any(start <= at < end for at in times):
            found.add(str(body["version"]))
    return tuple(sorted(found))


def _ids(rows: Mapping[Table, pl.DataFrame]) -> set[str]:
    return {name for frame in rows.values() if frame.height for name in frame["_id"]}


def _owned(frames: Iterable[pl.DataFrame]) -> set[_Owned]:
    return {pair for frame in frames if frame.height for pair in owned(frame).select("_id", OWNER).iter_rows()}


def _lines(segment: Segment) -> list[bytes]:
    """None of a segment that capture landed meanwhile."""
    try:
        return segment.lines()
    except UnavailableError:
        if segment.path.exists():
            raise
        return []


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace")
