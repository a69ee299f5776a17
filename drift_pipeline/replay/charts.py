"""The charts of a replay's pages: what happened when, performance by month, and one column beside its reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from drift_pipeline.detection.judging.performance import PERFORMANCE, Performance
from drift_pipeline.replay.figures import (
    LETTER,
    Point,
    Row,
    Scale,
    Svg,
    TimeScale,
    fits,
    labels_apart,
    paths,
    shortened,
)
from drift_pipeline.replay.folder import IncidentSpan, Span

WIDTH, LEFT, RIGHT = 1130.0, 128.0, 1048.0
LANE, PANEL, PANEL_HEAD = 26.0, 70.0, 30.0
PHASES = {"shadow": "in the shadow", "awaiting_approval": "awaiting approval", "canary": "canary"}
LEVELS = 9  # drawn of a column, at most
MOST_ENDS = 12  # lines with a label at their end: as many as stand above one another
_WORDS = {"full": "took over", "rolled_back": "rolled back"}
_MARKED = ("BREACH", "WARN")


@dataclass(frozen=True)
class Mark:
    """One moment on a lane: `look` is its class, `label` stands under it where there is room."""

    at: datetime
    look: str
    title: str
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One KPI over time; `threshold` None: it is not on the scale of the values."""

    name: str
    about: str
    threshold: float | None
    points: Sequence[Point]


@dataclass(frozen=True)
class Timeline:
    """All that is drawn on one axis of time."""

    start: datetime
    end: datetime
    reigns: Sequence[Span] = ()
    phases: Sequence[Span] = ()
    incidents: Sequence[IncidentSpan] = ()
    decisions: Sequence[Mark] = ()
    trainings: Sequence[Mark] = ()
    panels: Sequence[Panel] = field(default=())

    @property
    def scale(self) -> TimeScale:
        return TimeScale(self.start, self.end, LEFT, RIGHT)


def timeline(told: Timeline) -> str:
    """Lanes of what was done above one panel a KPI; incidents and promotions run through all panels."""
    head = 8 + 5 * LANE + 14
    bottom = head + len(told.panels) * (PANEL_HEAD + PANEL)
    svg = Svg(WIDTH, bottom + 26, "What happened when", "timeline")
    _lanes(svg, told)
    for incident in told.incidents:
        x, width = _extent(told.scale, incident.opened, incident.ended or told.end)
        svg.add("rect", x=x, y=head, width=width, height=bottom - head, class_="incident-shade")
    for reign in told.reigns[1:]:
        x = told.scale.x(reign.start)
        svg.add("line", title=f"{reign.name} took over", x1=x, x2=x, y1=8, y2=bottom, class_="promotion")
    for number, panel in enumerate(told.panels):
        _panel(svg, told, panel, head + number * (PANEL_HEAD + PANEL) + PANEL_HEAD)
    _axis(svg, told.scale, bottom)
    return str(svg)


def _axis(svg: Svg, scale: TimeScale, bottom: float, row: Row | None = None) -> None:
    row = row or Row(gap=10)
    for moment, label in scale.ticks():
        x = scale.x(moment)
        svg.add("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="rule")
        half = len(label) * 3.2
        if row.free(x - half, x + half):
            svg.text(x, bottom + 18, label, "label", "middle")
    svg.add("line", x1=scale.left, x2=scale.right, y1=bottom, y2=bottom, class_="rule")


def _extent(scale: TimeScale, start: datetime, end: datetime, least: float = 2.0) -> tuple[float, float]:
    """Left edge and width; what is shorter than `least` pixels stays visible, inside the scale."""
    left, right = scale.x(start), scale.x(end)
    width = max(right - left, least)
    return min(left, scale.right - width), width


def _lanes(svg: Svg, told: Timeline) -> None:
    names = ("champion", "rollout", "incidents", "decisions", "trainings")
    tops = {name: 8 + number * LANE for number, name in enumerate(names)}
    for name, top in tops.items():
        svg.text(LEFT - 12, top + 15, name, "lane", "end")
        svg.add("rect", x=LEFT, y=top + 2, width=RIGHT - LEFT, height=LANE - 6, class_="rail")
    _reigns(svg, told, tops["champion"])
    _phases(svg, told, tops["rollout"])
    for number, incident in enumerate(told.incidents, start=1):
        x, width = _extent(told.scale, incident.opened, incident.ended or told.end, 3)
        title = f"incident {number}: {_between(incident.opened, incident.ended)}; {incident.ending or 'still open'}"
        svg.add("rect", "", title, x=x, y=tops["incidents"] + 2, width=width, height=LANE - 6, class_="incident")
        if fits(str(number), width):
            svg.text(x + width / 2, tops["incidents"] + 16, str(number), "on-dark", "middle")
    _marks(svg, told.scale, told.decisions, tops["decisions"] + LANE / 2 - 1)
    _marks(svg, told.scale, told.trainings, tops["trainings"] + LANE / 2 - 1)


def _between(start: datetime, end: datetime | None) -> str:
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" if end else f"since {start:%Y-%m-%d %H:%M}"


def _reigns(svg: Svg, told: Timeline, top: float) -> None:
    for number, reign in enumerate(told.reigns):
        x, width = _extent(told.scale, reign.start, reign.end or told.end)
        look = f"reign reign-{number % 2}"
        title = f"{reign.name} is champion, {_between(reign.start, reign.end)}"
        svg.add("rect", "", title, x=x, y=top + 2, width=width, height=LANE - 6, class_=look)
        if fits(reign.name, width):
            svg.text(x + width / 2, top + 16, reign.name, "on-dark", "middle", title)


def _phases(svg: Svg, told: Timeline, top: float) -> None:
    middle = top + LANE / 2 - 1
    for phase in told.phases:
        if phase.name in PHASES:
            x, width = _extent(told.scale, phase.start, phase.end or told.end)
            title = f"{phase.note} {PHASES[phase.name]}, {_between(phase.start, phase.end)}"
            svg.add("rect", "", title, x=x, y=top + 2, width=width, height=LANE - 6, class_=f"phase {phase.name}")
        else:
            x, title = told.scale.x(phase.start), f"{phase.note} {_WORDS[phase.name]}, {phase.start:%Y-%m-%d %H:%M}"
            shape = f"M{x - 5:.1f} {middle + 5}l5 -10l5 10z" if phase.name == "full" else _cross(x, middle, 4.5)
            svg.add("path", "", title, d=shape, class_=f"mark {phase.name}")


def _cross(x: float, y: float, size: float) -> str:
    return f"M{x - size:.1f} {y - size}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"


def _marks(svg: Svg, scale: TimeScale, marks: Sequence[Mark], y: float) -> None:
    """Labels stand right of their mark, else left of it, else nowhere: marks come first, so that none is covered."""
    row, drawn = Row(gap=2), dict[tuple[int, str], tuple[float, Mark]]()
    for mark in marks:
        x = scale.x(mark.at)
        if (round(x), mark.look) in drawn:
            continue
        drawn[round(x), mark.look] = x, mark
        row.taken.append((x - 5, x + 5))
        if mark.look in ("rejected", "refused"):
            svg.add("path", "", mark.title, d=_cross(x, y, 4.0), class_=f"mark {mark.look}")
        else:
            size = 2.5 if mark.look == "ignore" else 5.0
            svg.add("circle", "", mark.title, cx=x, cy=y, r=size, class_=f"mark {mark.look}")
    for x, mark in drawn.values():
        width = len(mark.label) * LETTER
        for start in (x + 8, x - 8 - width) if mark.label else ():
            if start > LEFT and start + width < WIDTH and row.free(start, start + width):
                svg.text(start, y + 4, mark.label, "label", title=mark.title)
                break


def _panel(svg: Svg, told: Timeline, panel: Panel, top: float) -> None:
    bottom, scale = top + PANEL - 8, told.scale
    values = [v for p in panel.points for v in (p.low, p.high) if v is not None]
    y = Scale.around([*values, *([panel.threshold] if panel.threshold is not None else [])], top, bottom)
    svg.text(LEFT, top - 8, panel.name, "panel-name")
    svg.text(LEFT + len(panel.name) * 8.2 + 10, top - 8, panel.about, "label")
    svg.add("rect", x=LEFT, y=top, width=RIGHT - LEFT, height=bottom - top, class_="frame")
    for tick in y.ticks(3) if values else ():
        svg.add("line", x1=LEFT, x2=RIGHT, y1=y.y(tick), y2=y.y(tick), class_="grid")
        svg.text(LEFT - 8, y.y(tick) + 4, f"{tick:g}", "label", "end")
    if not values:
        said = panel.points[-1].reason if panel.points else "no tick was evaluated"
        svg.text((LEFT + RIGHT) / 2, (top + bottom) / 2 + 4, shortened(f"no value: {said}", 120), "label", "middle")
    _series(svg, scale, y, panel)
    if panel.threshold is not None:
        at = y.y(panel.threshold)
        svg.add("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, class_="threshold")
        svg.text(RIGHT + 6, at + 4, f"limit {panel.threshold:g}", "label threshold-label")
    _strip(svg, told, panel, bottom + 2)


def _series(svg: Svg, scale: TimeScale, y: Scale, panel: Panel) -> None:
    """The line of values, the bound that decides as a pale band beside it, and a dot at every breach and warning."""
    places: list[tuple[float, float] | None] = []
    for point in panel.points:
        if point.low is None or point.high is None:
            places.append(None)
            continue
        x = scale.x(point.at)
        places += [(x, y.y(point.high)), (x, y.y(point.low))] if point.low != point.high else [(x, y.y(point.low))]
    for band in _bands(panel.points):
        there = [f"{scale.x(at):.1f},{y.y(value):.1f}" for at, value, _ in band]
        back = [f"{scale.x(at):.1f},{y.y(bound):.1f}" for at, _, bound in reversed(band)]
        svg.add("polygon", points=" ".join([*there, *back]), class_="bound")
    svg.add("path", d=paths(places), class_="series")
    for point in panel.points:
        if point.verdict in _MARKED and point.low is not None and point.high is not None:
            worse = point.low if (panel.threshold or 0) < 0 else point.high
            title = f"{panel.name} {point.verdict} {point.at:%Y-%m-%d %H:%M}: {point.reason}"
            svg.add("circle", "", title, cx=scale.x(point.at), cy=y.y(worse), r=2.3, class_=point.verdict.lower())


def _bands(points: Sequence[Point]) -> list[list[tuple[datetime, float, float]]]:
    """Runs of (time, value, bound) of points that have both."""
    runs: list[list[tuple[datetime, float, float]]] = [[]]
    for point in points:
        if point.low is None or point.high is None or point.bound is None:
            runs.append([])
        else:
            runs[-1].append((point.at, (point.low + point.high) / 2, point.bound))
    return [run for run in runs if run]


def _strip(svg: Svg, told: Timeline, panel: Panel, top: float) -> None:
    """What was said at each time, as one strip: undecided is not the same as fine."""
    runs: list[list[Point]] = []
    for point in panel.points:
        if runs and runs[-1][-1].verdict == point.verdict:
            runs[-1].append(point)
        else:
            runs.append([point])
    for number, run in enumerate(runs):
        start, end = run[0].at, runs[number + 1][0].at if number + 1 < len(runs) else told.end
        x, width = _extent(told.scale, start, end, 1)
        ticks = sum(point.ticks for point in run)
        title = f"{panel.name} {run[-1].verdict}, {_between(start, end)}, {ticks:,} ticks; last: {run[-1].reason}"
        svg.add("rect", "", title, x=x, y=top, width=width, height=4, class_=f"strip {run[-1].verdict.lower()}")


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
) -> str:
    """A line a side over the months' middles; promotions as upright lines with the version where there is room.

    Args:
        fill: shade between the first two lines: where the second is the better one, it gained.
        period: what the months are: quarters or years of a model with few rows.
    """
    top, bottom = 30.0, 226.0
    svg, scale = Svg(WIDTH, bottom + 26, f"{measure.name} by {period}", name), TimeScale(*span, LEFT, RIGHT - 60)
    known = [value for line in lines for value in line.values if value is not None]
    y = Scale.around(known, top, bottom)
    for tick in y.ticks(5) if known else ():
        svg.add("line", x1=LEFT, x2=scale.right, y1=y.y(tick), y2=y.y(tick), class_="grid")
        svg.text(LEFT - 8, y.y(tick) + 4, f"{tick:g}", "label", "end")
    _promotions(svg, scale, reigns, top, bottom)
    x = [scale.x(_middle(month, span)) for month in months]
    if fill and len(lines) > 1:
        _gain(svg, x, y, *(lines[:2] if measure.higher_is_better else lines[1::-1]))
    for line in lines:
        _line(svg, x, y, line, months)
    _ends(svg, scale, x, y, lines)
    if not known:
        svg.text((LEFT + RIGHT) / 2, 130, f"no {period} had 100 labelled rows with {measure.needs}", "label", "middle")
    for place, month in zip(x, months, strict=True):
        if all(value is None for value in (line.values[months.index(month)] for line in lines)):
            svg.add("path", "", f"{month}: too few labels", d=_cross(place, bottom - 7, 3.0), class_="mark unknown")
    _axis(svg, scale, bottom)
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


def incident_lanes(named: Sequence[tuple[str, Sequence[IncidentSpan]]], span: tuple[datetime, datetime]) -> str:
    """One lane a replay, with its incidents as bands."""
    bottom = len(named) * LANE + 6
    svg, scale = Svg(WIDTH, bottom + 26, "Incidents of each replay", "incidents"), TimeScale(*span, LEFT, RIGHT - 60)
    for number, (name, found) in enumerate(named):
        top = number * LANE
        svg.text(LEFT - 12, top + 17, shortened(name, 16), "lane", "end", name)
        svg.add("rect", x=LEFT, y=top + 4, width=scale.right - LEFT, height=LANE - 6, class_="rail")
        for incident in found:
            x, width = _extent(scale, incident.opened, incident.ended or span[1], 3)
            title = f"{name}: {_between(incident.opened, incident.ended)}; {incident.ending or 'still open'}"
            svg.add("rect", "", title, x=x, y=top + 4, width=width, height=LANE - 6, class_="incident")
        svg.text(scale.right + 10, top + 17, f"{len(found)} in all", "label")
    _axis(svg, scale, bottom)
    return str(svg)


def column(finding: Mapping[str, Any]) -> str:
    """A column's distribution in the window (line, or dark bars) over its reference (grey)."""
    shape = finding["shape"]
    if shape["levels"]:
        return _levels(finding["name"], shape)
    if shape["edges"]:
        return _numbers(finding["name"], shape)
    return ""


def _numbers(name: str, shape: Mapping[str, Any]) -> str:
    width, bottom, left = 330.0, 96.0, 6.0
    svg, edges = Svg(width, bottom + 20, f"{name}: reference and now"), shape["edges"]
    part = (width - 2 * left) / (len(edges) - 1)
    y = Scale(0, max(*shape["reference"], *shape["current"], 1e-9), 6, bottom)
    for number, (before, now) in enumerate(zip(shape["reference"], shape["current"], strict=True)):
        title = f"{edges[number]:g} to {edges[number + 1]:g}: reference {before:.1%}, now {now:.1%}"
        svg.add("rect", x=left + number * part, y=y.y(before), width=part, height=bottom - y.y(before), class_="was")
        svg.add("rect", "", title, x=left + number * part, y=6, width=part, height=bottom - 6, class_="hover")
    steps = [f"M{left} {bottom}"]
    steps += [f"V{y.y(now):.1f}h{part:.2f}" for now in shape["current"]]
    svg.add("path", d="".join([*steps, f"V{bottom}"]), class_="now")
    svg.add("line", x1=left, x2=width - left, y1=bottom, y2=bottom, class_="rule")
    middle = len(edges) // 2
    for at, place, anchor in ((0, left, "start"), (middle, width / 2, "middle"), (-1, width - left, "end")):
        svg.text(place, bottom + 14, f"{edges[at]:.4g}", "label", anchor)
    return str(svg)


def _levels(name: str, shape: Mapping[str, Any]) -> str:
    rows = sorted(
        zip(shape["levels"], shape["reference"], shape["current"], strict=True), key=lambda r: -abs(r[1] - r[2])
    )
    width, left, right, height = 330.0, 104.0, 282.0, 17.0
    svg = Svg(width, min(len(rows), LEVELS) * height + (18 if len(rows) > LEVELS else 4), f"{name}: reference and now")
    most = max(*(max(row[1:]) for row in rows), 1e-9)
    for number, (level, before, now) in enumerate(rows[:LEVELS]):
        top, title = number * height + 2, f"{level}: reference {before:.1%}, now {now:.1%}"
        svg.text(left - 6, top + 11, shortened(level, 14), "label", "end", title)
        svg.add("rect", "", title, x=left, y=top, width=(right - left) * before / most, height=6, class_="was")
        svg.add("rect", "", title, x=left, y=top + 7, width=(right - left) * now / most, height=6, class_="now-bar")
        svg.text(width, top + 11, f"{now - before:+.1%}", "label", "end", title)
    if len(rows) > LEVELS:
        svg.text(left, LEVELS * height + 13, f"and {len(rows) - LEVELS} that differ less", "label")
    return str(svg)
