"""Can a classifier tell reference rows from current ones? What no single feature shows: a changed dependence.

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR 2017. Rabanser, Günnemann and Lipton, "Failing
loudly: an empirical study of methods for detecting dataset shift", NeurIPS 2019. Winkler et al., "Multi-level block
permutation", NeuroImage 123, 2015, on exchanging blocks where rows are not exchangeable.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array

Floats = npt.NDArray[np.float32]
Kind = Literal["mean", "square", "product", "missing"]

CLIP = 4.0
RIDGE = 0.02
STEPS = 256
CHUNK = 64


@dataclass(frozen=True)
class Term:
    """One input of the classifier: what of which columns; `coefficient` is per sd of the term, > 0 = more of it now."""

    kind: Kind
    columns: tuple[int, ...]
    coefficient: float


@dataclass(frozen=True)
class DomainShift:
    """auroc: 1/2 = the sides look alike. blocks: of the reference, of the current side. terms: largest coefficients.

    smallest_p: about how low the p-value can be, whatever the shift; from the draws and the labellings that there are.
    """

    auroc: float
    p_value: float
    smallest_p: float
    blocks: tuple[int, int]
    terms: tuple[Term, ...]


def domain_shift(
    reference: npt.ArrayLike,
    current: npt.ArrayLike,
    reference_blocks: npt.ArrayLike,
    current_blocks: npt.ArrayLike,
    *,
    folds: int = 4,
    draws: int = 500,
    max_terms: int = 250,
    top: int = 5,
    seed: int = 0,
) -> DomainShift:
    """Out-of-fold AUROC of a domain classifier, and its p-value when whole blocks exchange their side.

    The classifier is ridge least squares on standardised, clipped columns, their squares and pairwise products. Blocks
    of each side are dealt to `folds` at random; a fold's rows are scored by the fit to the other folds, and the AUROC
    is averaged over folds. For the null, blocks exchange their side within their fold; predictions are linear in the
    labels, so all labellings are fitted at once. p = (1 + #{null >= auroc}) / (1 + draws).

    Everything but the fit ignores the labels, standardising included (median and MAD of both sides together), so the
    p-value is exact where blocks are exchangeable: blocks longer than the memory of the series, about equally many
    rows in each, and both sides over the same hours of the day or week. A slow trend is no such null: it alarms.

    It sees means, variances and pairwise dependence, and nothing of higher order; with more than `max_terms` terms
    the products of the least correlated pairs are left out. Many terms on few blocks cost power, not validity.

    Args:
        reference: rows (n, d) of floats; a category is encoded before, as columns `codes[:, None] == levels`.
        current: rows (m, d) of the same columns. What is not finite is missing: 0 after standardising, and a term of
            its own for the column. A constant column is left out.
        reference_blocks: (n,) which block of time a row is of; the same name on the other side is another block.
        current_blocks: (m,).
        folds: each needs two blocks of either side.
        draws: labellings of the null.
        max_terms: cap of the classifier's inputs; means, squares and missing always stay.
        top: how many terms are named.
        seed: of folds and draws.

    >>> random = np.random.default_rng(0)
    >>> before, now = random.normal(size=(2, 400, 3))
    >>> now[:, 1] = 0.8 * now[:, 0] + 0.6 * now[:, 1]
    >>> found = domain_shift(before, now, np.arange(400) // 20, np.arange(400) // 20)
    >>> round(found.auroc, 2), round(found.p_value, 3), found.terms[0].kind, found.terms[0].columns
    (0.76, 0.002, 'product', (0, 1))

    Raises:
        ValueError: fewer than two blocks a side and fold, or shapes that do not fit.
    """
    rows, block, sizes = _stacked(reference, current, reference_blocks, current_blocks, folds)
    random = np.random.default_rng(seed)
    fold_of_block = np.concatenate([random.permutation(np.arange(size) % folds) for size in sizes])
    labels = _labellings(fold_of_block, sizes, draws, random)
    order = np.lexsort((block, fold_of_block[block]))  # folds and blocks without gaps: a fold is a slice
    rows, block = rows[order], block[order]
    values, names = _terms(rows, max_terms)
    aurocs, weights = _fitted(values, block, fold_of_block, labels)
    reached = int(np.count_nonzero(aurocs[1:] >= aurocs[0] - 1e-9))
    coefficients = weights[1:]
    largest = np.argsort(-np.abs(coefficients), kind="stable")[:top]
    return DomainShift(
        auroc=float(aurocs[0]),
        p_value=(1 + reached) / (1 + draws),
        smallest_p=max(1 / (1 + draws), 1 / _labellings_there_are(fold_of_block, sizes)),
        blocks=sizes,
        terms=tuple(Term(names[index][0], names[index][1], float(coefficients[index])) for index in largest),
    )


def _stacked(
    reference: npt.ArrayLike,
    current: npt.ArrayLike,
    reference_blocks: npt.ArrayLike,
    current_blocks: npt.ArrayLike,
    folds: int,
) -> tuple[Array, npt.NDArray[np.intp], tuple[int, int]]:
    """Rows of both sides, the block of each (the reference's are numbered first), and each side's number of blocks."""
    sides = [np.asarray(side, dtype=np.float64) for side in (reference, current)]
    blocks = [np.asarray(side) for side in (reference_blocks, current_blocks)]
    if any(side.ndim != 2 for side in sides) or sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(f"rows are (n, d) and (m, d), the same columns, not {[side.shape for side in sides]}")
    if any(names.shape != side.shape[:1] for names, side in zip(blocks, sides, strict=True)):
        raise ValueError(f"a row has one block: {[side.shape for side in sides]} and {[b.shape for b in blocks]}")
    (_, first), (_, second) = (np.unique(names, return_inverse=True) for names in blocks)
    sizes = (int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1)
    if folds < 2 or min(sizes) < 2 * folds:
        raise ValueError(f"{max(folds, 2)} folds need at least {2 * max(folds, 2)} blocks a side, not {sizes}")
    return np.concatenate(sides), np.concatenate((first, second + sizes[0])), sizes


def _labellings(
    fold_of_block: npt.NDArray[np.intp], sizes: tuple[int, int], draws: int, random: np.random.Generator
) -> Floats:
    """(blocks, 1 + draws) of -1 reference, +1 current: the true sides first, then exchanged within each fold."""
    true = np.repeat(np.array([-1, 1], dtype=np.float32), sizes)
    labels = np.repeat(true[:, None], 1 + draws, axis=1)
    for fold in range(int(fold_of_block.max()) + 1):
        inside = fold_of_block == fold
        labels[inside, 1:] = random.permuted(labels[inside, 1:], axis=0)
    return labels


def _labellings_there_are(fold_of_block: npt.NDArray[np.intp], sizes: tuple[int, int]) -> float:
    """How many differ in AUROC: where each fold has equally many blocks of both sides, swapping all does not."""
    sides = np.bincount(fold_of_block[: sizes[0]]), np.bincount(fold_of_block[sizes[0] :])
    mirrored = 2 if np.array_equal(*sides) else 1
    return math.prod(math.comb(int(a + b), int(a)) for a, b in zip(*sides, strict=True)) / mirrored


def _terms(rows: Array, max_terms: int) -> tuple[Floats, list[tuple[Kind, tuple[int, ...]]]]:
    """Classifier inputs (1 + T, n), an intercept first, each other one with mean 0 and sd 1; and what each is."""
    z, missing = _standardised(rows)
    d = len(z)
    left, right = np.triu_indices(d, k=1)
    lacking = np.flatnonzero(missing.any(axis=1))
    room = max(0, max_terms - 2 * d - len(lacking))
    if len(left) > room:
        scaled = _unit(z.copy())
        kept = np.sort(np.argsort(-np.abs(scaled @ scaled.T)[left, right], kind="stable")[:room])
        left, right = left[kept], right[kept]
    names: list[tuple[Kind, tuple[int, ...]]] = [("mean", (i,)) for i in range(d)]
    names += [("square", (i,)) for i in range(d)]
    names += [("product", (int(i), int(j))) for i, j in zip(left, right, strict=True)]
    names += [("missing", (int(i),)) for i in lacking]
    values = np.ones((1 + len(names), z.shape[1]), dtype=np.float32)
    np.concatenate((z, z**2, z[left] * z[right], missing[lacking]), out=values[1:])
    told = np.flatnonzero(_unit(values[1:]).any(axis=1))
    if len(told) < len(names):
        values = values[[0, *(told + 1)]]
    return values, [names[index] for index in told]


def _standardised(rows: Array) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """(x - median) / (1.4826 MAD) of the columns of (n, d), cut at +-4, 0 where missing, (d, n); and what is missing.

    Where the MAD is 0 (mostly one value) it is taken over the other values only.
    """
    columns = np.ascontiguousarray(rows.T)
    missing = ~np.isfinite(columns)
    z = np.zeros(columns.shape, dtype=np.float32)
    for into, column, absent in zip(z, columns, missing, strict=True):
        values = np.clip(column[~absent], -1e100, 1e100)
        if not values.size:
            continue
        distance = values - np.median(values)
        away = np.abs(distance)
        scale = np.median(away) or (np.median(away[away > 0]) if away.any() else 1.0)
        into[~absent] = np.clip(distance / (1.4826 * scale), -CLIP, CLIP)
    return z, missing


def _unit(values: Floats) -> Floats:
    """`values` (T, n), changed in place: each row of mean 0 and sd 1; constant ones are 0 throughout."""
    values -= values.mean(axis=1, keepdims=True)
    sd = np.sqrt(np.einsum("ij,ij->i", values, values) / values.shape[1])
    told = sd > 1e-5
    values *= np.where(told, 1 / np.where(told, sd, 1), 0).astype(np.float32)[:, None]
    return values


def _fitted(
    values: Floats, block: npt.NDArray[np.intp], fold_of_block: npt.NDArray[np.intp], labels: Floats
) -> tuple[Array, Array]:
    """AUROC (draws,) of each labelling (blocks, draws), the mean over folds; and the first one's fit to all rows.

    A block's rows share their label and the fit is linear: scores = y' S (G + ridge)^-1 X with S the sums over blocks,
    so the factors are multiplied in the cheapest order, for all labellings at once.
    """
    starts = np.flatnonzero(np.diff(block, prepend=-1))
    sums = np.empty((len(starts), len(values)), dtype=np.float32)
    sums[block[starts]] = np.add.reduceat(values, starts, axis=1).T
    ends = np.cumsum(np.bincount(fold_of_block[block]))
    folds = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    positive = np.ascontiguousarray(labels.T > 0)
    grams = [values[:, rows] @ values[:, rows].T for rows in folds]
    gram, total = np.asarray(np.sum(grams, axis=0, dtype=np.float64)), np.zeros(labels.shape[1])
    for fold, rows in enumerate(folds):
        X, out = values[:, rows], fold_of_block != fold
        per_block = np.linalg.solve(_ridged(gram - grams[fold], values.shape[1] - X.shape[1]), sums[out].T)
        scores = np.linalg.multi_dot([labels[out].T, per_block.T.astype(np.float32), X])
        total += _aurocs(scores, np.take(positive, block[rows], axis=1))
    moments = (sums.T @ labels[:, 0]).astype(np.float64)
    return total / len(folds), np.asarray(np.linalg.solve(_ridged(gram, values.shape[1]), moments), dtype=np.float64)


def _ridged(gram: Array, n: int) -> Array:
    """The intercept, first, is not shrunk."""
    penalty = np.full(len(gram), RIDGE * n)
    penalty[0] = 0
    return gram + np.diag(penalty)


def _aurocs(scores: Floats, positive: npt.NDArray[np.bool_]) -> Array:
    """AUROC of each row of (draws, n); a few rows at a time stay in the cache."""
    parts = [slice(start, start + CHUNK) for start in range(0, len(scores), CHUNK)]
    return np.concatenate([_aurocs_on_a_grid(scores[part], positive[part]) for part in parts])


def _aurocs_on_a_grid(scores: Floats, positive: npt.NDArray[np.bool_]) -> Array:
    """Scores compared on a grid of 256 steps between their ends; equal = 1/2.

    Rounded to the nearest step, so that scores with their signs changed meet the same grid.
    """
    low, high = scores.min(axis=1, keepdims=True), scores.max(axis=1, keepdims=True)
    steps = ((scores - low) * ((STEPS - 1) / np.maximum(high - low, 1e-6)) + 0.5).astype(np.int64)
    steps += STEPS * (positive + 2 * np.arange(len(scores))[:, None])
    counts = np.bincount(steps.ravel(), minlength=2 * STEPS * len(scores)).reshape(len(scores), 2, STEPS)
    n, p = counts[:, 0].astype(np.float32), counts[:, 1].astype(np.float32)
    ranked = np.einsum("ij,ij->i", p, np.cumsum(n, axis=1) - n / 2, dtype=np.float64)
    return np.asarray(ranked / (p.sum(axis=1) * n.sum(axis=1)))
