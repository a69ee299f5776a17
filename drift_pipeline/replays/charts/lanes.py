"""What the charts over time share: their measures, the axis, a lane's bands and marks, and lanes of incidents."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from drift_pipeline.replays.figures import Row, Svg, TimeScale, shortened
from drift_pipeline.replays.folder import IncidentSpan

LANE = 26.0


@dataclass(frozen=True)
class Room:
    """How wide a chart is, and from where to where its time runs, in px; a narrow one has no room for words beside."""

    width: float
    left: float
    right: float
    narrow: bool = False

    def scale(self, start: datetime, end: datetime) -> TimeScale:
        return TimeScale(start, end, self.left, self.right)


WIDE, NARROW = Room(1130, 128, 1048), Room(360, 66, 356, narrow=True)
WIDTH, LEFT, RIGHT = WIDE.width, WIDE.left, WIDE.right


def axis(svg: Svg, scale: TimeScale, bottom: float, row: Row | None = None) -> None:
    """Ticks and their labels below `bottom`, those that fit beside what the row has taken."""
    row = row or Row(gap=10)
    for moment, label in scale.ticks(max(int((scale.right - scale.left) / 70), 2)):
        x = scale.x(moment)
        svg.add("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="rule")
        half = len(label) * 3.2
        if row.free(x - half, x + half):
            svg.text(x, bottom + 18, label, "label", "middle")
    svg.add("line", x1=scale.left, x2=scale.right, y1=bottom, y2=bottom, class_="rule")


def extent(scale: TimeScale, start: datetime, end: datetime, least: float = 2.0) -> tuple[float, float]:
    """Left edge and width; what is shorter than `least` pixels stays visible, inside the scale."""
    left, right = scale.x(start), scale.x(end)
    width = max(right - left, least)
    return min(left, scale.right - width), width


def between(start: datetime, end: datetime | None) -> str:
    """A span in words."""
    return f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M}" if end else f"since {start:%Y-%m-%d %H:%M}"


def cross(x: float, y: float, size: float) -> str:
    """A path of two strokes around a point."""
    return f"M{x - size:.1f} {y - size}l{2 * size} {2 * size}m0 {-2 * size}l{-2 * size} {2 * size}"


def incident_lanes(named: Sequence[tuple[str, Sequence[IncidentSpan]]], span: tuple[datetime, datetime]) -> str:
    """One lane a replay, with its incidents as bands."""
    bottom = len(named) * LANE + 6
    svg, scale = Svg(WIDTH, bottom + 26, "Incidents of each replay", "incidents"), TimeScale(*span, LEFT, RIGHT - 60)
    for number, (name, found) in enumerate(named):
        top = number * LANE
        svg.text(LEFT - 12, top + 17, shortened(name, 16), "lane", "end", name)
        svg.add("rect", x=LEFT, y=top + 4, width=scale.right - LEFT, height=LANE - 6, class_="rail")
        for incident in found:
            x, width = extent(scale, incident.opened, incident.ended or span[1], 3)
            title = f"{name}: {between(incident.opened, incident.ended)}; {incident.ending or 'still open'}"
            svg.add("rect", "", title, x=x, y=top + 4, width=width, height=LANE - 6, class_="incident")
        svg.text(scale.right + 10, top + 17, f"{len(found)} in all", "label")
    axis(svg, scale, bottom)
    return str(svg)
