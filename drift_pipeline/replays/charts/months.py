"""Performance by month: a line a side, and where one gained over the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from drift_pipeline.detection.judging.performance import PERFORMANCE, Performance
from drift_pipeline.replays.charts.lanes import WIDE, Room, axis, cross
from drift_pipeline.replays.figures import Row, Scale, Svg, TimeScale, labels_apart, paths, shortened
from drift_pipeline.replays.folder import Span

MOST_ENDS = 12  # lines with a label at their end: as many as stand above one another


@dataclass(frozen=True)
class Line:
    """One side's performance by month; None: too few labels in that month."""

    name: str
    look: str
    values: Sequence[float | None]


def by_month(
    months: Sequence[str],
    lines: Sequence[Line],
    span: tuple[datetime, datetime],
    reigns: Sequence[Span] = (),
    *,
    fill: bool = False,
    measure: Performance = PERFORMANCE["binary_classification"],
    name: str = "months",
    period: str = "month",
    room: Room = WIDE,
) -> str:
    """A line a side over the months' middles; promotions as upright lines with the version where there is room.

    Args:
        fill: shade between the first two lines: where the second is the better one, it gained.
        period: what the months are: quarters or years of a model with few rows.
        room: how wide it is.
    """
    top, bottom = 30.0, 226.0
    svg = Svg(room.width, bottom + 26, f"{measure.name} by {period}", name, class_="narrow" if room.narrow else "wide")
    scale = TimeScale(*span, 40, room.right - 86) if room.narrow else TimeScale(*span, room.left, room.right - 60)
    known = [value for line in lines for value in line.values if value is not None]
    y = Scale.around(known, top, bottom)
    for tick in y.ticks(5) if known else ():
        svg.add("line", x1=scale.left, x2=scale.right, y1=y.y(tick), y2=y.y(tick), class_="grid")
        svg.text(scale.left - 8, y.y(tick) + 4, f"{tick:g}", "label", "end")
    _promotions(svg, scale, reigns, top, bottom)
    x = [scale.x(_middle(month, span)) for month in months]
    if fill and len(lines) > 1:
        _gain(svg, x, y, *(lines[:2] if measure.higher_is_better else lines[1::-1]))
    for line in lines:
        _line(svg, x, y, line, months)
    _ends(svg, scale, x, y, lines)
    if not known:
        svg.text(
            (scale.left + scale.right) / 2,
            130,
            f"no {period} had 100 labelled rows with {measure.needs}",
            "label",
            "middle",
        )
    for place, month in zip(x, months, strict=True):
        if all(value is None for value in (line.values[months.index(month)] for line in lines)):
            svg.add("path", "", f"{month}: too few labels", d=cross(place, bottom - 7, 3.0), class_="mark unknown")
    axis(svg, scale, bottom)
    return str(svg)


def _middle(name: str, span: tuple[datetime, datetime]) -> datetime:
    """Of the part of the month 2026-01, the quarter 2026-Q1 or the year 2026 that lies in the span."""
    year, _, part = name.partition("-")
    first, months = (1, 12) if not part else (3 * int(part[1:]) - 2, 3) if part[0] == "Q" else (int(part), 1)
    begins = datetime(int(year), first, 1, tzinfo=UTC)
    after = (begins + timedelta(days=31 * months)).replace(day=1)
    start = min(max(begins, span[0]), span[1])
    return start + (max(min(after, span[1]), start) - start) / 2


def _promotions(svg: Svg, scale: TimeScale, reigns: Sequence[Span], top: float, bottom: float) -> None:
    row = Row()
    for reign in reigns[1:]:
        x, half = scale.x(reign.start), len(reign.name) * 3.4
        title = f"{reign.name} took over {reign.start:%Y-%m-%d %H:%M}"
        svg.add("line", "", title, x1=x, x2=x, y1=top - 8, y2=bottom, class_="promotion")
        if row.free(x - half, x + half):
            svg.text(x, top - 14, reign.name, "label", "middle", title)


def _gain(svg: Svg, x: Sequence[float], y: Scale, before: Line, after: Line) -> None:
    """Between two neighbouring months that both sides have, split where the lines cross."""
    for left in range(len(x) - 1):
        a, b = before.values[left : left + 2], after.values[left : left + 2]
        if None in a or None in b:
            continue
        (a0, a1), (b0, b1) = [[float(v or 0) for v in side] for side in (a, b)]
        first, last = b0 - a0, b1 - a1
        cut = first / (first - last) if first * last < 0 else 1.0
        middle = x[left] + cut * (x[left + 1] - x[left]), a0 + cut * (a1 - a0), b0 + cut * (b1 - b0)
        ends = (x[left], a0, b0), middle, (x[left + 1], a1, b1)
        for (x0, low0, high0), (x1, low1, high1) in pairwise(ends):
            corners = ((x0, low0), (x1, low1), (x1, high1), (x0, high0))
            points = " ".join(f"{cx:.1f},{y.y(cy):.1f}" for cx, cy in corners)
            svg.add("polygon", points=points, class_="gain" if high0 + high1 >= low0 + low1 else "loss")


def _line(svg: Svg, x: Sequence[float], y: Scale, line: Line, months: Sequence[str]) -> None:
    places = [None if v is None else (place, y.y(v)) for place, v in zip(x, line.values, strict=True)]
    svg.add("path", d=paths(places), class_=f"months {line.look}")
    for month, value, at in zip(months, line.values, places, strict=True):
        if at is not None:
            title = f"{month} {line.name}: {value:.4f}"
            svg.add("circle", "", title, cx=at[0], cy=at[1], r=3.0, class_=f"dot {line.look}")


def _ends(svg: Svg, scale: TimeScale, x: Sequence[float], y: Scale, lines: Sequence[Line]) -> None:
    ended = []
    for line in lines:
        known = [(place, v) for place, v in zip(x, line.values, strict=True) if v is not None]
        if known:
            ended.append((line, known[-1]))
    labelled = ended[:MOST_ENDS]
    heights = labels_apart([y.y(last[1]) for _, last in labelled], 15, y.bottom - 8)
    for (line, (_, value)), height in zip(labelled, heights, strict=True):
        svg.text(scale.right + 10, height + 4, f"{shortened(line.name, 12)} {value:.3f}", f"end {line.look}")
