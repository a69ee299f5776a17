"""The timeline: what was done when in lanes, above one panel a KPI."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from drift_pipeline.replays.charts.lanes import LANE, WIDE, Room, axis, between, cross, extent
from drift_pipeline.replays.figures import LETTER, SHORTEST, Point, Row, Scale, Svg, TimeScale, fits, paths, shortened
from drift_pipeline.replays.folder import IncidentSpan, Span

PANEL, PANEL_HEAD = 70.0, 30.0
PHASES = {"shadow": "in the shadow", "awaiting_approval": "awaiting approval", "canary": "canary"}
_WORDS = {"full": "took over", "rolled_back": "rolled back"}
_MARKED = ("BREACH", "WARN")
_HEIGHTS = {"BREACH": 8, "WARN": 6, "OK": 4}  # px of the strip: the worse, the taller


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
    room: Room = WIDE

    @property
    def scale(self) -> TimeScale:
        return self.room.scale(self.start, self.end)

    def silence(self, points: Sequence[Point]) -> timedelta:
        """For how long a tick speaks: what comes later than that is a gap, in which nobody looked."""
        gaps = sorted(after.at - before.at for before, after in pairwise(points))
        return 3 * gaps[len(gaps) // 2] if gaps else SHORTEST


def timeline(told: Timeline, panels: Sequence[Panel] = ()) -> str:
    """Lanes of what was done above one panel a KPI; incidents and promotions run through all panels."""
    head, room = 8 + 5 * LANE + 14, told.room
    bottom = head + len(panels) * (PANEL_HEAD + PANEL)
    look = {"class_": f"timeline {'narrow' if room.narrow else 'wide'}", "tabindex": 0}
    size = {"data_left": room.left, "data_right": room.right}
    svg = Svg(
        room.width, bottom + 26, "What happened when", "timeline-narrow" if room.narrow else "timeline", **look, **size
    )
    _lanes(svg, told)
    for incident in told.incidents:
        x, width = extent(told.scale, incident.opened, incident.ended or told.end)
        svg.add("rect", x=x, y=head, width=width, height=bottom - head, class_="incident-shade")
    for reign in told.reigns[1:]:
        x = told.scale.x(reign.start)
        svg.add("line", title=f"{reign.name} took over", x1=x, x2=x, y1=8, y2=bottom, class_="promotion")
    for number, panel in enumerate(panels):
        _panel(svg, told, panel, head + number * (PANEL_HEAD + PANEL) + PANEL_HEAD)
    axis(svg, told.scale, bottom)
    return str(svg)


def _lanes(svg: Svg, told: Timeline) -> None:
    names = ("champion", "rollout", "incidents", "decisions", "trainings")
    tops = {name: 8 + number * LANE for number, name in enumerate(names)}
    for name, top in tops.items():
        svg.text(told.room.left - 6, top + 15, name, "lane", "end")
        svg.add(
            "rect",
            x=told.scale.left,
            y=top + 2,
            width=told.scale.right - told.scale.left,
            height=LANE - 6,
            class_="rail",
        )
    _reigns(svg, told, tops["champion"])
    _phases(svg, told, tops["rollout"])
    for incident in told.incidents:
        x, width = extent(told.scale, incident.opened, incident.ended or told.end, 3)
        number, ending = str(incident.number), incident.ending or "still open"
        title = f"incident {number}: {between(incident.opened, incident.ended)}; {ending}"
        svg.add("rect", "", title, x=x, y=tops["incidents"] + 2, width=width, height=LANE - 6, class_="incident")
        if fits(number, width):
            svg.text(x + width / 2, tops["incidents"] + 16, number, "on-dark", "middle")
    _marks(svg, told.scale, told.decisions, tops["decisions"] + LANE / 2 - 1)
    _marks(svg, told.scale, told.trainings, tops["trainings"] + LANE / 2 - 1)


def _reigns(svg: Svg, told: Timeline, top: float) -> None:
    for number, reign in enumerate(told.reigns):
        x, width = extent(told.scale, reign.start, reign.end or told.end)
        look = f"reign reign-{number % 2}"
        title = f"{reign.name} is champion, {between(reign.start, reign.end)}"
        svg.add("rect", "", title, x=x, y=top + 2, width=width, height=LANE - 6, class_=look)
        if fits(reign.name, width):
            svg.text(x + width / 2, top + 16, reign.name, "on-dark", "middle", title)


def _phases(svg: Svg, told: Timeline, top: float) -> None:
    middle = top + LANE / 2 - 1
    for phase in told.phases:
        if phase.name in PHASES:
            x, width = extent(told.scale, phase.start, phase.end or told.end)
            title = f"{phase.note} {PHASES[phase.name]}, {between(phase.start, phase.end)}"
            svg.add("rect", "", title, x=x, y=top + 2, width=width, height=LANE - 6, class_=f"phase {phase.name}")
        else:
            x, title = told.scale.x(phase.start), f"{phase.note} {_WORDS[phase.name]}, {phase.start:%Y-%m-%d %H:%M}"
            shape = f"M{x - 5:.1f} {middle + 5}l5 -10l5 10z" if phase.name == "full" else cross(x, middle, 4.5)
            svg.add("path", "", title, d=shape, class_=f"mark {phase.name}")


def _marks(svg: Svg, scale: TimeScale, marks: Sequence[Mark], y: float) -> None:
    """Labels stand right of their mark, else left of it, else nowhere: marks come first, so that none is covered."""
    row, drawn, most = Row(gap=2), dict[tuple[int, str], tuple[float, Mark]](), svg.width
    for mark in marks:
        x = scale.x(mark.at)
        if (round(x), mark.look) in drawn:
            continue
        drawn[round(x), mark.look] = x, mark
        row.taken.append((x - 5, x + 5))
        if mark.look in ("rejected", "refused"):
            svg.add("path", "", mark.title, d=cross(x, y, 4.0), class_=f"mark {mark.look}")
        else:
            size = 2.5 if mark.look == "ignore" else 5.0
            svg.add("circle", "", mark.title, cx=x, cy=y, r=size, class_=f"mark {mark.look}")
    for x, mark in drawn.values():
        width = len(mark.label) * LETTER
        for start in (x + 8, x - 8 - width) if mark.label else ():
            if start > scale.left and start + width < most and row.free(start, start + width):
                svg.text(start, y + 4, mark.label, "label", title=mark.title)
                break


def _panel(svg: Svg, told: Timeline, panel: Panel, top: float) -> None:
    bottom, scale, narrow = top + PANEL - 8, told.scale, told.room.narrow
    left, right = scale.left, scale.right
    values = [v for p in panel.points for v in (p.low, p.high) if v is not None]
    y = Scale.around([*values, *([panel.threshold] if panel.threshold is not None else [])], top, bottom)
    svg.text(left, top - 8, panel.name, "panel-name", title=panel.about)
    if not narrow:
        svg.text(left + len(panel.name) * 8.2 + 10, top - 8, panel.about, "label")
    svg.add("rect", x=left, y=top, width=right - left, height=bottom - top, class_="frame")
    for tick in y.ticks(3) if values else ():
        svg.add("line", x1=left, x2=right, y1=y.y(tick), y2=y.y(tick), class_="grid")
        svg.text(left - 8, y.y(tick) + 4, f"{tick:g}", "label", "end")
    _series(svg, scale, y, panel, told.silence(panel.points))
    if panel.threshold is not None:
        at = y.y(panel.threshold)
        svg.add("line", x1=left, x2=right, y1=at, y2=at, class_="threshold")
        if narrow:
            svg.text(right, top - 8, f"limit {panel.threshold:g}", "label threshold-label", "end")
        else:
            svg.text(right + 6, at + 4, f"limit {panel.threshold:g}", "label threshold-label")
    if not values:
        said = panel.points[-1].reason if panel.points else "no tick was evaluated"
        words = shortened(f"no value: {said}", 44 if narrow else 120)
        svg.text((left + right) / 2, (top + bottom) / 2 + 4, words, "label", "middle", said)
    _strip(svg, told, panel.points, panel.name, bottom + 2)


def _series(svg: Svg, scale: TimeScale, y: Scale, panel: Panel, silence: timedelta) -> None:
    """The line of values, the bound that decides as a pale band beside it, and a dot at every breach and warning."""
    places: list[tuple[float, float] | None] = []
    for point, before in zip(panel.points, (None, *panel.points), strict=False):
        if before is not None and point.at - before.at > silence:
            places.append(None)
        if point.low is None or point.high is None:
            places.append(None)
            continue
        x = scale.x(point.at)
        places += [(x, y.y(point.high)), (x, y.y(point.low))] if point.low != point.high else [(x, y.y(point.low))]
    for band in _bands(panel.points, silence):
        there = [f"{scale.x(at):.1f},{y.y(value):.1f}" for at, value, _ in band]
        back = [f"{scale.x(at):.1f},{y.y(bound):.1f}" for at, _, bound in reversed(band)]
        svg.add("polygon", points=" ".join([*there, *back]), class_="bound")
    svg.add("path", d=paths(places), class_="series")
    for point in panel.points:
        if point.verdict in _MARKED and point.low is not None and point.high is not None:
            worse = point.low if (panel.threshold or 0) < 0 else point.high
            title = f"{panel.name} {point.verdict} {point.at:%Y-%m-%d %H:%M}: {point.reason}"
            svg.add(
                "path", "", title, d=_spot(scale.x(point.at), y.y(worse), point.verdict), class_=point.verdict.lower()
            )


def _spot(x: float, y: float, verdict: str) -> str:
    """A diamond of a breach, a small circle of a warning: told apart also without their colours."""
    if verdict == "BREACH":
        return f"M{x - 3.2:.1f} {y:.1f}l3.2 -3.2l3.2 3.2l-3.2 3.2z"
    return f"M{x - 2.2:.1f} {y:.1f}a2.2 2.2 0 1 0 4.4 0a2.2 2.2 0 1 0 -4.4 0z"


def _bands(points: Sequence[Point], silence: timedelta) -> list[list[tuple[datetime, float, float]]]:
    """Runs of (time, value, bound) of points that have both."""
    runs: list[list[tuple[datetime, float, float]]] = [[]]
    for point, before in zip(points, (None, *points), strict=False):
        if before is not None and point.at - before.at > silence:
            runs.append([])
        if point.low is None or point.high is None or point.bound is None:
            runs.append([])
        else:
            runs[-1].append((point.at, (point.low + point.high) / 2, point.bound))
    return [run for run in runs if run]


def _strip(svg: Svg, told: Timeline, points: Sequence[Point], name: str, top: float) -> None:
    """What was said at each time, as one strip: undecided is not the same as fine, and neither is no tick."""
    runs: list[list[Point]] = []
    for point, before in zip(points, (None, *points), strict=False):
        if before is None or before.verdict != point.verdict or point.at - before.at > told.silence(points):
            runs.append([])
        runs[-1].append(point)
    for number, run in enumerate(runs):
        following = runs[number + 1][0].at if number + 1 < len(runs) else told.end
        start, end = run[0].at, min(following, run[-1].at + told.silence(points))
        x, width = extent(told.scale, start, end, 1)
        ticks, verdict = sum(point.ticks for point in run), run[-1].verdict
        title = f"{name} {verdict}, {between(start, end)}, {ticks:,} ticks; last: {run[-1].reason}"
        high = _HEIGHTS.get(verdict, 2)
        svg.add("rect", "", title, x=x, y=top, width=width, height=high, class_=f"strip {verdict.lower()}")
