"""What monitoring says: verdicts, findings per feature, results per KPI, and the report of one tick."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from drift_pipeline.clock import DAY, format_duration


class Verdict(StrEnum):
    """Missing evidence is INCONCLUSIVE, never OK; what the spec or the data does not have is NOT_CONFIGURED."""

    OK = "OK"
    WARN = "WARN"
    BREACH = "BREACH"
    INCONCLUSIVE = "INCONCLUSIVE"
    NOT_CONFIGURED = "NOT_CONFIGURED"


HINTS = ("estimated_auroc", "multivariate")  # KPIs that may warn and never say that all is well


@dataclass(frozen=True)
class FeatureFinding:
    """One watched column in one window.

    n, n_effective: rows and rows over phi; p_value: Kolmogorov-Smirnov (numbers) or chi2 (levels) and missing share,
    Bonferroni over the two; distance: KS D or total variation and its lower 99 % bound; drift: None = no claim.
    """

    name: str
    window: timedelta
    n: int
    n_effective: float
    psi: float
    psi_lower: float
    hellinger: float
    ks_low: float | None
    ks_high: float | None
    p_value: float
    distance: float
    distance_lower: float
    beyond: int
    drift: bool | None
    direction: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "window": format_duration(self.window)}


def told_p(p_value: float) -> str:
    """A p-value in words; below 1e-99 its digits tell nothing.

    >>> told_p(0.00123), told_p(0.0)
    ('p = 1.2e-03', 'p < 1e-99')
    """
    return f"p = {p_value:.1e}" if p_value >= 1e-99 else "p < 1e-99"


@dataclass(frozen=True)
class KpiResult:
    """One KPI at one tick: value against threshold, with the bound that decided and its reason."""

    name: str
    verdict: Verdict
    value: float | None
    threshold: float | None
    bound: float | None
    window: timedelta | None
    n: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        window = format_duration(self.window) if self.window else None
        return {**asdict(self), "verdict": str(self.verdict), "window": window}


@dataclass(frozen=True)
class Report:
    """All that one tick found; `provisional` where the reference is short, `shortest` the window that fills first."""

    at: datetime
    kpis: dict[str, KpiResult]
    features: tuple[FeatureFinding, ...]
    provisional: bool
    shortest: timedelta = timedelta()

    @property
    def drifting(self) -> tuple[str, ...]:
        """Names of drifting columns, the largest distance first."""
        found = sorted((f for f in self.features if f.drift), key=lambda f: -f.distance)
        return tuple(dict.fromkeys(f.name for f in found))

    @property
    def sudden(self) -> bool:
        """Whether a column drifts in a window under a day: not to be waited out."""
        return any(f.drift and f.window < DAY for f in self.features)

    @property
    def verdict(self) -> Verdict:
        """The worst KPI; INCONCLUSIVE only where nothing was conclusive."""
        verdicts = [kpi.verdict for kpi in self.kpis.values()]
        order = (Verdict.BREACH, Verdict.WARN, Verdict.OK, Verdict.INCONCLUSIVE)
        return next((v for v in order if v in verdicts), Verdict.NOT_CONFIGURED)
