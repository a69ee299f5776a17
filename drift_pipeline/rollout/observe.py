"""What the lake holds of a rollout's phase: the candidate's rows, mirrored or answered, beside the champion's."""

from datetime import datetime

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.performance import Performance
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.verdict import Observations
from drift_pipeline.telemetry.lake import Lake


def observe(
    lake: Lake, status: Status, candidate: str, champion: str, now: datetime, performance: Performance
) -> Observations:
    """Facts since `status.evidence_since`; `candidate` and `champion` are the versions' names in the lake."""
    window = Window(status.evidence_since, max(status.evidence_since, now))
    served, mirrored = lake.read("predictions", window), lake.read("shadow", window)
    if served.is_empty() or mirrored.is_empty():
        return Observations(0, 0, 0, performance=performance)
    both = pl.concat([served.select("_id", "_version", "_score"), mirrored.select("_id", "_version", "_score")])
    by_candidate = both.filter(pl.col("_version") == candidate)
    by_champion = both.filter(pl.col("_version") == champion)
    rows = served.filter(pl.col("_version") == candidate) if status.phase is Phase.CANARY else by_candidate
    known = lake.read("outcomes", window)
    if known.is_empty():
        known = pl.DataFrame(schema={"_id": pl.String, "_label": pl.Float64})
    known = known.select("_id", "_label")
    pairs = by_candidate.join(by_champion, on="_id", suffix="_champion").join(known, on="_id").sort("_id")
    return Observations(
        candidate_rows=rows.height,
        candidate_errors=rows.height - int(rows["_score"].is_finite().sum()),
        champion_rows=by_champion.height,
        labels=pairs["_label"].to_numpy(),
        candidate_scores=pairs["_score"].to_numpy(),
        champion_scores=pairs["_score_champion"].to_numpy(),
        performance=performance,
    )
