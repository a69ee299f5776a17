"""A Delta table as a source: of Unity Catalog by its name, or of any storage by its URI, pinned by its version.

The table holds whole rows under the spec's own column names: time, id, outcome, features. delta-rs finds the
credentials of a storage in the environment itself; those of a workspace are handed to it from DRIFT_DATABRICKS_TOKEN.
"""

from datetime import datetime
from typing import TYPE_CHECKING

import polars as pl
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

from drift_pipeline.clock import Window
from drift_pipeline.errors import IntegrityError, SpecError, UnavailableError
from drift_pipeline.spec import Databricks, ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.tables.table import Table
from drift_pipeline.training.dataset import Dataset, Pin, dataset_of, window_of
from drift_pipeline.training.sources.masking import masked

if TYPE_CHECKING:
    from drift_pipeline.training.sources import Access

_READ = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})  # what delta-rs reads of newer tables
_WITH_ZONE = 'Timestamp(Microsecond, Some("UTC"))'


class DatabricksSource:
    """Rows whose label is known in the table's version. What was vacuumed away cannot be read again."""

    def __init__(self, spec: ModelSpec, part: Databricks, access: "Access") -> None:
        self._spec, self._part, self._access = spec, part, access

    def rows(self, now: datetime, pin: Pin | None = None) -> Dataset:
        spec, name = self._spec, self._part.table
        table = self._table(int(pin.facts["version"]) if pin else None)
        found = Pin("databricks", {}, {"table": name, "id": str(table.metadata().id), "version": table.version()})
        if pin and pin.facts != found.facts:
            raise IntegrityError(
                f"{spec.name}: {name} is another table by now than {pin.facts['id']}; pin a new dataset"
            )
        rows = self._labelled(table, now)
        namespace = "databricks" if "/" not in name else name.partition("//")[0].rstrip(":") or "file"
        told = {"namespace": namespace, "name": name, "version": str(table.version())}
        return dataset_of(rows, spec, now, Pin("databricks", {}, found.facts, (told,)))

    def _labelled(self, table: DeltaTable, now: datetime) -> pl.DataFrame:
        """As they are read by every door. Raises InputError where a value is not what the spec says."""
        spec = self._spec
        raw = self._asked(table, window_of(spec, now))
        if raw.is_empty():
            return raw
        history = read_history(Table.of(raw, self._part.table), spec)
        rows = history.frame.filter(pl.col("_label").is_not_null(), pl.col("_time") < now)
        return rows.rename({"_score": "_recorded"}, strict=False).sort("_time", "_id")

    def _asked(self, table: DeltaTable, window: Window) -> pl.DataFrame:
        """The window's rows, with the columns that the spec names and the table has."""
        spec, there = self._spec, {field.name: str(field.type) for field in table.schema().fields}
        columns = spec.columns
        wanted = [*spec.watched, spec.outcome.column, columns.timestamp, columns.prediction_id, columns.entity]
        wanted += [columns.latency_ms, columns.version, spec.prediction.column]
        names = list(dict.fromkeys(name for name in wanted if name))
        if missing := [name for name in names if name not in there]:
            raise SpecError(
                f"{spec.name}: {self._part.table} has no column {', '.join(missing)}; it has: {', '.join(there)}"
            )
        if "timestamp" not in there[str(columns.timestamp)]:
            raise SpecError(f"{spec.name}: {self._part.table}: {columns.timestamp} is no timestamp (columns.timestamp)")
        time, asked = _quoted(str(columns.timestamp)), ", ".join(map(_quoted, names))
        begin, end = (f"arrow_cast('{at.isoformat()}', '{_WITH_ZONE}')" for at in (window.start, window.end))
        query = f"SELECT {asked} FROM rows WHERE {time} >= {begin} AND {time} < {end}"  # the spec's names
        try:
            return pl.DataFrame(QueryBuilder().register("rows", table).execute(query).read_all())
        except Exception as error:  # of delta-rs, or of what it streams through, which raises no class of its own
            if "not found" in str(error).lower():
                raise IntegrityError(
                    f"{spec.name}: files of version {table.version()} of {self._part.table} are gone (VACUUM?); "
                    "pin a new dataset"
                ) from None
            raise self._no_answer(error) from None

    def _table(self, version: int | None) -> DeltaTable:
        name, access = self._part.table, self._access
        token, options = access.databricks_token.get_secret_value(), dict[str, str]()
        if "/" not in name:
            if not (access.databricks_host and token):
                raise SpecError(
                    f"{self._spec.name}: {name} is a table of Unity Catalog: set DRIFT_DATABRICKS_HOST and "
                    "DRIFT_DATABRICKS_TOKEN"
                )
            options = {"databricks_host": access.databricks_host.rstrip("/"), "databricks_token": token}
            options |= {"allow_http_url": "true"} if access.databricks_host.startswith("http:") else {}
        try:
            table = DeltaTable(
                name if "/" in name else f"uc://{name}", version=version, storage_options=options or None
            )
        except TableNotFoundError:
            raise SpecError(f"{self._spec.name}: {name}: there is no such Delta table (retrain.source)") from None
        except (DeltaError, OSError, ValueError) as error:
            if version is not None:
                self._table(None)  # it answers, and that version is not among what is left
                raise IntegrityError(
                    f"{self._spec.name}: {name} has no version {version} any more: {masked(str(error), token)}"
                ) from None
            raise self._no_answer(error) from None
        mapped = table.metadata().configuration.get("delta.columnMapping.mode", "none") != "none"
        features = {*(table.protocol().reader_features or ()), *(["columnMapping"] if mapped else [])}
        if odd := sorted(features - _READ):
            raise SpecError(
                f"{self._spec.name}: {name} has {', '.join(odd)}, which cannot be read here; rewrite the table without"
            )
        return table

    def _no_answer(self, error: Exception) -> UnavailableError:
        told = masked(str(error).partition("\n")[0], self._access.databricks_token.get_secret_value())
        return UnavailableError(f"{self._spec.name}: {self._part.table} cannot be read: {told}")


def _quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
