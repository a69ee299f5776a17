"""Profiles of tables of any size: decoded in batches by Polars, counted meanwhile, never held whole."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from drift_pipeline.detection.counting.binning import SCORE, Binning, Floats
from drift_pipeline.detection.counting.profile import Profile, empty, label_slices, profile_slices
from drift_pipeline.telemetry.tables.table import stacked

LABEL, LATENCY = "_label", "_latency_ms"
SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class Named:
    """What a file calls the score, the label (null where not known) and the latency; None = it has none."""

    score: str | None = None
    label: str | None = None
    latency_ms: str | None = None

    @property
    def present(self) -> dict[str, str]:
        """Our name of each column that there is, by the file's."""
        pairs = ((self.score, SCORE), (self.label, LABEL), (self.latency_ms, LATENCY))
        return {given: ours for given, ours in pairs if given is not None}


def profile_batches(
    batches: Iterable[pl.DataFrame],
    binning: Binning,
    named: Named = Named(),
    progress: Callable[[int], None] | None = None,
) -> Profile:
    """One profile of all rows, the same for any split of them into files and batches.

    Args:
        batches: with the columns of the binning, but for a score that `named` does not name; numbers as floats, labels
            0, 1 or null, or a regression's floats.
        progress: told after each batch how many rows were counted so far.
    """
    total = empty(binning)
    for batch in batches:
        ours = batch.rechunk().with_columns(pl.col(given).alias(name) for given, name in named.present.items())
        total += _profile(binning, ours)  # many small files are many small chunks
        if progress:
            progress(total.rows)
    return total


def _profile(binning: Binning, frame: pl.DataFrame) -> Profile:
    one = np.zeros(frame.height, np.int64)
    profile = profile_slices(binning, frame, one, 1)[0]
    if SCORE not in frame.columns or LABEL not in frame.columns:
        return profile
    known = frame.select(SCORE, LABEL).filter(pl.col(LABEL).is_not_null())
    if binning.residuals is not None:
        return profile + label_slices(binning, known[SCORE], known[LABEL], one[: known.height], 1)[0]
    labels = known[LABEL].cast(pl.Int64)
    return profile + label_slices(binning, known[SCORE], labels, one[: known.height], 1)[0]


def sample_batches(batches: Iterable[pl.DataFrame], rows: int = SAMPLE_ROWS, seed: int = 0) -> pl.DataFrame:
    """A uniform sample without replacement, in the order of the rows; all of them where there are no more.

    Each row draws a number and the smallest are kept, so one pass is enough and batches do not matter.

    Bins frozen on it know its levels only: one that it missed, of a reference with more than `rows` rows, counts as
    unseen in the reference and in every window. Such a level is rare (one that 1 row in 20,000 has is missed by less
    than 1 % of the samples of 100,000), and unseen is a bin of both sides, so that it makes no drift by itself.
    """
    random, kept, lots = np.random.default_rng(seed), pl.DataFrame(), np.empty(0)
    for batch in batches:
        drawn = random.random(batch.height)
        lots = np.concatenate([lots, drawn])
        bar = _bar(lots, rows)
        lots = lots[lots < bar]
        more = _below(bar, batch.with_columns(_lot=drawn))
        kept = kept.vstack(more) if kept.schema in (more.schema, {}) else stacked([kept, more])
        if kept.height > 2 * rows:
            kept = _below(bar, kept).rechunk()
    return kept.filter(pl.col("_lot") <= float(lots.max(initial=0.0))).drop("_lot")


def _bar(lots: Floats, rows: int) -> float:
    """What the smallest `rows` lots lie below."""
    return float(np.partition(lots, rows)[rows]) if len(lots) > rows else np.inf


def _below(bar: float, frame: pl.DataFrame) -> pl.DataFrame:
    return frame if bar == np.inf else frame.filter(pl.col("_lot") < bar)
