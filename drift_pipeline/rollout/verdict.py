"""What the facts of one phase say about the candidate: pass, fail, or not enough to tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.judging.performance import PERFORMANCE, Performance
from drift_pipeline.detection.statistics.parity import TOO_FEW_GROUPS, left_out, one_sided
from drift_pipeline.detection.statistics.sequential import mean_radius, parity_widening, share_excess, share_lower_bound

_QUESTIONS = 4  # usable scores, answers in time, performance, parity: each may fail a good candidate once in four


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


def _none() -> npt.NDArray[np.float64]:
    return np.empty(0)


@dataclass(frozen=True)
class Decisions:
    """Rows that both models decided, by group of a protected column: how many, and the positives among them.

    `both` are the rows that both decide positively. `allowed` is how much wider the candidate's gap may be. `names`
    are what the groups are called.
    """

    rows: tuple[int, ...]
    candidate: tuple[int, ...]
    champion: tuple[int, ...]
    both: tuple[int, ...]
    allowed: float
    names: tuple[str, ...] = ()

    def told(self) -> str:
        """The groups that the candidate denies or grants entirely, and those that are not compared, by name."""
        names = self.names or tuple(f"group {number + 1}" for number in range(len(self.rows)))
        words = one_sided(names, self.candidate, self.rows), left_out(names, self.rows)
        return "".join(f"; {some}" for some in words if some)


@dataclass(frozen=True, eq=False)
class Observations:
    """Facts since `Status.evidence_since`. What is left out was not measured, or nobody asks for it.

    `candidate_errors` counts those of `candidate_rows` whose score is missing or not finite. `latency` is the
    candidate's (rows above the threshold, rows measured), None when latency is not configured. `labels` and both
    scores (n,) are the rows that have a label and were scored by both models; rows with a NaN or None are left out.
    `performance` is what they are compared by. `champion_errors` and `champion_latency` are of the same period, so that
    what troubles both is not blamed on one.

    Of all rows that both scored: `agreement` is (rows decided alike, rows) by slice, which is "all" or "column=level";
    `score_shift` is the Kolmogorov-Smirnov distance of their scores; `parity` the decisions by protected column.

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
    champion_errors: int = 0
    champion_latency: tuple[int, int] | None = None
    agreement: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    score_shift: float | None = None
    parity: Mapping[str, Decisions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = (
            (self.candidate_errors, self.candidate_rows),
            (self.champion_errors, self.champion_rows),
            self.latency or (0, 0),
            self.champion_latency or (0, 0),
            *self.agreement.values(),
        )
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

    The proof holds at every look: a candidate exactly at all limits fails with probability 1 - level at most, however
    long the evidence grows and however often it is looked at. Each of four questions has a quarter of that: unusable
    scores, slow answers, a worse performance, a wider parity gap. A gap's quarter is shared by the protected columns.
    A canary's evidence begins anew, so a whole rollout has twice 1 - level.

    Missing labels block nothing, for they may come later than the phase lasts. A new model is allowed to differ: how
    far it agrees with the champion is told, and decides nothing.

    Args:
        observations: the facts of the phase.
        min_samples: rows of the candidate below which nothing passes, and of the champion's latencies below which they
            are no baseline.
        level: confidence that a failure wants.
        error_share: share of unusable scores that is still allowed.
        slow_share: share of rows above the latency threshold that is still allowed.
        min_labels: rows of each class, or half the rows of a regression, from which the models are compared.
    """
    alpha = (1 - level) / _QUESTIONS
    answers = (
        _scored(observations, min_samples, alpha, error_share),
        _in_time(observations, min_samples, alpha, slow_share),
        _as_good(observations, alpha, min_labels),
        _as_fair(observations, alpha),
        Judgement(Verdict.PASS, _likeness(observations)),
    )
    verdict = next(v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS) if v in {a.verdict for a in answers})
    return Judgement(verdict, tuple(r for answer in answers if answer.verdict is verdict for r in answer.reasons))


def _scored(observations: Observations, min_samples: int, alpha: float, allowed: float) -> Judgement:
    """A candidate that never has a usable score fails with `min_samples` rows, even where they prove nothing yet."""
    errors, rows = observations.candidate_errors, observations.candidate_rows
    bound = float(share_lower_bound(errors, rows, alpha))
    beside = f"beside {observations.champion_rows} of the champion"
    if observations.champion_errors:
        beside += f", {observations.champion_errors} of those without"
    if bound > allowed or errors == rows >= min_samples:
        told = f"{errors} of {rows} rows without a usable score: at least {bound:.1%}, {allowed:.0%} allowed"
        return Judgement(Verdict.FAIL, (f"{told}, {beside}" if observations.champion_errors else told,))
    if rows < min_samples:
        return Judgement(Verdict.INCONCLUSIVE, (f"{rows} of {min_samples} rows",))
    return Judgement(Verdict.PASS, (f"{rows} rows, {errors} without a score, {beside}",))


def _in_time(observations: Observations, min_samples: int, alpha: float, allowed: float) -> Judgement:
    """Too slow, and slower than the champion was meanwhile: both are proven at alpha, so together they are."""
    if observations.latency is None:
        return Judgement(Verdict.PASS, ())
    (above, rows), baseline = observations.latency, observations.champion_latency or (0, 0)
    bound = float(share_lower_bound(above, rows, alpha))
    told = f"{above} of {rows} rows slower than the threshold: at least {bound:.1%}, {allowed:.0%} allowed"
    beside = f"the champion's were {baseline[0]} of {baseline[1]}"
    known = baseline[1] >= min_samples
    if bound > allowed and not (known and share_excess((above, rows), baseline, alpha) <= 0):
        return Judgement(Verdict.FAIL, (f"{told}; {beside}" if known else told,))
    if rows < min_samples:
        return Judgement(Verdict.INCONCLUSIVE, (f"{rows} of {min_samples} latencies",))
    if bound <= allowed:
        return Judgement(Verdict.PASS, ())
    if baseline[0] <= allowed * baseline[1]:
        return Judgement(Verdict.INCONCLUSIVE, (f"{told}; {beside}, and that it is slower is not proven yet",))
    return Judgement(Verdict.PASS, (f"{told}; {beside}, so it is not the candidate's doing",))


def _as_good(observations: Observations, alpha: float, min_labels: int) -> Judgement:
    sides = (observations.labels, observations.candidate_scores, observations.champion_scores)
    known = np.column_stack([np.asarray(side, dtype=np.float64) for side in sides])
    labels, candidate, champion = known[np.isfinite(known).all(axis=1)].T
    performance, counted = observations.performance, observations.performance.counted(labels)
    if not performance.enough(labels, min_labels):
        return Judgement(Verdict.PASS, (f"not compared by labels: {counted}, {performance.wanted(min_labels)} wanted",))
    found = performance.compare(labels, candidate, champion)
    best = found.gain + float(mean_radius(found.standard_error, len(labels), alpha))
    both = f"{performance.told(found.candidate)} against {performance.shown(found.champion)}"
    told = f"{both} on {counted}: at best {performance.shown_gain(best)}"
    return Judgement(Verdict.FAIL if best < 0 else Verdict.PASS, (told,))


def _as_fair(observations: Observations, alpha: float) -> Judgement:
    wider, told = [], []
    for column, of in observations.parity.items():
        each = alpha / len(observations.parity)
        found = parity_widening(of.rows, of.candidate, of.champion, of.both, each)
        if found is None:
            told.append(f"parity by {column} not compared: {TOO_FEW_GROUPS}{of.told()}")
            continue
        both = f"parity gap by {column} {found.candidate:.3f} against {found.champion:.3f} on {found.rows} rows"
        wider_by = f"wider by at least {max(found.lower_bound, 0.0):.3f}, {of.allowed:.3g} allowed"
        told.append(f"{both}: {wider_by}{of.told()}")
        wider += told[-1:] if found.lower_bound > of.allowed else []
    return Judgement(Verdict.FAIL, tuple(wider)) if wider else Judgement(Verdict.PASS, tuple(told))


def _likeness(observations: Observations) -> tuple[str, ...]:
    """How far the models agree over all, and in the slice where they do least."""
    told = []
    shares = {slice_: alike / rows for slice_, (alike, rows) in observations.agreement.items() if rows}
    if shares:
        least = min(shares, key=lambda slice_: shares[slice_])
        slices = ("all",) if least == "all" or "all" not in shares else ("all", least)
        each = (f"{shares[s]:.1%} of {observations.agreement[s][1]} rows ({s})" for s in slices)
        told.append(f"decides as the champion in {', '.join(each)}")
    if observations.score_shift is not None:
        told.append(f"scores shifted by {observations.score_shift:.3f} (KS)")
    return tuple(told)
