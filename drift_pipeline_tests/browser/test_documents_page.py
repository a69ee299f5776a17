"""The documents of a version, and an incident's pack, in a browser: no error, nothing fetched, all of it in sight."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from drift_pipeline_tests.browser.chromium import Heard, needs_chromium, page
from drift_pipeline_tests.replay.worlds import drift, replayed

pytestmark = needs_chromium
OUT_OF_SIGHT = """() => [...document.querySelectorAll("svg text, td, h1, .what")]
    .filter((element) => { const b = element.getBoundingClientRect();
                           return b.width > 0 && (b.left < 0 || b.right > innerWidth); })
    .map((element) => element.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[tuple[Page, Heard]]:
    with page() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the replay's v2, with the pack of its incident beside."""
    home = replayed()[1]
    found = next((home / "evidence").glob("*/v2"))
    out = tmp_path_factory.mktemp("pack")
    assert drift("incident", "pack", found.parent.name, "--home", home, "--out", out).code == 0
    for name in ("card", "datasheet", "annex"):
        (out / f"{name}.html").write_bytes((found / f"{name}.html").read_bytes())
    return out


@pytest.mark.parametrize("name", ["card", "datasheet", "annex", "incident"])
def test_a_document_asks_for_nothing_says_no_error_and_fits(
    browser: tuple[Page, Heard], folder: Path, name: str
) -> None:
    opened, heard = browser
    heard.errors.clear()
    heard.requests.clear()
    opened.goto((folder / f"{name}.html").absolute().as_uri())
    assert heard.requests == [opened.url]
    assert heard.errors == []
    assert opened.evaluate("document.documentElement.scrollWidth") == 1280
    assert opened.evaluate(OUT_OF_SIGHT) == []
    assert opened.locator(".draft").inner_text().startswith("DRAFT")


def test_every_missing_field_can_be_gone_to(browser: tuple[Page, Heard], folder: Path) -> None:
    opened, _ = browser
    opened.goto((folder / "annex.html").absolute().as_uri())
    links = opened.locator(".todo a")
    assert links.count() > 10
    for at in range(links.count()):
        id = (links.nth(at).get_attribute("href") or "").removeprefix("#")
        assert opened.locator(f"[id='{id}'] .missing").count() == 1
