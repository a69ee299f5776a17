"""Writing a drift report: the tick's findings of one window as a page, and as a run for `evidently ui`."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.judging.verdict import Report
from drift_pipeline.detection.report.drawing import drawable, together, why_undrawn
from drift_pipeline.detection.report.evidently_blocks import block_of, evidently, shown
from drift_pipeline.detection.report.evidently_workspace import make_project, run_file, write_run
from drift_pipeline.detection.report.tables import column_table, columns_of, kpi_table, metadata, notes_of
from drift_pipeline.files import write_whole
from drift_pipeline.spec import ModelSpec

_OFFLINE = (  # what the page may load: nothing but itself
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:"
)


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
    columns = columns_of(spec, findings)
    before, after = drawable(reference, columns), drawable(current, columns)
    undrawn = {name: why for name in columns if (why := why_undrawn(findings.get(name), name, before, after))}
    drawn = [name for name in columns if name not in undrawn]
    before, after = together(before.select(drawn), after.select(drawn))
    title = f"{spec.name}: {format_duration(window)} to {report.at:%Y-%m-%d %H:%M} UTC"
    tables = [kpi_table(report), column_table(columns, findings, undrawn)]
    notes = notes_of(report, window, findings, reference.height, current.height)
    with evidently() as made, shown(findings):
        items = [made.Tables(title=title, notes=notes, tables=tables)]
        items += [made.Column(**block_of(findings[name], columns[name], spec)) for name in drawn]
        snapshot = made.Report(items, include_tests=True).run(
            made.dataset(after, columns),
            made.dataset(before, columns),
            timestamp=report.at,
            name=title,
            metadata=metadata(report, window, spec),
            tags=[format_duration(window), str(report.verdict)],
        )
        for result in snapshot.metric_results.values():
            result.widget = None  # the blocks hold what is shown; three more copies would triple the run's file
        page, run = snapshot.get_html_str(as_iframe=False), snapshot.dumps()
    make_project(workspace, spec)
    file = write_run(run_file(spec.name, window, report.at, workspace), run)
    write_whole(html, _finished(page, title))
    return DriftFiles(html, file.stem)


def _finished(page: str, title: str) -> str:
    """Evidently's page with a title, closed to the network, and with data that cannot end its own script."""
    from html import escape

    start = page.index("<script>\n") + len("<script>\n")
    end = page.index("\n</script>", start)  # JSON has no line breaks within its strings
    data = page[start:end].replace("<", "\\u003c")
    head = f'<meta http-equiv="Content-Security-Policy" content="{_OFFLINE}">\n<title>{escape(title)}</title>\n'
    return (page[:start] + data + page[end:]).replace("<head>", f"<head>\n{head}", 1).lstrip()
