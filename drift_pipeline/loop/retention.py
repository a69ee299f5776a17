"""Retention and erasure: telemetry that is old goes, and a person's rows go when they ask; both are audited.

Raw rows go, in every version of the tables. What was counted of them (profiles, references, metrics) holds nobody's
data and stays, as do documents, approvals and the audit chain, whose records name no row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY
from drift_pipeline.control.audit import ERASED
from drift_pipeline.control.canonical import sha256
from drift_pipeline.errors import InputError
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import TABLES, Lake, Table

_AT_ONCE = 500  # ids in one condition
_OF_PEOPLE: tuple[Table, ...] = ("predictions", "late")  # which say whose a row is
_BY_ID: tuple[Table, ...] = ("outcomes", "shadow")


@dataclass(frozen=True)
class Old:
    """What of one model is past its time: (rows, bytes) by table, of the days before `before`."""

    model: str
    before: date
    tables: Mapping[Table, tuple[int, int]]

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.tables.values())


@dataclass(frozen=True)
class Erased:
    """What went of a subject: rows by table; `versions` were trained on some of them."""

    model: str
    rows: Mapping[Table, int]
    versions: tuple[str, ...]


def past_retention(home: Home, spec: ModelSpec) -> Old:
    """What `retain` would delete; nothing is changed."""
    before, lake = (home.clock.now() - spec.retention.telemetry).date(), home.backends(spec).lake
    sizes = {table: lake.size(table, before, _trusted(home, spec)) for table in TABLES}
    return Old(spec.name, before, {table: size for table, size in sizes.items() if size[0]})


def retain(home: Home, spec: ModelSpec, actor: str) -> Old:
    """Delete what is past its time, and merge the small files of the days that stay; safe to repeat.

    The trusted holdout, which every candidate has to pass, stays for as long as the model is watched.
    """
    old, lake, trusted = past_retention(home, spec), home.backends(spec).lake, _trusted(home, spec)
    if old.rows:
        ledger = Ledger(spec, home.store, home.clock)
        told = {"before": old.before.isoformat(), "rows": {table: rows for table, (rows, _) in old.tables.items()}}
        ledger.commit("retention.begun", told, actor=actor)
        for table in old.tables:
            lake.drop(table, f"_day < '{old.before}' AND NOT (_day >= '{trusted[0]}' AND _day <= '{trusted[1]}')")
        ledger.commit("retention.applied", told, puts=dict(_pinned_anew(ledger, lake)), actor=actor)
    for table in TABLES:
        lake.compact(table)
    return old


def _trusted(home: Home, spec: ModelSpec) -> tuple[date, date]:
    """The days of the holdout's rows and of their outcomes."""
    held = Ledger(spec, home.store, home.clock).find("holdout")
    if held is None:
        return date.max, date.max
    start, end = (datetime.fromisoformat(held[name]) for name in ("from", "to"))
    return start.date(), (end + 2 * spec.outcome.delay + 7 * DAY).date()


def erase(home: Home, spec: ModelSpec, subject: str, reason: str, actor: str) -> Erased:
    """Delete the rows of one entity, their outcomes and mirrored scores, and what was laid aside of it.

    Events that capture has not landed yet are not seen: land them first. The audit tells the subject's sha256 alone.
    Versions that were trained on its rows are marked; that they have to be retrained is for people to decide.

    Raises:
        InputError: the spec names no entity, so that nothing says whose a row is.
    """
    if spec.columns.entity is None:
        raise InputError(f"{spec.name}: the spec names no columns.entity, so nothing says whose a row is")
    lake, ledger = home.backends(spec).lake, Ledger(spec, home.store, home.clock)
    theirs = pl.col("_entity") == subject
    rows = {table: lake.find(table, theirs, ("_id", "_time")) for table in _OF_PEOPLE}
    ids = [name for frame in rows.values() if frame.height for name in frame["_id"]]
    told = {"subject_sha256": sha256(subject.encode()), "reason": reason}
    times = rows["predictions"]["_time"].to_list() if rows["predictions"].height else []
    versions = _trained_on(ledger, times)
    marks: dict[str, Mapping[str, Any]] = {}
    for version in versions:
        before = ledger.find(f"affected/{version}") or {"erasures": []}
        marks[f"affected/{version}"] = {"erasures": sorted({*before["erasures"], told["subject_sha256"]})}
    ledger.commit("erasure.begun", {**told, "versions": list(versions)}, puts=marks, actor=actor)
    gone: dict[Table, int] = {}
    for table in _BY_ID:  # first: their ids are known from the rows alone, so that a try that died can be repeated
        gone[table] = sum(lake.drop(table, f"_id IN ({', '.join(map(_quoted, some))})") for some in _some(ids))
    gone["dead_letters"] = _laid_aside(home, spec, subject)
    for table in _OF_PEOPLE:
        gone[table] = lake.drop(table, f"_entity = {_quoted(subject)}") if rows[table].height else 0
    gone = {table: count for table, count in gone.items() if count}
    puts = dict(_pinned_anew(ledger, lake))
    ledger.commit(ERASED, {**told, "rows": gone, "versions": list(versions)}, puts=puts, actor=actor)
    return Erased(spec.name, gone, versions)


def _laid_aside(home: Home, spec: ModelSpec, subject: str) -> int:
    """Dead letters of the model whose text holds the subject."""
    lake = Lake(home.settings.dead_letters, source="loop")
    holds = pl.col("_payload").str.contains(subject, literal=True) & (pl.col("_model") == spec.name)
    found = lake.find("dead_letters", holds, ("_id",))
    ids = found["_id"].to_list() if found.height else []
    return sum(lake.drop("dead_letters", f"_id IN ({', '.join(map(_quoted, some))})") for some in _some(ids))


def _trained_on(ledger: Ledger, times: Sequence[datetime]) -> tuple[str, ...]:
    """Versions whose training rows reach over any of the times."""
    bodies = [body for kind in ("candidate", "reference") for _, body in ledger.all(kind)]
    spans = {
        str(b["version"]): [datetime.fromisoformat(b[end]) for end in ("trained_from", "unseen_from")] for b in bodies
    }
    return tuple(sorted(name for name, (start, end) in spans.items() if any(start <= at < end for at in times)))


def _pinned_anew(ledger: Ledger, lake: Lake) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The holdout and the references in the versions of now: those of before cannot be read any more."""
    versions = lake.versions()
    for name, body in (("holdout", ledger.find("holdout")), *ledger.all("reference")):
        if body is not None:
            yield name, {**body, "delta": versions}


def _some(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _AT_ONCE):
        yield ids[start : start + _AT_ONCE]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
