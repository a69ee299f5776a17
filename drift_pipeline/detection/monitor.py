"""The monitor: one tick over all windows and KPIs of one model; a pure function of reference, slices and time."""

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection import kpis
from drift_pipeline.detection.binning import Ints, NumericBins
from drift_pipeline.detection.profile import Profile
from drift_pipeline.detection.reference import LEAST_ROWS, LEAST_WINDOWS, YEAR, Null, Reference
from drift_pipeline.detection.statistics.hellinger import hellinger
from drift_pipeline.detection.statistics.ks import (
    KsInterval,
    ks_interval,
    ks_lower_bound,
    ks_p_value,
    total_variation,
    total_variation_lower_bound,
)
from drift_pipeline.detection.statistics.moments import log_variance_ratio_p_value, welch_p_value
from drift_pipeline.detection.statistics.multiplicity import benjamini_hochberg
from drift_pipeline.detection.statistics.psi import psi, psi_lower_bound, psi_p_value
from drift_pipeline.detection.thresholds import IID_BELOW, LEAST_DISTANCE, false_discovery_rate
from drift_pipeline.detection.verdict import FeatureFinding, Report
from drift_pipeline.detection.windows import Slices, sliding
from drift_pipeline.spec import ModelSpec

MISSING_DIRECTIONS = ("more missing", "fewer missing")


def window_lengths(spec: ModelSpec, step: timedelta) -> tuple[timedelta, ...]:
    """1 h, 24 h, 7 d and the PSI window in whole weeks, less those shorter than the time between two ticks."""
    long = max(WEEK, spec.kpis.psi.window // WEEK * WEEK) if spec.kpis.psi else 4 * WEEK
    return tuple(length for length in sorted({HOUR, DAY, WEEK, long}) if length >= step or length == long)


def evaluate(reference: Reference, slices: Slices, spec: ModelSpec, now: datetime, step: timedelta) -> Report:
    """Everything one tick has to say.

    Args:
        reference: frozen with the champion.
        slices: the champion's profiles since it was armed.
        spec: thresholds.
        now: end of the newest window.
        step: time between two ticks; windows shorter than it would leave gaps and are not evaluated.
    """
    lengths = window_lengths(spec, step)
    findings: list[FeatureFinding] = []
    for length in lengths:
        window = sliding(now, length)
        if window.start >= slices.armed_at:
            findings += _features(reference, slices.merge(window), window)
    return Report(
        now, kpis.evaluate(reference, slices, spec, now, lengths, findings), tuple(findings), reference.provisional
    )


def _features(reference: Reference, current: Profile, window: Window) -> list[FeatureFinding]:
    """Findings of one window: one p-value a column, Benjamini-Hochberg over the columns."""
    compared = _Compared(reference, window.length, reference.matched(window), current)
    claim = _no_claim(reference, compared.null, window.length)
    found = [f for name in reference.binning.columns if (f := _finding(name, compared, claim)) is not None]
    if not found:
        return []
    rate = false_discovery_rate(window.length)
    testable = [f.p_value if f.drift is not None else float("nan") for f in found]
    significant = benjamini_hochberg(testable, rate)
    return [_confirmed(f, bool(hit), compared, rate) for f, hit in zip(found, significant, strict=True)]


@dataclass(frozen=True)
class _Compared:
    """A window beside what the reference holds of the same hours."""

    reference: Reference
    length: timedelta
    matched: Profile
    current: Profile

    @property
    def null(self) -> Null:
        return self.reference.nulls[self.length]

    @property
    def missing_null(self) -> Null:
        return self.reference.missing_nulls[self.length]

    def is_numeric(self, name: str) -> bool:
        return isinstance(self.reference.binning.columns[name], NumericBins)

    def coarse(self, name: str) -> tuple[Ints, Ints]:
        """Both sides' counts of the known bins; one that neither side has is none."""
        return _occupied(self.matched.coarse(name), self.current.coarse(name))

    def levels(self, name: str) -> tuple[Ints, Ints]:
        """As `coarse`, with the levels that the reference does not know as one more bin."""
        before, after = (np.append(p.coarse(name), p.unseen(name)) for p in (self.matched, self.current))
        return _occupied(before, after)

    def usable(self, name: str) -> tuple[tuple[int, int], tuple[int, int]]:
        """Both sides' rows (with a usable value, without one)."""
        before, after = (
            (int(p.bins(name).sum()) + p.unseen(name), p.missing(name)) for p in (self.matched, self.current)
        )
        return before, after


@dataclass(frozen=True)
class _Test:
    p_value: float
    distance: float
    lower: float
    n_effective: float
    m_effective: float


def _occupied(before: Ints, after: Ints) -> tuple[Ints, Ints]:
    some = before + after > 0
    return before[some], after[some]


def _no_claim(reference: Reference, null: Null, length: timedelta) -> str:
    if length >= 4 * WEEK and reference.span.length < YEAR:
        days = reference.span.length.days
        return f"a reference of {days} d, under a year, makes no claim about a window of {length.days} d"
    if null.windows < LEAST_WINDOWS:
        return f"only {null.windows} healthy windows of this length in the reference, {LEAST_WINDOWS} are needed"
    return ""


def _finding(name: str, compared: _Compared, claim: str) -> FeatureFinding | None:
    """Statistics of one column; `drift` is False where it may be tested, None where no claim is made."""
    before, after = compared.coarse(name)
    m, n = int(before.sum()), int(after.sum())
    if m == 0:
        return None
    if n == 0:
        return _without_values(name, compared)
    phi = _overdispersion(compared.null, name)
    ks = _ks(name, compared)
    values, missing = _values_test(name, compared, ks, phi), _missing_test(name, compared)
    test = missing if missing and missing.lower > values.lower else values
    p_value = min(1.0, 2 * min(values.p_value, missing.p_value)) if missing else values.p_value
    reason = claim or _too_few(test)
    if math.isnan(compared.null.phi[name]) and not reason:
        reason = "how much this column varies by itself is not known: too few healthy windows with enough rows"
    return FeatureFinding(
        name,
        compared.length,
        n,
        test.n_effective,
        psi(before, after),
        psi_lower_bound(before, after, phi=phi),
        hellinger(before, after),
        ks.low if ks else None,
        ks.high if ks else None,
        p_value,
        test.distance,
        test.lower,
        compared.current.beyond(name),
        None if reason else False,
        _missing_direction(name, compared) if test is missing else _direction(name, compared),
        reason,
    )


def _without_values(name: str, compared: _Compared) -> FeatureFinding | None:
    """No claim, and said, where the reference lets expect enough values; else the next longer window speaks."""
    usable, missing = compared.usable(name)[0]
    if compared.current.rows * usable / (usable + missing) < LEAST_ROWS:
        return None
    unknown = compared.current.unseen(name) > 0
    reason = "only levels that the reference does not know" if unknown else "no usable value in the window"
    return FeatureFinding(name, compared.length, 0, 0.0, 0.0, 0.0, 0.0, None, None, 1.0, 0.0, 0.0, 0, None, "", reason)


def _overdispersion(null: Null, name: str) -> float:
    return null.phi[name] if null.phi[name] >= IID_BELOW else 1.0


def _too_few(test: _Test) -> str:
    if test.n_effective < LEAST_ROWS:
        return f"{test.n_effective:.0f} effective rows, {LEAST_ROWS} are needed"
    if test.m_effective < LEAST_ROWS:
        return f"{test.m_effective:.0f} effective rows of these hours in the reference, {LEAST_ROWS} are needed"
    return ""


def _ks(name: str, compared: _Compared) -> KsInterval | None:
    bins = compared.reference.binning.columns[name]
    if not isinstance(bins, NumericBins):
        return None
    return ks_interval(compared.matched.bins(name), compared.current.bins(name), bins.atom)


def _values_test(name: str, compared: _Compared, ks: KsInterval | None, phi: float) -> _Test:
    """Kolmogorov-Smirnov, or chi2 on the levels and total variation."""
    if ks:
        m, n = (float(p.bins(name).sum()) / phi for p in (compared.matched, compared.current))
        return _Test(ks_p_value(ks.low, n, m), ks.low, ks_lower_bound(ks.low, n, m), n, m)
    return _levels_test(*compared.levels(name), phi)


def _levels_test(before: npt.ArrayLike, after: npt.ArrayLike, phi: float) -> _Test:
    m, n = (float(np.sum(side)) / phi for side in (before, after))
    lower = total_variation_lower_bound(before, after, n=m, m=n)
    return _Test(psi_p_value(psi(before, after), np.size(before), n, m), total_variation(before, after), lower, n, m)


def _missing_test(name: str, compared: _Compared) -> _Test | None:
    """Chi2 on the share of rows without a usable value; None where no row of either side misses one."""
    before, after = compared.usable(name)
    if before[1] + after[1] == 0:
        return None
    return _levels_test(before, after, _overdispersion(compared.missing_null, name))


def _confirmed(finding: FeatureFinding, significant: bool, compared: _Compared, rate: float) -> FeatureFinding:
    """DRIFT: significant, matters, seconded by PSI or the moments, and beyond what healthy windows ever showed."""
    if finding.drift is None or not significant:
        return finding
    if finding.distance_lower <= LEAST_DISTANCE:
        return replace(finding, reason=f"significant, but the difference may be below {LEAST_DISTANCE}")
    name, of_missing = finding.name, finding.direction in MISSING_DIRECTIONS
    if not of_missing and compared.is_numeric(name) and not _seconded(finding, compared, rate):
        return replace(finding, reason="significant, but neither PSI nor the moments second it")
    null = compared.missing_null if of_missing else compared.null
    statistic = psi(*(compared.usable(name) if of_missing else compared.levels(name)))
    if null.phi[name] >= IID_BELOW and statistic <= null.ceiling * null.scale[name]:
        return replace(finding, reason="within what healthy windows of the reference showed")
    level = "" if null.windows * rate >= 1 else f" (level extrapolated from {null.windows} healthy windows)"
    return replace(finding, drift=True, reason=f"p = {finding.p_value:.1e}, distance {finding.distance:.3f}{level}")


def _seconded(finding: FeatureFinding, compared: _Compared, rate: float) -> bool:
    """Numbers only: of levels, and of the missing share, chi2 is the one test there is."""
    name, phi = finding.name, finding.n / finding.n_effective
    before, after = compared.coarse(name)
    n, m = int(after.sum()), int(before.sum())
    if psi_p_value(finding.psi, len(before), n, m, phi) <= rate:
        return True
    (mean_ref, var_ref), (mean_now, var_now) = compared.matched.moments(name), compared.current.moments(name)
    sizes = (m / phi, n / phi)
    tests = [welch_p_value(mean_ref, var_ref, sizes[0], mean_now, var_now, sizes[1])]
    if min(var_ref, var_now) > 0:
        tests.append(log_variance_ratio_p_value(var_ref, sizes[0], var_now, sizes[1]))
    return min(tests) <= rate / 2


def _missing_direction(name: str, compared: _Compared) -> str:
    before, after = (missing / (usable + missing) for usable, missing in compared.usable(name))
    return MISSING_DIRECTIONS[0] if after > before else MISSING_DIRECTIONS[1]


def _direction(name: str, compared: _Compared) -> str:
    """What moved most, in words: up, down, wider, narrower, new levels, other mix."""
    if not compared.is_numeric(name):
        return "new levels" if compared.current.unseen(name) > 0.01 * compared.usable(name)[1][0] else "other mix"
    (mean_ref, var_ref), (mean_now, var_now) = compared.matched.moments(name), compared.current.moments(name)
    shift, ratio = mean_now - mean_ref, (var_now + 1e-12) / (var_ref + 1e-12)
    if abs(shift) >= abs(ratio**0.5 - 1):
        return "up" if shift > 0 else "down"
    return "wider" if ratio > 1 else "narrower"
