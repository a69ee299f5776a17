"""Many features at once: which p-values stay significant when false alarms among them are counted."""

import numpy as np
import numpy.typing as npt


def benjamini_hochberg(p_values: npt.ArrayLike, q: float) -> npt.NDArray[np.bool_]:
    """Which of the p-values (k,) are rejected so that at most a share q of the rejections is false, on average.

    Rejects the i smallest for the largest i with p_(i) <= q i / k. NaN = not tested: never rejected and not counted
    in k. Nothing tested gives all False. Holds for independent and for positively dependent p-values.

    >>> benjamini_hochberg([0.001, 0.04, 0.02, float("nan"), 0.3], q=0.05).tolist()
    [True, False, True, False, False]

    Benjamini and Hochberg, "Controlling the false discovery rate", JRSS B 57(1), 1995.

    Raises:
        ValueError: q outside (0, 1), a p-value outside [0, 1], or not one-dimensional.
    """
    p = np.asarray(p_values, dtype=np.float64)
    tested = np.sort(p[~np.isnan(p)])
    if p.ndim != 1 or not 0 < q < 1 or np.any((tested < 0) | (tested > 1)):
        raise ValueError(f"p-values (k,) lie in [0, 1] or are NaN, and q in (0, 1): q = {q}, p = {p.tolist()}")
    passing = tested[tested <= q * np.arange(1, tested.size + 1) / max(tested.size, 1)]
    return np.asarray(p <= passing[-1]) if passing.size else np.zeros(p.shape, dtype=bool)
