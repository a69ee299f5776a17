"""Where a run, a report or an asset sends people on: pages by their address where they are served, else by path."""

from pathlib import Path

import dagster as dg

from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

Link = dg.UrlMetadataValue | dg.PathMetadataValue | dg.DagsterAssetMetadataValue


def live_page(settings: Settings, spec: ModelSpec) -> dict[str, Link]:
    """The model's page of today; nothing where no pages are served."""
    return {"live_page": dg.MetadataValue.url(f"{settings.pages}/{spec.name}")} if settings.pages else {}


def card(settings: Settings, spec: ModelSpec, version: str) -> Link:
    """The version's card."""
    path = settings.evidence / spec.name / version / "card.html"
    return _page(settings, f"{spec.name}/{version}/card.html", path)


def chain(settings: Settings, spec: ModelSpec, version: str) -> dict[str, Link]:
    """How the version came about; nothing where no pages are served."""
    page = f"{settings.pages}/{spec.name}/{version}/chain.html"
    return {"came_about": dg.MetadataValue.url(page)} if settings.pages else {}


def drift_reports(spec: ModelSpec) -> Link:
    """The asset that has the report of each day, with its plots."""
    return dg.MetadataValue.asset(dg.AssetKey([spec.name, "drift_report"]))


def _page(settings: Settings, address: str, path: Path) -> Link:
    if settings.pages:
        return dg.MetadataValue.url(f"{settings.pages}/{address}")
    return dg.MetadataValue.path(path.absolute())
