"""Gates: what a candidate proves before it may be registered. Pure functions of scores, labels and decisions.

Each returns PASS, FAIL or UNKNOWN; UNKNOWN means that the question could not be answered, and blocks like FAIL.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.detection.judging.performance import Performance, performance_of
from drift_pipeline.detection.statistics.concordance import concordance
from drift_pipeline.detection.statistics.parity import TOO_FEW_GROUPS, left_out, one_sided, usable_groups
from drift_pipeline.spec import ColumnType, ModelSpec
from drift_pipeline.training.behaviour import LEAST_OF_A_CLASS, behavioural_gates
from drift_pipeline.training.group_figures import selection_gap
from drift_pipeline.training.results import GateResult, Gates, Outcome, judged
from drift_pipeline.training.trainers import score

if TYPE_CHECKING:
    from drift_pipeline.training.graph import Model

__all__ = [
    "LEAST_OF_A_CLASS",
    "GateResult",
    "Gates",
    "Outcome",
    "latency_gate",
    "parity_gate",
    "performance_gate",
    "poison_floor",
    "prove",
]

INFERIOR_BY = 0.02
Z_NOT_INFERIOR, Z_BETTER = 1.64, 1.0
POISON_FLOOR = 0.6
TIMED_PREDICTIONS, WARM_UP = 60, 5


def prove(
    pipeline: "Model",
    block: pl.DataFrame,
    newest: pl.DataFrame,
    holdout: pl.DataFrame,
    spec: ModelSpec,
    *,
    performance_fell: bool,
) -> Gates:
    """Every gate that the spec asks for.

    Args:
        pipeline: the candidate.
        block: labelled rows that neither model was trained on, with the champion's scores in `_champion`.
        newest: recent rows with or without labels, with `_champion`: what the parity of decisions is compared on.
        holdout: the fixed, trusted rows with `_label`.
        spec: the model.
        performance_fell: a fall is what the candidate was trained for, so being no worse is not enough.
    """
    candidate, performance = score(pipeline, block, spec.features), performance_of(spec)
    results = [
        performance_gate(
            performance, block["_label"], candidate, block["_champion"], cause_is_performance=performance_fell
        )
    ]
    if spec.kpis.demographic_parity is not None and spec.protected:
        sides = score(pipeline, newest, spec.features), newest["_champion"].to_numpy()
        now, before = (side >= spec.prediction.threshold for side in sides)
        allowed = spec.kpis.demographic_parity.drop
        results += [
            parity_gate(now, before, newest[column], allowed_drop=allowed, column=column) for column in spec.protected
        ]
    limit_ms = spec.kpis.latency_p95_ms.threshold if spec.kpis.latency_p95_ms else 150.0
    results.append(latency_gate(pipeline, block, spec.features, limit_ms=limit_ms))
    results.append(poison_floor(holdout["_label"], score(pipeline, holdout, spec.features)))
    results += behavioural_gates(pipeline, block, spec)
    return Gates(tuple(results))


def performance_gate(
    performance: Performance,
    labels: npt.ArrayLike,
    candidate: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    *,
    cause_is_performance: bool,
) -> GateResult:
    """Is the candidate no worse than the champion on rows that neither was trained on, and better where it must be?

    A gain is of AUROC, or the share of the champion's MAE that is gone. Not inferior: gain - 1.64 se > -0.02. Where a
    fall of performance is the cause of the retrain, being no worse than a model that fell helps nobody: then also
    gain - se > 0. Without a champion the candidate is compared with a constant: gain - 1.64 se > 0. se is that of
    paired rows. `labels` (n,) are true for positives, or numbers; scores (n,).
    """
    known, scores = np.asarray(labels, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    against = performance.ignorant(known) if champion is None else np.asarray(champion, dtype=np.float64)
    name = performance.kpi
    if problem := _unanswerable(performance, known, scores, against):
        return GateResult(name, Outcome.UNKNOWN, None, None, None, problem)
    found = performance.compare(known, scores, against)
    gain, bound = found.gain, found.gain - Z_NOT_INFERIOR * found.standard_error
    if champion is None:
        reason = f"first model: {performance.told(found.candidate)}, to be better than a constant"
        return judged(name, bound > 0, gain, bound, 0.0, reason)
    told = f"{performance.name} {found.candidate:.4f} against the champion's {found.champion:.4f}"
    if bound <= -INFERIOR_BY:
        return judged(name, False, gain, bound, -INFERIOR_BY, f"{told}: may be worse by more than {INFERIOR_BY:g}")
    if cause_is_performance:
        better = gain - Z_BETTER * found.standard_error
        reason = f"{told}: performance fell, so it has to be better by {Z_BETTER:g} standard error"
        return judged(name, better > 0, gain, better, 0.0, reason)
    return judged(name, True, gain, bound, -INFERIOR_BY, f"{told}: not inferior")


def parity_gate(
    candidate: npt.ArrayLike,
    champion: npt.ArrayLike | None,
    groups: pl.Series,
    *,
    allowed_drop: float,
    column: str,
) -> GateResult:
    """Does the candidate widen the gap between the groups' rates of positive decisions, on the same rows?

    FAIL where DPD(candidate) - DPD(champion) > allowed_drop, compared as measured: a bound would let the widest gaps
    of the smallest groups through. A first model passes with its gap told: it is the reference of all later ones.

    `candidate`, `champion` are decisions (n,) and `groups` (n,) names, missing where not known (of no group, counted).
    Which groups are compared is one rule of all who compare (`usable_groups`): 100 rows, also one without any positive
    decision, which is the gap that matters most. Fewer than two such groups: UNKNOWN. Decisions need no labels, so give
    this gate as many recent rows as there are rather than the labelled block alone; else a model with a group that is
    rare in 500 rows could never ship. A model without a protected column has no such gate.
    """
    name, compared = f"parity:{column}", _Groups.of(groups)
    if np.count_nonzero(compared.used) < 2:
        reason = f"{TOO_FEW_GROUPS}{compared.beside}; give more rows, or switch the KPI off"
        return GateResult(name, Outcome.UNKNOWN, None, None, allowed_drop, reason)
    now, beside = compared.gap(candidate), compared.beside
    if denied := one_sided(compared.names, compared.positives(candidate), compared.totals):
        beside = f"; {denied}{beside}"
    if champion is None:
        reason = f"first model: a gap of {now:.4f}, the reference of later ones{beside}"
        return judged(name, True, now, None, None, reason)
    before, number = compared.gap(champion), np.count_nonzero(compared.used)
    reason = f"a gap of {now:.4f} against the champion's {before:.4f} over {number} groups{beside}"
    return judged(name, now - before <= allowed_drop, now - before, None, allowed_drop, reason)


@dataclass(frozen=True)
class _Groups:
    """The groups (g,) of rows (n,): `member` (k,) is the group of each of the `known` ones (n,), `used` (g,) which are
    compared, and `beside` says what is left out."""

    names: list[str]
    known: npt.NDArray[np.bool_]
    member: npt.NDArray[np.intp]
    totals: npt.NDArray[np.intp]
    used: npt.NDArray[np.bool_]
    beside: str

    @classmethod
    def of(cls, groups: pl.Series) -> "_Groups":
        groups = groups.fill_nan(None) if groups.dtype.is_float() else groups
        found, member = np.unique(groups.drop_nulls().cast(pl.String).to_numpy().astype(str), return_inverse=True)
        names, totals = found.tolist(), np.bincount(member, minlength=len(found))
        aside = [left_out(names, totals), f"{groups.null_count():,} rows without a group" * bool(groups.null_count())]
        beside = "".join(f"; {words}" for words in aside if words)
        return cls(names, groups.is_not_null().to_numpy(), member, totals, usable_groups(totals), beside)

    def gap(self, decisions: npt.ArrayLike) -> float:
        """Between the highest and the lowest rate of positive decisions (n,)."""
        compared = self.used[self.member]
        return selection_gap(self.member[compared], np.asarray(decisions)[self.known][compared])

    def positives(self, decisions: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """By group (g,)."""
        decided = np.asarray(decisions, dtype=np.float64)[self.known]
        return np.bincount(self.member, decided, len(self.names)).astype(np.float64)


def latency_gate(
    pipeline: "Model",
    sample: pl.DataFrame,
    features: Mapping[str, ColumnType],
    *,
    limit_ms: float,
    clock: Callable[[], float] = time.thread_time,
) -> GateResult:
    """p95 of 60 single-row predictions, one after the other, after a warm-up; a short sample is gone through again.

    CPU time of this thread: a machine that is busy with something else is not the candidate's fault.
    """
    if sample.is_empty():
        return GateResult("latency", Outcome.UNKNOWN, None, None, limit_ms, "there is no row to predict")
    seconds = []
    for number in range(WARM_UP + TIMED_PREDICTIONS):
        row = sample[number % sample.height]
        start = clock()
        score(pipeline, row, features)
        seconds.append(clock() - start)
    p95 = float(np.quantile(seconds[WARM_UP:], 0.95)) * 1000
    return judged("latency", p95 <= limit_ms, p95, None, limit_ms, f"p95 of one row at a time is {p95:.1f} ms of CPU")


def poison_floor(labels: npt.ArrayLike | None, scores: npt.ArrayLike | None) -> GateResult:
    """Concordance (of two classes: AUROC) on the fixed, trusted holdout: a floor against poisoned labels, never a bar
    against adapting.

    The holdout is old by design, so a model that followed the world scores lower on it; only one that has turned
    against it falls below 0.6, where a constant has 0.5. A regression is held to the order alone, not to its MAE: a
    level or a scale that moved since is no poison. A complete inversion of the concept looks exactly like poisoned
    labels: no number can tell the two apart, so a person has to decide, and the failed gate is how they are asked.
    """
    known = np.asarray([] if labels is None else labels, dtype=np.float64)
    given = np.asarray([] if scores is None else scores, dtype=np.float64)
    told = len(np.unique(known))
    if told < 2 or given.shape != known.shape or not np.isfinite(given).all():
        problem = "its labels are all the same" if told < 2 else "not every row has a finite score"
        return GateResult("poison_floor", Outcome.UNKNOWN, None, None, POISON_FLOOR, f"trusted holdout: {problem}")
    found, word = concordance(known, given), "AUROC" if told == 2 else "concordance"
    reason = f"{word} {found:.4f} on the trusted holdout"
    if found < POISON_FLOOR:
        reason += ": poisoned labels or an inverted concept; a person has to decide"
    return judged("poison_floor", found >= POISON_FLOOR, found, None, POISON_FLOOR, reason)


def _unanswerable(performance: Performance, labels: npt.NDArray[np.float64], *scores: npt.ArrayLike) -> str | None:
    """Why no comparison can be told, or None."""
    if not performance.enough(labels, LEAST_OF_A_CLASS):
        return f"{performance.counted(labels)} are too few to tell"
    sides = [np.asarray(side) for side in (labels, *scores)]
    if not all(side.shape == labels.shape and np.isfinite(side).all() for side in sides):
        return "not every row has a finite score"
    return None
