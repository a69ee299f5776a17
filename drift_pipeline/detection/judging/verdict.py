"""What monitoring says: verdicts, findings per feature, results per KPI, and the report of one tick."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cached_property
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
GATING = ("psi", "auroc", "mae", "demographic_parity")  # KPIs that a retrain may follow from


@dataclass(frozen=True)
class FeatureFinding:
    """One watched column in one window.

    n, n_effective: rows whose values are compared (0: the missing share alone is), and rows over phi; p_value: of
    Kolmogorov-Smirnov (numbers), or chi2 and more unseen levels than expected (levels), and of the missing share,
    Bonferroni over those that are asked; distance: KS D or total variation, or of the missing share, and its lower 99 %
    bound; drift: None = no claim.
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
    """One KPI at one tick: value against threshold, with the bound that decided and its reason.

    Of one that is INCONCLUSIVE: `judged_at`, when it can be judged if rows and labels go on as they come (None: that
    cannot be told); `overdue`, whether it should have been by now.
    """

    name: str
    verdict: Verdict
    value: float | None
    threshold: float | None
    bound: float | None
    window: timedelta | None
    n: int
    reason: str
    judged_at: datetime | None = None
    overdue: bool = False

    @property
    def configured(self) -> bool:
        """Whether it is asked for and counts in a roll-up, which a hint does not: it never says that all is well."""
        return self.verdict is not Verdict.NOT_CONFIGURED and self.name not in HINTS

    @property
    def judged(self) -> bool:
        return self.verdict in (Verdict.OK, Verdict.WARN, Verdict.BREACH)

    def to_json(self) -> dict[str, Any]:
        window = format_duration(self.window) if self.window else None
        at = self.judged_at.isoformat() if self.judged_at else None
        return {**asdict(self), "verdict": str(self.verdict), "window": window, "judged_at": at}


@dataclass(frozen=True)
class RollUp:
    """One verdict of several KPIs, and of two tables' columns, with how many of them it is of.

    `columns`: how many were judged, and of how many; None where only KPIs count. `silent`: the columns that were not,
    and why.
    """

    verdict: Verdict
    judged: int
    configured: int
    not_judged: tuple[KpiResult, ...] = ()
    columns: tuple[int, int] | None = None
    silent: Mapping[str, str] = field(default_factory=dict)

    def asking(self, least: float) -> "RollUp":
        """INCONCLUSIVE where it would be OK of fewer columns: a number of them, or as a float a share."""
        judged, of = self.columns or (0, 0)
        wanted = least * of - 1e-9 if isinstance(least, float) else least  # a share of 0.29 of 100 is 28.999...
        return replace(self, verdict=Verdict.INCONCLUSIVE) if self.verdict is Verdict.OK and judged < wanted else self

    def told(self) -> str:
        """The one wording of a verdict, wherever a person reads it."""
        return told_verdict(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """`verdict` is a plain word."""
        waiting = {
            kpi.name: {"reason": kpi.reason, "judged_at": kpi.judged_at.isoformat() if kpi.judged_at else None}
            for kpi in self.not_judged
        }
        told = {"verdict": str(self.verdict), "judged": self.judged, "configured": self.configured}
        if self.columns is None:
            return {**told, "not_judged": waiting}
        judged, of = self.columns
        return {**told, "not_judged": waiting, "columns": {"judged": judged, "of": of, "not_judged": dict(self.silent)}}


def told_verdict(document: Mapping[str, Any]) -> str:
    """A roll-up that was written as JSON, in words; of documents that are older than the counts the word alone.

    >>> told_verdict({"verdict": "OK", "judged": 2, "configured": 5})
    'OK (2 of 5 judged)'
    >>> told_verdict({"verdict": "OK", "judged": 1, "configured": 2, "columns": {"judged": 14, "of": 15}})
    'OK (14 of 15 columns, 1 of 2 KPIs judged)'
    """
    verdict, configured = str(document["verdict"]), document.get("configured", 0)
    kpis, columns = f"{document.get('judged', 0)} of {configured}", document.get("columns")
    if not columns:
        return f"{verdict} ({kpis} judged)" if configured else verdict
    counted = f"{columns['judged']} of {columns['of']} columns"
    return f"{verdict} ({counted}, {kpis} KPIs judged)" if configured else f"{verdict} ({counted} judged)"


def told_waiting(not_judged: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why each KPI of a roll-up's JSON is not judged, and when it can be.

    >>> told_waiting({"psi": {"reason": "no window has rows yet", "judged_at": "2026-03-01T12:15:00+00:00"}})
    ['psi: no window has rows yet; can be judged from 2026-03-01 12:15 UTC on']
    """
    return [f"{name}: {told_reason(one['reason'], one.get('judged_at'))}" for name, one in not_judged.items()]


def told_reason(reason: str, judged_at: str | datetime | None) -> str:
    """With the time from which it can be judged, where that is known and not told by the reason itself."""
    if not judged_at:
        return reason
    at = datetime.fromisoformat(judged_at) if isinstance(judged_at, str) else judged_at
    told = f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return reason if told in reason else f"{reason}; can be judged from {told} on"


def roll_up(kpis: Iterable[KpiResult], columns: Mapping[str, tuple[Verdict, str]] | None = None) -> RollUp:
    """The worst of KPIs, and of two tables' columns; without a warning OK of what was judged.

    INCONCLUSIVE where nothing was judged, or where a KPI that gates retraining should have been by now: an OK that
    leaves out for good what a retrain would follow from says less than it seems to.

    Args:
        columns: verdict and reason of each compared column; None where a model is watched and only KPIs count.
    """
    told = tuple(kpis)
    counted = [kpi for kpi in told if kpi.configured]
    silent = tuple(kpi for kpi in counted if not kpi.judged)
    said = {kpi.verdict for kpi in told} | {verdict for verdict, _ in (columns or {}).values()}
    worst: Verdict | None = next((verdict for verdict in (Verdict.BREACH, Verdict.WARN) if verdict in said), None)
    if columns is not None:
        mute = {name: reason for name, (verdict, reason) in columns.items() if verdict is Verdict.INCONCLUSIVE}
        known = Verdict.OK if len(mute) < len(columns) else Verdict.INCONCLUSIVE
        judged = len(columns) - len(mute), len(columns)
        return RollUp(worst or known, len(counted) - len(silent), len(counted), silent, judged, mute)
    if worst is None and not counted:
        worst = Verdict.INCONCLUSIVE if Verdict.INCONCLUSIVE in said else Verdict.NOT_CONFIGURED
    overdue = any(kpi.overdue and kpi.name in GATING for kpi in silent)
    known = Verdict.INCONCLUSIVE if overdue or len(silent) == len(counted) else Verdict.OK
    return RollUp(worst or known, len(counted) - len(silent), len(counted), silent)


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

    @cached_property
    def rolled_up(self) -> RollUp:
        """The model's verdict, with how many of its KPIs it is of."""
        return roll_up(self.kpis.values())

    @property
    def verdict(self) -> Verdict:
        """As `roll_up` says."""
        return self.rolled_up.verdict
