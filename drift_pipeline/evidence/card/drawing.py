"""The pictures of a card, drawn of the numbers that are stored: each has axes with values and titles to hover over."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drift_pipeline.evidence.pages import number
from drift_pipeline.evidence.svg import Scale, Svg

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 340.0, 270.0, 56.0, 12.0, 12.0, 44.0
MOST_FEATURES, ROW = 15, 17.0
Point = tuple[float, float]
Rows = Sequence[Mapping[str, Any]]


class Plot:
    """A frame with round ticks on both axes; places are in the units of the data."""

    def __init__(self, label: str, x: tuple[str, float, float], y: tuple[str, float, float]) -> None:
        self.svg = Svg(WIDTH, HEIGHT, label)
        # a scale grows upwards; along x it is read from right to left
        self._x, self._y = Scale(*_apart(x), WIDTH - RIGHT, LEFT), Scale(*_apart(y), TOP, HEIGHT - BOTTOM)
        for tick in self._x.ticks(6):
            self.svg.add("line", x1=self.x(tick), x2=self.x(tick), y1=TOP, y2=HEIGHT - BOTTOM, class_="grid")
            self.svg.text(self.x(tick), HEIGHT - BOTTOM + 15, _tick(tick), "tick", "middle")
        for tick in self._y.ticks(6):
            self.svg.add("line", x1=LEFT, x2=WIDTH - RIGHT, y1=self.y(tick), y2=self.y(tick), class_="grid")
            self.svg.text(LEFT - 6, self.y(tick) + 4, _tick(tick), "tick", "end")
        self.svg.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x[0], "axis-name", "middle")
        middle = (TOP + HEIGHT - BOTTOM) / 2
        self.svg.add(
            "text",
            y[0],
            x=12.0,
            y=middle,
            class_="axis-name",
            text_anchor="middle",
            transform=f"rotate(-90 12 {middle})",
        )

    def x(self, value: float) -> float:
        return self._x.y(value)

    def y(self, value: float) -> float:
        return self._y.y(value)

    def line(self, points: Sequence[Point], class_: str) -> None:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.svg.add("polyline", points=places, class_=class_)

    def dot(self, point: Point, title: str, class_: str = "dot") -> None:
        self.svg.add("circle", "", title, cx=self.x(point[0]), cy=self.y(point[1]), r=3.5, class_=class_)

    def whisker(self, x: float, low: float, high: float) -> None:
        self.svg.add("line", x1=self.x(x), x2=self.x(x), y1=self.y(low), y2=self.y(high), class_="whisker")

    def bar(self, start: float, end: float, height: float, title: str) -> None:
        left, top = self.x(start), self.y(height)
        width = max(self.x(end) - left - 1, 1.0)
        self.svg.add("rect", "", title, x=left, y=top, width=width, height=self.y(0.0) - top, class_="bar")


def pictures(curves: Mapping[str, Any], measure: str) -> dict[str, str]:
    """An SVG of each curve that there is, by name; `measure` is what importance is told in, such as `AUROC lost`."""
    draw: Mapping[str, Callable[[Any], str]] = {
        "roc": _roc,
        "calibration": _calibration,
        "gains": _gains,
        "confusion": _confusion,
        "predicted_and_actual": _predicted_and_actual,
        "residuals": _residuals,
        "importance": lambda rows: _importance(rows, measure),
    }
    return {name: draw[name](value) for name, value in curves.items() if value}


def _roc(rows: Rows) -> str:
    plot = Plot("ROC curve", ("false positive rate", 0, 1), ("true positive rate", 0, 1))
    points = [(row["false_positive_rate"], row["true_positive_rate"]) for row in rows]
    plot.line([(0, 0), (1, 1)], "chance")
    plot.line(points, "curve")
    for row, point in zip(rows, points, strict=True):
        at = "" if row["threshold"] is None else f", score at least {number(row['threshold'])}"
        plot.dot(point, f"{point[1]:.1%} of the positives, {point[0]:.1%} of the negatives{at}", "hover")
    return str(plot.svg)


def _calibration(rows: Rows) -> str:
    most = max(max(row["predicted"], row["high"]) for row in rows)
    top = min(max(most * 1.05, 0.1), 1.0)
    plot = Plot("Calibration", ("mean score", 0, top), ("share of positives", 0, top))
    plot.line([(0, 0), (top, top)], "chance")
    plot.line([(row["predicted"], row["observed"]) for row in rows], "curve")
    for row in rows:
        plot.whisker(row["predicted"], row["low"], row["high"])
        told = f"mean score {row['predicted']:.1%}: {row['observed']:.1%} positive"
        title = f"{told}, 95 % interval {row['low']:.1%} to {row['high']:.1%}, of {row['rows']:,} rows"
        plot.dot((row["predicted"], row["observed"]), title)
    return str(plot.svg)


def _gains(rows: Rows) -> str:
    plot = Plot("Gains", ("share of rows, highest scores first", 0, 1), ("share of the positives", 0, 1))
    plot.line([(0, 0), (1, 1)], "chance")
    plot.line([(row["share"], row["captured"]) for row in rows], "curve")
    for row in rows:
        plot.dot((row["share"], row["captured"]), f"the first {row['share']:.0%}: {row['captured']:.1%}", "hover")
    return str(plot.svg)


def _confusion(value: Mapping[str, Any]) -> str:
    """Cells are as dark as the share of their label that they hold."""
    svg, size, left, top = Svg(WIDTH, 220, "Confusion matrix"), (116.0, 78.0), 96.0, 56.0
    svg.text(left + size[0], 16, f"decision at {number(value['threshold'])}", "axis-name", "middle")
    for column, name in enumerate(("positive", "negative")):
        svg.text(left + (column + 0.5) * size[0], 42, name, "tick", "middle")
    labels = (("positive", "true_positive", "false_negative"), ("negative", "false_positive", "true_negative"))
    for row, (label, *cells) in enumerate(labels):
        total = sum(value[cell] for cell in cells)
        svg.text(left - 8, top + (row + 0.5) * size[1] - 4, f"label {label}", "tick", "end")
        svg.text(left - 8, top + (row + 0.5) * size[1] + 12, f"{total:,}", "tick", "end")
        for column, cell in enumerate(cells):
            share = value[cell] / total if total else 0.0
            x, y = left + column * size[0], top + row * size[1]
            title = f"{cell.replace('_', ' ')}: {value[cell]:,}, {share:.1%} of the label"
            place: dict[str, object] = {"x": x, "y": y, "width": size[0] - 3, "height": size[1] - 3}
            svg.add("rect", "", title, **place, class_="cell", fill_opacity=f"{0.06 + 0.5 * share:.3f}")
            svg.text(x + size[0] / 2, y + size[1] / 2, f"{value[cell]:,}", "count", "middle")
            svg.text(x + size[0] / 2, y + size[1] / 2 + 17, f"{share:.1%}", "tick", "middle")
    return str(svg)


def _predicted_and_actual(rows: Rows) -> str:
    ends = [row[name] for row in rows for name in ("predicted", "p10", "p90")]
    low, high = min(ends), max(ends)
    plot = Plot("Predicted and actual", ("mean prediction", low, high), ("label: median, 10 to 90 %", low, high))
    plot.line([(low, low), (high, high)], "chance")
    plot.line([(row["predicted"], row["median"]) for row in rows], "curve")
    for row in rows:
        plot.whisker(row["predicted"], row["p10"], row["p90"])
        told = f"predicted {number(row['predicted'])}: median label {number(row['median'])}"
        title = f"{told}, 10 to 90 %: {number(row['p10'])} to {number(row['p90'])}, of {row['rows']:,} rows"
        plot.dot((row["predicted"], row["median"]), title)
    return str(plot.svg)


def _residuals(rows: Rows) -> str:
    """What lies outside of the bins stands apart, beyond a gap, and says so."""
    most, low, high = max(row["share"] for row in rows), rows[0]["to"], rows[-1]["from"]
    bin, share = (high - low) / (len(rows) - 2), " of the rows"
    plot = Plot(
        "Residuals", ("label minus prediction", low - 2 * bin, high + 2 * bin), ("share of rows", 0, most * 1.12)
    )
    for row in rows[1:-1]:
        told = f"{number(row['from'])} to {number(row['to'])}"
        plot.bar(row["from"], row["to"], row["share"], f"{told}: {row['share']:.1%}{share}")
    ends = (low - 1.6 * bin, f"< {number(low)}", rows[0]), (high + 0.6 * bin, f"> {number(high)}", rows[-1])
    for at, end, row in ends:
        plot.bar(at, at + bin, row["share"], f"{end}: {row['share']:.1%}{share}")
        plot.svg.text(plot.x(at + bin / 2), TOP + 10, end, "tick", "start" if at < low else "end")
    if low < 0 < high:
        plot.line([(0, 0), (0, most)], "chance")
    return str(plot.svg)


def _importance(rows: Rows, measure: str) -> str:
    """Bars from 0, to the left where the model is better without the feature."""
    shown = [row for row in rows if row["loss"] is not None][:MOST_FEATURES]
    left, right = 118.0, WIDTH - 58
    svg = Svg(WIDTH, len(shown) * ROW + 46, "Importance of the features")
    losses = [row["loss"] for row in shown] or [0.0]
    scale = Scale(*_apart(("", min(*losses, 0.0), max(*losses, 0.0))), right, left)
    for tick in scale.ticks(4):
        svg.add("line", x1=scale.y(tick), x2=scale.y(tick), y1=4.0, y2=len(shown) * ROW + 6, class_="grid")
        svg.text(scale.y(tick), len(shown) * ROW + 20, _tick(tick), "tick", "middle")
    for place, row in enumerate(shown):
        top, ends = place * ROW + 6, sorted((scale.y(0.0), scale.y(row["loss"])))
        title = f"{row['feature']}: {number(row['loss'])}"
        name = row["feature"] if len(row["feature"]) <= 17 else row["feature"][:16] + "…"
        svg.text(left - 6, top + 10, name, "tick", "end", title)
        svg.add("rect", "", title, x=ends[0], y=top, width=max(ends[1] - ends[0], 1.0), height=ROW - 5, class_="bar")
        svg.text(right + 6, top + 10, number(row["loss"]), "tick")
    more = len(rows) - len(shown)
    words = f"{measure} where it is shuffled" + (f"; {more} more in the table" if more else "")
    svg.text((left + right) / 2, len(shown) * ROW + 40, words, "axis-name", "middle")
    return str(svg)


def _apart(axis: tuple[str, float, float]) -> tuple[float, float]:
    _, low, high = axis
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _tick(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e6 else f"{value:.3g}"
