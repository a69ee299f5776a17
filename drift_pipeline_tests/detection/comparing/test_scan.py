"""Profiles of files: the same for any split, in bounded memory, and clear about what cannot be read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.detection.comparing.scan import (
    Named,
    Reread,
    profile_files,
    read_batches,
    sample_batches,
    sample_rows,
)
from drift_pipeline.detection.counting.profile import Profile, label_slices, profile_slices
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ColumnType
from drift_pipeline_tests.detection.counting.test_profile import BINNING, rows, same

COLUMN_TYPES: dict[str, ColumnType] = {
    "x": "numeric",
    "spiky": "numeric",
    "kind": "categorical",
    "group": "categorical",
}
NAMED = Named("_score", "_label", "_latency_ms")
FRAME = rows(3000, 5).with_columns(_label=pl.Series([0, 1, None] * 1000))
Writer = Callable[[pl.DataFrame, Path], object]


def expected(frame: pl.DataFrame) -> Profile:
    known = frame.filter(pl.col("_label").is_not_null())
    labelled = label_slices(BINNING, known["_score"], known["_label"], np.zeros(known.height, np.int64), 1)[0]
    return profile_slices(BINNING, frame, np.zeros(frame.height, np.int64), 1)[0] + labelled


WHOLE = expected(FRAME)


def parquet(frame: pl.DataFrame, folder: Path) -> object:
    return frame.write_parquet(folder / "rows.parquet", row_group_size=700)


def csv(frame: pl.DataFrame, folder: Path) -> object:
    return frame.write_csv(folder / "rows.csv", null_value="NA")


def delta(frame: pl.DataFrame, folder: Path) -> object:
    for part in (frame[:1000], frame[1000:]):
        part.write_delta(folder, mode="append")
    return None


@pytest.mark.parametrize("write", [parquet, csv, delta])
def test_each_format_gives_the_profile_of_its_rows(write: Writer, tmp_path: Path) -> None:
    write(FRAME, tmp_path)
    assert same(profile_files([tmp_path], BINNING, NAMED), WHOLE)


def test_a_table_counts_the_rows_that_it_holds_now_not_every_file_in_its_folder(tmp_path: Path) -> None:
    delta(FRAME, tmp_path)
    FRAME[:100].write_delta(tmp_path, mode="overwrite")
    assert same(profile_files([tmp_path], BINNING, NAMED), expected(FRAME[:100]))


@given(cuts=st.lists(st.integers(0, 3000), max_size=5).map(sorted), batch=st.integers(1, 4000))
@settings(deadline=None, max_examples=15)
def test_any_split_into_files_and_batches_gives_the_same_profile(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], batch: int
) -> None:
    folder = tmp_path_factory.mktemp("split")
    for number, (start, end) in enumerate(zip([0, *cuts], [*cuts, 3000], strict=True)):
        FRAME[start:end].write_parquet(folder / f"{number}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drift_pipeline.detection.comparing.scan.read_batches.__defaults__", (max(batch, 50),))
        assert same(profile_files([folder], BINNING, NAMED), WHOLE)


def test_progress_is_told_in_rows_and_ends_with_all_of_them(tmp_path: Path) -> None:
    told: list[int] = []
    many = pl.concat([FRAME] * 100)
    parquet(many, tmp_path)
    profile = profile_files([tmp_path], BINNING, NAMED, told.append)
    assert told == sorted(set(told))
    assert len(told) > 1
    assert told[-1] == profile.rows == 300_000
    assert (profile.counts == 100 * WHOLE.counts).all()


def test_files_of_both_formats_are_read_in_the_order_given(tmp_path: Path) -> None:
    csv(FRAME[:10], tmp_path)
    parquet(FRAME[10:30], tmp_path)
    paths = [tmp_path / "rows.parquet", tmp_path / "rows.csv"]
    found = pl.concat(read_batches(paths, COLUMN_TYPES))
    assert found["kind"].to_list() == FRAME["kind"][10:30].to_list() + FRAME["kind"][:10].to_list()
    assert found.columns == list(COLUMN_TYPES)


def test_without_score_and_label_only_the_features_are_counted(tmp_path: Path) -> None:
    parquet(FRAME.drop("_score", "_label", "_latency_ms"), tmp_path)
    profile = profile_files([tmp_path], BINNING)
    assert profile.bins("_score").sum() == profile.labelled_scores()[0].sum() == 0
    assert (profile.bins("x") == WHOLE.bins("x")).all()


def test_a_sample_is_seeded_in_order_without_repeats_and_does_not_depend_on_the_files(tmp_path: Path) -> None:
    frame = FRAME.with_columns(x=pl.int_range(3000).cast(pl.Float64))
    for folder, parts in (("one", 1), ("many", 7)):
        (tmp_path / folder).mkdir()
        for number in range(parts):
            part = frame[number * 3000 // parts : (number + 1) * 3000 // parts]
            part.write_parquet(tmp_path / folder / f"{number}.parquet")
    one, again, other = (
        sample_rows([tmp_path / f], COLUMN_TYPES, 500, s) for f, s in (("one", 1), ("many", 1), ("one", 2))
    )
    assert one.equals(again)
    assert not one.equals(other)
    assert one.height == one["x"].n_unique() == 500
    assert one["x"].is_sorted()
    assert sample_rows([tmp_path / "one"], COLUMN_TYPES, 3000).height == 3000


@pytest.mark.parametrize("most_bytes", [1, 10_000_000])
def test_batches_are_the_same_at_each_pass_and_read_once_where_they_fit(most_bytes: int, tmp_path: Path) -> None:
    parquet(FRAME, tmp_path)
    batches = Reread([tmp_path], COLUMN_TYPES, most_bytes)
    first = sample_batches(batches, 500)
    assert first.equals(sample_rows([tmp_path], COLUMN_TYPES, 500))
    (tmp_path / "rows.parquet").unlink()
    if most_bytes > 1:
        assert sample_batches(batches, 500).equals(first)
    else:
        with pytest.raises(InputError, match="holds no"):
            sample_batches(batches, 500)


def test_a_pass_that_was_not_finished_holds_nothing(tmp_path: Path) -> None:
    for number in range(3):
        FRAME[number * 1000 : (number + 1) * 1000].write_parquet(tmp_path / f"{number}.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("drift_pipeline.detection.comparing.scan.read_batches.__defaults__", (1000,))
        batches = Reread([tmp_path], COLUMN_TYPES)
        next(iter(batches))
        assert [sum(batch.height for batch in batches) for _ in range(2)] == [3000, 3000]


@pytest.fixture
def small_groups_are_huge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drift_pipeline.detection.comparing.scan.MOST_GROUP_ROWS", 900)
    monkeypatch.setattr("drift_pipeline.detection.comparing.scan._FOOTER_READ_FROM_BYTES", 0)


@pytest.mark.usefixtures("small_groups_are_huge")
def test_a_huge_row_group_is_read_in_pieces_among_other_files_in_order(tmp_path: Path) -> None:
    frame = FRAME.with_columns(pl.col("group").cast(pl.Categorical), spiky=pl.col("spiky").cast(pl.Int32))
    for number, (start, end) in enumerate(((0, 500), (500, 2500), (2500, 3000))):
        frame[start:end].write_parquet(tmp_path / f"{number}.parquet")
    batches = list(read_batches([tmp_path], COLUMN_TYPES, 600))
    assert max(batch.height for batch in batches) <= 600
    found = pl.concat(batches)
    assert found.equals(frame.select(list(COLUMN_TYPES)).with_columns(pl.col("spiky").cast(pl.Float64)))


@pytest.mark.usefixtures("small_groups_are_huge")
def test_a_file_of_other_types_beside_a_huge_one_is_named(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.with_columns(kind=pl.lit(1)).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: column 'kind' is Int32, but String in a\.parquet"):
        list(read_batches([tmp_path], COLUMN_TYPES))


def test_an_error_that_is_not_of_the_table_is_not_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delta(FRAME, tmp_path)
    monkeypatch.setattr(pl, "scan_delta", lambda _table: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        list(read_batches([tmp_path], COLUMN_TYPES))


def test_every_row_is_as_likely_to_be_in_the_sample(tmp_path: Path) -> None:
    pl.DataFrame({"x": np.arange(400.0)}).write_parquet(tmp_path / "rows.parquet")
    hits = np.zeros(400)
    for seed in range(200):
        hits[sample_rows([tmp_path], {"x": "numeric"}, 40, seed)["x"].to_numpy().astype(int)] += 1
    assert hits.sum() == 200 * 40
    assert ((hits - 20) ** 2 / 18).sum() < 400 + 5 * np.sqrt(800)


def broken(folder: Path, what: str) -> Path:
    """A path that cannot be read, of each kind."""
    parquet(FRAME, folder)
    match what:
        case "missing":
            return folder / "none.parquet"
        case "empty folder":
            (folder / "empty").mkdir()
            return folder / "empty"
        case "other format":
            (folder / "rows.txt").write_text("x\n1\n")
            return folder / "rows.txt"
        case "no parquet":
            (folder / "a.parquet").write_bytes(b"PAR1 but no more")
            return folder
        case "missing column":
            FRAME.drop("x").write_parquet(folder / "rows.parquet")
        case "missing later":
            FRAME.drop("x").write_parquet(folder / "z.parquet")
        case "other type":
            FRAME.with_columns(kind=pl.lit(1)).write_parquet(folder / "z.parquet")
        case "a list":
            FRAME.with_columns(x=pl.lit([1.0])).write_parquet(folder / "rows.parquet")
        case "text for a number":
            (folder / "rows.csv").write_text("x,spiky,kind,group\nwide,1,a,g\n")
            return folder / "rows.csv"
        case "damaged table":
            (folder / "_delta_log").mkdir()
    return folder


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", r"none\.parquet: there is no such file or folder"),
        ("empty folder", r"empty: the folder holds no \.csv, \.csv\.gz, \.parquet file and is no Delta table"),
        ("other format", r"rows\.txt: cannot tell its format"),
        ("no parquet", r"a\.parquet: cannot be read"),
        ("missing column", r"rows\.parquet: no column 'x'; there are: spiky, kind"),
        ("missing later", r"z\.parquet: no column 'x'"),
        ("other type", r"z\.parquet: column 'kind' is Int32, but String in rows\.parquet"),
        ("a list", r"rows\.parquet: column 'x' is List\(Float64\), not a number"),
        ("text for a number", r"rows\.csv: cannot be read: .*x"),
        ("damaged table", r"cannot be read as a Delta table"),
    ],
)
def test_what_cannot_be_read_is_named(what: str, said: str, tmp_path: Path) -> None:
    path = broken(tmp_path, what)
    for attempt in (
        lambda: list(read_batches([path], COLUMN_TYPES)),
        lambda: profile_files([path], BINNING),
        lambda: sample_rows([path], COLUMN_TYPES, 10),
    ):
        with pytest.raises(InputError, match=said):
            attempt()


@pytest.mark.parametrize("write", [parquet, csv, delta])
def test_without_a_row_there_is_an_empty_sample_and_an_empty_profile(write: Writer, tmp_path: Path) -> None:
    write(FRAME[:0], tmp_path)
    assert sample_rows([tmp_path], COLUMN_TYPES).schema.names() == list(COLUMN_TYPES)
    assert profile_files([tmp_path], BINNING, NAMED).rows == 0


def test_no_path_at_all_is_said() -> None:
    with pytest.raises(InputError, match="no path is given"):
        list(read_batches([], COLUMN_TYPES))


def test_a_label_is_0_1_or_missing(tmp_path: Path) -> None:
    parquet(FRAME.with_columns(_label=pl.lit(2)), tmp_path)
    with pytest.raises(InputError, match=r"the label 2\.0 is neither 0 nor 1"):
        profile_files([tmp_path], BINNING, NAMED)
