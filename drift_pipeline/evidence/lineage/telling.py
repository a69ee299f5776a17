"""Telling lineage: what an audit record, or a day that is over, is as run events."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.evidence.lineage.events import (
    COMPLETE,
    START,
    Event,
    Facet,
    Naming,
    Run,
    facet,
    judged,
    metrics,
    schema,
    written,
)
from drift_pipeline.evidence.lineage.record import ToldRecord
from drift_pipeline.evidence.lineage.stages import STAGES
from drift_pipeline.spec import ModelSpec


@dataclass(frozen=True)
class Day:
    """A day of a model that is over.

    rows, outcomes: how many have a time of the day, and `landed` the Delta versions that hold them all, by table.
    nulls: rows of predictions that lack a column. kpis: (name, verdict, reason) as its last tick said. ticks: how many.
    """

    day: date
    rows: int
    outcomes: int
    landed: Mapping[str, int]
    nulls: Mapping[str, int]
    kpis: tuple[tuple[str, str, str], ...]
    ticks: int


@dataclass
class Teller:
    """Tells records in their order.

    decided, runs: as of `ToldRecord`; `runs` is kept from call to call.
    """

    naming: Naming
    specs: Mapping[str, ModelSpec]
    decided: Callable[[str, str], str]
    runs: dict[str, str] = field(default_factory=dict)

    def of_record(self, record: AuditRecord) -> list[Event]:
        """None of a record that no stage is told by.

        Raises:
            LookupError, TypeError, ValueError, AttributeError: it has not the form of its event.
        """
        teller = STAGES.get(record.event)
        if teller is None:
            return []
        spec = self.specs.get(record.subject)
        return list(teller(ToldRecord(record, self.naming, spec, self.decided, self.runs)))

    def of_day(self, model: str, day: Day) -> list[Event]:
        """What landed, and what the monitor said of it; nothing of a day without either."""
        begin, end = (f"{at.isoformat()}T00:00:00Z" for at in (day.day, day.day + timedelta(days=1)))
        facets = {"nominalTime": facet("nominalTime", nominalStartTime=begin, nominalEndTime=end)}
        found = []
        if day.rows or day.outcomes:
            found += self._day(model, "ingest", day, (begin, end), facets)
        if day.ticks:
            found += self._day(model, "monitor", day, (begin, end), facets)
        return found

    def _day(self, model: str, stage: str, day: Day, span: tuple[str, str], facets: Mapping[str, Facet]) -> list[Event]:
        run, naming, spec = Run(model, stage, day.day.isoformat()), self.naming, self.specs.get(model)
        rows = naming.table(model, "predictions", version=day.landed.get("predictions"), facets=schema(spec, "score"))
        labels = naming.table(model, "outcomes", version=day.landed.get("outcomes"))
        if stage == "ingest":
            inputs = [naming.dataset(model, "requests", facets=schema(spec))]
            rows["facets"] |= naming.scored(model, spec, "requests")
            outputs = [{**rows, "outputFacets": written(day.rows)}, {**labels, "outputFacets": written(day.outcomes)}]
        else:
            said = judged(day.kpis)
            inputs = [{**rows, "inputFacets": {**metrics(day.rows, day.nulls), **said}}, labels]
            outputs = [naming.table(model, "kpis", outputFacets=written(day.ticks * len(day.kpis)))]
        owner = spec.owner if spec else ""
        return [
            naming.event(START, span[0], run, owner=owner, facets=facets),
            naming.event(COMPLETE, span[1], run, owner=owner, facets=facets, inputs=inputs, outputs=outputs),
        ]
