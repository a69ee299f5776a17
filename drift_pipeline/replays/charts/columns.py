"""One column beside its reference: bars of a number's bins, or of a category's levels."""

from collections.abc import Mapping
from typing import Any

from drift_pipeline.replays.figures import Scale, Svg, shortened

LEVELS = 9  # drawn of a column, at most


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
