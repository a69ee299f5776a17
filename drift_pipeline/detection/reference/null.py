"""The empirical null: how far healthy windows of a reference are from the rest of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from drift_pipeline.detection.counting.binning import SCORE, Floats, Ints
from drift_pipeline.detection.statistics.psi import occupied_bins, psi_p_value, psi_rows
from drift_pipeline.detection.thresholds import FARTHER, LEAST_WINDOWS, iid_below


@dataclass(frozen=True)
class Null:
    """How far healthy windows of one length are from the rest of the reference (leave one out).

    phi: per column, mean PSI over its i.i.d. expectation (1 = independent rows, NaN = not known); least_p: the smallest
    chi2 tail of a healthy window's PSI, phi taken off, in any column; windows: how many there were.
    """

    windows: int
    phi: dict[str, float]
    least_p: float

    def overdispersion(self, names: tuple[str, ...]) -> Floats:
        """phi (K,) where rows count as dependent, else 1."""
        phi = np.array([self.phi[name] for name in names])
        return np.where(phi >= iid_below(self.windows), phi, 1.0)  # NaN gives 1

    def stretched(self, times: float) -> "Null":
        """Of windows so many times as long, where there are too few of them to tell: phi - 1 grows as the length does.

        That is the most it can: as if what a window was like never changed within one so long. Of rows that depend on
        their neighbours alone it does not grow at all.
        """
        return Null(self.windows, {name: 1 + max(phi - 1, 0.0) * times for name, phi in self.phi.items()}, self.least_p)

    def exceeds(self, name: str, before: Floats, after: Floats) -> bool:
        """Whether counts (B,) are half as far again apart as any healthy window; of independent rows p-values suffice.

        A chi2 tail falls about exponentially, so that 1.5 times the distance is the tail to the power of 1.5.
        """
        phi = self.phi[name]
        if not phi >= iid_below(self.windows):
            return True
        bins, m, n = int(occupied_bins(before, after)), float(before.sum()), float(after.sum())
        return bool(psi_p_value(float(psi_rows(before, after)), bins, n, m, phi) < self.least_p**FARTHER)


def independent(names: tuple[str, ...]) -> Null:
    """The null of rows that are taken for independent: what there is to assume where no time tells more."""
    return Null(0, dict.fromkeys(names, 1.0), 1.0)


@dataclass(frozen=True)
class Distances:
    """PSI of W healthy windows from the rest, over `bins` bins, of `n` rows against `m`; each (W,)."""

    psi: Floats
    bins: Ints
    n: Floats
    m: Floats

    @classmethod
    def of(cls, rest: Ints | Floats, windows: Ints | Floats) -> "Distances":
        """Of counts (W, B); every side has rows."""
        n, m = windows.sum(axis=1) + 0.0, rest.sum(axis=1) + 0.0
        return cls(psi_rows(rest, windows), occupied_bins(rest, windows), n, m)

    def phi(self) -> float:
        """NaN below five windows; a column that never varied has 1."""
        if len(self.psi) < LEAST_WINDOWS:
            return math.nan
        expected = (self.bins - 1) * (1 / self.n + 1 / self.m)
        return float(np.divide(self.psi, expected, out=np.ones_like(self.psi), where=expected > 0).mean())

    def least_p(self, phi: float) -> float:
        if math.isnan(phi):
            return 1.0
        return float(psi_p_value(self.psi, self.bins, self.n, self.m, np.full_like(self.psi, max(phi, 1.0))).min())


def null_of(healthy: Mapping[str, Distances]) -> Null:
    """The empirical null, of each column's healthy windows."""
    phi = {name: told.phi() for name, told in healthy.items()}
    least_p = min((told.least_p(phi[name]) for name, told in healthy.items()), default=1.0)
    return Null(max((len(told.psi) for name, told in healthy.items() if name != SCORE), default=0), phi, least_p)
