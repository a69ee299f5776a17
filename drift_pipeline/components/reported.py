"""What a day's drift report tells in Dagster: numbers that it plots by day, pictures, tables and links."""

from typing import Any

import dagster as dg

from drift_pipeline.components.links import card, live_page
from drift_pipeline.components.pictures import drawn
from drift_pipeline.components.tables import features_table, kpis_table
from drift_pipeline.detection.judging.verdict import told_waiting
from drift_pipeline.detection.report import without_limits
from drift_pipeline.loop.day import DayOfDrift
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec


def reported(found: DayOfDrift, spec: ModelSpec) -> dict[str, Any]:
    """The metadata of a day's partition. Dagster plots what is a number: of each KPI NAME, NAME_bound and NAME_rows."""
    report, settings, champion = found.report, Settings(), found.baseline.champion.name
    return {
        "verdict": report.rolled_up.told(),
        "not_judged": "; ".join(told_waiting(report.rolled_up.to_json()["not_judged"])) or "nothing",
        "columns_that_differ_most": dg.MetadataValue.md(drawn(found.shapes)),
        "page": dg.MetadataValue.path(found.files.html.absolute()),
        **live_page(settings, spec),
        "champion": champion,
        "card": card(settings, spec, champion),
        "reference": f"{found.baseline.span.start:%Y-%m-%d} to {found.baseline.span.end:%Y-%m-%d}",
        "provisional": report.provisional,
        "rows": found.rows,
        "drifting": len(report.drifting),
        **{name: dg.MetadataValue.float(number) for name, number in without_limits(found.numbers).items()},
        "kpis": kpis_table(report),
        "features": features_table(report),
        "evidently_run": found.files.run_id,
    }
