"""Whether the features that a model saw are those that its feature store says they were: looked at when somebody asks.

Nothing is changed, decided or noted, so nothing is audited.
"""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

import polars as pl

from drift_pipeline.clock import Window
from drift_pipeline.errors import InputError, UnavailableError
from drift_pipeline.loop.forms import frozen
from drift_pipeline.loop.home import access_of, model_of, reading
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.history import watched_columns
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.tables.table import Table
from drift_pipeline.training.sources.feast import Joined, OfflineStore
from drift_pipeline.training.sources.feature_server import online_features
from drift_pipeline.training.sources.skew import AT_MOST, TOLERANCE, Skew, skew_of

MOST_ROWS = 20_000  # the newest: Feast joins them in memory
HISTORY = "history"  # the route of rows that came with an adoption, which nobody served


def check_features(
    settings: Settings,
    model: str,
    window: Window,
    *,
    online: bool = False,
    tolerance: float = TOLERANCE,
    at_most: float = AT_MOST,
) -> list[Skew]:
    """Of the rows of the window that were served, with the offline store as of each one's time; and with `online` of
    their entities, what the server answers now with what the offline store says of now.

    Raises:
        InputError: the spec names no feature store, or with `online` no server; no row names its entity.
        SpecError, UnavailableError: as of a `Source`.
    """
    with reading(settings) as store:
        spec = frozen(store, model_of(settings, model))
    feast, access = spec.retrain.source.feast, access_of(settings)
    if feast is None:
        raise InputError(f"{model}: retrain.source names no feature store that serves, to compare with")
    if online and not feast.server:
        raise InputError(f"{model}: retrain.source.feast names no server, whose answers --online compares")
    served = _served(Lake(settings.lake / spec.name, source="features"), spec, window)
    rows, store_of = served.tail(MOST_ROWS), OfflineStore(spec, feast, access)
    compare = partial(skew_of, spec=spec, tolerance=tolerance, at_most=at_most)
    if rows.is_empty():
        return [compare(rows, rows, against="offline")]
    joined = store_of.joined(rows)
    found = [compare(rows, joined.features, against="offline", of=served.height)]
    if online:
        answered, now = _now(store_of, joined, rows, window.end, access.feast_token.get_secret_value())
        found.append(compare(answered, now.features, against="online"))
    return found


def _served(lake: Lake, spec: ModelSpec, window: Window) -> pl.DataFrame:
    rows = lake.read("predictions", window, columns=["_entity", "_route", *spec.features])
    return rows.filter(pl.col("_route").ne_missing(HISTORY)) if "_route" in rows.columns else rows


def _now(
    offline: OfflineStore, joined: Joined, rows: pl.DataFrame, at: datetime, token: str
) -> tuple[pl.DataFrame, Joined]:
    """Of each entity of the rows what the server answers, as the model reads it, and what the offline store says."""
    feast, spec, key = offline.feast, offline.spec, str(joined.said["key"])
    names = rows["_entity"].drop_nulls().unique(maintain_order=True)
    entities: Sequence[str | int] = names.to_list()
    if joined.said["whole"]:
        names = names.filter(names.str.contains(r"^[+-]?[0-9]{1,18}$"))
        entities = names.cast(pl.Int64).to_list()
    raw = online_features(feast.server, token, feast.feature_service, key, entities)
    if missing := [name for name in joined.names if name not in raw.columns]:
        raise UnavailableError(f"{feast.server}: answers without {', '.join(missing)}: is it of this repository?")
    answered = pl.DataFrame(watched_columns(Table.of(raw, feast.server), raw, spec, [], joined.names))
    asked = pl.DataFrame({"_id": names, "_entity": names}).with_columns(pl.lit(at).alias("_time"))
    return answered, offline.joined(asked)
