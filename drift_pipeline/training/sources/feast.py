"""Feast as a source: the lake's labelled rows with the features that its offline store had at each prediction.

Feast needs another pandas than this project, so it stands in an environment of its own and is asked in a process of its
own (`_feast_child.py`), which is handed entities and times and gives features, through pipes. What it gives for a pin
is held to the pin's digest, since a feature store keeps no versions.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from drift_pipeline.errors import InputError, IntegrityError, SpecError, UnavailableError
from drift_pipeline.spec import Feast, ModelSpec
from drift_pipeline.telemetry.history import watched_columns
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.tables.table import Table
from drift_pipeline.training.dataset import Dataset, Pin, dataset_of
from drift_pipeline.training.sources.asking import NoAnswerError, asked
from drift_pipeline.training.sources.lake import labelled_rows
from drift_pipeline.training.sources.masking import masked

if TYPE_CHECKING:
    from drift_pipeline.training.sources import Access

CHILD = Path(__file__).with_name("_feast_child.py")


@dataclass(frozen=True)
class Joined:
    """What Feast gave: `_id` and the model's features that the service has, in the order of what was asked; and what
    it said of itself."""

    features: pl.DataFrame
    said: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        return self.features.columns[1:]


class FeastSource:
    """Rows, labels, routes and protected columns are the lake's, and so are features that the service does not have:
    those of the request. An entity that the store does not know has no value, as it had none online."""

    def __init__(self, lake: Lake, spec: ModelSpec, feast: Feast, access: "Access") -> None:
        self._lake, self._spec, self._store = lake, spec, OfflineStore(spec, feast, access)

    def rows(self, now: datetime, pin: Pin | None = None) -> Dataset:
        spec, versions = self._spec, pin.versions if pin else self._lake.versions()
        rows = labelled_rows(self._lake, spec, now, versions)
        if rows.is_empty():
            return dataset_of(rows, spec, now, Pin("feast", versions))
        joined = self._store.joined(rows)
        self._refuse_nothing(joined)
        kept = rows.drop(joined.names, strict=False).hstack(joined.features.drop("_id"))
        found = dataset_of(kept, spec, now, self._pin(joined, versions))
        if pin and (changed := [name for name in ("definition", "digest") if pin.facts[name] != found.pin.facts[name]]):
            what = "feature service is defined otherwise" if "definition" in changed else "store gives other rows"
            raise IntegrityError(
                f"{spec.name}: the {what} by now than when it was pinned ({pin.facts['store']}); pin a new dataset"
            )
        return found

    def _refuse_nothing(self, joined: Joined) -> None:
        """A wrong key, or a store that begins today, would be a training set without a value."""
        values = joined.features.drop("_id")
        if sum(column.null_count() for column in values) == values.height * values.width:
            raise InputError(
                f"{self._spec.name}: Feast has no value for any of {values.height:,} rows: is its join key "
                f"{joined.said['key']!r} what columns.entity holds, and does the store reach so far back?"
            )

    def _pin(self, joined: Joined, versions: Mapping[str, int]) -> Pin:
        said, feast = joined.said, self._store.feast
        facts: dict[str, str | int] = {
            "store": f"{said['project']}/{feast.feature_service}",
            "feast": str(said["feast"]),
            "registry": str(said["registry"]),
            "definition": str(said["definition"]),
            "features": ", ".join(joined.names),
            "digest": digest_of(joined.features),
        }
        if undated := ", ".join(said["undated"]):
            facts["late_values_are_not_told_in"] = undated
        told = {"namespace": f"feast://{said['project']}", "name": feast.feature_service}
        return Pin("feast", versions, facts, ({**told, "version": str(said["definition"])},))


class OfflineStore:
    """Point-in-time joins, for one model."""

    def __init__(self, spec: ModelSpec, feast: Feast, access: "Access") -> None:
        self.spec, self.feast, self._access = spec.with_forms({}), feast, access

    def joined(self, rows: pl.DataFrame) -> Joined:
        """The features of `_entity` at `_time` of rows (n,), n above 0, read as the model reads them.

        Raises:
            SpecError, UnavailableError: as of a `Source`.
            InputError: a value is not what the spec says of its feature.
        """
        if "_entity" not in rows.columns or rows["_entity"].null_count() == rows.height:
            raise InputError(f"{self.spec.name}: no row names its entity, whose features Feast could be asked for")
        wanted = rows.select(pl.col("_entity").alias("key"), pl.col("_time").alias("event_timestamp"))
        said, raw = self._answer(wanted.drop_nulls().unique().sort("event_timestamp", "key"))
        if not (names := [name for name in self.spec.features if name in said["features"]]):
            raise SpecError(
                f"{self.spec.name}: the feature service {self.feast.feature_service!r} has none of the model's "
                f"features; it has: {', '.join(said['features'])}"
            )
        found = wanted.join(raw, on=["key", "event_timestamp"], how="left", maintain_order="left")
        table = Table.of(found, f"the feature service {self.feast.feature_service}")
        return Joined(pl.DataFrame([rows["_id"], *watched_columns(table, found, self.spec, [], names)]), said)

    def _answer(self, rows: pl.DataFrame) -> tuple[Mapping[str, Any], pl.DataFrame]:
        name, beside, table = self.spec.name, self.spec.folder or Path(), io.BytesIO()
        rows.write_parquet(table)
        question = {"repo": str((beside / self.feast.repo).resolve()), "feature_service": self.feast.feature_service}
        python, seconds = self._access.feast_python, self._access.feast_seconds
        if python is None:
            raise SpecError(
                f"{name}: retrain.source is feast, and DRIFT_FEAST_PYTHON, the interpreter of an environment with "
                "Feast, is not set"
            )
        no_answer, last = f"{name}: DRIFT_FEAST_PYTHON gave no answer; it said at last", "nothing"
        try:
            said, features, last = asked([str(python), "-I", str(CHILD)], question, table.getvalue(), seconds)
            if "refused" in said:
                raise SpecError(f"{name}: {masked(said['refused'])}")
            if "failed" in said:
                raise UnavailableError(f"{name}: Feast could not join: {masked(said['failed'])}")
            return said, _times(pl.read_parquet(features), said, self.spec)
        except TimeoutError:
            raise UnavailableError(f"{name}: Feast did not answer in {seconds:g} s (DRIFT_FEAST_SECONDS)") from None
        except NoAnswerError as error:
            raise UnavailableError(f"{no_answer}: {masked(str(error))}") from None
        except OSError as error:
            raise SpecError(f"DRIFT_FEAST_PYTHON, {python}, cannot be run: {error.strerror}") from error
        except (ValueError, TypeError, LookupError, pl.exceptions.PolarsError):
            raise UnavailableError(f"{no_answer}: {masked(last)}") from None


def _times(raw: pl.DataFrame, said: Mapping[str, Any], spec: ModelSpec) -> pl.DataFrame:
    """With times as the lake has them. Raises UnavailableError where one question has two answers."""
    found = raw.with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")), pl.col("key").cast(pl.String))
    if found.select("key", "event_timestamp").is_duplicated().any():
        raise UnavailableError(f"{spec.name}: Feast {said['feast']} gave two rows for one entity at one moment")
    return found


def digest_of(frame: pl.DataFrame) -> str:
    """Of the values in their order, missing ones alike: what is the same number or text is the same byte."""
    told = hashlib.sha256()
    for values in frame:
        told.update(f"{values.name}\0{values.dtype}\0".encode())
        if values.dtype.is_numeric():
            told.update(values.cast(pl.Float64).fill_null(np.nan).fill_nan(np.nan).to_numpy().astype("<f8").tobytes())
        else:
            told.update(json.dumps(values.cast(pl.String).to_list()).encode())
    return f"sha256:{told.hexdigest()}"
