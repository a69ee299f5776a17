"""What the lake holds of a rollout's phase: the candidate's rows, mirrored or answered, beside the champion's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.detection.judging.performance import Performance
from drift_pipeline.detection.statistics.ks import ks_interval
from drift_pipeline.rollout.plan import Phase, Status
from drift_pipeline.rollout.verdict import Decisions, Observations
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.event import EXTERNAL
from drift_pipeline.telemetry.labels import labelled, owned
from drift_pipeline.telemetry.lake import Lake

RECORDED = "recorded"  # a champion that answers elsewhere
LEAST_TIMED = 50
Latency = tuple[int, int]  # rows above the spec's threshold, rows measured
_ROW = ["_id", "_producer", "_time"]  # one answer; a mirrored row has those of the row that it mirrors


def observe(
    lake: Lake,
    status: Status,
    candidate: str,
    champion: str,
    now: datetime,
    performance: Performance,
    spec: ModelSpec | None = None,
) -> Observations:
    """Facts since `status.evidence_since`; `candidate` and `champion` are the versions' names in the lake. Without a
    spec nobody asks for latency and decisions.
    """
    window = Window(status.evidence_since, max(status.evidence_since, now))
    asked = ("_producer", "_version", "_score", "_route", "_latency_ms", *(spec.protected if spec else ()))
    served, mirrored = (owned(lake.read(table, window, columns=asked)) for table in ("predictions", "shadow"))
    if served.is_empty() or mirrored.is_empty():
        return Observations(0, 0, 0, performance=performance)
    mirrored = mirrored.unique(
        [*_ROW, "_version", "_score"], keep="first", maintain_order=True
    )  # two captures may score a row
    served, mirrored = _of_versions(served, mirrored, champion)
    both = pl.concat([part.select(*_ROW, "_version", "_score") for part in (served, mirrored)])
    by_candidate = both.filter(pl.col("_version") == candidate)
    by_champion = both.filter(pl.col("_version") == champion)
    canary = status.phase is Phase.CANARY
    rows = served.filter(pl.col("_version") == candidate) if canary else by_candidate
    scored = by_candidate.join(by_champion, on=_ROW, suffix="_champion").sort(_ROW)
    pairs = labelled(scored, lake.read("outcomes", window, columns=("_label", "_producer", "_told_at")))
    usable = scored.filter(pl.col("_score").is_finite() & pl.col("_score_champion").is_finite())
    mine, other = _latencies(served, mirrored, candidate, champion, spec, canary=canary)
    return Observations(
        candidate_rows=rows.height,
        candidate_errors=_errors(rows),
        champion_rows=by_champion.height,
        latency=mine,
        labels=pairs["_label"].to_numpy(),
        candidate_scores=pairs["_score"].to_numpy(),
        champion_scores=pairs["_score_champion"].to_numpy(),
        performance=performance,
        champion_errors=_errors(by_champion),
        champion_latency=other,
        score_shift=_score_shift(usable),
        **_decided(usable, served, spec),
    )


def _of_versions(served: pl.DataFrame, mirrored: pl.DataFrame, champion: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What versions of ours answered, and what was mirrored of that: a champion that answers elsewhere does so under a
    name that is not known here; else what a producer calls its own model is no version of ours."""
    elsewhere = pl.col("_route").eq_missing(EXTERNAL)
    if champion == RECORDED:
        named = pl.when(elsewhere).then(pl.lit(champion)).otherwise(pl.col("_version"))
        return served.with_columns(named.alias("_version")), mirrored
    return served.filter(~elsewhere), mirrored.join(served.filter(elsewhere), on=_ROW, how="anti")


def _errors(rows: pl.DataFrame) -> int:
    return rows.height - int(rows["_score"].is_finite().sum())


def _latency(served: pl.DataFrame, version: str, spec: ModelSpec | None) -> Latency | None:
    """Of a version; None where the spec does not ask."""
    if spec is None or spec.columns.latency_ms is None or spec.kpis.latency_p95_ms is None:
        return None
    if "_latency_ms" not in served.columns:
        return 0, 0
    measured = served.filter((pl.col("_version") == version) & pl.col("_latency_ms").is_finite())["_latency_ms"]
    return int((measured > spec.kpis.latency_p95_ms.threshold).sum()), len(measured)


def _latencies(
    served: pl.DataFrame,
    mirrored: pl.DataFrame,
    candidate: str,
    champion: str,
    spec: ModelSpec | None,
    *,
    canary: bool,
) -> tuple[Latency | None, Latency | None]:
    """The candidate's and the champion's. In the shadow the first is known only where the mirror timed single answers,
    and then without a baseline beside it."""
    if canary:
        return _latency(served, candidate, spec), _latency(served, champion, spec)
    timed = _latency(mirrored, candidate, spec) if "_latency_ms" in mirrored.columns else None
    return (timed if timed and timed[1] >= LEAST_TIMED else None), None


def _score_shift(scored: pl.DataFrame) -> float | None:
    """The exact KS distance: every value is a bin of its own."""
    if scored.is_empty():
        return None
    sides = [scored[name].to_numpy() for name in ("_score", "_score_champion")]
    values, place = np.unique(np.concatenate(sides), return_inverse=True)
    first, second = (np.bincount(part, minlength=len(values)) for part in np.split(place, 2))
    return ks_interval(first, second, atom=np.ones(len(values), dtype=np.bool_)).low


def _decided(scored: pl.DataFrame, served: pl.DataFrame, spec: ModelSpec | None) -> Mapping[str, Any]:
    """`agreement` and `parity` of the rows that both models scored; nothing where they do not decide."""
    if spec is None or spec.task != "binary_classification" or scored.is_empty():
        return {}
    columns = [name for name in spec.protected if name in served.columns]
    positive = [(pl.col(name) >= spec.prediction.threshold).alias(name) for name in ("_score", "_score_champion")]
    rows = scored.with_columns(positive).join(served.select(*_ROW, *columns), on=_ROW)
    by_column = {column: _by_group(rows, column) for column in columns}
    agreement = {"all": (int((rows["_score"] == rows["_score_champion"]).sum()), rows.height)}
    for column, groups in by_column.items():
        for level, n, alike in groups.select(column, "_rows", "_alike").iter_rows():
            agreement[f"{column}={level}"] = alike, n
    drop = spec.kpis.demographic_parity
    parity = {column: _decisions(column, groups, drop.drop) for column, groups in by_column.items()} if drop else {}
    return {"agreement": agreement, "parity": parity}


def _by_group(rows: pl.DataFrame, column: str) -> pl.DataFrame:
    """Counts by level; a row without a level is of no group. No column of a spec starts with an underscore."""
    mine, other = pl.col("_score"), pl.col("_score_champion")
    counts = {
        "_rows": pl.len(),
        "_alike": (mine == other).sum(),
        "_candidate": mine.sum(),
        "_champion": other.sum(),
        "_both": (mine & other).sum(),
    }
    known = pl.col(column).is_not_null()
    if rows.schema[column].is_float():
        known &= pl.col(column).is_not_nan()
    return rows.filter(known).group_by(column).agg(**counts).sort(column)


def _decisions(column: str, groups: pl.DataFrame, allowed: float) -> Decisions:
    counted = ("_rows", "_candidate", "_champion", "_both")
    rows, candidate, champion, both = (tuple(groups[name].to_list()) for name in counted)
    return Decisions(rows, candidate, champion, both, allowed, tuple(groups[column].cast(pl.String).to_list()))
