"""The monitoring half of a model's graph, by day: telemetry -> telemetry_snapshot -> drift_report.

A backfill gives a run up to ten days. Each day stands for itself: it has its own snapshot and its own report, with its
numbers in its partition's metadata; one that is not fit to judge, or of before the model was watched, has no report.
A check has one result a run: in a run of several days it passes where it does on each of them that was judged, and
tells of the first on which it does not.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from drift_pipeline.clock import system_clock
from drift_pipeline.components.home import home
from drift_pipeline.components.partitions import days_of
from drift_pipeline.components.tables import features_table, kpis_table
from drift_pipeline.detection.judging.verdict import HINTS, KpiResult, Report, Verdict, told_reason, told_waiting
from drift_pipeline.errors import ConflictError, DriftError, InputError, UnavailableError
from drift_pipeline.loop.day import DayOfDrift, day_of, drift_of, snapshot
from drift_pipeline.loop.home import Home
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.quality import Quality

MONITORING = ("telemetry_snapshot", "drift_report")
QUALITY = "fit_to_judge"
DAYS_A_RUN = 10
LATE, TOO_LATE = timedelta(hours=26), timedelta(hours=36)  # since the last report; one is made each day
MOST_TOLD = 5
_DELTA, _UNFIT = "delta_version", "unfit_because"  # in a snapshot's metadata


def monitoring_assets(spec: ModelSpec) -> Sequence[dg.AssetSpec | dg.AssetsDefinition]:
    """`telemetry` is what the gateway writes; Dagster observes it and does not make it."""
    telemetry = dg.AssetSpec(
        [spec.name, "telemetry"],
        description="Predictions as they were served and outcomes as they became known: Delta tables of the lake.",
        kinds={"deltalake"},
        partitions_def=days_of(spec),
        owners=[spec.owner],
        group_name=spec.name,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # backfill_policy; Dagster is pinned
        return [telemetry, _telemetry_snapshot(spec), _drift_report(spec)]


def _telemetry_snapshot(spec: ModelSpec) -> dg.AssetsDefinition:
    telemetry, key = dg.AssetKey([spec.name, "telemetry"]), dg.AssetKey([spec.name, "telemetry_snapshot"])
    said = "Rows are there, whole and in range. What is broken is not judged for drift."

    @dg.asset(
        key=key,
        deps=[telemetry],
        partitions_def=days_of(spec),
        backfill_policy=dg.BackfillPolicy.multi_run(DAYS_A_RUN),
        kinds={"deltalake", "greatexpectations"},
        check_specs=[dg.AssetCheckSpec(QUALITY, asset=key, blocking=True, description=said)],
        owners=[spec.owner],
        group_name=spec.name,
    )
    def telemetry_snapshot(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """One day's predictions, pinned to a Delta version and checked by Great Expectations."""
        found: dict[str, Quality] = {}
        with home(context.run) as at:
            for day in context.partition_keys:
                made = snapshot(at.backends(spec), spec, day_of(day), system_clock().now())
                seen = {"rows": made.frame.height, "labelled": made.labelled, **_pinned(made.versions)}
                context.log_event(dg.AssetObservation(telemetry, partition=day, metadata=seen))
                told = {**seen, _UNFIT: _told(made.quality.failures), "dagster/partition_row_count": seen["rows"]}
                context.add_asset_metadata(told, partition_key=day)
                found[day] = made.quality
        return dg.MaterializeResult(check_results=[_fit(found)])

    return telemetry_snapshot


def _drift_report(spec: ModelSpec) -> dg.AssetsDefinition:
    @dg.asset(
        key=[spec.name, "drift_report"],
        deps=[dg.AssetKey([spec.name, "telemetry_snapshot"])],
        partitions_def=days_of(spec),
        backfill_policy=dg.BackfillPolicy.multi_run(DAYS_A_RUN),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=TOO_LATE, warn_window=LATE),
        kinds={"evidently"},
        check_specs=_kpi_checks(spec),
        owners=[spec.owner],
        group_name=spec.name,
        output_required=False,  # a day that cannot be judged is not made, whatever becomes of its run's others
    )
    def drift_report(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult]:
        """What the monitor says of the model at the end of the day, against the reference in force, as a page.

        A backfilled report shows what was; it opens no incident.
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
                told = dg.AssetMaterialization(context.asset_key, partition=day, metadata=_reported(made))
                context.log_event(told)
                found[day] = made.report
            if not found:
                raise InputError("; ".join(f"{_of(day, refused)}{why}" for day, why in refused.items()))
        for name in configured_kpis(spec):
            yield _checked({day: report.kpis[name] for day, report in found.items()})

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


def configured_kpis(spec: ModelSpec) -> list[str]:
    """The KPIs that can be judged at all: neither switched off nor without the column they need."""
    absent = {
        "latency_p95_ms": spec.columns.latency_ms is None,
        "demographic_parity": not spec.protected,
        "range_z": "numeric" not in spec.features.values(),
    }
    return [name for name in type(spec.kpis).model_fields if getattr(spec.kpis, name) and not absent.get(name)]


def _kpi_checks(spec: ModelSpec) -> list[dg.AssetCheckSpec]:
    said = {
        "psi": "No column of the model's input drifts.",
        "range_z": "No more rows far outside the reference's range than in the reference.",
        "auroc": "The model ranks as well as on its held-out baseline.",
        "latency_p95_ms": "At most 5 % of the answers are slower than the threshold.",
        "demographic_parity": "The groups' rates of positive decisions are no further apart than in the reference.",
        "mae": "The model errs as little as on its held-out baseline.",
        "residuals": "Labels minus predictions are distributed as on held-out rows.",
        "estimated_auroc": "Before labels come: the scores tell of no fall. They could not tell of every one.",
        "multivariate": "Recent days and the reference's are not told apart by pairs of columns.",
    }
    key = [spec.name, "drift_report"]
    return [dg.AssetCheckSpec(name, asset=key, description=said[name]) for name in configured_kpis(spec)]


def _reported(found: DayOfDrift) -> dict[str, Any]:
    report = found.report
    return {
        "verdict": report.rolled_up.told(),
        "not_judged": "\n".join(told_waiting(report.rolled_up.to_json()["not_judged"])) or "nothing",
        "page": dg.MetadataValue.path(found.files.html.absolute()),
        "champion": found.baseline.champion.name,
        "reference": f"{found.baseline.span.start:%Y-%m-%d} to {found.baseline.span.end:%Y-%m-%d}",
        "provisional": report.provisional,
        "drifting": len(report.drifting),
        "kpis": kpis_table(report),
        "features": features_table(report),
        "evidently_run": found.files.run_id,
    }


def _fit(found: Mapping[str, Quality]) -> dg.AssetCheckResult:
    """An error, which blocks the reports, where no day of the run is fit; else a warning of the first that is not."""
    day, worst = next(((day, one) for day, one in found.items() if not one.passed), list(found.items())[-1])
    fit = any(one.passed for one in found.values())
    return dg.AssetCheckResult(
        passed=worst.passed,
        check_name=QUALITY,
        severity=dg.AssetCheckSeverity.WARN if fit else dg.AssetCheckSeverity.ERROR,
        description=_of(day, found) + (_told(worst.failures) or f"all {len(worst.expectations)} expectations hold"),
        metadata={"expectations": len(worst.expectations), "failed": len(worst.failures)},
    )


def _checked(kpis: Mapping[str, KpiResult]) -> dg.AssetCheckResult:
    """A view of the verdict, never an authority. Missing evidence is no pass; a hint has only its silence to show."""
    day, kpi = next(((day, kpi) for day, kpi in kpis.items() if not _passed(kpi)), list(kpis.items())[-1])
    numbers = {"value": kpi.value, "threshold": kpi.threshold, "bound": kpi.bound, "n": kpi.n}
    told = {name: number for name, number in numbers.items() if number is not None}
    return dg.AssetCheckResult(
        passed=_passed(kpi),
        check_name=kpi.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{_of(day, kpis)}{kpi.verdict}: {told_reason(kpi.reason, kpi.judged_at)}",
        metadata={"verdict": str(kpi.verdict), **told},
    )


def _passed(kpi: KpiResult) -> bool:
    return kpi.verdict is not Verdict.WARN if kpi.name in HINTS else kpi.verdict is Verdict.OK


def _of(day: str, days: Mapping[str, object]) -> str:
    """Which day is told of, where a run has several."""
    return f"{day}: " if len(days) > 1 else ""


def _told(failures: Sequence[str]) -> str:
    """The first few: a day without rows fails every one of them."""
    more = len(failures) - MOST_TOLD
    return "; ".join([*failures[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _pinned(versions: Mapping[str, int]) -> dict[str, int]:
    return {f"{_DELTA}_{table}": version for table, version in versions.items()}


def _seen_by_snapshot(context: dg.AssetExecutionContext, spec: ModelSpec, day: str) -> Mapping[str, object]:
    """What the day's last snapshot told; empty where there is none."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey([spec.name, "telemetry_snapshot"]), asset_partitions=[day])
    found = context.instance.fetch_materializations(wanted, limit=1).records
    made = found[0].asset_materialization if found else None
    return {name: value.value for name, value in made.metadata.items()} if made else {}
