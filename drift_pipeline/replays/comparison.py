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
    "KS, TV: distance of the cdfs (numbers), share that moved (levels); p: of that, or of the missing share; beyond: "
    "rows beyond the range threshold, over the reference's share; missing: share now"
)
_HEAD = (
    f"{'verdict':<12} {'column':<{NAME}} {'PSI':>7} {'Hell.':>6} {'KS, TV':>7} {'p':>8} {'beyond':>7} {'missing':>8}"
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
    found = column.finding
    distance = found.distance if column.verdict != Verdict.INCONCLUSIVE else found.ks_low or 0.0
    beyond = "-" if column.beyond is None else f"{column.beyond:+.2%}"
    line = (
        f"{column.verdict:<12} {shortened(shown_name(found.name), NAME):<{NAME}} {found.psi:>7.4f} "
        f"{found.hellinger:>6.3f} {distance:>7.4f} {_p_value(found.p_value)} {beyond:>7} {column.missing[1]:>8.2%}"
    )
    if column.verdict == Verdict.OK:
        return [line, *([f"{'':12}   {shortened(found.reason, 84)}"] if found.reason else [])]
    words = found.reason if column.verdict == Verdict.INCONCLUSIVE else f"{found.direction}, {found.reason}"
    return [line, f"{'':12}   {shortened(words, 84)}"]


def _p_value(p_value: float) -> str:
    return f"{'<1e-99':>8}" if p_value < 1e-99 else f"{p_value:>8.1e}"


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
        "kpis": list(document["kpis"].values()),
        "read": [{"name": name, **read} for name, read in document["read"].items()],
    }
    drawn = [_drawn(column) if number < DRAWN else "" for number, column in enumerate(found.columns)]
    counts = {verdict: sum(column.verdict == verdict for column in found.columns) for verdict in Verdict}
    return render("comparison.html.j2", facts, drawn=drawn, counts=counts, shown_name=shown_name)


def _drawn(column: ComparedColumn) -> str:
    return charts.column({"name": shown_name(column.finding.name), "shape": column.shape.to_json()})
