"""Tests on the first two moments, all that a merged profile keeps of a column's shape."""

import math

from drift_pipeline.detection.statistics.psi import require_rows


def welch_p_value(mean1: float, var1: float, n1: float, mean2: float, var2: float, n2: float) -> float:
    """Two-sided p of Welch's t-test that two means are equal; variances have the n - 1 denominator.

    t = (mean1 - mean2) / sqrt(var1/n1 + var2/n2) with Welch and Satterthwaite's degrees of freedom; sizes may be
    effective. Two constant columns: 1 if the constants are equal, else 0.

    >>> round(welch_p_value(10.0, 4.0, 200, 10.5, 5.0, 150), 4)
    0.0312

    Welch, "The generalization of Student's problem when several different population variances are involved",
    Biometrika 34, 1947.

    Raises:
        ValueError: fewer than 2 rows a side, or a negative variance.
    """
    from scipy.special import stdtr

    _require_variances(var1, n1, var2, n2)
    error1, error2 = var1 / n1, var2 / n2
    error = error1 + error2
    if error == 0:
        return float(mean1 == mean2)
    # shares of the error, since squares of tiny variances would underflow
    freedom = 1 / ((error1 / error) ** 2 / (n1 - 1) + (error2 / error) ** 2 / (n2 - 1))
    return float(2 * stdtr(freedom, -abs(mean1 - mean2) / math.sqrt(error)))


def log_variance_ratio_p_value(var1: float, n1: float, var2: float, n2: float, kurtosis: float = 3.0) -> float:
    """Two-sided p that two variances are equal: ln(var1 / var2) is taken as normal around 0.

    Its variance is sum_i (kurtosis - (n_i - 3)/(n_i - 1)) / n_i (Shoemaker, "Fixing the F test for equal variances",
    American Statistician 57(2), 2003). A profile holds no fourth moment: kurtosis = 3 assumes normal tails, so heavy
    tails are called too often and light ones too seldom; give the reference's kurtosis m4 / m2^2 where it is known,
    or take the p-value as one vote among others. Two constant columns give 1, one constant column 0.

    >>> round(log_variance_ratio_p_value(4.0, 200, 5.0, 150), 4)
    0.1453

    Raises:
        ValueError: fewer than 2 rows a side, a negative variance, or a kurtosis below 1, which cannot be.
    """
    from scipy.special import ndtr

    _require_variances(var1, n1, var2, n2)
    if kurtosis < 1:
        raise ValueError(f"kurtosis is m4 / m2^2 (3 for the normal) and never below 1, not {kurtosis}")
    if var1 == 0 or var2 == 0:
        return float(var1 == var2)
    variance = sum((kurtosis - (n - 3) / (n - 1)) / n for n in (n1, n2))
    return float(2 * ndtr(-abs(math.log(var1) - math.log(var2)) / math.sqrt(variance)))


def _require_variances(var1: float, n1: float, var2: float, n2: float) -> None:
    require_rows(n1, n2)
    if min(n1, n2) < 2:
        raise ValueError(f"a variance needs 2 rows a side: n1 = {n1}, n2 = {n2}")
    if not min(var1, var2) >= 0:
        raise ValueError(f"a variance is not below 0: {var1} and {var2}")
