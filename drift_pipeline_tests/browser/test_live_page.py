"""The live pages in a browser: wide and narrow, light and dark, by keyboard, and renewed by themselves."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from playwright.sync_api import Page, sync_playwright

from drift_pipeline.control.store import Entry
from drift_pipeline.pages.app import make_app
from drift_pipeline.settings import Settings
from drift_pipeline_tests.browser.chromium import CHROMIUM, QUIET, Heard, needs_chromium
from drift_pipeline_tests.browser.test_report_page import OUT_OF_SIGHT, overlapping
from drift_pipeline_tests.pages.worlds import clock, copied, store_of
from drift_pipeline_tests.replay.worlds import MODEL

pytestmark = needs_chromium
EVERY_MS = 15_000


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return copied(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    """Where the pages of a copy of the shared replay, and of a model beside it that is broken, are served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(make_app(settings, clock()), log_level="error", ws="none"))
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def opened(width: int, scheme: str) -> Iterator[tuple[Page, Heard]]:
    heard = Heard()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
            page.on("console", heard.console)
            page.on("pageerror", lambda error: heard.errors.append(str(error)))
            page.on("request", lambda request: heard.requests.append(request.url))
            yield page, heard
        finally:
            browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1600])
def test_every_page_fits_says_no_error_and_asks_nobody_else(url: str, width: int, scheme: str) -> None:
    with opened(width, scheme) as (page, heard):
        for path in ("/", f"/{MODEL}?since=1y", f"/{MODEL}/v2/chain.html", f"/{MODEL}/recorded/chain.html"):
            page.goto(url + path)
            for closed in page.locator("details").all():
                closed.evaluate("one => { one.open = true; }")
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert page.evaluate(OUT_OF_SIGHT) == []
            assert overlapping(page) == []
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, ground[4:-1].split(","))) > 380) == (scheme == "light")
        assert heard.errors == []
        assert all(asked.startswith(url) for asked in heard.requests)


def test_the_crosshair_stands_on_ticks_and_follows_the_keys(url: str) -> None:
    with opened(1280, "light") as (page, heard):
        page.goto(f"{url}/{MODEL}?since=1y")
        ticks = page.evaluate(
            "JSON.parse(document.getElementById('facts').textContent).kpis[0].points.map((p) => "
            "new Date(p[0]).toISOString().slice(0, 16).replace('T', ' ') + ' UTC')"
        )
        page.locator("#timeline").hover(position={"x": 611, "y": 150})
        assert page.locator(".tip").inner_text().split("\n")[0].strip() in ticks
        page.mouse.move(2, 2)
        page.locator("#timeline").focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator(".tip").inner_text().split("\n")[0].strip() == ticks[-1]
        page.keyboard.press("ArrowLeft")
        assert page.locator(".tip").inner_text().split("\n")[0].strip() == ticks[-2]
        page.keyboard.press("Escape")
        assert not page.locator(".tip").is_visible()
        assert heard.errors == []


def test_a_picture_s_data_comes_as_csv(url: str, tmp_path: Path) -> None:
    with opened(1280, "light") as (page, _):
        page.goto(f"{url}/{MODEL}?since=1y")
        for button in ("#what-happened button.csv", "#incidents button.csv"):
            with page.expect_download() as download:
                page.locator(button).first.click()
            download.value.save_as(tmp_path / "data.csv")
            assert len((tmp_path / "data.csv").read_text().splitlines()) > 10


def test_a_page_renews_itself_and_keeps_what_was_opened(settings: Settings, url: str) -> None:
    """Also where it was scrolled to; a server that went away is told, and forgotten when it is back."""
    with opened(1280, "light") as (page, heard):
        page.clock.install()
        page.goto(f"{url}/{MODEL}?since=1y")
        page.locator("details[data-key=kpis] summary").click()
        page.get_by_label("training").first.uncheck()
        page.evaluate("scrollTo(0, 500)")
        with closing(store_of(settings)) as store:
            told = {"decision": "x", "because": "it was told while one looked"}
            store.commit(Entry("loop", "training.refused", MODEL, {}, told))
        page.wait_for_timeout(3500)  # what was drawn is kept for three seconds
        page.clock.run_for(EVERY_MS)
        page.get_by_text("it was told while one looked").first.wait_for(state="attached")
        assert page.locator("details[data-key=kpis]").get_attribute("open") is not None
        assert page.evaluate("scrollY") == 500
        assert not page.locator("#filters input[data-kind=training]").is_checked()
        assert heard.errors == []
        page.route("**/*", lambda route: route.abort())
        page.clock.run_for(EVERY_MS)
        page.locator(".stale").wait_for(state="visible")
        page.unroute("**/*")
        page.clock.run_for(EVERY_MS)
        page.locator(".stale").wait_for(state="hidden")


def test_on_paper_nothing_is_cut_off(url: str) -> None:
    """At the width of A4 without its margins."""
    with opened(703, "light") as (page, _):
        page.emulate_media(media="print")
        page.goto(f"{url}/{MODEL}?since=1y")
        assert page.evaluate("document.documentElement.scrollWidth") == 703
        assert page.evaluate(OUT_OF_SIGHT) == []
        assert page.locator("#retrains td[data-label='Why the policy decided so']").first.bounding_box()["width"] > 400  # type: ignore[index]
        assert not page.locator(".tip").is_visible()


def test_an_incident_s_link_leads_to_it(url: str) -> None:
    with opened(1280, "light") as (page, heard):
        page.goto(f"{url}/{MODEL}?since=1y")
        href = page.locator(".incident h3 a").first.get_attribute("href")
        page.goto(f"{url}/{MODEL}?since=1y{href}")
        assert page.locator(f"{href}").bounding_box()["y"] < 900  # type: ignore[index]
        assert heard.errors == []
