"""Retention: telemetry that is old goes, and the audit tells of it.

Raw rows go. What was counted of them (profiles, references, metrics) stays, as do documents, approvals and the audit
chain, whose records name no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from drift_pipeline.clock import DAY
from drift_pipeline.loop.home import Home
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import TABLES, Table

_BEGUN = "retention"  # state: what was begun and has not come to its end


@dataclass(frozen=True)
class Old:
    """What of one model is past its time: (rows, bytes) by table, of the days before `before`."""

    model: str
    before: date
    tables: Mapping[Table, tuple[int, int]]

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self.tables.values())


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
    ledger = Ledger(spec, home.store, home.clock)
    begun: Mapping[str, Any] = ledger.find(_BEGUN) or {}
    if old.rows:
        rows = {**begun.get("rows", {}), **{table: rows for table, (rows, _) in old.tables.items()}}
        begun = {"before": old.before.isoformat(), "rows": rows}
        ledger.commit("retention.begun", begun, puts={_BEGUN: begun}, actor=actor)
    if begun:  # also what another process began and did not end
        for table in TABLES:
            if table in begun["rows"]:
                past = f"_day < '{begun['before']}' AND NOT (_day >= '{trusted[0]}' AND _day <= '{trusted[1]}')"
                lake.drop(table, past)
        ledger.commit("retention.applied", begun, puts={_BEGUN: {}}, actor=actor)
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
