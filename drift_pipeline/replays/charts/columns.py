"""One column beside its reference: bars of a number's bins, or of a category's levels."""

from collections.abc import Mapping
from typing import Any

from drift_pipeline.detection.counting.shape import Shape
from drift_pipeline.replays.figures import LETTER, Row, Scale, Svg, shortened

LEVELS = 9  # drawn of a column, at most
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 330.0, 40.0, 322.0, 18.0, 108.0
OUTSIDE, GAP = 12.0, 6.0  # px of the bar of what lies outside of the bins, and between it and them


def column(finding: Mapping[str, Any]) -> str:
    """A column's distribution in the window (line, or dark bars) over its reference (grey), with axes."""
    shape = Shape(**finding["shape"])
    if shape.levels:
        return _levels(finding["name"], shape)
    if shape.edges:
        return _numbers(finding["name"], shape)
    return ""


def _numbers(name: str, shape: Shape) -> str:
    svg = Svg(WIDTH, BOTTOM + 20, f"{name}: reference and now")
    sides = (shape.reference, shape.current, shape.below, shape.above)
    y = Scale(0, max(*(max(side) for side in sides), 1e-9), TOP, BOTTOM)
    under, over = (OUTSIDE + GAP if max(side) else 0.0 for side in (shape.below, shape.above))
    x = Scale(shape.edges[0], shape.edges[-1], RIGHT - over, LEFT + under)  # along, not upwards
    _y_axis(svg, y)
    labels = Row()
    first, last = (_shown(end, shape) for end in _ends(shape, 0, len(shape.reference) - 1))
    if under:
        _bar(svg, y, LEFT, LEFT + OUTSIDE, shape.below, f"< {first}", shape)
        _label(svg, labels, LEFT - 4, f"< {first}", "start")
    if over:
        _bar(svg, y, RIGHT - OUTSIDE, RIGHT, shape.above, f"> {last}", shape)
        _label(svg, labels, RIGHT + 4, f"> {last}", "end")
    for number, shares in enumerate(zip(shape.reference, shape.current, strict=True)):
        start, end = (x.y(edge) for edge in shape.edges[number : number + 2])
        _bar(svg, y, start, end, shares, _told(shape, number), shape)
    steps = [f"V{y.y(now):.1f}H{x.y(edge):.2f}" for now, edge in zip(shape.current, shape.edges[1:], strict=True)]
    svg.add("path", d="".join([f"M{x.y(shape.edges[0]):.2f} {BOTTOM}", *steps, f"V{BOTTOM}"]), class_="now")
    svg.add("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="rule")
    for tick in x.ticks(13 if shape.whole and len(shape.edges) > shape.edges[-1] - shape.edges[0] else 5):
        if not shape.whole or tick == round(tick):
            _label(svg, labels, x.y(tick), f"{tick:,.12g}", "middle")
    return str(svg)


def _y_axis(svg: Svg, y: Scale) -> None:
    """Shares of rows, in percent."""
    for tick in y.ticks(4):
        svg.add("line", x1=LEFT, x2=RIGHT, y1=y.y(tick), y2=y.y(tick), class_="grid")
        svg.text(LEFT - 4, y.y(tick) + 4, f"{100 * tick:.3g}%", "label", "end")
    svg.text(0, 9, "share of rows", "label")


def _bar(svg: Svg, y: Scale, start: float, end: float, shares: tuple[float, float], told: str, shape: Shape) -> None:
    """The reference's bar and, outside of the bins, the window's line; what is there to hover over is as high as the
    picture."""
    before, now = shares
    svg.add("rect", x=start, y=y.y(before), width=end - start, height=BOTTOM - y.y(before), class_="was")
    if told.startswith(("<", ">")):
        svg.add("path", d=f"M{start:.1f} {BOTTOM}V{y.y(now):.1f}H{end:.1f}V{BOTTOM}", class_="now")
    title = f"{told}: {_counted(shares, shape)}"
    svg.add("rect", "", title, x=start, y=TOP, width=end - start, height=BOTTOM - TOP, class_="hover")


def _counted(shares: tuple[float, float], shape: Shape) -> str:
    sides = zip(("reference", "now"), shares, shape.rows, strict=True)
    return ", ".join(f"{side} {share:.1%} ({share * rows:,.0f} rows)" for side, share, rows in sides)


def _ends(shape: Shape, first: int, last: int) -> tuple[float, float]:
    """What the parts from the first to the last begin and end with."""
    half = 0.5 if shape.whole else 0.0
    return shape.edges[first] + half, shape.edges[last + 1] - half


def _told(shape: Shape, number: int) -> str:
    low, high = _ends(shape, number, number)
    return " to ".join(_shown(end, shape) for end in ([low] if shape.whole and low == high else [low, high]))


def _shown(value: float, shape: Shape) -> str:
    """A whole number in full, as long as that is short."""
    return f"{value:,.0f}" if shape.whole and abs(value) < 1e9 else f"{value:,.4g}"


def _label(svg: Svg, labels: Row, x: float, text: str, anchor: str) -> None:
    """Below the axis, where there is room: what was said first stays."""
    width = len(text) * LETTER
    start = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    if labels.free(start, start + width):
        svg.text(x, BOTTOM + 14, text, "label", anchor)


def _levels(name: str, shape: Shape) -> str:
    rows = sorted(zip(shape.levels, shape.reference, shape.current, strict=True), key=lambda r: -abs(r[1] - r[2]))
    left, right, height, shown = 104.0, 282.0, 17.0, rows[:LEVELS]
    bottom = len(shown) * height + 4
    svg = Svg(WIDTH, bottom + (34 if len(rows) > LEVELS else 20), f"{name}: reference and now")
    x = Scale(0, max(*(max(row[1:]) for row in rows), 1e-9), right, left)
    for tick in x.ticks(4):
        svg.add("line", x1=x.y(tick), x2=x.y(tick), y1=0.0, y2=bottom, class_="grid")
        svg.text(x.y(tick), bottom + 13, f"{100 * tick:.3g}%", "label", "middle")
    for number, (level, before, now) in enumerate(shown):
        top, title = number * height + 2, f"{level}: {_counted((before, now), shape)}"
        svg.text(left - 6, top + 11, shortened(level, 14), "label", "end", title)
        svg.add("rect", "", title, x=left, y=top, width=x.y(before) - left, height=6, class_="was")
        svg.add("rect", "", title, x=left, y=top + 7, width=x.y(now) - left, height=6, class_="now-bar")
        svg.text(WIDTH, top + 11, f"{now - before:+.1%}", "label", "end", title)
    if len(rows) > LEVELS:
        svg.text(left, bottom + 28, f"and {len(rows) - LEVELS} that differ less", "label")
    return str(svg)
