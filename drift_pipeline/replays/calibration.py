"""A calibration told: its tables for a terminal, and the thresholds as YAML to paste into the spec."""

from collections.abc import Iterator
from textwrap import wrap

import numpy as np

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.calibration.alarms import Evidence, budget, worst_first
from drift_pipeline.detection.calibration.proposals import Calibration
from drift_pipeline.detection.counting.binning import SCORE
from drift_pipeline.replays.figures import shortened
from drift_pipeline.spec import ModelSpec

WIDTH, NAME, COLUMNS = 100, 22, 12
_LEGEND = (
    "p alone: any column by i.i.d. p-values with Benjamini-Hochberg, also in windows too small to be judged; i.i.d.: "
    "the verdict with rows taken for independent; live: with the empirical null of the other windows; mute: columns "
    "of which the live verdict makes no claim"
)
_HEAD = (
    f"{'window':<6} {'windows':>7} {'rows':>7}  {'p alone':>8} {'i.i.d.':>8} {'live':>8}  {'i.i.d.':>12} {'live':>12} "
    f"{'budget':>6} {'mute':>5}"
)


def calibration_table(found: Calibration, spec: ModelSpec) -> str:
    """Lines of at most 100 letters."""
    lines = [
        *(line for words in found.prospects for line in wrap(f"{spec.name}: {words}", WIDTH)),
        f"{spec.name}: {found.rows:,} healthy rows, {found.days:.0f} days, a tick every {format_duration(found.step)}",
        "",
        f"{'':25}share of windows that alarm   false alarms a month (< 95 %)",
        _HEAD,
        *(_window(one) for one in found.evidence),
        *(f"{format_duration(one.length)}: {one.silent}" for one in found.evidence if one.silent and one.before[1]),
        *wrap(_LEGEND, WIDTH),
        "",
        *_phis(found),
        "",
        *(
            line
            for one in found.proposals
            for line in _told(one.key, _change(one.current, one.proposed), one.reason, one.cost)
        ),
        *(line for key, reason in found.untold.items() for line in _told(key, "cannot tell", reason, "")),
        "",
        "# to paste into the spec",
        snippet(found, spec).rstrip(),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _window(one: Evidence) -> str:
    head = f"{format_duration(one.length):<6} {one.windows:>7,} {one.rows:>7,}  {_share(one.alone)}"
    if not one.before[1]:
        return f"{head}  {one.silent}"
    head += f" {_share(one.before)}"
    if one.silent:
        return f"{head}  no claim, see below"
    columns = len(one.phi) - (SCORE in one.phi and np.isnan(one.phi[SCORE]))
    rates = " ".join(f"{_monthly(one, episodes):>12}" for episodes in one.episodes)
    return f"{head} {_share(one.after)}  {rates} {budget(one.length):>6g} {f'{len(one.mute)}/{columns}':>5}"


def _share(alarms: tuple[int, int]) -> str:
    return f"{alarms[0] / alarms[1]:>8.1%}" if alarms[1] else f"{'-':>8}"


def _monthly(one: Evidence, episodes: int) -> str:
    found = one.a_month(episodes)
    return "-" if found is None else f"{_rate(found[0])} (<{_rate(found[1])})"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.2g}"


def _phis(found: Calibration) -> Iterator[str]:
    """phi of each column by window length, the worst of all first, and the smallest shift that any length sees."""
    lengths = [one for one in found.evidence if any(not np.isnan(phi) for phi in one.phi.values())]
    if not lengths:
        return
    worst = {name: max(_known(one.phi.get(name, np.nan)) for one in lengths) for name in lengths[0].phi}
    yield "phi, how much more than independent rows a column varies by itself, worst first; seen: the smallest"
    yield "shift of a mean, in sd, that the live verdict of windows of that length still calls drift"
    heads = " ".join(f"{format_duration(one.length):>6} {'seen':>5}" for one in lengths)
    yield f"{'column':<{NAME}} {heads}"
    ordered = [(name, phi) for name, phi in worst_first(worst) if phi >= 0]
    for name, _ in ordered[:COLUMNS]:
        cells = " ".join(f"{_number(one.phi[name])} {_sd(one.shifts.get(name))}" for one in lengths)
        yield f"{shortened('the score' if name == SCORE else name, NAME):<{NAME}} {cells}"
    if len(ordered) > COLUMNS:
        yield f"and {len(ordered) - COLUMNS} that vary less; --json has them all"


def _known(phi: float) -> float:
    return -1.0 if np.isnan(phi) else phi


def _number(phi: float) -> str:
    return f"{'-':>6}" if np.isnan(phi) else f"{phi:>6.1f}"


def _sd(shift: float | None) -> str:
    return f"{'-':>5}" if shift is None else f"{shift:>5.2f}"


def _change(current: float, proposed: float) -> str:
    return f"keep {current:g}" if proposed == current else f"{current:g} -> {proposed:g}"


def _told(key: str, change: str, reason: str, cost: str) -> list[str]:
    text = f"{reason}{f'; {cost}' if cost else ''}"
    lines = wrap(text, WIDTH - 46)
    return [f"{key:<30} {change:<14} {lines[0]}", *(f"{'':45} {line}" for line in lines[1:])]


def snippet(found: Calibration, spec: ModelSpec) -> str:
    """YAML of the KPIs that could be told, with all that the spec says of each."""
    lines = ["kpis:"]
    for one in found.proposals:
        _, kpi, key = one.key.split(".")
        values = {**getattr(spec.kpis, kpi).model_dump(mode="json"), key: one.proposed}
        inner = ", ".join(
            f"{name}: {value:g}" if isinstance(value, float | int) else f"{name}: {value}"
            for name, value in values.items()
        )
        mark = "kept" if one.proposed == one.current else f"was {one.current:g}"
        lines.append(f"  {kpi}: {{{inner}}}  # {mark}")
    lines += [f"  # {key.removeprefix('kpis.')}: {reason}" for key, reason in found.untold.items()]
    return "\n".join(lines if found.proposals else [*lines[1:]]) + "\n"
