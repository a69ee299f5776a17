"""What a page tells of one model of a home that lives: read only, and drawn as a replay's report is."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from drift_pipeline.clock import Clock, speed_of
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import told_verdict, told_waiting
from drift_pipeline.errors import InputError
from drift_pipeline.evidence.chain import Chain as CausalChain
from drift_pipeline.evidence.chain import chain_of, known_versions
from drift_pipeline.evidence.day_pages import page_file, rendered_days
from drift_pipeline.files import write_whole
from drift_pipeline.loop.home import model_of, reading
from drift_pipeline.loop.status import NOT_ADOPTED, Standing, standings
from drift_pipeline.pages.chain import Chain
from drift_pipeline.pages.kpis import ticks_of
from drift_pipeline.replays.folder import at as at_of
from drift_pipeline.replays.folder import bodies, reigns_of
from drift_pipeline.replays.page import told_length
from drift_pipeline.replays.report import report_page
from drift_pipeline.replays.told import Told
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

if TYPE_CHECKING:
    import polars as pl

CARD, CHAIN = "card.html", "chain.html"
LATE_TICKS = 10


@dataclass
class Reader:
    """Reads a home for its pages; nothing there is made or changed.

    dagster: the address of Dagster's UI; empty where it is not known.
    """

    settings: Settings
    clock: Clock
    dagster: str = ""
    chain: Chain = field(default_factory=Chain)

    def told(self, spec: ModelSpec, since: timedelta, links: "Links") -> Told:
        """What is known of a model in the last `since`, or since it was adopted.

        Raises:
            InputError: there is no home, or the model is not adopted there.
        """
        now = self.clock.now()
        with reading(self.settings) as store:
            records = self.chain.of(store, spec.name)
            (standing,) = standings(store, [spec], now)
            if standing.champion == NOT_ADOPTED:
                raise InputError(f"{self.settings.home}: {spec.name} is not adopted here; run drift adopt {spec.name}")
            end = max(now, standing.ticked_at or now)
            start = max(end - since, _adopted(records) or end - since)
            findings, candidates = bodies(store, spec.name)
            return Told(
                model=spec.name,
                performance=performance_of(spec),
                kpis=spec.kpis.model_dump(mode="json"),
                start=start,
                end=end,
                ticks=ticks_of(self.settings, store, spec.name, start, end),
                records=records,
                findings=findings,
                candidates=candidates,
                reigns=reigns_of(records),
                cards=self._cards(spec.name, links),
                now=self._now(standing, now, links),
            )

    @property
    def late(self) -> timedelta:
        """How long no tick may come before a page says so."""
        return LATE_TICKS * timedelta(seconds=self.settings.tick_seconds) * speed_of(self.clock)

    def ticks(self, spec: ModelSpec, since: timedelta) -> "pl.DataFrame":
        """The rows of `pages.kpis.ticks_of` in the last `since`."""
        end = self.clock.now()
        with reading(self.settings) as store:
            return ticks_of(self.settings, store, spec.name, end - since, end)

    def came_about(self, model: str, version: str) -> CausalChain:
        """How a version came about. Raises InputError where there is none."""
        with reading(self.settings) as store:
            return chain_of(self.chain.of(store, model), model, version, known_versions(store, model))

    def _cards(self, model: str, links: "Links") -> dict[str, str]:
        found = sorted((self.settings.evidence / model).glob(f"*/{CARD}"))
        return {path.parent.name: links.card(path, model, path.parent.name) for path in found}

    def _now(self, standing: Standing, now: datetime, links: "Links") -> dict[str, Any]:
        model = standing.model
        runs = f"{self.dagster}/runs?q[0]=tag%3Adrift%2F"
        dagster = {
            "dagster": f"{self.dagster}/asset-groups" if self.dagster else "",
            "dagster_runs": f"{runs}model%3D{quote(model)}",
            "dagster_run": f"{runs}decision%3D",
        }
        return {**standing.to_json(), **standing_told(standing, now, self.late), **dagster, **self._day(model, links)}

    def _day(self, model: str, links: "Links") -> dict[str, str]:
        """The newest day's drift report."""
        days = rendered_days(self.settings, model, shared=isinstance(links, ServedLinks))
        if not days:
            return {"report": "", "report_day": ""}
        return {"report": links.day(page_file(self.settings, model, days[-1]), model, days[-1]), "report_day": days[-1]}


@dataclass(frozen=True)
class Links:
    """How a page that is a file reaches the documents of its home: from where it lies."""

    beside: Path

    def card(self, path: Path, _model: str, _version: str) -> str:
        return quote(os.path.relpath(path.absolute(), self.beside.absolute()))

    def day(self, path: Path, model: str, _day: str) -> str:
        return self.card(path, model, "")


class ServedLinks(Links):
    """Of a page that is served: below the model's own address."""

    def __init__(self) -> None:
        super().__init__(Path())

    def card(self, _path: Path, model: str, version: str) -> str:
        return f"/{quote(model)}/{quote(version)}/{CARD}"

    def day(self, _path: Path, model: str, day: str) -> str:
        return f"/{quote(model)}/drift/{day}.html"


def standing_told(standing: Standing, now: datetime, late: timedelta) -> Mapping[str, Any]:
    """A standing in the words of every screen; `stale`: no tick came for longer than `late`; `whole`: all
    KPIs were judged and no incident is open, so that an OK may be green."""
    age = standing.age(now)
    under_way = standing.phase not in ("", "full", "rolled_back")
    verdict = {"verdict": standing.verdict, "judged": standing.judged, "configured": standing.configured}
    return {
        "told": told_verdict(verdict) if standing.verdict else "no tick yet",
        "verdict": standing.verdict or "no tick yet",
        "waiting": told_waiting(standing.not_judged),
        "age": told_length(age) if age is not None else "",
        "stale": age is not None and age > late,
        "whole": standing.judged == standing.configured and not standing.incident,
        "troubles": [f"{event}: {why}" for event, why in standing.concerns.items()],
        "candidate": standing.candidate if under_way else "",
        "phase": standing.phase if under_way else "",
    }


def _adopted(records: Iterable[AuditRecord]) -> datetime | None:
    return next((at_of(record) for record in records if record.event == "model.adopted"), None)


def write_live(settings: Settings, clock: Clock, model: str, since: timedelta, out: Path) -> Path:
    """Write a model's page to a file.

    Raises:
        InputError: no such model, it is not adopted, or the file cannot be written.
    """
    spec = model_of(settings, model)
    return write_whole(out, report_page(Reader(settings, clock).told(spec, since, Links(out.parent))))
