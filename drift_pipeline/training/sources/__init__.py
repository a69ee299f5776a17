"""Where the labelled rows of a retrain come from: one file a source, chosen by the spec's `retrain.source`."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from drift_pipeline.spec import Databricks, Feast, ModelSpec, RowSource
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, Pin


@dataclass(frozen=True)
class Access:
    """How stores outside the home are reached; credentials are of the environment alone, and no error shows one.

    feast_python: the interpreter of an environment with Feast. feast_seconds, databricks_seconds: for so long an
    answer is waited for.
    """

    feast_python: Path | None = None
    feast_seconds: float = 600
    feast_token: SecretStr = field(default=SecretStr(""))
    databricks_host: str = ""
    databricks_token: SecretStr = field(default=SecretStr(""))
    databricks_seconds: float = 600


NO_ACCESS = Access()


class Source(Protocol):
    """Labelled rows as they were known at a moment, and the same rows again.

    A row holds nothing that was not known when it was predicted, but for its label, which was known at `now`. Rows come
    in order of time and then id. What a source gives again for a pin is what it gave at first, byte by byte, or it
    raises. Its pin names where the rows came from, for the audit, documents and lineage. Nothing is written anywhere.
    """

    def rows(self, now: datetime, pin: Pin | None = None) -> Dataset:
        """The labelled rows of the last `retrain.window`, without the exclusions.

        Args:
            now: labels that came later are not known.
            pin: a dataset's own, to read the same rows again; None = as the source is now.

        Raises:
            InputError: there is no such row, or a feature is not there.
            SpecError: the spec or the settings name what is not there; no wait for rows helps.
            IntegrityError: the rows of the pin are not to be had again.
            UnavailableError: a store does not answer in time.
        """
        ...


def source_for(spec: ModelSpec, lake: Lake, access: Access) -> Source:
    """The one that the spec names; its libraries are imported where it asks."""
    match spec.retrain.source:
        case RowSource(feast=Feast() as feast):
            from drift_pipeline.training.sources.feast import FeastSource

            return FeastSource(lake, spec, feast, access)
        case RowSource(databricks=Databricks() as databricks):
            from drift_pipeline.training.sources.databricks import DatabricksSource

            return DatabricksSource(spec, databricks, access)
        case _:
            from drift_pipeline.training.sources.lake import LakeSource

            return LakeSource(lake, spec)
