"""The pages as an ASGI application: an index, a page a model, its ticks as CSV, the documents beside. GET only."""

import logging
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import polars as pl
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from drift_pipeline.clock import DAY, HOUR, Clock
from drift_pipeline.errors import DriftError, InputError
from drift_pipeline.evidence.day_pages import shared_page
from drift_pipeline.pages.door import HEALTH, Door
from drift_pipeline.pages.index import Index
from drift_pipeline.pages.kept import Kept
from drift_pipeline.pages.live import CARD, CHAIN, Reader, ServedLinks
from drift_pipeline.pages.models import Models
from drift_pipeline.replays.chains import chain_page
from drift_pipeline.replays.page import Served, render
from drift_pipeline.replays.report import report_page
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

log = logging.getLogger(__name__)
SPANS = {"1h": HOUR, "6h": 6 * HOUR, "24h": DAY, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY, "1y": 365 * DAY}
DEFAULT = "30d"
SECONDS = 3.0  # for so long a page is given as it was drawn
_NAME, _VERSION = re.compile(r"[a-z][a-z0-9_]*"), re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_ALONE = "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
_INLINE = "default-src 'none'; style-src 'unsafe-inline'"
PAGE_POLICY = f"{_INLINE}; script-src 'unsafe-inline'; connect-src 'self'; {_ALONE}"
CARD_POLICY = f"{_INLINE}; img-src data:; sandbox; {_ALONE}"
REPORT_POLICY = f"default-src 'unsafe-inline' 'unsafe-eval' data: blob:; sandbox allow-scripts; {_ALONE}"
_Answer = Callable[[Request], Awaitable[Response]]


class Refused(Exception):  # noqa: N818  # an answer, which is no fault of ours
    """What is asked for is not there, or cannot be: the status and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def make_app(settings: Settings, clock: Clock, key: str = "", dagster: str = "") -> Starlette:
    """
    Args:
        key: asked of everybody; empty = of nobody, and only this machine is answered.
        dagster: the address of its UI, for links.
    """
    pages = Pages(settings, clock, dagster)
    asked = {
        "/": pages.index,
        "/{model}": pages.model,
        "/{model}/kpis.csv": pages.csv,
        "/{model}/drift/{day}.html": pages.day,
        "/{model}/{version}/" + CARD: pages.card,
        "/{model}/{version}/" + CHAIN: pages.chain,
    }
    routes = [Route(HEALTH, _healthy, methods=["GET"])]
    routes += [Route(path, _answering(answer), methods=["GET"]) for path, answer in asked.items()]
    app = Starlette(routes=routes)
    app.add_middleware(GZipMiddleware, compresslevel=5)
    app.add_middleware(Door, key=key)
    return app


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _answering(answer: Callable[[Request], Response]) -> _Answer:
    """In a thread, for it reads files; what goes wrong is told on a page that looks again by itself."""

    async def answered(request: Request) -> Response:
        try:
            return await run_in_threadpool(answer, request)
        except Refused as error:
            return _wrong(error.status, str(error))
        except (DriftError, OSError) as error:
            return _wrong(503, str(error))
        except Exception as error:  # the edge of the process: told here and in the log, and the others are served
            log.exception("%s could not be drawn", request.url.path)
            return _wrong(500, f"{type(error).__name__}: {error}; the log of the pages has more")

    return answered


def _wrong(status: int, why: str) -> Response:
    return _html(render("wrong.html.j2", {"why": why}, served=Served(live=True)).encode(), PAGE_POLICY, status)


def _html(body: bytes, policy: str, status: int = 200) -> Response:
    headers = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return Response(body, status, headers, media_type="text/html; charset=utf-8")


class Pages:
    """What is shown under each address. Every method raises DriftError, OSError or `Refused`."""

    def __init__(self, settings: Settings, clock: Clock, dagster: str) -> None:
        self._settings, self._models, self._kept = settings, Models(settings), Kept[bytes](SECONDS)
        self._reader = Reader(settings, clock, dagster)
        self._index = Index(self._reader)

    def index(self, _: Request) -> Response:
        made = self._kept.get("", lambda: self._index.page(self._models.look()).encode())
        return _html(made, PAGE_POLICY)

    def model(self, request: Request) -> Response:
        spec, (since, length) = self._spec(request), _since(request)

        def make() -> bytes:
            here = f"/{quote(spec.name)}"
            spans = [(name, f"{here}?since={name}", name == since) for name in SPANS]
            served = Served(live=True, csv=f"{here}/kpis.csv?since={since}", spans=spans, home="/")
            return report_page(self._reader.told(spec, length, ServedLinks()), served).encode()

        return _html(self._kept.get((spec.name, since), make), PAGE_POLICY)

    def csv(self, request: Request) -> Response:
        """Every tick of the span, a row a KPI."""
        spec, (since, length) = self._spec(request), _since(request)
        made = self._kept.get((spec.name, since, "csv"), lambda: csv_of(self._reader.ticks(spec, length)))
        name = f'attachment; filename="{spec.name}-kpis-{since}.csv"'
        headers = {"content-disposition": name, "x-content-type-options": "nosniff", "cache-control": "no-store"}
        return Response(made, headers=headers, media_type="text/csv; charset=utf-8")

    def card(self, request: Request) -> Response:
        spec, version = self._spec(request), _version(request)
        return _html(_read(self._settings.evidence / spec.name, Path(version) / CARD), CARD_POLICY)

    def chain(self, request: Request) -> Response:
        """How a version came about, which `drift audit show --html` draws too."""
        spec, version = self._spec(request), _version(request)
        try:
            found = self._reader.came_about(spec.name, version)
        except InputError as error:
            raise Refused(404, str(error)) from error
        here, card = f"/{quote(spec.name)}", Path(found.version) / CARD
        has = (self._settings.evidence / spec.name / card).is_file()
        page = chain_page(found, f"{here}/{quote(card.as_posix())}" if has else "", here, Served(home="/"))
        return _html(page.encode(), PAGE_POLICY)

    def day(self, request: Request) -> Response:
        """A day's drift report, as Evidently made it; its scripts see nothing of these pages."""
        day = request.path_params["day"]
        if not _DAY.fullmatch(day):
            raise Refused(404, "there is no report of such a day")
        spec = self._spec(request)
        page = shared_page(self._settings, spec.name, day)
        if page is None:
            page = _read(self._settings.drift_reports / spec.name, Path(f"{day}.html"))
        return _html(page, REPORT_POLICY)

    def _spec(self, request: Request) -> ModelSpec:
        name = request.path_params["model"]
        found = self._models.look().get(name) if _NAME.fullmatch(name) else None
        if found is None:
            raise Refused(404, f"there is no model {name!r} here; all that are there stand on /")
        if isinstance(found, str):
            raise Refused(503, found)
        return found


def _version(request: Request) -> str:
    version = str(request.path_params["version"])
    if not _VERSION.fullmatch(version):
        raise Refused(404, "there is no such version")
    return version


def _since(request: Request) -> tuple[str, timedelta]:
    asked = request.query_params.get("since", DEFAULT)
    if asked not in SPANS:
        raise Refused(400, f"since={asked}: one of {', '.join(SPANS)}")
    return asked, SPANS[asked]


def _read(folder: Path, name: Path) -> bytes:
    """A file that lies below the folder and nowhere else, whatever links lead out of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise Refused(404, f"there is no {name} of this model")
    return path.read_bytes()


def csv_of(ticks: pl.DataFrame) -> bytes:
    """As a spreadsheet may open it: no text begins as a formula does; lists are joined with spaces."""
    lists = [name for name, kind in ticks.schema.items() if kind == pl.List(pl.String)]
    flat = ticks.with_columns(pl.col(name).list.join(" ") for name in lists)
    texts = [name for name, kind in flat.schema.items() if kind == pl.String]
    return flat.with_columns(pl.col(name).str.replace(r"^([=+\-@\t\r])", "'$1") for name in texts).write_csv().encode()
