"""The numbers of one look at a model under the names that dashboards plot: the same in Dagster and in Evidently."""

import math
from collections.abc import Mapping
from typing import Any

from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import KpiResult, Verdict
from drift_pipeline.spec import ModelSpec

DRIFTING_SHARE = "drifting_share"
_NAMES = {"latency_p95_ms": "latency_slow_share"}  # what its value is: the share of answers above the threshold

_OTHER_SCALE = "range_z", "threshold"  # standard deviations, where the value is a share


def plotted(kpi: str) -> str:
    """The name under which a KPI's number is plotted."""
    return _NAMES.get(kpi, kpi)


def numbers_of(
    kpis: Mapping[str, KpiResult | Mapping[str, Any]], drifting: int, spec: ModelSpec, held_out: float | None
) -> dict[str, float]:
    """NAME, NAME_bound, NAME_limit and NAME_rows of each KPI as far as it has them, and the share of drifting columns.

    Performance is the level itself (AUROC, MAE), which the KPI tells as a change against `held_out`; its bound and
    limit are levels too. Latency is the share of answers above the spec's threshold.

    Args:
        kpis: results, or what `KpiResult.to_json` made of them.
        drifting: how many of the watched columns, the score among them, drift.
        held_out: the champion's performance on held-out rows; None where there is none.
    """
    performance, found = performance_of(spec), dict[str, float]()
    for name, kpi in kpis.items():
        told = kpi.to_json() if isinstance(kpi, KpiResult) else kpi
        if told["verdict"] == Verdict.NOT_CONFIGURED:
            continue
        for suffix, key in (("", "value"), ("_bound", "bound"), ("_limit", "threshold")):
            number = None if (name, key) == _OTHER_SCALE else told[key]
            if number is not None and name == performance.kpi:
                number = None if held_out is None else performance.after(held_out, number)
            if number is not None and math.isfinite(number):
                found[f"{plotted(name)}{suffix}"] = float(number)
        found[f"{plotted(name)}_rows"] = float(told["n"])
    found[DRIFTING_SHARE] = drifting / (len(spec.watched) + 1)
    return found


def without_limits(numbers: Mapping[str, float]) -> dict[str, float]:
    """What changes from day to day."""
    return {name: number for name, number in numbers.items() if not name.endswith("_limit")}
