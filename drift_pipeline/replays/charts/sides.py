"""A candidate beside its champion at each step of a rollout: two marks on one scale, a line a step."""

from collections.abc import Mapping, Sequence
from typing import Any

from drift_pipeline.replays.figures import Scale, Svg, shortened

LINE = 26.0


def sides(compared: Sequence[Mapping[str, Any]], measure: str, candidate: str, champion: str) -> str:
    """`compared` have `of` (the step), `candidate` and `champion` (values) and `on` (what they were measured on)."""
    width, left, right, top = 330.0, 64.0, 318.0, 8.0
    bottom = top + len(compared) * LINE
    svg = Svg(width, bottom + 20, f"{measure} of {candidate} beside {champion}", class_="sides")
    x = Scale.around([float(one[side]) for one in compared for side in ("candidate", "champion")], right, left)
    for tick in x.ticks(4):
        svg.add("line", x1=x.y(tick), x2=x.y(tick), y1=top, y2=bottom, class_="grid")
        svg.text(x.y(tick), bottom + 14, f"{tick:g}", "label", "middle")
    for number, one in enumerate(compared):
        y = top + (number + 0.5) * LINE
        before, now = (x.y(float(one[side])) for side in ("champion", "candidate"))
        title = f"{one['of']}: {candidate} {one['candidate']:.4g}, {champion} {one['champion']:.4g}, on {one['on']}"
        svg.text(left - 8, y + 4, shortened(str(one["of"]).replace("_", " "), 9), "label", "end", title)
        svg.add("line", x1=before, x2=now, y1=y, y2=y, class_="rule")
        svg.add("circle", "", title, cx=before, cy=y, r=4.5, class_="was-mark")
        svg.add("path", "", title, d=f"M{now - 5.5:.1f} {y:.1f}l5.5 -5.5l5.5 5.5l-5.5 5.5z", class_="now-mark")
    svg.add("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="rule")
    return str(svg)
