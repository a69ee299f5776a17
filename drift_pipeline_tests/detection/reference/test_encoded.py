"""A frozen reference as bytes: what comes back is what was frozen, to the last bit, or an IntegrityError."""

import hashlib
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import Field, fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow  # type: ignore[import-untyped]
import pytest
import yaml

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.detection.counting.binning import CategoricalBins, NumericBins
from drift_pipeline.detection.counting.profile import Profile
from drift_pipeline.detection.counting.stored import encode
from drift_pipeline.detection.judging.monitor import window_lengths
from drift_pipeline.detection.reference.encoded import decode_reference, encode_reference
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.errors import IntegrityError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.synthetic import (
    DELIVERY_SPEC,
    SAMPLE_SPEC,
    START,
    Drift,
    delivery_history,
    stationary_history,
    synthetic_history,
)
from drift_pipeline_tests.detection.worlds import World

CLICKS = {"ts": "_time", "score": "_score", "clicked": "_label", "latency_ms": "_latency_ms"}
DELIVERIES = {"ts": "_time", "promised_minutes": "_score", "minutes": "_label"}


def clicks(days: int, *drifts: Drift) -> pl.DataFrame:
    return synthetic_history(days, 300, 1, drifts=drifts, seasonal=0.5).rename(CLICKS)


def deliveries(days: int, *drifts: Drift) -> pl.DataFrame:
    return delivery_history(days, 300, 2, drifts=drifts).rename(DELIVERIES)


def spec_of(text: str, **more: Any) -> ModelSpec:
    return ModelSpec.model_validate(yaml.safe_load(text) | more)


SPEC, DELIVERY = spec_of(SAMPLE_SPEC), spec_of(DELIVERY_SPEC)


def frozen(frame: pl.DataFrame, spec: ModelSpec, *, step: timedelta = HOUR) -> Reference:
    return freeze(frame, frame[frame.height // 2 :], spec, window_lengths(spec, step))


def odd_columns() -> Reference:
    """Levels by the hundred, most of them rare; a column of one value, and one of none."""
    spec = spec_of(SAMPLE_SPEC, features={"user_id": "categorical", "items_viewed": "numeric", "price_eur": "numeric"})
    gone = clicks(30).with_columns(items_viewed=pl.lit(3), price_eur=pl.lit(None, pl.Float64))
    return frozen(gone, spec)


WORLDS: dict[str, Callable[[], Reference]] = {
    "a classification by hour of the week": lambda: frozen(clicks(42, Drift("schema", 20, size=0.1)), SPEC),
    "a regression by hour of the week": lambda: frozen(deliveries(42), DELIVERY),
    "three weeks, by hour of the day": lambda: frozen(clicks(21), SPEC),
    "a regression of ten days": lambda: frozen(deliveries(10), DELIVERY),
    "no protected columns": lambda: frozen(clicks(30), spec_of(SAMPLE_SPEC, protected={})),
    "no label": lambda: frozen(clicks(30).with_columns(_label=pl.lit(None, pl.Int8)), SPEC),
    "a regression without labels": lambda: frozen(
        deliveries(30).with_columns(_label=pl.lit(None, pl.Float64)), DELIVERY
    ),
    "rare levels, a constant and an empty column": odd_columns,
}


@pytest.fixture(scope="module", params=WORLDS)
def reference(request: pytest.FixtureRequest) -> Reference:
    return WORLDS[request.param]()


@pytest.fixture(scope="module")
def small() -> Reference:
    """Few counters, so that its bytes can be spoilt at many places."""
    spec = spec_of(SAMPLE_SPEC, features={"items_viewed": "numeric"})
    return freeze(clicks(8), clicks(8), spec, (DAY,))


def told(value: Any) -> Any:
    """All that a value is, in what compares to the last bit: types, the order of dicts, NaN and the sign of 0."""
    if isinstance(value, Profile):
        return value.rows, told(value.counts), told(value.sums)
    if is_dataclass(value):
        return type(value), [(field.name, _of_field(field, getattr(value, field.name))) for field in fields(value)]
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return [(told(key), told(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [told(item) for item in value]
    return value.hex() if isinstance(value, float) else value


def _of_field(field: Field[Any], value: Any) -> Any:
    """A float may have been given as a whole number."""
    return told(float(value) if field.type is float else value)


def assert_same(first: Any, second: Any) -> None:
    """Says no more: what differs would fill pages."""
    equal = told(first) == told(second)
    assert equal


def test_everything_comes_back_to_the_last_bit(reference: Reference) -> None:
    back = decode_reference(encode_reference(reference))
    assert_same(back, reference)
    assert back.binning.digest == reference.binning.digest
    assert all(profile.binning is back.binning for profile in back.by_hour)
    assert (back.baseline, back.provisional, back.weeks) == (reference.baseline, reference.provisional, reference.weeks)


def test_the_worlds_hold_every_kind_of_field() -> None:
    """So that the test above is one of all of them."""
    made = {name: make() for name, make in WORLDS.items()}
    assert {len(r.by_hour) for r in made.values()} == {24, 168}
    for name in ("auroc", "held_out", "errors"):
        assert {getattr(r, name) is None for r in made.values()} == {True, False}
    assert {r.binning.residuals is None for r in made.values()} == {True, False}
    assert any(not r.group_days for r in made.values())
    assert any(math.isnan(phi) for r in made.values() for null in r.nulls.values() for phi in null.phi.values())
    bins = [b for r in made.values() for b in r.binning.columns.values()]
    assert any(isinstance(b, CategoricalBins) and len(b.rare) > 100 for b in bins)
    assert any(isinstance(b, NumericBins) and not len(b.cuts) for b in bins)
    assert any(isinstance(b, NumericBins) and b.atom.any() for b in bins)


@pytest.mark.parametrize("hours", [0.25, 1, 24, 168, 672])
def test_the_matched_hours_are_the_same(reference: Reference, hours: float) -> None:
    back = decode_reference(encode_reference(reference))
    window = Window(START + 29 * HOUR, START + (29 + hours) * HOUR)
    assert_same(back.matched(window), reference.matched(window))


@pytest.mark.parametrize(
    ("spec", "history", "kinds"),
    [(SPEC, clicks, ("covariate", "unfairness", "schema")), (DELIVERY, deliveries, ("covariate", "concept"))],
)
def test_a_monitor_says_the_same_of_a_drifting_month(
    spec: ModelSpec, history: Callable[..., pl.DataFrame], kinds: tuple[Any, ...]
) -> None:
    frame = history(60, *(Drift(kind, 45) for kind in kinds))
    split = START + 30 * DAY
    healthy, month = frame.filter(pl.col("_time") < split), frame.filter(pl.col("_time") >= split)
    reference = freeze(healthy, healthy, spec, window_lengths(spec, DAY))
    first, second = (World(r, spec, split) for r in (reference, decode_reference(encode_reference(reference))))
    reports = list(first.daily(month))
    assert {bool(report.drifting) for report in reports} == {True, False}
    assert repr(list(second.daily(month))) == repr(reports)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1 / 3, 1.7976931348623157e308])
def test_any_float_comes_back(small: Reference, number: float) -> None:
    binning = replace(small.binning, score_cuts=np.full(7, number), error_unit=number)
    odd = replace(small, auroc_phi=number, binning=binning)
    assert_same(decode_reference(encode_reference(odd)), odd)


def test_any_integer_of_64_bits_comes_back(small: Reference) -> None:
    numbers = np.array([[0, -1, 255, 256], [2**53 + 1, 2**63 - 1, -(2**63), 1]])
    odd = replace(small, rows=2**60 + 1, held_out=(numbers, numbers[:0]), group_days={"é\0\ud800": (numbers, -numbers)})
    assert_same(decode_reference(encode_reference(odd)), odd)


def test_the_arrays_of_a_decoded_reference_are_its_own(small: Reference) -> None:
    data = encode_reference(small)
    back = decode_reference(data)
    back.by_hour[0].counts[:] += 1
    assert_same(decode_reference(data), small)


def test_the_same_reference_has_the_same_bytes_and_another_one_others(reference: Reference) -> None:
    data = encode_reference(reference)
    assert encode_reference(decode_reference(data)) == data
    reference.matched(Window(START, START + DAY))  # what it keeps by the way is no part of it
    assert encode_reference(reference) == data
    assert encode_reference(replace(reference, auroc_phi=math.nextafter(reference.auroc_phi, 2))) != data
    assert encode_reference(replace(reference, nulls=dict(reversed(reference.nulls.items())))) != data


def test_frozen_anew_it_has_the_same_bytes() -> None:
    make = WORLDS["rare levels, a constant and an empty column"]
    assert encode_reference(make()) == encode_reference(make())


def test_the_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """The order of a set of strings does."""
    data = encode_reference(odd_columns())
    (tmp_path / "reference").write_bytes(data)
    program = """if True:
        import hashlib, pathlib, sys
        from drift_pipeline.detection.reference.encoded import decode_reference, encode_reference
        back = decode_reference(pathlib.Path(sys.argv[1]).read_bytes())
        print(hashlib.sha256(encode_reference(back)).hexdigest())"""
    command = [sys.executable, "-c", program, str(tmp_path / "reference")]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("rows_a_bin", "most"), [(0.1, 1_000_000), (8, 3_000_000), (80, 4_000_000)])
def test_24_columns_by_hour_of_the_week_are_below_4_mb(rows_a_bin: float, most: int) -> None:
    """8 rows a bin and hour of the week are 1.3 million rows."""
    names = [f"f{number}" for number in range(20)]
    more = {name: pl.lit(name) for name in ("k1", "k2", "k3", "k4")} | {"_score": pl.col("f0")}
    frame = stationary_history(20, days=29, rows_per_day=200, seed=3).rename({"ts": "_time", "y": "_label"})
    kinds = dict.fromkeys(names, "numeric") | dict.fromkeys(("k1", "k2", "k3"), "categorical")
    spec = spec_of(SAMPLE_SPEC, features=kinds, protected={"k4": "categorical"})
    few = frozen(frame.with_columns(**more), spec)
    counts = np.random.default_rng(0).poisson(rows_a_bin, (168, few.binning.size))
    many = replace(few, by_hour=[replace(p, counts=c) for p, c in zip(few.by_hour, counts, strict=True)])
    data = encode_reference(many)
    assert most / 4 < len(data) < most
    assert_same(decode_reference(data), many)


def refused(data: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=why) as refusal:
        decode_reference(data)
    assert "freeze it" in str(refusal.value)


def test_cut_off_anywhere_it_is_refused(small: Reference) -> None:
    data = encode_reference(small)
    for end in {*range(64), *range(64, len(data), max(1, len(data) // 500)), len(data) - 1}:
        refused(data[:end], "are no frozen reference" if end < 16 else "is damaged")
    refused(data + b"\0", "is damaged")
    assert_same(decode_reference(data), small)


def test_any_flipped_bit_is_noticed(small: Reference) -> None:
    data = encode_reference(small)
    places = {*range(64), *np.random.default_rng(0).integers(64, len(data), 500).tolist(), len(data) - 1}
    for place in places:
        for bit in range(8):
            spoilt = bytearray(data)
            spoilt[place] ^= 1 << bit
            refused(bytes(spoilt), "are no frozen reference" if place < 4 else "is damaged")


def test_foreign_bytes_are_no_reference(small: Reference) -> None:
    foreign = np.random.default_rng(0).bytes(5000)
    for data in (b"", b"DPR", foreign, encode(small.by_hour[0]), json.dumps({"rows": 1}).encode(), b"DPR2" + foreign):
        refused(data, f"{len(data)} bytes are no frozen reference")
    refused(b"DPR1" + foreign, "is damaged")


def sealed(body: bytes, size: int | None = None) -> bytes:
    """Bytes whose checksum is right, whatever they hold."""
    packed: bytes = pyarrow.Codec("zstd").compress(body, asbytes=True)
    covered = struct.pack("<Q", len(body) if size is None else size) + packed
    return b"DPR1" + struct.pack("<I", zlib.crc32(covered)) + covered


def opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    body = pyarrow.Codec("zstd").decompress(data[16:], struct.unpack_from("<Q", data, 8)[0], asbytes=True)
    end = 8 + struct.unpack_from("<Q", body)[0]
    return json.loads(body[8:end]), body[end:]


def again(header: object, planes: bytes) -> bytes:
    text = json.dumps(header, separators=(",", ":")).encode()
    return sealed(struct.pack("<Q", len(text)) + text + planes)


def test_what_another_version_wrote_is_refused_unless_it_only_lacks_a_field_that_has_a_default(
    small: Reference,
) -> None:
    header, planes = opened(encode_reference(small))
    assert_same(decode_reference(again(header, planes)), small)
    without = {name: value for name, value in header.items() if name != "errors"}
    assert_same(decode_reference(again(without, planes)), small)
    for name in ("rows", "binning", "by_hour"):
        refused(again({key: value for key, value in header.items() if key != name}, planes), "does not know")
    for changed in (
        header | {"mood": "good"},
        header | {"rows": "many"},
        header | {"rows": None},
        header | {"span": {"start": header["span"]["end"], "end": header["span"]["start"]}},
        header | {"nulls": [[1, 2, 3]]},
        header | {"nulls": 5},
        header | {"auroc": [7, None]},
        header | {"auroc_phi": 1.5},
        [header],
        None,
    ):
        refused(again(changed, planes), "does not know")
    refused(again(header, planes[: len(planes) // 2]), "does not know")
    for body, size in ((b"", None), (b"12345678", None), (b"\xff" * 30, None), (b"12", 1), (b"12", 3), (b"12", 2**63)):
        refused(sealed(body, size), "does not know")
