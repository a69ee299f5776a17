"""The pages of the days' drift reports: below the home that rendered them, and in its bucket, for every machine."""

import re
from pathlib import Path

from drift_pipeline.bucket import Objects
from drift_pipeline.settings import Settings

_DAY = re.compile(r"\d{4}-\d\d-\d\d")


def page_file(settings: Settings, model: str, day: str) -> Path:
    """Where it is rendered to."""
    return settings.drift_reports / model / f"{day}.html"


def rendered_days(settings: Settings, model: str, *, shared: bool = True) -> list[str]:
    """Those that there is a page of, the oldest first.

    Args:
        shared: also those in the bucket. Raises UnavailableError where it does not answer.
    """
    names = [path.name for path in (settings.drift_reports / model).glob("*.html")]
    if shared and settings.bucket is not None:
        names += [name.rpartition("/")[2] for name in Objects(settings.bucket).names(_name(model))]
    days = {name.removesuffix(".html") for name in names}
    return sorted(day for day in days if _DAY.fullmatch(day))


def share_page(settings: Settings, model: str, day: str) -> None:
    """Put what was rendered into the bucket, if there is one. Raises UnavailableError where it does not answer."""
    if settings.bucket is not None:
        page = page_file(settings, model, day).read_bytes()
        Objects(settings.bucket).put(_name(model, day), page)


def shared_page(settings: Settings, model: str, day: str) -> bytes | None:
    """As it lies in the bucket. Raises UnavailableError where that does not answer."""
    return Objects(settings.bucket).get(_name(model, day)) if settings.bucket is not None else None


def remove_page(settings: Settings, model: str, day: str) -> None:
    """Here and in the bucket. Raises UnavailableError where that does not answer."""
    if settings.bucket is not None:
        Objects(settings.bucket).delete([_name(model, day)])
    page_file(settings, model, day).unlink(missing_ok=True)


def _name(model: str, day: str = "") -> str:
    return f"drift_reports/{model}/{day}.html" if day else f"drift_reports/{model}"
