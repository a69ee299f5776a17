"""Evidently: our stattests, which look the finding up, and our blocks, which show the monitor's own numbers.

Evidently's statistics are not used: they bin reference and current together, so that their edges move with every
window.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl

from drift_pipeline.detection.judging.verdict import FeatureFinding
from drift_pipeline.detection.report.tables import short, verdict_of
from drift_pipeline.detection.thresholds import LEAST_DISTANCE
from drift_pipeline.spec import ColumnType, ModelSpec

PSI, HELLINGER, KS = "monitor_psi", "monitor_hellinger", "monitor_ks"

_findings: ContextVar[Mapping[str, FeatureFinding]] = ContextVar("findings of the report that is being rendered")


def block_of(finding: FeatureFinding, kind: ColumnType, spec: ModelSpec) -> dict[str, Any]:
    """What a drawn column's block is made of: big numbers, and (method, threshold) of each of its metrics.

    Hellinger is reported, not tested; its threshold is PSI's on its own scale, PSI ~ 8 H^2.
    """
    ceiling = spec.kpis.psi.threshold if spec.kpis.psi else 0.2
    methods = [(PSI, ceiling), (HELLINGER, math.sqrt(ceiling / 8))]
    numbers = [(short(finding.psi, ".3f"), "PSI"), (short(finding.hellinger, ".3f"), "Hellinger")]
    if kind == "numeric" and finding.ks_low is not None:
        methods.append((KS, LEAST_DISTANCE))
        numbers.append((short(finding.ks_low, ".3f"), "KS, lower end"))
    numbers.append((verdict_of(finding), finding.direction if finding.drift else finding.reason))
    return {"name": finding.name, "numbers": numbers, "methods": methods, "claims": finding.drift is not None}


@contextmanager
def shown(findings: Mapping[str, FeatureFinding]) -> Iterator[None]:
    """The findings that our stattests answer with; each thread has its own."""
    token = _findings.set(findings)
    try:
        yield
    finally:
        _findings.reset(token)


@contextmanager
def evidently() -> Iterator["_Evidently"]:
    """Evidently without telemetry, and with its warnings (numpy.core, litestar, 0/0 of constants) kept to itself."""
    os.environ["DO_NOT_TRACK"] = "1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield _load()


@dataclass(frozen=True)
class _Evidently:
    """The few of its names that are used, and our two kinds of block."""

    Report: Any
    Tables: Any
    Column: Any

    def dataset(self, frame: pl.DataFrame, columns: Mapping[str, ColumnType]) -> Any:
        """Rows to draw; without any column, one that nobody reads: Evidently refuses an empty frame."""
        from evidently import DataDefinition, Dataset

        if not frame.width:
            frame = pl.DataFrame({"nothing_drawn": [0.0]})
        definition = DataDefinition(
            numerical_columns=[name for name in frame.columns if columns.get(name) == "numeric"],
            categorical_columns=[name for name in frame.columns if columns.get(name) == "categorical"],
        )
        return Dataset.from_pandas(frame.to_pandas(), data_definition=definition)


@cache
def _load() -> _Evidently:
    """Import Evidently, register the stattests and define the blocks: once a process."""
    from evidently import Report as EvidentlyReport
    from evidently.core.container import MetricContainer
    from evidently.legacy.renderers.html_widgets import CounterData, counter, header_text, table_data
    from evidently.metrics import ValueDrift

    _register_stattests()

    def big(numbers: list[tuple[str, str]], title: str) -> Any:
        return counter(title=title, counters=[CounterData(label, value) for value, label in numbers])

    class Tables(MetricContainer):  # type: ignore[misc]  # Evidently ships no types
        title: str
        notes: list[tuple[str, str]]
        tables: list[tuple[str, list[str], list[list[str]]]]

        def generate_metrics(self, context: Any) -> list[Any]:  # noqa: ARG002  # Evidently's signature
            return []

        def render(self, context: Any, child_widgets: Any = None) -> list[Any]:  # noqa: ARG002
            tables = [table_data(title=name, column_names=header, data=rows) for name, header, rows in self.tables]
            return [header_text(label=self.title), big(self.notes, ""), *tables]

    class Column(MetricContainer):  # type: ignore[misc]
        name: str
        numbers: list[tuple[str, str]]
        methods: list[tuple[str, float]]
        claims: bool

        def generate_metrics(self, context: Any) -> list[Any]:  # noqa: ARG002
            """One metric a statistic; one test a column, and none without a claim: it would be shown as a success."""
            return [
                ValueDrift(
                    column=self.name,
                    method=method,
                    threshold=threshold,
                    tests=None if self.claims and method == PSI else [],
                )
                for method, threshold in self.methods
            ]

        def render(self, context: Any, child_widgets: Any = None) -> list[Any]:  # noqa: ARG002
            """The numbers, then the plots once: each metric brings the same ones."""
            _, *plots = child_widgets[0][1]
            for plot in plots:
                plot.tabs.reverse()  # the distribution first
                _in_percent(plot.tabs[0].widget.params)
            return [big(self.numbers, self.name), *plots]

    return _Evidently(EvidentlyReport, Tables, Column)


def _in_percent(plot: dict[str, Any]) -> None:
    """Press the button `perc` of a distribution: counts of 20,000 rows hide those of a small window."""
    menu = plot["layout"]["updatemenus"][0]
    shown, axes = menu["buttons"][1]["args"]
    menu["active"] = 1
    for trace, visible in zip(plot["data"], shown["visible"], strict=True):
        trace["visible"] = visible
    plot["layout"]["yaxis"]["title"] = {"text": axes["yaxis"]["title"]}


def _register_stattests() -> None:
    """Stattests under names of our own; Evidently's psi, hellinger and ks stay what they are."""
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    numeric, both = [ColumnType.Numerical], [ColumnType.Numerical, ColumnType.Categorical]

    def of(field: str) -> Any:
        def look_up(_reference: Any, current: Any, _kind: Any, _threshold: float) -> tuple[float, bool]:
            finding = _findings.get()[current.name]
            return getattr(finding, field), finding.drift is True

        return look_up

    told = "the monitor decides, not the threshold: see Columns"
    register_stattest(StatTest(PSI, f"PSI on the reference's frozen bins ({told})", both, 0.2), of("psi"))
    register_stattest(StatTest(HELLINGER, f"Hellinger, bias taken off ({told})", both, 0.16), of("hellinger"))
    register_stattest(StatTest(KS, f"lower end of Kolmogorov-Smirnov's D ({told})", numeric, 0.05), of("ks_low"))
