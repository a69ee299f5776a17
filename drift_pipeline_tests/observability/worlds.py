"""A home whose model stands as its tests say, and what is told of it to Prometheus."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.store import ControlStore, Entry, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.observability.metrics import LoopMetrics
from drift_pipeline.observability.series import SERIES
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

SPEC = ModelSpec.model_validate(
    {
        **{"name": "fraud", "owner": "ann@example.com", "task": "binary_classification"},
        **{"columns": {"timestamp": "at"}, "features": {"amount": "numeric"}, "outcome": {"column": "label"}},
    }
)
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
Told = dict[tuple[str, ...], float]


def seen(**more: Any) -> dict[str, Any]:
    """What a tick remembers of a model that drifts in one column."""
    kpi = {"verdict": "BREACH", "value": 0.5, "threshold": 0.2, "bound": 0.4, "window": "30d", "n": 9000, "reason": ""}
    quiet = {"verdict": "INCONCLUSIVE", "value": None, "threshold": -0.05, "bound": None, "window": None, "n": 0}
    column = {"psi": 0.5, "distance": 0.3, "drift": True, "window": "30d"}
    return {
        "verdict": "BREACH",
        "judged": 1,
        "configured": 2,
        "labels": {"landed": 10, "joined": 9, "judged": 0},
        "kpis": {"psi": kpi, "auroc": quiet, "range_z": {**quiet, "verdict": "NOT_CONFIGURED"}},
        "drifting_columns": 1,
        "worst": [{**column, "name": f"c{number}", "psi": 0.5 - number / 100} for number in range(20)],
        **more,
    }


class World:
    """A home whose model `fraud` stands as its tests say."""

    def __init__(self, folder: Path) -> None:
        self.settings, self.clock = Settings(home=folder, database=""), ManualClock(AT)
        self.store = open_store(self.settings, self.clock)
        self.metrics = LoopMetrics(self.settings, {"fraud": SPEC}, self.clock, self.opened)
        self.put("model", "fraud", {"version": "v1"})

    @contextmanager
    def opened(self) -> Iterator[ControlStore]:
        yield self.store

    def put(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        found = self.store.get(kind, key)
        self.store.commit(Entry("test", "put", key), [Put(kind, key, body, found.generation if found else 0)])

    def ticked(self, *, told: Mapping[str, Any] | None = None, **incident: Any) -> None:
        """
        Args:
            told: of what was seen, in place of what a tick sees else.
        """
        open_one = {"open": False, "key": "", "opened_at": None, **incident}
        decided = ["drift", "k1", "retrain"]
        found = self.store.recall("fraud")
        body = {"at": AT.isoformat(), "seen": seen(**(told or {})), "decided": decided, "incident": open_one}
        self.store.remember(Put("", "fraud", body, found.generation if found else 0))

    def told(self) -> Mapping[str, Told]:
        return read(self.text())

    def text(self) -> str:
        registry = CollectorRegistry()
        registry.register(self.metrics)
        return generate_latest(registry).decode()


def read(text: str) -> Mapping[str, Told]:
    """By series' name, the samples by the values of their labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = SERIES[sample.name].labels if sample.name in SERIES else sample.labels
            found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in labels)] = sample.value
    return found
