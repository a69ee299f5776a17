"""A KPI in the height of a line of text, against its limit."""

from collections.abc import Sequence

from drift_pipeline.replays.figures import Point, Scale, Svg, TimeScale, paths


def spark(points: Sequence[Point], scale: TimeScale, threshold: float | None, label: str) -> str:
    """The line of its values, the limit dashed, and a diamond at each breach."""
    svg = Svg(scale.right + 2, 34, label, class_="spark")
    values = [v for p in points for v in (p.low, p.high) if v is not None]
    y = Scale.around([*values, *([] if threshold is None else [threshold])], 3, 31)
    if threshold is not None:
        svg.add("line", x1=scale.left, x2=scale.right, y1=y.y(threshold), y2=y.y(threshold), class_="threshold")
    places: list[tuple[float, float] | None] = []
    for point in points:
        x = scale.x(point.at)
        known = [v for v in (point.high, point.low) if v is not None]
        places += [(x, y.y(value)) for value in dict.fromkeys(known)] or [None]
    svg.add("path", d=paths(places), class_="series")
    for point in points:
        if point.verdict == "BREACH" and point.low is not None:
            svg.add(
                "path",
                d=f"M{scale.x(point.at) - 2.5:.1f} {y.y(point.low):.1f}l2.5 -2.5l2.5 2.5l-2.5 2.5z",
                class_="breach",
            )
    return str(svg)
