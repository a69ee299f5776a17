"""A column's picture has axes with values, names what lies outside of its bins, and counts rows where one points."""

import re
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.replays import charts
from drift_pipeline_tests.detection.counting.test_shape import shape


def drawn(before: Any, after: Any, name: str = "x") -> str:
    series = [pl.Series("x", side, dtype=None if isinstance(side[0], str) else pl.Float64) for side in (before, after)]
    return charts.column({"name": name, "shape": shape(*series).to_json()})


def titles(svg: str) -> list[str]:
    return re.findall(r"<title>([^<]*)</title>", svg)


def labels(svg: str) -> list[str]:
    """What stands below the axis of a picture of numbers, from left to right."""
    found = re.findall(r'<text x="([\d.-]+)" y="122" class="label"[^>]*>([^<]*)</text>', svg)
    return [text for _, text in sorted(found, key=lambda one: float(one[0]))]


def test_each_whole_number_has_a_bar_and_a_title_with_its_rows() -> None:
    svg = drawn(np.repeat(np.arange(1, 13), 10), np.repeat([1, 2], [30, 10]))
    assert titles(svg)[:2] == [
        "1: reference 8.3% (10 rows), now 75.0% (30 rows)",
        "2: reference 8.3% (10 rows), now 25.0% (10 rows)",
    ]
    assert len(titles(svg)) == 12
    assert labels(svg) == [str(month) for month in range(1, 13)]


def test_what_lies_outside_is_named_and_stands_apart() -> None:
    before = np.append(np.tile(np.arange(0, 10), 300), [500])
    svg = drawn(before, [5] * 60 + [700] * 40)
    assert labels(svg)[-2:] == ["9", "&gt; 9"]
    assert titles(svg)[0] == "&gt; 9: reference 0.0% (1 rows), now 40.0% (40 rows)"
    bars = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="[\d.]+" class="was"/>', svg)
    ends = sorted((float(x), float(x) + float(width)) for x, width in bars)
    assert ends[-1][0] - ends[-2][1] >= 5
    assert not any(label.startswith("&lt;") for label in labels(svg))


@pytest.mark.parametrize("shift", [-4, 4])
def test_of_any_numbers_both_tails_have_their_side(shift: int) -> None:
    random = np.random.default_rng(0)
    svg = drawn(random.normal(0, 1, 5000), random.normal(shift, 1, 500))
    outside = [title for title in titles(svg) if title.startswith(("&lt; ", "&gt; "))]
    assert [title[:4] for title in outside] == ["&lt;", "&gt;"]
    now = [float(re.findall(r"now ([\d.]+)%", title)[0]) for title in outside]
    assert (now[0] > 80, now[1] > 80) == (shift < 0, shift > 0)


def test_the_counts_of_all_titles_are_all_rows() -> None:
    random = np.random.default_rng(0)
    for before in (random.poisson(3, 4000), random.normal(0, 1, 4000), random.choice(["a", "b", "c"], 4000)):
        svg = drawn(before, before[:700])
        kinds = dict.fromkeys(titles(svg))  # a level's title stands on its name and its bars
        counts = [[int(n.replace(",", "")) for n in re.findall(r"\(([\d,]+) rows\)", title)] for title in kinds]
        assert sum(count[0] for count in counts) == pytest.approx(4000, abs=15)
        assert sum(count[1] for count in counts) == pytest.approx(700, abs=15)


def test_the_shares_axis_says_what_the_heights_are() -> None:
    svg = drawn(np.repeat([0, 1], [750, 250]), np.repeat([0, 1], [250, 750]))
    assert "share of rows" in svg
    ticks = {
        float(text): float(y) - 4
        for y, text in re.findall(r'y="([\d.]+)" class="label" text-anchor="end">([\d.]+)%</text>', svg)
    }
    (tops,) = [
        [float(y) for y in re.findall(r"V([\d.]+)H", path)] for path in re.findall(r'd="([^"]+)" class="now"', svg)
    ]
    per_percent = (ticks[0] - ticks[60]) / 60
    assert [(ticks[0] - top) / per_percent for top in tops] == pytest.approx([25, 75], abs=0.2)


def test_levels_have_an_axis_of_shares_and_counts() -> None:
    svg = drawn(["a"] * 60 + ["b"] * 40, ["a"] * 50 + ["b"] * 30 + ["z"] * 20)
    assert "a: reference 60.0% (60 rows), now 50.0% (50 rows)" in titles(svg)
    assert re.findall(r'text-anchor="middle">([\d.]+)%<', svg) == ["0", "20", "40", "60"]


def test_a_name_is_no_markup() -> None:
    assert "<b>" not in drawn([1, 2, 3] * 50, [1, 2, 3] * 50, name="<b>")


@pytest.mark.parametrize("values", [[3.0] * 50, [0.25] * 50, [-1e150, 0.0, 1e150] * 50, [1e9 + n for n in range(3000)]])
def test_odd_columns_are_drawn_without_a_nan(values: list[float]) -> None:
    svg = drawn(values, values)
    assert "nan" not in svg
    assert "inf" not in svg
    found = labels(svg)
    assert len(set(found)) == len(found)
