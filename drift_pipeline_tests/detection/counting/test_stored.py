"""Profiles as bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.detection.counting.binning import freeze_binning
from drift_pipeline.detection.counting.profile import Profile, empty, merge, profile_slices
from drift_pipeline.detection.counting.stored import decode, encode, merge_stored
from drift_pipeline.errors import IntegrityError
from drift_pipeline_tests.detection.counting.test_profile import BINNING, CURRENT, REFERENCE, SPEC

PARTS = profile_slices(BINNING, CURRENT, np.arange(400) % 7, 7)


def equal(a: Profile, b: Profile) -> bool:
    counted = a.rows == b.rows and bool((a.counts == b.counts).all())
    return counted and np.allclose(a.sums, b.sums, rtol=1e-12, atol=1e-9)


@given(st.lists(st.integers(0, 2**62), min_size=1, max_size=40), st.integers(0, 2**62))
@settings(deadline=None, max_examples=60)
def test_a_stored_profile_comes_back_to_the_last_bit(values: list[int], rows: int) -> None:
    counts = np.resize(np.array(values, np.int64), BINNING.size)
    sums = np.linspace(-1e300, 1e300, 2 * len(BINNING.numeric)) / 3
    back = decode(BINNING, encode(Profile(BINNING, rows, counts, sums)))
    assert (back.rows, back.counts.tolist(), back.sums.tolist()) == (rows, counts.tolist(), sums.tolist())


@given(st.lists(st.integers(0, 6), max_size=30))
@settings(deadline=None, max_examples=40)
def test_merging_stored_profiles_is_merging_profiles(chosen: list[int]) -> None:
    parts = [PARTS[k] for k in chosen]
    assert equal(merge_stored(BINNING, [encode(part) for part in parts]), merge(BINNING, parts))


def test_a_window_from_storage_is_what_its_rows_would_give() -> None:
    whole = profile_slices(BINNING, CURRENT, np.zeros(400, np.int64), 1)[0]
    assert equal(merge_stored(BINNING, map(encode, PARTS)), whole)


def test_nothing_stored_is_the_empty_profile() -> None:
    assert equal(merge_stored(BINNING, []), empty(BINNING))
    assert equal(decode(BINNING, encode(empty(BINNING))), empty(BINNING))


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_any_changed_or_missing_byte_is_noticed(data: st.DataObject) -> None:
    whole = encode(PARTS[0])
    place = data.draw(st.integers(0, len(whole) - 1))
    spoilt = bytearray(whole)
    spoilt[place] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(spoilt), whole[:place]):
        with pytest.raises(IntegrityError, match=r"no stored profile|is damaged"):
            decode(BINNING, damaged)


@given(st.binary(max_size=200))
def test_foreign_bytes_are_no_profile(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="are no stored profile"):
        decode(BINNING, data)


def test_a_profile_of_other_bins_is_refused_by_digest() -> None:
    other = freeze_binning(REFERENCE[1:], REFERENCE["_score"], SPEC)
    with pytest.raises(IntegrityError, match=f"is of other bins: {other.digest}, not {BINNING.digest}"):
        decode(BINNING, encode(empty(other)))


@pytest.mark.parametrize("rows", [139, 14_000, 1_000_000])
def test_an_hour_of_25_columns_is_below_32_kb_at_any_traffic(rows: int) -> None:
    """As many counters as 20 numeric and 4 categorical columns, a score and its labels have, filled evenly."""
    size, rng = 25_153, np.random.default_rng(0)
    counts = rng.poisson(rows / 1000, size) + np.where(rng.random(size) < 0.004, rows // 20, 0)
    planes = Profile(BINNING, rows, counts, np.zeros(42))
    assert len(encode(planes)) <= 32_768


def test_noise_is_kept_as_it_is_while_it_fits_and_all_else_packed() -> None:
    """A lowest plane of noise takes its size; both planes of noise would not fit, so one of them is packed."""
    rng = np.random.default_rng(0)
    size = 20_000
    flat, noisy = np.full(size, 3), rng.integers(0, 50, size)
    for counts, least, most in ((flat, 0, 1000), (noisy, size, size + 1000), (noisy * 256 + noisy, size, 36_000)):
        data = encode(Profile(BINNING, 1, counts, np.zeros(4)))
        assert least <= len(data) <= most
