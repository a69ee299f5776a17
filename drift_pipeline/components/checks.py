"""The checks of the monitoring half: one result a check and day, also where a backfill gives a run several days."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg

from drift_pipeline.detection.judging.verdict import HINTS, KpiResult, Verdict, told_reason
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.quality import Quality

QUALITY = "fit_to_judge"
MOST_TOLD = 5
Event = dg.MaterializeResult | dg.AssetCheckEvaluation | dg.Output[None]
_ASKED = {
    "psi": "Whether a column of the model's input drifts.",
    "range_z": "Whether more rows lie far outside the reference's range than in the reference.",
    "auroc": "How well the model ranks, against its held-out baseline.",
    "latency_p95_ms": "Whether more than 5 % of the answers are slower than the threshold.",
    "demographic_parity": "How far apart the groups' rates of positive decisions are, against the reference.",
    "mae": "How much the model errs, against its held-out baseline.",
    "residuals": "How labels minus predictions are distributed, against held-out rows.",
    "estimated_auroc": "Before labels come: whether the scores tell of a fall. They cannot tell of every one.",
    "multivariate": "Whether recent days and the reference's can be told apart by pairs of columns.",
}


def configured_kpis(spec: ModelSpec) -> list[str]:
    """The KPIs that can be judged at all: neither switched off nor without the column they need."""
    latency = spec.kpis.latency_p95_ms
    absent = {
        "latency_p95_ms": spec.columns.latency_ms is None and (latency is None or latency.source is None),
        "demographic_parity": not spec.protected,
        "range_z": "numeric" not in spec.features.values(),
    }
    return [name for name in type(spec.kpis).model_fields if getattr(spec.kpis, name) and not absent.get(name)]


def kpi_checks(spec: ModelSpec, key: dg.AssetKey, days: dg.DailyPartitionsDefinition) -> list[dg.AssetCheckSpec]:
    """One a KPI; its description says what is asked, and stands over a failure too."""
    return [
        dg.AssetCheckSpec(name, asset=key, description=_ASKED[name], partitions_def=days)
        for name in configured_kpis(spec)
    ]


def evaluated(check: dg.AssetCheckSpec, results: Iterable[dg.AssetCheckEvaluation]) -> Iterator[Event]:
    """The results of the run's days. An AssetCheckResult would be of the run, and of no day where it has several."""
    yield from results
    yield dg.Output(None, output_name=check.get_python_identifier())


def verdict_of_day(check: dg.AssetCheckSpec, day: str, kpi: KpiResult) -> dg.AssetCheckEvaluation:
    """A view of the verdict, never an authority. Missing evidence is no pass; a hint has only its silence to show."""
    numbers = {"value": kpi.value, "threshold": kpi.threshold, "bound": kpi.bound, "n": kpi.n}
    told = {name: number for name, number in numbers.items() if number is not None}
    return dg.AssetCheckEvaluation(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=kpi.verdict is not Verdict.WARN if kpi.name in HINTS else kpi.verdict is Verdict.OK,
        metadata={"verdict": str(kpi.verdict), **told},
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{kpi.verdict}: {told_reason(kpi.reason, kpi.judged_at)}",
        blocking=False,
        partition=day,
    )


def fitness(check: dg.AssetCheckSpec, found: Mapping[str, Quality]) -> list[dg.AssetCheckEvaluation]:
    """Of each day: an error, which blocks the reports, where no day of the run is fit; else a warning."""
    severity = dg.AssetCheckSeverity.WARN if any(one.passed for one in found.values()) else dg.AssetCheckSeverity.ERROR
    return [
        dg.AssetCheckEvaluation(
            asset_key=check.asset_key,
            check_name=check.name,
            passed=one.passed,
            metadata={"expectations": len(one.expectations), "failed": len(one.failures)},
            severity=severity,
            description=told_failures(one.failures) or f"all {len(one.expectations)} expectations hold",
            blocking=True,
            partition=day,
        )
        for day, one in found.items()
    ]


def told_failures(failures: Sequence[str]) -> str:
    """The first few: a day without rows fails every one of them."""
    more = len(failures) - MOST_TOLD
    return "; ".join([*failures[:MOST_TOLD], *([f"and {more} more"] if more > 0 else [])])
