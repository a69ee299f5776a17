"""The monitoring half of a model's graph, by day: telemetry -> telemetry_snapshot -> drift_report."""

from collections.abc import Mapping, Sequence

import dagster as dg

from drift_pipeline.clock import SystemClock
from drift_pipeline.components.home import backends
from drift_pipeline.components.partitions import days_of
from drift_pipeline.components.tables import features_table, kpis_table
from drift_pipeline.detection.verdict import HINTS, KpiResult, Verdict
from drift_pipeline.loop.day import day_of, drift_of, snapshot
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

QUALITY = "fit_to_judge"
MOST_TOLD = 5
_DELTA = "delta_version"


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

    @dg.asset(
        key=[spec.name, "telemetry_snapshot"],
        deps=[telemetry],
        partitions_def=days_of(spec),
        kinds={"deltalake", "greatexpectations"},
        check_specs=[
            dg.AssetCheckSpec(
                QUALITY,
                asset=[spec.name, "telemetry_snapshot"],
                blocking=True,
                description="Rows are there, whole and in range. What is broken is not judged for drift.",
            )
        ],
        owners=[spec.owner],
        group_name=spec.name,
    )
    def telemetry_snapshot(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """One day's predictions, pinned to a Delta version and checked by Great Expectations."""
        with backends() as at:
            found = snapshot(at, spec, day_of(context.partition_key), SystemClock().now())
        seen = {"rows": found.frame.height, "labelled": found.labelled, **_pinned(found.versions)}
        context.log_event(dg.AssetObservation(telemetry.key, partition=context.partition_key, metadata=seen))
        failures, expected = found.quality.failures, len(found.quality.expectations)
        check = dg.AssetCheckResult(
            passed=found.quality.passed,
            check_name=QUALITY,
            severity=dg.AssetCheckSeverity.ERROR,
            description=_told(failures) or f"all {expected} expectations hold",
            metadata={"expectations": expected, "failed": len(failures)},
        )
        return dg.MaterializeResult(
            metadata={**seen, "dagster/partition_row_count": found.frame.height}, check_results=[check]
        )

    @dg.asset(
        key=[spec.name, "drift_report"],
        deps=[telemetry_snapshot],
        partitions_def=days_of(spec),
        kinds={"evidently"},
        check_specs=_kpi_checks(spec),
        owners=[spec.owner],
        group_name=spec.name,
    )
    def drift_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """What the monitor says of the model at the end of the day, against the reference in force, as a page.

        A backfilled report shows what was; it opens no incident.
        """
        day = context.partition_key
        with backends() as at:
            found = drift_of(Settings(), at, spec, day_of(day), _pinned_by_snapshot(context, spec))
        report = found.report
        return dg.MaterializeResult(
            metadata={
                "verdict": str(report.verdict),
                "page": dg.MetadataValue.path(found.files.html.absolute()),
                "champion": found.watch.champion.name,
                "reference": f"{found.watch.span.start:%Y-%m-%d} to {found.watch.span.end:%Y-%m-%d}",
                "provisional": report.provisional,
                "drifting": len(report.drifting),
                "kpis": kpis_table(report),
                "features": features_table(report),
                "evidently_run": found.files.run_id,
            },
            check_results=[_checked(kpi) for kpi in report.kpis.values() if kpi.name in configured_kpis(spec)],
        )

    return [telemetry, telemetry_snapshot, drift_report]


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


def _checked(kpi: KpiResult) -> dg.AssetCheckResult:
    """A view of the verdict, never an authority. Missing evidence is no pass; a hint has only its silence to show."""
    numbers = {"value": kpi.value, "threshold": kpi.threshold, "bound": kpi.bound, "n": kpi.n}
    told = {name: number for name, number in numbers.items() if number is not None}
    return dg.AssetCheckResult(
        passed=kpi.verdict is not Verdict.WARN if kpi.name in HINTS else kpi.verdict is Verdict.OK,
        check_name=kpi.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{kpi.verdict}: {kpi.reason}",
        metadata={"verdict": str(kpi.verdict), **told},
    )


def _told(failures: Sequence[str]) -> str:
    """The first few: a day without rows fails every one of them."""
    more = len(failures) - MOST_TOLD
    return "; ".join([*failures[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])


def _pinned(versions: Mapping[str, int]) -> dict[str, int]:
    return {f"{_DELTA}_{table}": version for table, version in versions.items()}


def _pinned_by_snapshot(context: dg.AssetExecutionContext, spec: ModelSpec) -> dict[str, int] | None:
    """The Delta versions that the day's last snapshot pinned; None where there is none."""
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey([spec.name, "telemetry_snapshot"]), asset_partitions=[context.partition_key]
    )
    found = context.instance.fetch_materializations(wanted, limit=1).records
    made = found[0].asset_materialization if found else None
    if made is None:
        return None
    return {table: int(str(made.metadata[f"{_DELTA}_{table}"].value)) for table in ("predictions", "outcomes")}
