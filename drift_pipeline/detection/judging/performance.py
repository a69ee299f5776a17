"""Performance: how good a model is on labelled rows. One measure a task, and what is asked of each is the same.

A `gain` is positive where it got better: percentage points of AUROC as a share, or the share of the MAE that is gone.
All margins and thresholds are gains or falls (a fall is a lost gain), so nobody else needs to know which is better.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.detection.statistics.mae import paired_mae_gain
from drift_pipeline.spec import ModelSpec, Task

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows: the candidate's gain over the champion, with its standard error, and both values."""

    gain: float
    standard_error: float
    candidate: float
    champion: float


class Performance(ABC):
    """`kpi` is its name in specs, reports and records, `name` its name in words, `needs` what labels must hold."""

    kpi: ClassVar[str]
    name: ClassVar[str]
    needs: ClassVar[str]
    higher_is_better: ClassVar[bool]

    @abstractmethod
    def allowed(self, spec: ModelSpec) -> float | None:
        """The fall that the spec allows; None where the KPI is off."""

    @abstractmethod
    def compare(self, labels: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike) -> Comparison:
        """Raises ValueError where the labels cannot tell, or a number is not finite."""

    @abstractmethod
    def ignorant(self, labels: Floats) -> Floats:
        """Predictions (n,) of what knows no feature: a constant."""

    @abstractmethod
    def enough(self, labels: Floats, least: int) -> bool:
        """Whether labels (n,) hold what a comparison needs; `least` is per class, or half of the rows."""

    @abstractmethod
    def counted(self, labels: Floats) -> str:
        """How many labels there are, in words."""

    @abstractmethod
    def wanted(self, least: int) -> str:
        """What `enough` asks for, in words."""

    @abstractmethod
    def gain(self, before: float, after: float) -> float: ...

    @abstractmethod
    def fall(self, change: float) -> float:
        """The fall that the KPI's value says, which is a change: below 0 where AUROC fell, above where MAE rose."""

    @abstractmethod
    def after(self, baseline: float, change: float) -> float:
        """What a baseline comes to by a change as the KPI tells it."""

    @abstractmethod
    def shown(self, value: float) -> str: ...

    @abstractmethod
    def shown_gain(self, gain: float) -> str:
        """As a change of the number itself."""

    def of(self, labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float | None:
        """Of rows (n,); None where the labels cannot tell."""
        known = np.asarray(labels, dtype=np.float64)
        return self.compare(known, predictions, predictions).candidate if self.enough(known, 1) else None

    def told(self, value: float | None) -> str:
        return f"{self.name} {'unknown' if value is None else self.shown(value)}"

    def moved(self, before: float | None, after: float | None) -> str:
        """From one model to another: `AUROC 0.604 -> 0.719`, `MAE 3.1 -> 3.4 (+9.7 %)`."""
        return f"{self.told(before)} -> {'unknown' if after is None else self.shown(after)}"


class _Auroc(Performance):
    kpi, name, needs, higher_is_better = "auroc", "AUROC", "both classes", True

    def allowed(self, spec: ModelSpec) -> float | None:
        return spec.kpis.auroc.drop if spec.kpis.auroc else None

    def compare(self, labels: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike) -> Comparison:
        found = paired_auroc_difference(labels, candidate, champion)
        return Comparison(found.delta, found.standard_error, found.candidate, found.champion)

    def ignorant(self, labels: Floats) -> Floats:
        return np.zeros(labels.shape)

    def enough(self, labels: Floats, least: int) -> bool:
        return bool(min(np.count_nonzero(labels), np.count_nonzero(labels == 0)) >= least)

    def counted(self, labels: Floats) -> str:
        return f"{np.count_nonzero(labels)} positive and {np.count_nonzero(labels == 0)} negative labels"

    def wanted(self, least: int) -> str:
        return f"{least} of each"

    def gain(self, before: float, after: float) -> float:
        return after - before

    def fall(self, change: float) -> float:
        return -change

    def after(self, baseline: float, change: float) -> float:
        return baseline + change

    def shown(self, value: float) -> str:
        return f"{value:.3f}"

    def shown_gain(self, gain: float) -> str:
        return f"{gain:+.3f}"


class _Mae(Performance):
    kpi, name, needs, higher_is_better = "mae", "MAE", "labels that differ", False

    def allowed(self, spec: ModelSpec) -> float | None:
        return spec.kpis.mae.rise if spec.kpis.mae else None

    def compare(self, labels: npt.ArrayLike, candidate: npt.ArrayLike, champion: npt.ArrayLike) -> Comparison:
        found = paired_mae_gain(labels, candidate, champion)
        return Comparison(found.gain, found.standard_error, found.candidate, found.champion)

    def ignorant(self, labels: Floats) -> Floats:
        return np.full(labels.shape, np.median(labels))

    def enough(self, labels: Floats, least: int) -> bool:
        return len(labels) >= 2 * least

    def counted(self, labels: Floats) -> str:
        return f"{len(labels)} labels"

    def wanted(self, least: int) -> str:
        return f"{2 * least}"

    def gain(self, before: float, after: float) -> float:
        return 1 - after / before if before else 0.0

    def fall(self, change: float) -> float:
        return change

    def after(self, baseline: float, change: float) -> float:
        return baseline * (1 + change)

    def shown(self, value: float) -> str:
        return f"{value:.4g}"

    def shown_gain(self, gain: float) -> str:
        return f"{0.0 - gain:+.1%}".replace("%", " %")  # 0 - 0 is +0, -0 is not

    def moved(self, before: float | None, after: float | None) -> str:
        change = "" if before is None or after is None else f" ({self.shown_gain(self.gain(before, after))})"
        return super().moved(before, after) + change


PERFORMANCE: Mapping[Task, Performance] = {"binary_classification": _Auroc(), "regression": _Mae()}


def performance_of(spec: ModelSpec) -> Performance:
    return PERFORMANCE[spec.task]


def measured_by(document: Mapping[str, Any]) -> Performance:
    """The measure under whose name a record or a summary holds its numbers."""
    return next(measure for measure in PERFORMANCE.values() if measure.kpi in document)
