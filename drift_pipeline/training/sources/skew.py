"""Training-serving skew: features as the model saw them beside those that a feature store says they were.

All rows are compared, so that a share is a count and no estimate: nothing is told of chance.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import polars as pl

from drift_pipeline.spec import ColumnType, ModelSpec

LEAST_ROWS = 100
TOLERANCE = 1e-6  # relative: a store of 32 bits a number is off by 6e-8
AT_MOST = 0.01

Said = Literal["OK", "BREACH", "INCONCLUSIVE"]
_WORST: tuple[Said, ...] = ("OK", "INCONCLUSIVE", "BREACH")


@dataclass(frozen=True)
class FeatureSkew:
    """Rows by how one feature's two values differ; no value is told, for it is somebody's.

    only_seen: the store has none; only_stored: the model saw none. higher, lower: the number seen, than the stored one;
    other: another level.
    """

    name: str
    unequal: int
    share: float
    only_seen: int
    only_stored: int
    higher: int
    lower: int
    other: int
    verdict: Said


@dataclass(frozen=True)
class Skew:
    """against: `offline`, what the store says of each row's time, or `online`, what its server answers now, beside what
    the offline store says of now. unknown: rows of which the store has nothing at all. of: rows there were."""

    against: Literal["offline", "online"]
    rows: int
    of: int
    unknown: int
    verdict: Said
    reason: str
    features: Sequence[FeatureSkew]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def skew_of(
    seen: pl.DataFrame,
    stored: pl.DataFrame,
    spec: ModelSpec,
    against: Literal["offline", "online"],
    *,
    of: int | None = None,
    tolerance: float = TOLERANCE,
    at_most: float = AT_MOST,
) -> Skew:
    """Of two frames (n,) in one order, with the features that the store has, as the spec reads them.

    BREACH: the values of a feature are unequal in more than `at_most` of the rows. INCONCLUSIVE: fewer than a hundred
    rows, or the store has no value at all of any.

    Args:
        of: how many rows there were, where not all are compared.
        tolerance: of two numbers, relative to the larger one.
    """
    names = [name for name in spec.features if name in stored.columns]
    rows, unknown = seen.height, stored.filter(pl.all_horizontal(pl.col(names).is_null())).height
    found = [_feature(seen[name], stored[name], spec.features[name], tolerance, at_most) for name in names]
    found.sort(key=lambda one: -one.share)
    verdict, reason = _judged(rows, unknown, found, at_most)
    return Skew(against, rows, rows if of is None else of, unknown, verdict, reason, found)


def worst(found: Sequence[Skew]) -> Said:
    """A BREACH is one whatever else is not known."""
    return max((one.verdict for one in found), key=_WORST.index)


def _feature(seen: pl.Series, stored: pl.Series, kind: ColumnType, tolerance: float, at_most: float) -> FeatureSkew:
    a, b = pl.col("a"), pl.col("b")
    both = pl.DataFrame({"a": seen, "b": stored})
    if kind == "numeric":
        both = both.cast(pl.Float64).fill_nan(None)
        largest = pl.max_horizontal(a.abs(), b.abs())  # an infinity is near to itself alone
        near = (a == b) | (largest.is_finite() & ((a - b).abs() <= tolerance * largest))
        apart = {"higher": ~near & (a > b), "lower": ~near & (a < b), "other": pl.lit(value=False)}
    else:
        apart = {"higher": pl.lit(value=False), "lower": pl.lit(value=False), "other": a != b}
    one_sided = {"only_seen": a.is_not_null() & b.is_null(), "only_stored": a.is_null() & b.is_not_null()}
    counts = both.select(**{name: found.sum() for name, found in {**one_sided, **apart}.items()}).row(0, named=True)
    unequal = sum(counts.values())
    share = unequal / both.height if both.height else 0.0
    return FeatureSkew(seen.name, unequal, share, **counts, verdict="BREACH" if share > at_most else "OK")


def _judged(rows: int, unknown: int, found: Sequence[FeatureSkew], at_most: float) -> tuple[Said, str]:
    if rows < LEAST_ROWS:
        return "INCONCLUSIVE", f"{rows:,} rows, and {LEAST_ROWS} are needed; widen --since"
    if unknown == rows:
        return "INCONCLUSIVE", f"the store has no value for any of {rows:,} rows: does it know these entities?"
    apart = [one for one in found if one.verdict == "BREACH"]
    if not apart:
        return "OK", f"no feature differs in more than {at_most:.2%} of {rows:,} rows"
    told = ", ".join(f"{one.name} in {one.share:.1%}" for one in apart)
    return "BREACH", f"of {rows:,} rows differ: {told}; allowed are {at_most:.2%}"
