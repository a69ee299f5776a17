"""The SLO that a version has to keep while it is young, judged on the gateway's own counts, and what follows."""

from collections.abc import Mapping

from drift_pipeline.clock import Clock
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.loop.operating import brake
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.verdict import Observations, Verdict, judge
from drift_pipeline.serving.brake import Judge, RolledBack
from drift_pipeline.serving.guard import SloCounts
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

LEVEL = 0.99
LEVEL_RECENT = 0.9999  # of the last rows: such spans overlap, so each look is given less


def slo_of(specs: Mapping[str, ModelSpec]) -> Judge:
    """Errors and latency by the rollout's own verdict: the reason why a version has to go, or None."""

    def judge_slo(counts: SloCounts) -> str | None:
        spec = specs[counts.model]
        for of, level in ((counts, LEVEL), *((recent, LEVEL_RECENT) for recent in counts.recent)):
            found = judge(_observed(of, spec), spec.rollout.min_samples, level=level)
            if found.verdict is Verdict.FAIL:
                return "; ".join(found.reasons)
        return None

    return judge_slo


def _observed(counts: SloCounts, spec: ModelSpec) -> Observations:
    asked = spec.kpis.latency_p95_ms is not None
    return Observations(
        candidate_rows=counts.rows,
        candidate_errors=counts.errors,
        champion_rows=counts.stable_rows,
        latency=(counts.slow, counts.rows) if asked else None,
        performance=performance_of(spec),
        champion_errors=counts.stable_errors,
        champion_latency=(counts.stable_slow, counts.stable_rows) if asked and counts.stable_rows else None,
    )


def brake_of(
    settings: Settings, specs: Mapping[str, ModelSpec], store: ControlStore, registry: Registry, clock: Clock
) -> RolledBack:
    """Writes the rollback of what was stopped to the control store, whence every gateway and the loop take it up."""

    def rolled_back(model: str, rollout_id: str, reason: str) -> None:
        brake(settings, store, registry, specs[model], clock, rollout_id, reason)

    return rolled_back
