"""The monitor: one tick over all windows and KPIs of one model; a pure function of reference, slices and time."""

from dataclasses import replace
from datetime import datetime, timedelta

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.detection import kpis
from drift_pipeline.detection.binning import SCORE, NumericBins
from drift_pipeline.detection.profile import Profile
from drift_pipeline.detection.reference import LEAST_ROWS, LEAST_WINDOWS, YEAR, Null, Reference
from drift_pipeline.detection.statistics.hellinger import hellinger
from drift_pipeline.detection.statistics.ks import (
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
    matched = reference.matched(window)
    null = reference.nulls[window.length]
    claim = _no_claim(reference, null, window.length)
    found = [
        finding
        for name in reference.binning.columns
        if (finding := _finding(name, matched, current, null, window.length, claim)) is not None
    ]
    rate = false_discovery_rate(window.length)
    testable = [f.p_value if f.drift is not None else float("nan") for f in found]
    if not found:
        return []
    significant = benjamini_hochberg(testable, rate)
    return [_confirmed(f, bool(hit), matched, current, null, rate) for f, hit in zip(found, significant, strict=True)]


def _no_claim(reference: Reference, null: Null, length: timedelta) -> str:
    if length >= 4 * WEEK and reference.span.length < YEAR:
        days = reference.span.length.days
        return f"a reference of {days} d, under a year, makes no claim about a window of {length.days} d"
    if null.windows < LEAST_WINDOWS:
        return f"only {null.windows} healthy windows of this length in the reference, {LEAST_WINDOWS} are needed"
    return ""


def _finding(
    name: str, matched: Profile, current: Profile, null: Null, length: timedelta, claim: str
) -> FeatureFinding | None:
    """Statistics of one column; `drift` is False where it may be tested, None where no claim is made."""
    bins = matched.binning.columns[name]
    reference, now = matched.coarse(name), current.coarse(name)
    m, n = int(reference.sum()), int(now.sum())
    missing = 0 if name == SCORE else current.missing(name)
    if m == 0 or n + missing + current.unseen(name) == 0:
        return None
    phi = null.phi[name] if null.phi[name] >= IID_BELOW else 1.0
    n_eff, m_eff = n / phi, m / phi
    if n == 0:
        reason = "no usable value in the window" if missing else "only levels that the reference does not know"
        return FeatureFinding(name, length, 0, 0.0, 0.0, 0.0, 0.0, None, None, 1.0, 0.0, 0.0, 0, None, "", reason)
    ks = None
    if isinstance(bins, NumericBins):
        ks = ks_interval(matched.bins(name), current.bins(name), bins.atom)
        distance, lower = ks.low, ks_lower_bound(ks.low, n_eff, m_eff)
        p_value = float(ks_p_value(ks.low, n_eff, m_eff))
    else:
        before, after = (*reference, matched.unseen(name)), (*now, current.unseen(name))
        distance = total_variation(before, after)
        lower = total_variation_lower_bound(before, after, n=m_eff, m=n_eff)
        p_value = psi_p_value(psi(before, after), len(before), n_eff, m_eff)
    p_value, distance, lower = _with_missing(name, matched, current, (p_value, distance, lower), phi)
    reason = claim or ("" if n_eff >= LEAST_ROWS else f"{n_eff:.0f} effective rows, {LEAST_ROWS} are needed")
    if null.phi[name] != null.phi[name] and not reason:
        reason = "how much this column varies by itself is not known: too few healthy windows with enough rows"
    return FeatureFinding(
        name,
        length,
        n,
        n_eff,
        psi(reference, now),
        psi_lower_bound(reference, now, phi=phi),
        hellinger(reference, now),
        ks.low if ks else None,
        ks.high if ks else None,
        p_value,
        distance,
        lower,
        current.beyond(name),
        None if reason else False,
        _direction(name, matched, current),
        reason,
    )


def _with_missing(
    name: str, matched: Profile, current: Profile, found: tuple[float, float, float], phi: float
) -> tuple[float, float, float]:
    """The column's p-value, distance and bound, or those of its missing share where that moved farther."""
    if name == SCORE:
        return found
    sides = [(int(p.bins(name).sum()) + p.unseen(name), p.missing(name)) for p in (matched, current)]
    m, n = (sum(side) / phi for side in sides)
    p_missing = psi_p_value(psi(*sides), 2, n, m)
    p_value = min(1.0, 2 * min(found[0], p_missing))
    distance = total_variation(*sides)
    if distance <= found[1]:
        return p_value, found[1], found[2]
    return p_value, distance, total_variation_lower_bound(sides[0], sides[1], n=m, m=n)


def _confirmed(
    finding: FeatureFinding, significant: bool, matched: Profile, current: Profile, null: Null, rate: float
) -> FeatureFinding:
    """DRIFT: significant, matters, seconded by PSI or the moments, and beyond what healthy windows ever showed."""
    if finding.drift is None or not significant:
        return finding
    if finding.distance_lower <= LEAST_DISTANCE:
        return replace(finding, reason=f"significant, but the difference may be below {LEAST_DISTANCE}")
    if not _seconded(finding, matched, current, rate):
        return replace(finding, reason="significant, but neither PSI nor the moments second it")
    overdispersed = null.phi[finding.name] >= IID_BELOW
    if overdispersed and finding.psi <= null.ceiling * null.scale[finding.name]:
        return replace(finding, reason="within what healthy windows of the reference showed")
    level = "" if null.windows * rate >= 1 else f" (level extrapolated from {null.windows} healthy windows)"
    return replace(finding, drift=True, reason=f"p = {finding.p_value:.1e}, distance {finding.distance:.3f}{level}")


def _seconded(finding: FeatureFinding, matched: Profile, current: Profile, rate: float) -> bool:
    name = finding.name
    n, m = int(current.bins(name).sum()), int(matched.bins(name).sum())
    phi = max(n / finding.n_effective, 1.0)
    if psi_p_value(finding.psi, len(matched.coarse(name)), n, m, phi) <= rate:
        return True
    if not isinstance(matched.binning.columns[name], NumericBins):
        return True  # levels: chi2 is the one test there is
    (mean_ref, var_ref), (mean_now, var_now) = matched.moments(name), current.moments(name)
    sizes = (m / phi, n / phi)
    tests = [welch_p_value(mean_ref, var_ref, sizes[0], mean_now, var_now, sizes[1])]
    if min(var_ref, var_now) > 0:
        tests.append(log_variance_ratio_p_value(var_ref, sizes[0], var_now, sizes[1]))
    return min(tests) <= rate / 2


def _direction(name: str, matched: Profile, current: Profile) -> str:
    """What moved most, in words: up, down, wider, narrower, more missing, new levels, other mix."""
    rows = max(current.rows, 1)
    if name != SCORE and current.missing(name) / rows - matched.missing(name) / max(matched.rows, 1) > LEAST_DISTANCE:
        return "more missing"
    if not isinstance(matched.binning.columns[name], NumericBins):
        return "new levels" if current.unseen(name) / rows > 0.01 else "other mix"
    (mean_ref, var_ref), (mean_now, var_now) = matched.moments(name), current.moments(name)
    shift, ratio = mean_now - mean_ref, (var_now + 1e-12) / (var_ref + 1e-12)
    if abs(shift) >= abs(ratio**0.5 - 1):
        return "up" if shift > 0 else "down"
    return "wider" if ratio > 1 else "narrower"
