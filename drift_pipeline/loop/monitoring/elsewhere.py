"""KPIs that are measured elsewhere: the latency that Prometheus has of a model which another system serves."""

from dataclasses import replace

from drift_pipeline.detection.judging.verdict import KpiResult, Report, Verdict
from drift_pipeline.errors import UnavailableError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.promql import PrometheusServer

LATENCY = "latency_p95_ms"
_NOBODY = "kpis.latency_p95_ms.source asks Prometheus, and DRIFT_PROMETHEUS_URL names none"


def measured(report: Report, spec: ModelSpec, server: PrometheusServer | None) -> Report:
    """The report with what is measured elsewhere; what cannot be had is INCONCLUSIVE, and never OK."""
    kpi = spec.kpis.latency_p95_ms
    if kpi is None or kpi.source is None:
        return report
    try:
        if server is None:
            raise UnavailableError(_NOBODY)
        value = server.ask(kpi.source.promql)
        if value < 0:
            raise UnavailableError(f"Prometheus answers {value:g} ms, and no answer takes less than none")
    except UnavailableError as error:
        found = KpiResult(LATENCY, Verdict.INCONCLUSIVE, None, kpi.threshold, None, None, 0, str(error))
    else:
        verdict = Verdict.BREACH if value > kpi.threshold else Verdict.OK
        reason = f"p95 is {value:.4g} ms by Prometheus, {kpi.threshold:g} ms are allowed"
        found = KpiResult(LATENCY, verdict, value, kpi.threshold, None, None, 0, reason)
    return replace(report, kpis={**report.kpis, LATENCY: found})
