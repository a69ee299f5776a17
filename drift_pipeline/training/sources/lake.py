"""The lake as a source: features as the gateway saw them, pinned by the Delta versions of its two tables."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.training.dataset import Dataset, Pin, dataset_of, window_of


class LakeSource:
    """What was captured. Rows that were erased since are not given again, so that fewer come for their pin."""

    def __init__(self, lake: Lake, spec: ModelSpec) -> None:
        self._lake, self._spec = lake, spec

    def rows(self, now: datetime, pin: Pin | None = None) -> Dataset:
        versions = pin.versions if pin else self._lake.versions()
        return dataset_of(labelled_rows(self._lake, self._spec, now, versions), self._spec, now, Pin("lake", versions))


def labelled_rows(lake: Lake, spec: ModelSpec, now: datetime, versions: Mapping[str, int]) -> pl.DataFrame:
    """The lake's own, with every column that it has."""
    return lake.labelled(window_of(spec, now), as_of=now, delay=spec.outcome.delay, versions=versions)
