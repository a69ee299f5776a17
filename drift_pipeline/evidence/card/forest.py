"""Pictures of groups with their intervals, and of a version's incidents over time."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from drift_pipeline.evidence.card.drawing import WIDTH
from drift_pipeline.evidence.pages import number
from drift_pipeline.evidence.svg import Scale, Svg

ROW, MOST_GROUPS, LEFT, RIGHT = 17.0, 40, 132.0, 14.0
WIDE, LANE, NAMES = 900.0, 20.0, 150.0
Rows = Sequence[Mapping[str, Any]]


def forest(groups: Rows, name: str, low: str, high: str, words: str, overall: float | None) -> str:
    """One figure of each group, with its 95 % interval; a line where that of all rows is."""
    shown = [group for group in groups if group[low] is not None][:MOST_GROUPS]
    bottom = len(shown) * ROW + 8
    svg = Svg(WIDTH, bottom + 40, f"{words} by group")
    values = [group[end] for group in shown for end in (low, high)] + ([] if overall is None else [overall])
    scale = Scale.around(values, LEFT, WIDTH - RIGHT)
    places = Scale(scale.low, scale.high, WIDTH - RIGHT, LEFT)  # a scale grows upwards; along x from right to left
    for tick in places.ticks(5):
        svg.add("line", x1=places.y(tick), x2=places.y(tick), y1=2.0, y2=bottom, class_="grid")
        svg.text(places.y(tick), bottom + 14, number(tick), "tick", "middle")
    if overall is not None:
        svg.add("line", x1=places.y(overall), x2=places.y(overall), y1=2.0, y2=bottom, class_="overall")
    for at, group in enumerate(shown):
        y, value = at * ROW + 12, group[name]
        called = " × ".join("(not known)" if level is None else level for level in group["levels"])
        interval = f"95 % interval {number(group[low])} to {number(group[high])}, of {group['rows']:,} rows"
        title = f"{', '.join(group['columns'])}: {called}: {number(value)}, {interval}"
        svg.text(LEFT - 6, y + 4, called if len(called) <= 20 else called[:19] + "…", "tick", "end")
        svg.add("line", x1=places.y(group[low]), x2=places.y(group[high]), y1=y, y2=y, class_="whisker")
        svg.add("circle", "", title, cx=places.y(value), cy=y, r=4, class_="point")
    more = len(groups) - len(shown)
    svg.text(
        WIDTH / 2, bottom + 34, words + (f"; {more} more only in the table" if more else ""), "axis-name", "middle"
    )
    return str(svg)


def drift_history(reigns: Rows, incidents: Rows, at: str) -> str:
    """Its time as champion, and a lane for each KPI that an incident names: from when to when, and how it stood."""
    names = list(dict.fromkeys(kpi["kpi"] for one in incidents for kpi in one["kpis"]))
    start, end = _moment(reigns[0]["from"]), max(_moment(reigns[-1]["to"] or at), _moment(reigns[0]["from"]))
    whole = max(end - start, timedelta(hours=1))
    bottom = (len(names) + 1) * LANE + 6
    svg = Svg(WIDE, bottom + 24, "Drift history")

    def x(moment: str | None) -> float:
        share = ((_moment(moment) if moment else end) - start) / whole
        return NAMES + min(max(share, 0.0), 1.0) * (WIDE - NAMES - 40)

    for part in range(5):
        place = NAMES + part / 4 * (WIDE - NAMES - 40)
        svg.add("line", x1=place, x2=place, y1=2.0, y2=bottom, class_="grid")
        svg.text(place, bottom + 16, f"{start + whole * part / 4:%Y-%m-%d}", "tick", "middle")
    svg.text(NAMES - 8, 16, "champion", "tick", "end")
    for reign in reigns:
        told = f"champion from {_told(reign['from'])} to {_told(reign['to']) if reign['to'] else 'now'}"
        _bar(svg, told, x(reign["from"]), x(reign["to"]), 4.0, "reign")
    for lane, name in enumerate(names, start=1):
        svg.text(NAMES - 8, lane * LANE + 16, name, "tick", "end")
        for one, kpi in [(each, kpi) for each in incidents for kpi in each["kpis"] if kpi["kpi"] == name]:
            told = f"{one['incident']}: {name} {kpi['verdict']} since {_told(kpi['since'])}: {kpi['reason']}"
            shade = f"lane-{kpi['verdict']}" if kpi["verdict"] in ("BREACH", "WARN") else "lane"
            _bar(svg, told, x(kpi["since"]), x(one["closed"]), lane * LANE + 4, shade)
    return str(svg)


def _bar(svg: Svg, title: str, left: float, right: float, top: float, class_: str) -> None:
    svg.add("rect", "", title, x=left, y=top, width=max(right - left, 2.0), height=14.0, class_=class_)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def _told(text: str) -> str:
    return f"{_moment(text):%Y-%m-%d %H:%M} UTC"
