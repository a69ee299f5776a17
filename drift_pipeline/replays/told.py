"""What a page tells of one model, whether it was replayed or lives: facts that were read, and nothing that is drawn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import Performance
from drift_pipeline.replays.folder import IncidentSpan, Span, incidents, phases

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Told:
    """One model between `start` and `end`.

    kpis: the spec's, as it declares them.
    ticks: a row a tick and KPI: `at` (UTC), `name`, `verdict`, `window`, `reason`, `value`, `threshold`, `bound`, `n`,
        and, where they are known, `version` and `worst` (names of columns).
    records: all of the model, in their order; also from before `start`, for who was champion then.
    findings, candidates: bodies of the control store, by incident key and by the bundle's digest.
    cards: where the page finds the card of a version.
    summary: of a replay alone.
    now: of a live home alone: how the model stands, as `Standing.to_json` tells it, and `told`, `waiting`, `age` in
        words; `dagster`, an address, and `report`, the newest day's, where they are known.
    """

    model: str
    performance: Performance
    kpis: Mapping[str, Any]
    start: datetime
    end: datetime
    ticks: "pl.DataFrame"
    records: Sequence[AuditRecord]
    findings: Mapping[str, Mapping[str, Any]]
    candidates: Mapping[str, Mapping[str, Any]]
    reigns: Sequence[Span]
    cards: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, Any] | None = None
    now: Mapping[str, Any] | None = None

    @cached_property
    def incidents(self) -> list[IncidentSpan]:
        """Those that lasted into the span, with their numbers among all."""
        found = incidents(self.records)
        return [one for one in found if self.overlaps(one.opened, one.ended)]

    @cached_property
    def phases(self) -> list[Span]:
        """Of rollouts, in the span."""
        return [one for one in phases(self.records) if self.overlaps(one.start, one.end)]

    def overlaps(self, start: datetime, end: datetime | None) -> bool:
        return start <= self.end and (end is None or end >= self.start)
