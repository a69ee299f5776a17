"""Pictures for metadata: drifting columns beside their reference, as images that Dagster's Markdown shows inline."""

import base64
import html
from collections.abc import Iterable, Sequence

from drift_pipeline.clock import format_duration
from drift_pipeline.detection.counting.shape import Shape
from drift_pipeline.detection.judging.verdict import FeatureFinding

MOST_DRAWN, MOST_BARS, NAME = 4, 40, 18  # columns, bars of each, letters of a level
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 460, 150, 44, 110
_GREY, _BLUE, _INK, _PAPER = "#9aa5b1", "#2563eb", "#334155", "#ffffff"


def drawn(shapes: Sequence[tuple[FeatureFinding, Shape]]) -> str:
    """Markdown: what each of the first few columns did, and its picture; the others by name."""
    parts = list[str]()
    for finding, shape in shapes[:MOST_DRAWN]:
        said = f"{finding.direction}; PSI {finding.psi:.3g}" if finding.drift else f"PSI {finding.psi:.3g}, no drift"
        over = f"{finding.n:,} rows over {format_duration(finding.window)}"
        parts += [f"**{_plain(finding.name)}**: {said}; {over}", _image(finding.name, shape)]
    if more := [_plain(finding.name) for finding, _ in shapes[MOST_DRAWN:]]:
        parts.append(f"Not drawn: {', '.join(more)}")
    return "\n\n".join(part for part in parts if part) or "no column has a value to draw"


def _image(name: str, shape: Shape) -> str:
    """An image of one picture; nothing where the shape holds no part."""
    if not shape.reference:
        return ""
    encoded = base64.b64encode(svg(name, shape).encode()).decode()
    return f"![{_plain(name)}: reference in grey, now in blue](data:image/svg+xml;base64,{encoded})"


def svg(name: str, shape: Shape) -> str:
    """Shares of the rows by part, the reference's (grey) beside now's (blue), on an axis with its values.

    Of levels those that differ most are drawn; all parts of a number are.
    """
    parts = list(zip(_labels(shape), shape.reference, shape.current, strict=True))
    if shape.levels:
        parts = sorted(parts, key=lambda part: -abs(part[1] - part[2]))[: MOST_BARS // 4]
    top = max(max(before, now) for _, before, now in parts) or 1.0
    step, high = (_WIDTH - _LEFT - 8) / len(parts), _BOTTOM - 24
    bars = [
        f'<rect x="{_LEFT + number * step + side * step * 0.44:.1f}" y="{_BOTTOM - high * share / top:.1f}" '
        f'width="{step * 0.42:.1f}" height="{high * share / top:.1f}" fill="{colour}"/>'
        for number, (_, before, now) in enumerate(parts)
        for side, (share, colour) in enumerate(((before, _GREY), (now, _BLUE)))
    ]
    axis = [
        f'<line x1="{_LEFT}" y1="{_BOTTOM}" x2="{_WIDTH - 8}" y2="{_BOTTOM}" stroke="{_INK}"/>',
        _text(_LEFT - 4, _BOTTOM, "0 %", "end"),
        _text(_LEFT - 4, 30, f"{top:.0%}".replace("%", " %"), "end"),
        _text(_LEFT, 14, f"{name}: share of rows, reference (grey), now (blue)"),
    ]
    every = max(1, -(-len(parts) // 5))  # five labels fit
    named = [
        _text(_LEFT + (number + 0.5) * step, _BOTTOM + 16 + 14 * (number // every % 2), label, "middle")
        for number, (label, _, _) in enumerate(parts)
        if number % every == 0
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="{_PAPER}"/>{"".join([*bars, *axis, *named])}</svg>'
    )


def _labels(shape: Shape) -> list[str]:
    """Of each part: its level, or where it begins; what lies outside is in the first and the last part."""
    if shape.levels:
        return [level if len(level) <= NAME else f"{level[: NAME - 1]}…" for level in shape.levels]
    return [f"{edge:.4g}" for edge in shape.edges[:-1]]


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{_INK}">{html.escape(text)}</text>'


def _plain(text: str) -> str:
    """Names are other people's data: nothing of them is Markdown."""
    return "".join(f"\\{letter}" if letter in _MARKDOWN else letter for letter in text.replace("\n", " "))


_MARKDOWN: Iterable[str] = frozenset("\\`*_{}[]()<>#+-.!|~&")
