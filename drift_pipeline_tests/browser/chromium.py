"""One page in the machine's Chromium that writes down what it said and asked for."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run"),
)
needs_chromium = [
    pytest.mark.live,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@dataclass
class Heard:
    """What a page said on its console as an error or a warning, what it threw, and every address it asked for."""

    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def console(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.errors.append(said.text)


@contextmanager
def page(width: int = 1280, height: int = 900) -> Iterator[tuple[Page, Heard]]:
    """An empty page of this size; go to an address with `page.goto`. Everything is closed at the end."""
    heard = Heard()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        try:
            opened = browser.new_page(viewport={"width": width, "height": height})
            opened.on(
                "console", lambda said: heard.errors.append(said.text) if said.type in ("error", "warning") else None
            )
            opened.on("pageerror", lambda error: heard.errors.append(str(error)))
            opened.on("request", lambda request: heard.requests.append(request.url))
            yield opened, heard
        finally:
            browser.close()
