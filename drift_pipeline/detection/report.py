"""The drift report: the monitor's own numbers, rendered by Evidently. Nothing is computed anew here.

Evidently's statistics are not used: they bin reference and current together, so that their edges move with every
window. Its stattests are ours instead and look the finding up; the rows that come along are only drawn.
"""

import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import polars as pl

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.judging.verdict import FeatureFinding, KpiResult, Report, told_reason
from drift_pipeline.detection.thresholds import LEAST_DISTANCE
from drift_pipeline.files import write_whole
from drift_pipeline.spec import Kind, ModelSpec

DRAWN_ROWS = 20_000  # per side
DRAWN_LEVELS = 20
OTHER, MISSING = "(other levels)", "(missing)"
PSI, HELLINGER, KS = "monitor_psi", "monitor_hellinger", "monitor_ks"
_CARRIED = 1e150  # numpy's histogram overflows above
_PROJECTS = uuid5(NAMESPACE_URL, "drift_pipeline/evidently")
_OFFLINE = (  # what the page may load: nothing but itself
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)

_findings: ContextVar[Mapping[str, FeatureFinding]] = ContextVar("findings of the report that is being rendered")


@dataclass(frozen=True)
class DriftFiles:
    """The page, and the run's id in the Evidently workspace."""

    html: Path
    run_id: str


def write_drift_report(
    report: Report,
    window: timedelta,
    reference: pl.DataFrame,
    current: pl.DataFrame,
    spec: ModelSpec,
    html: Path,
    workspace: Path,
) -> DriftFiles:
    """Write one tick's findings of one window as a page that works offline, and as a run for `evidently ui`.

    Every watched column is told in a table, with its reason; those that have a finding and values on both sides are
    also drawn. The run's id follows from model, window and `report.at`: rendering again takes the earlier run's
    place, in the history and on disk. Both files are replaced as a whole or not at all. Keeps Evidently's telemetry
    off in this process. Takes 10 s of CPU for Evidently's import the first time.

    Args:
        reference: rows to draw, of the watched columns and maybe `_score`; more than DRAWN_ROWS are sampled.
        current: as `reference`, of the window.
        html: the page's path; its folder is made where it is missing.
        workspace: the Evidently workspace, with one project a model.
    """
    findings = {f.name: f for f in report.features if f.window == window}
    columns = _columns(spec, findings)
    before, after = _drawable(reference, columns), _drawable(current, columns)
    undrawn = {name: why for name in columns if (why := _undrawn(findings.get(name), name, before, after))}
    drawn = [name for name in columns if name not in undrawn]
    before, after = _together(before.select(drawn), after.select(drawn))
    title = f"{spec.name}: {format_duration(window)} to {report.at:%Y-%m-%d %H:%M} UTC"
    tables = [_kpi_table(report), _column_table(columns, findings, undrawn)]
    notes = _notes(report, window, findings, reference.height, current.height)
    with _evidently() as evidently, _shown(findings):
        items = [evidently.Tables(title=title, notes=notes, tables=tables)]
        items += [evidently.Column(**_column(findings[name], columns[name], spec)) for name in drawn]
        snapshot = evidently.Report(items, include_tests=True).run(
            evidently.dataset(after, columns),
            evidently.dataset(before, columns),
            timestamp=report.at,
            name=title,
            metadata=_metadata(report, window, spec),
            tags=[format_duration(window), str(report.verdict)],
        )
        for result in snapshot.metric_results.values():
            result.widget = None  # the blocks hold what is shown; three more copies would triple the run's file
        page, run = snapshot.get_html_str(as_iframe=False), snapshot.dumps()
        project = evidently.project(workspace, spec.name)
    run_id = str(uuid5(project, f"{format_duration(window)} {report.at.isoformat()}"))
    write_whole(workspace / str(project) / "snapshots" / f"{run_id}.json", run)
    write_whole(html, _finished(page, title))
    return DriftFiles(html, run_id)


def _columns(spec: ModelSpec, findings: Mapping[str, FeatureFinding]) -> dict[str, Kind]:
    """Everything that is watched, drifting columns first, then those without a claim."""
    order = {True: 0, None: 1, False: 2}
    found_kinds: dict[str, Kind] = {f.name: "categorical" if f.ks_low is None else "numeric" for f in findings.values()}
    columns: dict[str, Kind] = {**found_kinds, **spec.watched, SCORE: "numeric"}

    def rank(name: str) -> tuple[int, float]:
        found = findings.get(name)
        return (order[found.drift], -found.distance) if found else (1, 0.0)

    return {name: columns[name] for name in sorted(columns, key=rank)}


# What is told


def _notes(
    report: Report, window: timedelta, findings: Mapping[str, FeatureFinding], before: int, after: int
) -> list[tuple[str, str]]:
    """Large words for the top: (value, label)."""
    drawn = f"; drawn: at most {DRAWN_ROWS:,} a side" if max(before, after) > DRAWN_ROWS else ""
    drifting = sum(f.drift is True for f in findings.values())
    notes = [
        (
            report.rolled_up.told(),
            "verdict of the tick" + (" (provisional: the reference is short)" * report.provisional),
        ),
        (f"{drifting} of {len(findings)}", "columns drift"),
        (f"{before:,} / {after:,}", f"reference / current rows{drawn}"),
    ]
    if not findings:
        others = ", ".join(format_duration(length) for length in sorted({f.window for f in report.features}))
        known = f"; this tick has findings of {others}" if others else ""
        notes[1] = ("none", f"no finding of the last {format_duration(window)}{known}")
    return notes


def _kpi_table(report: Report) -> tuple[str, list[str], list[list[str]]]:
    header = ["KPI", "verdict", "value", "threshold", "bound", "window", "rows", "reason"]
    return "KPIs", header, [_kpi_row(kpi) for kpi in report.kpis.values()]


def _kpi_row(kpi: KpiResult) -> list[str]:
    numbers = [_short(value) for value in (kpi.value, kpi.threshold, kpi.bound)]
    window = format_duration(kpi.window) if kpi.window else "–"
    return [kpi.name, str(kpi.verdict), *numbers, window, f"{kpi.n:,}", told_reason(kpi.reason, kpi.judged_at)]


def _column_table(
    columns: Mapping[str, Kind], findings: Mapping[str, FeatureFinding], undrawn: Mapping[str, str]
) -> tuple[str, list[str], list[list[str]]]:
    header = ["column", "verdict", "direction", "PSI", "Hellinger", "KS low", "distance", "p", "rows", "reason"]
    rows = [_column_row(name, findings.get(name), undrawn.get(name, "")) for name in columns]
    return "Columns", header, rows


def _column_row(name: str, finding: FeatureFinding | None, undrawn: str) -> list[str]:
    if finding is None:
        return [name, "no finding", *["–"] * 7, undrawn]
    reason = "; ".join(filter(None, (finding.reason, undrawn and f"not drawn: {undrawn}")))
    if finding.n == 0:  # its numbers are no measurements
        return [name, _verdict(finding), *["–"] * 6, "0", reason]
    return [
        name,
        _verdict(finding),
        finding.direction,
        *(_short(value, ".3f") for value in (finding.psi, finding.hellinger, finding.ks_low, finding.distance)),
        f"{finding.p_value:.1e}".replace("-", "\u2212"),  # a hyphen would break the line
        f"{finding.n:,}",
        reason,
    ]


def _verdict(finding: FeatureFinding) -> str:
    return "no claim" if finding.drift is None else "DRIFT" if finding.drift else "no drift"


def _short(value: float | None, digits: str = ".4g") -> str:
    return "–" if value is None else f"{value:{digits}}"


def _metadata(report: Report, window: timedelta, spec: ModelSpec) -> dict[str, Any]:
    return {
        "model": spec.name,
        "window": format_duration(window),
        "verdict": str(report.verdict),
        **{name: str(kpi.verdict) for name, kpi in report.kpis.items()},
    }


def _column(finding: FeatureFinding, kind: Kind, spec: ModelSpec) -> dict[str, Any]:
    """What a drawn column's block is made of: big numbers, and (method, threshold) of each of its metrics.

    Hellinger is reported, not tested; its threshold is PSI's on its own scale, PSI ~ 8 H^2.
    """
    ceiling = spec.kpis.psi.threshold if spec.kpis.psi else 0.2
    methods = [(PSI, ceiling), (HELLINGER, math.sqrt(ceiling / 8))]
    numbers = [(_short(finding.psi, ".3f"), "PSI"), (_short(finding.hellinger, ".3f"), "Hellinger")]
    if kind == "numeric" and finding.ks_low is not None:
        methods.append((KS, LEAST_DISTANCE))
        numbers.append((_short(finding.ks_low, ".3f"), "KS, lower end"))
    numbers.append((_verdict(finding), finding.direction if finding.drift is not None else finding.reason))
    return {"name": finding.name, "numbers": numbers, "methods": methods, "claims": finding.drift is not None}


# What is drawn


def _drawable(frame: pl.DataFrame, columns: Mapping[str, Kind]) -> pl.DataFrame:
    """At most DRAWN_ROWS rows, in their order, of the columns that the frame has: finite floats, or text."""
    if frame.height > DRAWN_ROWS:
        kept = pl.int_range(frame.height, eager=True).sample(DRAWN_ROWS, seed=0).sort()
        frame = frame[kept]
    return frame.select(
        _finite(name) if kind == "numeric" else pl.col(name).cast(pl.String)
        for name, kind in columns.items()
        if name in frame.columns
    )


def _finite(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64, strict=False)
    return pl.when(number.is_finite()).then(number.clip(-_CARRIED, _CARRIED))


def _undrawn(finding: FeatureFinding | None, name: str, before: pl.DataFrame, after: pl.DataFrame) -> str:
    """Why a column has no plot, in words; empty where it has one."""
    if finding is None:
        return "no finding in this window"
    for side, frame in (("reference", before), ("current", after)):
        if name not in frame.columns:
            return f"the {side} rows do not have the column"
        if frame[name].is_null().all():
            return f"no value in the {side} rows"
    return "" if finding.n else "nothing was compared"


def _together(before: pl.DataFrame, after: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Both sides as one picture: tails cut at the outer 0.1 %, rare levels pooled, missing levels named."""
    drawn = [
        _cut(name, before, after) if before[name].dtype.is_float() else _pooled(name, before, after)
        for name in before.columns
    ]
    return before.with_columns(drawn), after.with_columns(drawn)


def _cut(name: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.Expr:
    """One absurd value would leave a histogram of a single bar."""
    low, high = zip(
        *((_quantile(f[name], 0.001, "higher"), _quantile(f[name], 0.999, "lower")) for f in (before, after)),
        strict=True,
    )
    return pl.col(name).clip(min(low + high), max(low + high))


def _quantile(values: pl.Series, share: float, side: Any) -> float:
    found = values.drop_nulls().quantile(share, side)
    assert found is not None  # a column without values is not drawn
    return found


def _pooled(name: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.Expr:
    counts = (
        pl.concat([before[name], after[name]])
        .drop_nulls()
        .value_counts(name="n")
        .sort("n", name, descending=[True, False])
    )
    kept = counts[name].to_list()[:DRAWN_LEVELS]
    column = pl.col(name)
    return (
        pl.when(column.is_null())
        .then(pl.lit(MISSING))
        .when(column.is_in(kept))
        .then(column)
        .otherwise(pl.lit(OTHER))
        .alias(name)
    )


# Evidently


@contextmanager
def _shown(findings: Mapping[str, FeatureFinding]) -> Iterator[None]:
    """The findings that our stattests answer with; each thread has its own."""
    token = _findings.set(findings)
    try:
        yield
    finally:
        _findings.reset(token)


@contextmanager
def _evidently() -> Iterator["_Evidently"]:
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

    def dataset(self, frame: pl.DataFrame, columns: Mapping[str, Kind]) -> Any:
        """Rows to draw; without any column, one that nobody reads: Evidently refuses an empty frame."""
        from evidently import DataDefinition, Dataset

        if not frame.width:
            frame = pl.DataFrame({"nothing_drawn": [0.0]})
        definition = DataDefinition(
            numerical_columns=[name for name in frame.columns if columns.get(name) == "numeric"],
            categorical_columns=[name for name in frame.columns if columns.get(name) == "categorical"],
        )
        return Dataset.from_pandas(frame.to_pandas(), data_definition=definition)

    def project(self, workspace: Path, model: str) -> UUID:
        """The model's project, made on first use; its id follows from the name."""
        from evidently.sdk.models import ProjectModel
        from evidently.ui.workspace import Workspace

        opened, project = Workspace.create(str(workspace)), uuid5(_PROJECTS, model)
        if opened.get_project(project) is None:
            opened.add_project(ProjectModel(id=project, name=model, description="Drift findings by drift_pipeline"))
        return project


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


# Files


def _finished(page: str, title: str) -> str:
    """Evidently's page with a title, closed to the network, and with data that cannot end its own script."""
    from html import escape

    start = page.index("<script>\n") + len("<script>\n")
    end = page.index("\n</script>", start)  # JSON has no line breaks within its strings
    data = page[start:end].replace("<", "\\u003c")
    head = f'<meta http-equiv="Content-Security-Policy" content="{_OFFLINE}">\n<title>{escape(title)}</title>\n'
    return (page[:start] + data + page[end:]).replace("<head>", f"<head>\n{head}", 1).lstrip()
