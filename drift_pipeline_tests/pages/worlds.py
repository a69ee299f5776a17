"""Homes to be looked at: the shared replay's, as if it lived, and a model beside it that is broken."""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

import httpx
from starlette.applications import Starlette

from drift_pipeline.clock import ManualClock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.loop.home import model_of
from drift_pipeline.pages.app import make_app
from drift_pipeline.pages.live import Links, Reader
from drift_pipeline.replays.folder import read_folder
from drift_pipeline.replays.report import report_page
from drift_pipeline.replays.told import Told
from drift_pipeline.settings import Settings
from drift_pipeline_tests.replay.pages import ReadPage, read_page
from drift_pipeline_tests.replay.worlds import MODEL, SPEC, replayed

BROKEN = "churn"
LONG = timedelta(days=365)


def settings_of(folder: Path) -> Settings:
    """The shared replay, whose home is only read, and a model of a wrong file beside its spec."""
    for name, text in ((MODEL, SPEC), (BROKEN, f"name: {BROKEN}\nfeatuers: {{a: numeric}}\n")):
        (folder / "models" / name).mkdir(parents=True)
        (folder / "models" / name / "defs.yaml").write_text(text)
    return Settings(home=replayed()[1], models=folder / "models", database="")


def copied(folder: Path) -> Settings:
    """The same, of a home that may be changed."""
    settings = settings_of(folder)
    shutil.copytree(settings.home, folder / "home")
    return settings.model_copy(update={"home": folder / "home"})


def clock() -> ManualClock:
    """A minute after the last tick of the replay."""
    return ManualClock(read_folder(replayed()[1]).end + timedelta(minutes=1))


def told_of(settings: Settings, since: timedelta = LONG) -> Told:
    return Reader(settings, clock()).told(model_of(settings_only(settings), MODEL), since, Links(settings.home))


def settings_only(settings: Settings) -> Settings:
    """Without the broken model."""
    assert settings.models is not None
    shutil.rmtree(settings.models / BROKEN, ignore_errors=True)
    return settings


def page_of(settings: Settings, since: timedelta = LONG) -> ReadPage:
    return read_page(report_page(told_of(settings, since)))


def store_of(settings: Settings) -> ControlStore:
    return ControlStore(settings.database_url, clock())


def app_of(settings: Settings, key: str = "") -> Starlette:
    return make_app(settings, clock(), key, "http://127.0.0.1:3000")


def ask(app: Starlette, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """One request, as a browser on this machine sends it."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8081") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asked())


def shown(app: Starlette, path: str) -> ReadPage:
    answer = ask(app, path)
    assert answer.status_code == 200, answer.text
    return read_page(answer.text)


def whole() -> Window:
    return Window(read_folder(replayed()[1]).start, clock().now())
