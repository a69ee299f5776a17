"""One profile against another, without time: the live KPIs, of a whole file or of one window of a healthy history."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from drift_pipeline.clock import DAY, WEEK, Window, format_duration
from drift_pipeline.detection.counting.binning import Ints
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.slices import Slices
from drift_pipeline.detection.judging import kpis
from drift_pipeline.detection.judging.fairness import parity_of, worst
from drift_pipeline.detection.judging.tick import Tick
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult
from drift_pipeline.detection.reference.reference import Reference
from drift_pipeline.detection.reference.residuals import HeldOut, mae_of
from drift_pipeline.detection.statistics.auroc import Auroc, binned_auroc
from drift_pipeline.spec import ModelSpec

NOW = datetime(2000, 1, 3, tzinfo=UTC)  # any whole day: it only gives windows an end
ALWAYS = datetime(1, 1, 2, tzinfo=UTC)  # since when it is watched: no window waits


def psi_window(spec: ModelSpec) -> timedelta:
    """The whole weeks that the PSI KPI is judged in."""
    return max(WEEK, spec.kpis.psi.window // WEEK * WEEK) if spec.kpis.psi else 4 * WEEK


class OneProfile(Slices):
    """Slices that hold one profile and give it as every window."""

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile.binning, ALWAYS)
        self._profile = profile
        self.labelled.add(ALWAYS, [profile.rows])

    def merge(self, window: Window) -> Profile:  # noqa: ARG002  # every window is the same
        return self._profile

    def column(self, window: Window, slot: str) -> Ints:  # noqa: ARG002  # every window is the same
        return self._profile.counts[self.binning.slots[slot]]

    def by_day(self, window: Window, days_each: int = 1) -> list[Profile]:  # noqa: ARG002  # every window is the same
        return [self._profile]


def window_kpis(
    reference: Reference, current: Profile, spec: ModelSpec, findings: list[FeatureFinding], length: timedelta
) -> dict[str, KpiResult]:
    """What the live KPIs say of a profile as a window of this length; demographic parity is not told of one profile."""
    spec = _told_of_one_profile(spec, length)
    slices = OneProfile(current)
    tick = Tick(
        reference, slices, spec, NOW, (length,), {length: current}, tuple(findings), lambda _name, _key, make: make()
    )
    return {name: _timeless(found, length) for name, found in kpis.matrix(tick).items()}


def _told_of_one_profile(spec: ModelSpec, length: timedelta) -> ModelSpec:
    """Without the hints, which want rows of many days; under a day, without what is judged by labels."""
    off = {"estimated_auroc": None, "multivariate": None, **({"auroc": None} if length < DAY else {})}
    task = "binary_classification" if length < DAY else spec.task
    return spec.model_copy(update={"task": task, "kpis": spec.kpis.model_copy(update=off)})


def _timeless(found: KpiResult, length: timedelta) -> KpiResult:
    """Without the words that are only true of a live window."""
    reason = found.reason.replace(f" over {format_duration(length)}", "")
    reason = reason.replace("held out", "in the reference").replace("the held-out", "the reference's")
    return replace(found, window=None, reason=reason)


def auroc_of(profile: Profile) -> Auroc | None:
    """Of the scores and labels counted in a profile; None where a class is missing."""
    if profile.binning.residuals is not None:
        return None
    positives, negatives = profile.labelled_scores()
    if not positives.sum() or not negatives.sum():
        return None
    return binned_auroc(positives, negatives, atom=profile.binning.score_atom)


def errors_of(profile: Profile, mae_phi: float = 1.0, counts_phi: float = 1.0) -> HeldOut | None:
    """Of a regression's residuals counted in a profile; None where no row has a label."""
    bins, slots = profile.binning.residuals, profile.binning.slots
    if bins is None or not (errors := profile.counts[slots["errors"]])[0]:
        return None
    return HeldOut(mae_of(profile.binning, errors), mae_phi, profile.counts[slots["residual"]][: bins.bins], counts_phi)


def parity(reference: Reference, current: Profile, spec: ModelSpec) -> KpiResult:
    """Demographic parity of one profile, rows taken for independent; the worst protected column."""
    kpi = spec.kpis.demographic_parity
    assert kpi is not None
    return worst(parity_of(column, reference, [current], kpi.drop, None) for column in spec.protected)
