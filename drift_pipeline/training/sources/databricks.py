"""A Delta table as a source: of Unity Catalog by its name, or of any storage by its URI, pinned by its version.

The table holds whole rows under the spec's own column names: time, id, outcome, features. It is read in a process of
its own (`_delta_child.py`), where delta-rs finds the credentials of a storage in the environment itself; those of a
workspace are handed to it from DRIFT_DATABRICKS_TOKEN.
"""

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from drift_pipeline.errors import DriftError, IntegrityError, SpecError, UnavailableError
from drift_pipeline.spec import Databricks, ModelSpec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.tables.table import Table
from drift_pipeline.training.dataset import Dataset, Pin, dataset_of, window_of
from drift_pipeline.training.sources.asking import NoAnswerError, asked
from drift_pipeline.training.sources.masking import masked

if TYPE_CHECKING:
    from drift_pipeline.training.sources import Access

CHILD = Path(__file__).with_name("_delta_child.py")
_READ = ("timestampNtz", "v2Checkpoint", "vacuumProtocolCheck")  # what delta-rs reads of newer tables


class DatabricksSource:
    """Rows whose label is known in the table's version. What was vacuumed away cannot be read again."""

    def __init__(self, spec: ModelSpec, part: Databricks, access: "Access") -> None:
        self._spec, self._name, self._access = spec, part.table, access

    def rows(self, now: datetime, pin: Pin | None = None) -> Dataset:
        spec, name = self._spec, self._name
        said, raw = self._asked(now, int(pin.facts["version"]) if pin else None)
        facts = {"table": name, "id": said["id"], "version": said["version"]}
        if pin and pin.facts != facts:
            raise IntegrityError(
                f"{spec.name}: {name} is another table by now than {pin.facts['id']}; pin a new dataset"
            )
        namespace = "databricks" if "/" not in name else name.partition("//")[0].rstrip(":") or "file"
        told = {"namespace": namespace, "name": name, "version": str(said["version"])}
        return dataset_of(self._labelled(raw, now), spec, now, Pin("databricks", {}, facts, (told,)))

    def _labelled(self, raw: pl.DataFrame, now: datetime) -> pl.DataFrame:
        """As they are read by every door. Raises InputError where a value is not what the spec says."""
        if raw.is_empty():
            return raw
        history = read_history(Table.of(raw, self._name), self._spec)
        rows = history.frame.filter(pl.col("_label").is_not_null(), pl.col("_time") < now)
        return rows.rename({"_score": "_recorded"}, strict=False).sort("_time", "_id")

    def _asked(self, now: datetime, version: int | None) -> tuple[dict[str, Any], pl.DataFrame]:
        """What the table is, and the window's rows."""
        spec, columns, window = self._spec, self._spec.columns, window_of(self._spec, now)
        wanted = [*spec.watched, spec.outcome.column, columns.timestamp, columns.prediction_id, columns.entity]
        wanted += [columns.latency_ms, columns.version, spec.prediction.column]
        question = {
            "uri": self._name,
            "catalog": self._catalog(),
            "version": version,
            "wanted": list(dict.fromkeys(name for name in wanted if name)),
            "readable": _READ,
            "time": columns.timestamp,
            "begin": window.start.isoformat(),
            "end": window.end.isoformat(),
        }
        seconds = self._access.databricks_seconds
        try:
            said, rows, _ = asked([sys.executable, "-I", str(CHILD)], question, b"", seconds)
        except TimeoutError:
            raise self._no_answer(f"no answer in {seconds:g} s (DRIFT_DATABRICKS_SECONDS)") from None
        except NoAnswerError as error:
            raise self._no_answer(str(error)) from None
        self._refuse(said, question["wanted"], version)
        return dict(said), pl.read_parquet(rows)

    def _catalog(self) -> dict[str, str] | None:
        """Whom to ask where the table lies; None where its URI says it."""
        host, token = self._access.databricks_host, self._access.databricks_token.get_secret_value()
        if "/" in self._name:
            return None
        if not (host and token):
            raise SpecError(
                f"{self._spec.name}: {self._name} is a table of Unity Catalog: set DRIFT_DATABRICKS_HOST and "
                "DRIFT_DATABRICKS_TOKEN"
            )
        return {"host": host.rstrip("/"), "token": token}

    def _refuse(self, said: Any, wanted: Any, version: int | None) -> None:
        if "error" in said:
            raise self._error(said["error"], said["why"], version)
        there, time, name = said["fields"], str(self._spec.columns.timestamp), f"{self._spec.name}: {self._name}"
        if said["features"]:
            odd = ", ".join(said["features"])
            raise SpecError(f"{name} has {odd}, which cannot be read here; rewrite the table without")
        if missing := [column for column in wanted if column not in there]:
            raise SpecError(f"{name} has no column {', '.join(missing)}; it has: {', '.join(there)}")
        if "timestamp" not in there[time]:
            raise SpecError(f"{name}: {time} is no timestamp (columns.timestamp)")

    def _error(self, kind: str, why: str, version: int | None) -> DriftError:
        name = f"{self._spec.name}: {self._name}"
        match kind:
            case "absent":
                return SpecError(f"{name}: there is no such Delta table (retrain.source)")
            case "no version":
                return IntegrityError(f"{name} has no version {version} any more; {self._told(why)}")
            case "gone":
                at = "" if version is None else f" of version {version}"
                return IntegrityError(f"{name}: files{at} are gone (VACUUM?); pin a new dataset")
            case _:
                return self._no_answer(why)

    def _told(self, why: str) -> str:
        return masked(why, self._access.databricks_token.get_secret_value())

    def _no_answer(self, why: str) -> UnavailableError:
        return UnavailableError(f"{self._spec.name}: {self._name} cannot be read: {self._told(why)}")
