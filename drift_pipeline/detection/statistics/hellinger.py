"""Hellinger distance of two sides' bin counts, with the sampling bias taken off: reported, not tested."""

import math

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.psi import paired_counts, psi_null_mean


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
    n, m = (float(side.sum()) for side in counts)
    affinity = float(np.sqrt(counts[0] / n) @ np.sqrt(counts[1] / m))
    bias = psi_null_mean(len(counts[0]), n, m) / 8
    return math.sqrt(max(0.0, 1 - affinity - bias))
