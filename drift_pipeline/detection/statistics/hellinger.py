"""Hellinger distance of two sides' bin counts, with the sampling bias taken off: reported, not tested."""

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import Array, paired_counts


def hellinger(reference: npt.ArrayLike, current: npt.ArrayLike) -> float:
    """sqrt(max(0, 1 - sum_j sqrt(p_j q_j) - (B-1)(1/n + 1/m) / 8)), from 0 (same) to 1 (no bin in common).

    p and q are the raw shares of the counts, shape (B,); B counts the empty bins too, so give it coarse bins. The
    last term is the expected square of the distance between two samples of one distribution: PSI ~ 8 H^2 on the same
    bins, and (B-1)(1/n + 1/m) is PSI's null mean. One bin (a constant column) gives 0.

    >>> round(hellinger([500] * 4, [650, 550, 450, 350]), 4)
    0.0777

    Le Cam and Yang, "Asymptotics in Statistics", 2000.

    Raises:
        ValueError: a side has no rows, or the shapes differ.
    """
    counts = paired_counts(reference, current)
    return float(hellinger_rows(*counts, np.asarray(len(counts[0]))))


def hellinger_rows(reference: Array, current: Array, bins: npt.NDArray[np.int64]) -> Array:
    """`hellinger` of many pairs of count vectors at once: shapes (W, B), over `bins` (W,) bins; returns (W,)."""
    n, m = (side.sum(axis=-1) for side in (reference, current))
    affinity = (np.sqrt(reference) * np.sqrt(current)).sum(axis=-1) / np.sqrt(n * m)
    bias = (bins - 1) * (1 / n + 1 / m) / 8
    return np.asarray(np.sqrt(np.maximum(0.0, 1 - affinity - bias)))
