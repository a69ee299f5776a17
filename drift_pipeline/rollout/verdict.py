"""What the facts of one phase say about the candidate: pass, fail, or not enough to tell."""

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.performance import PERFORMANCE, Performance
from drift_pipeline.detection.statistics.latency import share_above


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


def _none() -> npt.NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class Observations:
    """Facts since `Status.evidence_since`.

    `candidate_errors` counts those of `candidate_rows` whose score is missing or not finite. `latency` is the
    candidate's (rows above the threshold, rows measured), None when latency is not configured. `labels` and both
    scores (n,) are the rows that have a label and were scored by both models; rows with a NaN or None are left out.
    `performance` is what they are compared by.

    Raises:
        ValueError: counts or lengths that cannot be.
    """

    candidate_rows: int
    candidate_errors: int
    champion_rows: int
    latency: tuple[int, int] | None = None
    labels: npt.ArrayLike = field(default_factory=_none)
    candidate_scores: npt.ArrayLike = field(default_factory=_none)
    champion_scores: npt.ArrayLike = field(default_factory=_none)
    performance: Performance = PERFORMANCE["binary_classification"]

    def __post_init__(self) -> None:
        above, measured = self.latency or (0, 0)
        parts = ((self.candidate_errors, self.candidate_rows), (above, measured), (0, self.champion_rows))
        if any(not 0 <= part <= whole for part, whole in parts):
            raise ValueError(f"no part is larger than its whole, and no count below 0: {parts}")
        lengths = {np.shape(side) for side in (self.labels, self.candidate_scores, self.champion_scores)}
        if len(lengths) != 1:
            raise ValueError(f"labels and both scores are of one length, not {sorted(lengths)}")


@dataclass(frozen=True)
class Judgement:
    """`reasons` are never empty: what failed, or what is missing, or what a pass rests on."""

    verdict: Verdict
    reasons: tuple[str, ...]


def judge(
    observations: Observations,
    min_samples: int,
    *,
    level: float = 0.99,
    error_share: float = 0.01,
    slow_share: float = 0.05,
    min_labels: int = 50,
) -> Judgement:
    """A failure wants proof at `level`; a pass wants `min_samples` rows (and latencies, if configured) and no failure.

    Missing labels block nothing, for they may come later than the phase lasts. Each look is a test of its own: a
    candidate exactly at a limit fails one look in a hundred, so a long phase is stricter than a short one.

    Args:
        observations: the facts of the phase.
        min_samples: rows of the candidate below which nothing passes.
        level: one-sided confidence that each failure wants.
        error_share: share of unusable scores that is still allowed.
        slow_share: share of rows above the latency threshold that is still allowed.
        min_labels: rows of each class, or half the rows of a regression, from which the models are compared.
    """
    worse, compared = _compare(observations, level, min_labels)
    failures = [
        *_errors(observations, min_samples, level, error_share),
        *_slow(observations, level, slow_share),
        *worse,
    ]
    if failures:
        return Judgement(Verdict.FAIL, tuple(failures))
    rows, latency = observations.candidate_rows, observations.latency
    missing = [f"{rows} of {min_samples} rows"] if rows < min_samples else []
    if latency is not None and latency[1] < min_samples:
        missing.append(f"{latency[1]} of {min_samples} latencies")
    if missing:
        return Judgement(Verdict.INCONCLUSIVE, tuple(missing))
    held = f"{rows} rows, {observations.candidate_errors} without a score, beside {observations.champion_rows}"
    return Judgement(Verdict.PASS, (f"{held} of the champion", compared))


def _errors(observations: Observations, min_samples: int, level: float, allowed: float) -> list[str]:
    errors, rows = observations.candidate_errors, observations.candidate_rows
    if not errors:
        return []
    bound = round(share_above(errors, rows, level).lower_bound, 12)  # of 1 in 1 it is 1 - level, which proves nothing
    if bound <= allowed and not (errors == rows >= min_samples):
        return []
    return [f"{errors} of {rows} rows without a usable score: at least {bound:.1%}, {allowed:.0%} allowed"]


def _slow(observations: Observations, level: float, allowed: float) -> list[str]:
    above, rows = observations.latency or (0, 0)
    bound = share_above(above, rows, level).lower_bound if rows else 0.0
    if bound <= allowed:
        return []
    return [f"{above} of {rows} rows slower than the threshold: at least {bound:.1%}, {allowed:.0%} allowed"]


def _compare(observations: Observations, level: float, min_labels: int) -> tuple[list[str], str]:
    """The failure, if any, and what the comparison rests on."""
    sides = (observations.labels, observations.candidate_scores, observations.champion_scores)
    known = np.column_stack([np.asarray(side, dtype=np.float64) for side in sides])
    labels, candidate, champion = known[np.isfinite(known).all(axis=1)].T
    performance, counted = observations.performance, observations.performance.counted(labels)
    if not performance.enough(labels, min_labels):
        return [], f"not compared by labels: {counted}, {performance.wanted(min_labels)} wanted"
    found = performance.compare(labels, candidate, champion)
    best = found.gain + NormalDist().inv_cdf(level) * found.standard_error
    both = f"{performance.told(found.candidate)} against {performance.shown(found.champion)}"
    told = f"{both} on {counted}: at best {performance.shown_gain(best)}"
    return ([told] if best < 0 else []), told
