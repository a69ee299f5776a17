"""A replay's pages in a browser at 1280 px: nothing is fetched, nothing overlaps, nothing sticks out."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from drift_pipeline_tests.browser.chromium import Heard, needs_chromium, page
from drift_pipeline_tests.replay.worlds import drift, replayed, tightened

pytestmark = needs_chromium

BOXES = """() => [...document.querySelectorAll("svg")].map((svg) => [...svg.querySelectorAll("text")]
    .map((text) => { const b = text.getBoundingClientRect();
                     return {text: text.textContent, x: b.x, y: b.y, right: b.right, bottom: b.bottom}; })
    .filter((box) => box.right > box.x))"""
OUT_OF_SIGHT = """() => [...document.querySelectorAll("svg text, td, .tile b, .tile span, h1, h3")]
    .filter((element) => { const b = element.getBoundingClientRect();
                           return b.width > 0 && (b.left < 0 || b.right > innerWidth); })
    .map((element) => element.textContent)"""
SLACK = 1.0  # px: a line box is taller than its letters


def overlapping(opened: Page) -> list[tuple[str, str]]:
    """Pairs of texts of one chart whose boxes share more than a pixel in both directions."""
    pairs = []
    for boxes in opened.evaluate(BOXES):
        for one, other in combinations(boxes, 2):
            wide = min(one["right"], other["right"]) - max(one["x"], other["x"])
            high = min(one["bottom"], other["bottom"]) - max(one["y"], other["y"])
            if wide > SLACK and high > SLACK:
                pairs.append((one["text"], other["text"]))
    return pairs


@pytest.fixture(scope="module")
def browser() -> Iterator[tuple[Page, Heard]]:
    with page() as opened:
        yield opened


def opened_at(browser: tuple[Page, Heard], path: Path) -> tuple[Page, Heard]:
    opened, heard = browser
    heard.errors.clear()
    heard.requests.clear()
    opened.goto(path.absolute().as_uri())
    return opened, heard


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("diff") / "diff.html"
    assert drift("diff", replayed()[1], tightened()[1], "--html", out).code == 0
    return out


@pytest.fixture(params=["report", "diff"])
def shown(request: pytest.FixtureRequest, browser: tuple[Page, Heard], compared: Path) -> tuple[Page, Heard]:
    return opened_at(browser, compared if request.param == "diff" else replayed()[1] / "report.html")


def test_a_page_asks_for_nothing_but_its_file_and_says_no_error(shown: tuple[Page, Heard]) -> None:
    opened, heard = shown
    assert heard.requests == [opened.url]
    assert opened.url.startswith("file:")
    assert heard.errors == []


def test_a_page_fits_1280_pixels(shown: tuple[Page, Heard]) -> None:
    opened, _ = shown
    assert opened.evaluate("document.documentElement.scrollWidth") == 1280
    assert opened.evaluate(OUT_OF_SIGHT) == []


def test_no_two_labels_of_a_chart_overlap(shown: tuple[Page, Heard]) -> None:
    opened, _ = shown
    assert sum(map(len, opened.evaluate(BOXES))) > 20
    assert overlapping(opened) == []


def test_the_facts_can_be_read_back_from_the_page(browser: tuple[Page, Heard]) -> None:
    opened, _ = opened_at(browser, replayed()[1] / "report.html")
    facts = json.loads(opened.locator("#facts").text_content() or "")
    assert facts["summary"] == json.loads((replayed()[1] / "summary.json").read_text())
    loop = opened.locator("[data-fact='summary.auroc.loop']").first.inner_text()
    assert loop == f"{facts['summary']['auroc']['loop']:.3f}"


def test_pointing_at_the_timeline_tells_every_kpi_at_that_time(browser: tuple[Page, Heard]) -> None:
    opened, heard = opened_at(browser, replayed()[1] / "report.html")
    facts = json.loads(opened.locator("#facts").text_content() or "")
    assert not opened.locator(".tip").is_visible()
    opened.locator("#timeline").hover(position={"x": 600, "y": 150})
    said = opened.locator(".tip").inner_text()
    assert re.search(r"2026-0[23]-\d\d \d\d:\d\d", said)
    for kpi in facts["kpis"]:
        assert re.search(rf"{kpi['name']} .*(OK|WARN|BREACH|INCONCLUSIVE)", said)
    opened.mouse.move(2, 2)
    assert not opened.locator(".tip").is_visible()
    assert heard.errors == []


def test_a_kind_of_event_can_be_hidden_from_the_story(browser: tuple[Page, Heard]) -> None:
    opened, _ = opened_at(browser, replayed()[1] / "report.html")
    rows, dates = opened.locator("#story tr[data-kind=training]"), opened.locator("#story td.same")
    assert dates.first.evaluate("cell => getComputedStyle(cell).color") == "rgba(0, 0, 0, 0)"
    assert rows.first.is_visible()
    opened.get_by_label(re.compile(r"^training \d+$")).uncheck()
    assert not rows.first.is_visible()
    assert opened.locator("#story tr[data-kind=rollout]").first.is_visible()
    assert dates.first.evaluate("cell => getComputedStyle(cell).color") != "rgba(0, 0, 0, 0)"


def crowd(summary: dict[str, Any]) -> None:
    """Thirty champions in a month, with long names."""
    first = summary["reigns"][0]
    span = [f"2026-03-{day:02d}T00:00:00+00:00" for day in range(1, 31)]
    summary["reigns"] = [
        {**first, "from": at, "version": f"v{number}" * 3} for number, at in enumerate(span, start=100)
    ]


def test_labels_that_have_no_room_are_left_out_rather_than_put_on_top_of_others(
    browser: tuple[Page, Heard], tmp_path: Path
) -> None:
    from drift_pipeline.replays.report import write_report

    for name in ("summary.json", "control.db", "kpis.parquet"):
        shutil.copy(replayed()[1] / name, tmp_path / name)
    summary = json.loads((tmp_path / "summary.json").read_text())
    crowd(summary)
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    opened, heard = opened_at(browser, write_report(tmp_path))
    assert overlapping(opened) == []
    assert heard.errors == []
