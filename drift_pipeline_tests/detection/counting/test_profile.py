"""Profiles: merged by adding."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from drift_pipeline.detection.counting.binning import SCORE, Binning, freeze_binning
from drift_pipeline.detection.counting.layout import ColumnCounts, Layout
from drift_pipeline.detection.counting.profile import Profile, empty, label_slices, merge, profile_slices
from drift_pipeline.detection.statistics.auroc import binned_auroc
from drift_pipeline.spec import ModelSpec

SPEC = ModelSpec.model_validate(
    {
        "name": "m",
        "owner": "o",
        "task": "binary_classification",
        "features": {"x": "numeric", "spiky": "numeric", "kind": "categorical"},
        "outcome": {"column": "y"},
        "protected": {"group": "categorical"},
    }
)


def rows(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "x": np.where(rng.random(n) < 0.05, np.nan, rng.standard_normal(n)),
            "spiky": np.where(rng.random(n) < 0.5, 0.0, rng.standard_t(2, n) * 100),
            "kind": rng.choice(["a", "b", "c"], n),
            "group": rng.choice(["g", "h"], n),
            "_score": rng.random(n).round(3),
            "_latency_ms": rng.exponential(50, n),
        }
    ).with_columns(pl.when(pl.col("x").is_nan()).then(None).otherwise(pl.col("x")).alias("x"))


REFERENCE = rows(3000, 0)
BINNING = freeze_binning(REFERENCE, REFERENCE["_score"], SPEC)
CURRENT = rows(400, 1)


def one(binning: Binning, frame: pl.DataFrame) -> Profile:
    return profile_slices(binning, frame, np.zeros(frame.height, np.int64), 1)[0]


def same(a: Profile, b: Profile) -> bool:
    counted = a.rows == b.rows and bool((a.counts == b.counts).all())
    return counted and np.allclose(a.sums, b.sums, rtol=1e-12, atol=1e-12 * max(1, a.rows))


@given(cuts=st.lists(st.integers(0, 4), min_size=400, max_size=400))
@settings(deadline=None, max_examples=30)
def test_merging_slices_is_profiling_the_union(cuts: list[int]) -> None:
    parts = profile_slices(BINNING, CURRENT, np.array(cuts), 5)
    assert same(merge(BINNING, parts), one(BINNING, CURRENT))


@given(cuts=st.tuples(st.integers(0, 400), st.integers(0, 400)).map(sorted))
@settings(deadline=None, max_examples=30)
def test_merging_is_associative_and_commutative_and_the_empty_profile_changes_nothing(cuts: list[int]) -> None:
    low, high = cuts
    a, b, c = (one(BINNING, part) for part in (CURRENT[:low], CURRENT[low:high], CURRENT[high:]))
    assert same((a + b) + c, a + (b + c))
    assert same(a + b, b + a)
    assert same(a + empty(BINNING), a)
    assert same(merge(BINNING, []), empty(BINNING))


def test_strangers_refuse_to_merge_and_equal_bins_of_another_freeze_do_not() -> None:
    mine = one(BINNING, CURRENT)
    twin = one(freeze_binning(REFERENCE, REFERENCE["_score"], SPEC), CURRENT)
    assert (mine + twin).rows == 800
    for other in (
        freeze_binning(REFERENCE[1:], REFERENCE["_score"], SPEC),
        replace(BINNING, decision_threshold=0.4),
        replace(BINNING, protected=()),
    ):
        stranger = empty(other)
        with pytest.raises(ValueError, match="profiles of different bins do not merge"):
            mine + stranger
        with pytest.raises(ValueError, match="profiles of different bins do not merge"):
            merge(BINNING, [stranger])


def side(profile: Profile) -> ColumnCounts:
    return ColumnCounts.of(Layout.of(profile.binning), profile)


def lacking(profile: Profile, name: str) -> int:
    """Rows without a usable value."""
    beside = side(profile)
    return int(beside.lacking[beside.layout.position[name]])


def test_every_row_is_in_one_counter_of_each_column() -> None:
    profile = one(BINNING, CURRENT)
    for name in BINNING.columns:
        usable = side(profile).rows[side(profile).layout.position[name]]
        assert profile.bins(name).sum() + profile.unseen(name) == usable == 400 - lacking(profile, name)
    assert lacking(profile, "x") == CURRENT["x"].null_count() > 0


def test_moments_are_those_of_the_values_in_reference_sd() -> None:
    bins = BINNING.columns["x"]
    z = bins.standardised(CURRENT["x"].drop_nulls())  # type: ignore[union-attr]
    beside = side(one(BINNING, CURRENT))
    assert beside.moments[beside.layout.position["x"]].tolist() == pytest.approx([z.mean(), z.var()], abs=1e-12)


def test_one_absurd_value_cannot_carry_a_mean_and_is_counted_as_beyond() -> None:
    frame = CURRENT.with_columns(x=pl.Series([1e308, *([0.0] * 399)]))
    profile = one(BINNING, frame)
    assert abs(side(profile).moments[side(profile).layout.position["x"]][0]) < 0.2
    assert profile.beyond("x") == 1
    assert lacking(profile, "x") == 0


def test_infinities_are_no_usable_values() -> None:
    frame = CURRENT.with_columns(x=pl.Series([np.inf, -np.inf, np.nan, None, *([0.0] * 396)]))
    profile = one(BINNING, frame)
    assert (lacking(profile, "x"), profile.beyond("x"), int(profile.bins("x").sum())) == (4, 0, 396)


@pytest.mark.parametrize("digits", [1, 3, 12])
def test_the_auroc_of_labelled_scores_is_sklearns_within_the_slack(digits: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 2, 5000)
    scores = (1 / (1 + np.exp(-(labels + rng.standard_normal(5000))))).round(digits)
    frozen = freeze_binning(REFERENCE, pl.Series("_score", scores[:2500]), SPEC)
    parts = label_slices(frozen, pl.Series(scores), pl.Series(labels), np.arange(5000) % 7, 7)
    found = binned_auroc(*merge(frozen, parts).labelled_scores(), atom=frozen.score_atom)
    assert found.slack < 0.001
    assert abs(found.value - roc_auc_score(labels, scores)) <= found.slack + 1e-12
    assert (found.positives, found.negatives) == (labels.sum(), 5000 - labels.sum())


def test_labels_without_a_score_are_not_counted_and_add_no_row() -> None:
    profile = label_slices(BINNING, pl.Series([0.5, None, np.nan]), pl.Series([1, 1, 0]), np.zeros(3, np.int64), 1)[0]
    positives, negatives = profile.labelled_scores()
    assert (positives.sum(), negatives.sum(), profile.rows) == (1, 0, 0)


def test_decisions_are_counted_per_group_from_the_threshold_on() -> None:
    frame = pl.DataFrame(
        {"group": ["g", "g", "g", "h", "new", None, "g"], "_score": [0.5, 0.49, 0.9, 0.1, 0.7, 0.2, None]}
    )
    positives, totals = one(BINNING, frame).group_decisions("group")
    at = {level: place for place, level in enumerate(BINNING.columns["group"].levels)}  # type: ignore[union-attr]
    assert (positives[at["g"]], totals[at["g"]]) == (2, 3)
    assert (positives[at["h"]], totals[at["h"]]) == (0, 1)
    assert totals.sum() == 6
    assert (positives[-2], totals[-2], positives[-1], totals[-1]) == (1, 1, 0, 1)


def test_a_latency_exactly_at_the_threshold_is_not_above_it() -> None:
    latencies = [150.0, np.nextafter(150.0, np.inf), np.nextafter(150.0, 0), 1e9, 0.0, None, np.nan]
    assert one(BINNING, pl.DataFrame({"_latency_ms": latencies})).latency(150.0) == (2, 5)


def test_only_the_named_columns_are_counted() -> None:
    profile = profile_slices(BINNING, CURRENT, np.zeros(400, np.int64), 1, (SCORE,))[0]
    assert profile.bins(SCORE).sum() == 400
    assert profile.bins("group").sum() == profile.bins("x").sum() == 0
    assert profile.group_decisions("group")[1].sum() == 400
