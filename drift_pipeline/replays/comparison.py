"""Two tables compared, told: in a terminal and as one page, worst first."""

from textwrap import wrap
from typing import Any

from drift_pipeline.detection.comparing.comparison import ComparedColumn, Comparison
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.detection.judging.verdict import Verdict
from drift_pipeline.replays import charts
from drift_pipeline.replays.figures import shortened
from drift_pipeline.replays.page import render

WIDTH, NAME, DRAWN = 100, 22, 60
_LEGEND = (
    "distance: of the cdfs (numbers: KS), share of rows that moved (levels), or of the missing share where that moved "
    "more; lower: its lower 99 % bound, which is judged; Hell.: Hellinger distance less its sampling bias, so that "
    "chance alone shows 0; p: of the distance; beyond: rows beyond the range threshold, over the reference's share; "
    "missing: share now"
)
_HEAD = (
    f"{'verdict':<12} {'column':<{NAME}} {'PSI':>7} {'Hell.':>6} {'distance':>8} {'lower':>7} {'p':>8} {'beyond':>7} "
    f"{'missing':>8}"
)


def comparison_table(found: Comparison, names: tuple[str, str]) -> str:
    """Lines of at most 100 letters; `names` is what the two tables are called."""
    (before, after), said = found.rows, found.kpis.items()
    lines = [
        f"{found.rolled_up.told()}: {names[1]} ({after:,} rows) against {names[0]} ({before:,} rows)",
        "",
        *(_kpi(name, kpi.verdict, kpi.reason) for name, kpi in said if kpi.verdict != Verdict.NOT_CONFIGURED),
        "",
        _HEAD,
        *(line for column in found.columns for line in _column(column)),
        "",
        *wrap(_LEGEND, WIDTH),
        *(line for one in found.read if one.kind is None for line in wrap(f"{one.name!r}: {one.why}", WIDTH)),
        *(line for note in found.notes for line in wrap(f"note: {note}", WIDTH)),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _kpi(name: str, verdict: Verdict, reason: str) -> str:
    return f"{verdict:<12} {name:<18}  {shortened(reason, 67)}"


def _column(column: ComparedColumn) -> list[str]:
    found, told = column.finding, column.to_json()
    line = (
        f"{column.verdict:<12} {shortened(shown_name(found.name), NAME):<{NAME}} {_cell(told['psi'], '.4f', 7)} "
        f"{_cell(told['hellinger'], '.3f', 6)} {_cell(told['distance'], '.4f', 8)} "
        f"{_cell(told['distance_lower'], '.4f', 7)} {_p_value(told['p_value'])} {_cell(told['range_z'], '+.2%', 7)} "
        f"{_cell(told['missing']['current'], '.2%', 8)}"
    )
    if column.verdict == Verdict.OK:
        return [line, *([f"{'':12}   {shortened(found.reason, 84)}"] if found.reason else [])]
    words = found.reason if column.verdict == Verdict.INCONCLUSIVE else f"{found.direction}, {found.reason}"
    return [line, f"{'':12}   {shortened(words, 84)}"]


def _cell(value: float | None, form: str, width: int) -> str:
    return f"{'-' if value is None else format(value, form):>{width}}"


def _p_value(p_value: float | None) -> str:
    return f"{'<1e-99':>8}" if p_value is not None and p_value < 1e-99 else _cell(p_value, ".1e", 8)


def shown_name(name: str) -> str:
    return "the model's score" if name == SCORE else name


def comparison_page(found: Comparison, names: tuple[str, str]) -> str:
    """One page without any request to a network; columns in order of badness, the first 60 of them drawn."""
    document = found.to_json()
    facts: dict[str, Any] = {
        **{name: document[name] for name in ("verdict", "rows", "notes")},
        "told": found.rolled_up.told(),
        "names": dict(zip(("reference", "current"), names, strict=True)),
        "columns": [{"name": name, **column} for name, column in document["features"].items()],
        "kpis": [kpi for kpi in document["kpis"].values() if kpi["verdict"] != Verdict.NOT_CONFIGURED],
        "read": [{"name": name, **read} for name, read in document["read"].items()],
    }
    drawn = [_drawn(column) if number < DRAWN else "" for number, column in enumerate(found.columns)]
    counts = {verdict: sum(column.verdict == verdict for column in found.columns) for verdict in Verdict}
    left = [f"{kpi.name} ({kpi.reason})" for kpi in found.kpis.values() if kpi.verdict == Verdict.NOT_CONFIGURED]
    return render("comparison.html.j2", facts, drawn=drawn, counts=counts, shown_name=shown_name, not_configured=left)


def _drawn(column: ComparedColumn) -> str:
    return charts.column({"name": shown_name(column.finding.name), "shape": column.shape.to_json()})
