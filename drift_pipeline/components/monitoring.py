"""The monitoring half of a model's graph, by day: telemetry -> telemetry_snapshot -> drift_report.

A backfill gives a run up to ten days. Each day stands for itself: it has its own snapshot and its own report, with its
numbers and check results in its partition; one that is not fit to judge, or of before the model was watched, has none.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.components.checks import (
    QUALITY,
    Event,
    evaluated,
    fitness,
    kpi_checks,
    told_failures,
    verdict_of_day,
)
from drift_pipeline.components.home import home
from drift_pipeline.components.partitions import days_of
from drift_pipeline.components.reported import reported
from drift_pipeline.detection.judging.verdict import Report
from drift_pipeline.errors import ConflictError, DriftError, InputError, UnavailableError
from drift_pipeline.loop.day import DayOfDrift, day_of, drift_of, snapshot
from drift_pipeline.loop.home import Home
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.quality import Quality

MONITORING = ("telemetry_snapshot", "drift_report")
DAYS_A_RUN = 10
LATE, TOO_LATE = timedelta(hours=26), timedelta(hours=36)  # since the last report; one is made each day
_DELTA, _UNFIT = "delta_version", "unfit_because"  # in a snapshot's metadata


def monitoring_assets(spec: ModelSpec, first: date | None = None) -> Sequence[dg.AssetSpec | dg.AssetsDefinition]:
    """`telemetry` is what the gateway writes; Dagster observes it and does not make it.

    Args:
        first: the first day that has a partition; None = the spec's `since`.
    """
    days = days_of(spec, first)
    telemetry = dg.AssetSpec(
        [spec.name, "telemetry"],
        description="Predictions as they were served and outcomes as they became known: Delta tables of the lake.",
        kinds={"deltalake"},
        partitions_def=days,
        owners=[spec.owner],
        group_name=spec.name,
    )
    with warnings.catch_warnings():  # Dagster is pinned
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy
        warnings.simplefilter("ignore", dg.PreviewWarning)  # a check's partitions
        return [telemetry, _telemetry_snapshot(spec, days), _drift_report(spec, days)]


def _telemetry_snapshot(spec: ModelSpec, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    telemetry, key = dg.AssetKey([spec.name, "telemetry"]), dg.AssetKey([spec.name, "telemetry_snapshot"])
    asked = "Whether the day's rows are there, whole and in range. What is broken is not judged for drift."
    fit = dg.AssetCheckSpec(QUALITY, asset=key, blocking=True, description=asked, partitions_def=days)

    @dg.asset(
        key=key,
        deps=[telemetry],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.multi_run(DAYS_A_RUN),
        kinds={"deltalake", "greatexpectations"},
        check_specs=[fit],
        owners=[spec.owner],
        group_name=spec.name,
    )
    def telemetry_snapshot(context: dg.AssetExecutionContext) -> Iterator[Event]:
        """One day's predictions, pinned to a Delta version and checked by Great Expectations.

        Made each night by the schedule report_yesterday, with the day's drift_report.
        """
        found: dict[str, Quality] = {}
        with home(context.run) as at:
            for day in context.partition_keys:
                made = snapshot(at.backends(spec), spec, day_of(day), system_clock().now())
                seen = {"rows": made.frame.height, "labelled": made.labelled, **_pinned(made.versions)}
                context.log_event(dg.AssetObservation(telemetry, partition=day, metadata=seen))
                told = {
                    **seen,
                    _UNFIT: told_failures(made.quality.failures),
                    "dagster/partition_row_count": seen["rows"],
                }
                context.add_asset_metadata(told, partition_key=day)
                found[day] = made.quality
        yield dg.MaterializeResult()
        yield from evaluated(fit, fitness(fit, found))

    return telemetry_snapshot


def _drift_report(spec: ModelSpec, days: dg.DailyPartitionsDefinition) -> dg.AssetsDefinition:
    key = dg.AssetKey([spec.name, "drift_report"])
    checks = kpi_checks(spec, key, days)

    @dg.asset(
        key=key,
        deps=[dg.AssetKey([spec.name, "telemetry_snapshot"])],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.multi_run(DAYS_A_RUN),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=TOO_LATE, warn_window=LATE),
        kinds={"evidently"},
        check_specs=checks,
        owners=[spec.owner],
        group_name=spec.name,
        output_required=False,  # a day that cannot be judged is not made, whatever becomes of its run's others
    )
    def drift_report(context: dg.AssetExecutionContext) -> Iterator[Event]:
        """What the monitor says of the model at the end of the day, against the reference in force, as a page.

        Made each night at 00:10 UTC by the schedule report_yesterday; what the model looks like today is observed each
        hour, and whenever its verdict changes. A backfilled report shows what was; it opens no incident. The plots
        have each KPI's number, bound and rows, by day.
        """
        found: dict[str, Report] = {}
        refused: dict[str, str] = {}
        with home(context.run) as at:
            for day in context.partition_keys:
                made = _judged(context, at, spec, day)
                if isinstance(made, str):
                    refused[day] = made
                    context.log.warning(f"{day}: {made}")
                    continue
                told = dg.AssetMaterialization(context.asset_key, partition=day, metadata=reported(made, spec))
                context.log_event(told)
                found[day] = made.report
            if not found:
                raise InputError("; ".join(f"{_of(day, refused)}{why}" for day, why in refused.items()))
        for check in checks:
            kpis = {day: report.kpis[check.name] for day, report in found.items()}
            yield from evaluated(check, [verdict_of_day(check, day, kpi) for day, kpi in kpis.items()])

    return drift_report


def _judged(context: dg.AssetExecutionContext, at: Home, spec: ModelSpec, day: str) -> DayOfDrift | str:
    """The day's report; or why there is none, which is of this day alone."""
    seen = _seen_by_snapshot(context, spec, day)
    if unfit := str(seen.get(_UNFIT) or ""):
        return f"not fit to judge: {unfit}"
    pinned = {table: int(str(seen[f"{_DELTA}_{table}"])) for table in ("predictions", "outcomes")} if seen else None
    try:
        return drift_of(Settings(), at.backends(spec), spec, day_of(day), pinned)
    except (ConflictError, UnavailableError):
        raise
    except DriftError as error:  # the edge between days
        return str(error)


def _of(day: str, days: Mapping[str, object]) -> str:
    """Which day is told of, where a run has several."""
    return f"{day}: " if len(days) > 1 else ""


def _pinned(versions: Mapping[str, int]) -> dict[str, int]:
    return {f"{_DELTA}_{table}": version for table, version in versions.items()}


def _seen_by_snapshot(context: dg.AssetExecutionContext, spec: ModelSpec, day: str) -> Mapping[str, object]:
    """What the day's last snapshot told; empty where there is none."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey([spec.name, "telemetry_snapshot"]), asset_partitions=[day])
    found = context.instance.fetch_materializations(wanted, limit=1).records
    made = found[0].asset_materialization if found else None
    return {name: value.value for name, value in made.metadata.items()} if made else {}
