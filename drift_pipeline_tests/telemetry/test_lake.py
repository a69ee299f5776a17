"""The lake: a batch is written once whoever sends it how often, and reading sees what was taken, flushed or not."""

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from drift_pipeline.clock import DAY, HOUR, Window
from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline.telemetry.delta import Delta
from drift_pipeline.telemetry.lake import Cursor, Lake

START = datetime(2026, 1, 1, tzinfo=UTC)
ALL = Window(START, START + 30 * DAY)


def predictions(hour: float, rows: int = 3) -> pl.DataFrame:
    at = [START + hour * HOUR + timedelta(seconds=row) for row in range(rows)]
    return pl.DataFrame(
        {
            "_id": [f"p{hour:06.2f}-{row}" for row in range(rows)],
            "_time": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
            "_score": [row / rows for row in range(rows)],
            "x": [None if row == 1 else hour for row in range(rows)],
            "device": ["phone" if row else None for row in range(rows)],
        },
        schema_overrides={"x": pl.Float64, "device": pl.String},
    )


def outcomes(ids: list[str], hour: float, label: int = 1) -> pl.DataFrame:
    at = pl.Series([START + hour * HOUR] * len(ids), dtype=pl.Datetime("us", "UTC"))
    labels = pl.Series([label] * len(ids), dtype=pl.Int8)
    return pl.DataFrame({"_id": ids, "_observed_at": at, "_label": labels})


def expect(lake: Lake, *parts: pl.DataFrame, window: Window = ALL) -> None:
    assert_frame_equal(lake.read("predictions", window), pl.concat(parts))


@pytest.mark.parametrize("flush_rows", [1, 5, 1000])
def test_what_was_taken_is_read_flushed_or_not(tmp_path: Path, flush_rows: int) -> None:
    lake = Lake(tmp_path, flush_rows=flush_rows)
    parts = [predictions(hour) for hour in (0, 1, 23, 24, 49)]
    for batch, part in enumerate(parts):
        assert lake.append("predictions", part, batch)
        expect(lake, *parts[: batch + 1])
    lake.close()
    expect(lake, *parts)
    expect(Lake(tmp_path), *parts)


def test_rows_come_in_order_of_time_then_id(tmp_path: Path) -> None:
    lake = Lake(tmp_path, flush_rows=5)
    lake.append("predictions", predictions(5).reverse(), 0)
    lake.append("predictions", predictions(1).reverse(), 1)
    lake.append("predictions", predictions(3).reverse(), 2)
    expect(lake, predictions(1), predictions(3), predictions(5))


def test_a_window_is_half_open_across_days(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for batch, hour in enumerate((0, 23, 24, 48)):
        lake.append("predictions", predictions(hour, rows=1), batch)
    expect(lake, predictions(0, 1), predictions(23, 1), window=Window(START, START + DAY))
    expect(lake, predictions(24, 1), window=Window(START + DAY, START + 2 * DAY))
    assert lake.read("predictions", Window(START + 9 * DAY, START + 10 * DAY)).is_empty()
    assert lake.read("predictions", Window(START, START)).is_empty()


@pytest.mark.parametrize("flush_rows", [1, 1000], ids=["on disk", "in memory"])
def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path, flush_rows: int) -> None:
    lake, part = Lake(tmp_path, flush_rows=flush_rows), predictions(0)
    lake.append("predictions", part, 0)
    found = lake.read("predictions", ALL, columns=("x", "not there"))
    assert_frame_equal(found, part.select("_id", "_time", "x"))


def test_an_empty_lake_reads_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.read("predictions", ALL).is_empty()
    assert lake.labelled(ALL, START, DAY).is_empty()
    assert lake.version("predictions") == -1


def test_a_batch_that_comes_again_is_not_taken_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.append("predictions", predictions(0), 7)
    assert not lake.append("predictions", predictions(0), 7)
    assert not lake.append("predictions", predictions(1), 6)
    again = Lake(tmp_path)
    assert not again.append("predictions", predictions(0), 7)
    assert again.append("predictions", predictions(1), 8)
    expect(Lake(tmp_path), predictions(0), predictions(1))


def test_a_batch_that_waits_is_not_taken_again(tmp_path: Path) -> None:
    lake = Lake(tmp_path, flush_rows=1000)
    assert lake.append("predictions", predictions(0), 0)
    assert not lake.append("predictions", predictions(0), 0)
    lake.close()
    expect(lake, predictions(0))


def test_sources_and_tables_count_their_batches_apart(tmp_path: Path) -> None:
    web, batch = Lake(tmp_path, source="web"), Lake(tmp_path, source="batch")
    assert web.append("predictions", predictions(0), 0)
    assert batch.append("predictions", predictions(1), 0)
    assert web.append("outcomes", outcomes(["p000.00-0"], 1), 0)
    assert batch.append("outcomes", outcomes(["p001.00-0"], 2), 0)
    expect(web, predictions(0), predictions(1))
    expect(batch, predictions(0), predictions(1))


def test_a_crash_before_the_flush_loses_only_what_waited(tmp_path: Path) -> None:
    crashed = Lake(tmp_path, flush_rows=6)
    for hour in range(3):
        crashed.append("predictions", predictions(hour), hour)
    again = Lake(tmp_path, flush_rows=6)
    expect(again, predictions(0), predictions(1))
    assert [again.append("predictions", predictions(hour), hour) for hour in range(3)] == [False, False, True]
    again.close()
    expect(Lake(tmp_path), predictions(0), predictions(1), predictions(2))


def test_a_reader_sees_what_another_handle_wrote_later(tmp_path: Path) -> None:
    writer, reader = Lake(tmp_path), Lake(tmp_path)
    for batch in range(3):
        writer.append("predictions", predictions(batch), batch)
        expect(reader, *(predictions(hour) for hour in range(batch + 1)))
        assert reader.version("predictions") == writer.version("predictions") == batch


def test_a_batch_that_another_handle_wrote_is_not_written_twice(tmp_path: Path) -> None:
    """Both opened the lake before either wrote."""
    first, second = Lake(tmp_path), Lake(tmp_path, flush_rows=1000)
    for batch in range(3):
        second.append("predictions", predictions(batch), batch)
    first.append("predictions", predictions(0), 0)
    first.append("predictions", predictions(1), 1)
    second.close()
    expect(first, predictions(0), predictions(1), predictions(2))


class Outrun(Delta):
    """Another system, which knows of no turns, commits between this one's look at the table and its own commit."""

    rivals = 0

    def handle(self) -> DeltaTable | None:
        found = super().handle()
        if found is not None and self.rivals:
            self.rivals -= 1
            frame = predictions(100 + self.rivals).with_columns(_day=pl.col("_time").dt.strftime("%Y-%m-%d"))
            write_deltalake(str(self.path), frame, mode="append", schema_mode="merge")
        return found


def outrun(root: Path, rivals: int) -> Lake:
    lake = Lake(root)
    lake.append("predictions", predictions(0), 0)
    table = Outrun(root / "predictions")
    table.rivals = rivals
    lake._tables["predictions"] = table
    return lake


def test_a_commit_lost_to_another_system_is_tried_again(tmp_path: Path) -> None:
    lake = outrun(tmp_path, rivals=3)
    lake.append("predictions", predictions(1), 1)
    expect(Lake(tmp_path), predictions(0), predictions(1), *(predictions(100 + rival) for rival in range(3)))
    assert not Lake(tmp_path).append("predictions", predictions(1), 1)


def test_commits_that_are_always_lost_are_a_conflict_and_keep_waiting(tmp_path: Path) -> None:
    lake = outrun(tmp_path, rivals=1000)
    with pytest.raises(ConflictError, match="lost to other writers; do it again"):
        lake.append("predictions", predictions(1), 1)
    table = lake._tables["predictions"]
    assert isinstance(table, Outrun)
    table.rivals = 0
    lake.flush("predictions")
    assert lake.read("predictions", ALL).filter(pl.col("_id").str.starts_with("p001")).height == 3


def _send(root: Path, source: str) -> None:
    lake = Lake(root, source=source, flush_rows=6)
    for batch in range(8):
        lake.append("predictions", predictions(batch + (0.5 if source == "b" else 0)), batch)
    lake.close()


def test_processes_that_write_at_once_lose_and_repeat_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    senders = [context.Process(target=_send, args=(tmp_path, source)) for source in "ab"]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert [sender.exitcode for sender in senders] == [0, 0]
    expect(Lake(tmp_path), *(predictions(half / 2) for half in range(16)))


@pytest.mark.parametrize("name", ["with space", "ünï", "a#b", "a*b?"])
def test_the_folder_may_have_an_odd_name(tmp_path: Path, name: str) -> None:
    lake = Lake(tmp_path / name)
    lake.append("predictions", predictions(0), 0)
    expect(lake, predictions(0))


@pytest.mark.parametrize("sign", "[]^|\\%")
def test_a_folder_that_delta_cannot_write_to_is_refused(tmp_path: Path, sign: str) -> None:
    with pytest.raises(InputError, match="a lake's path cannot hold") as refused:
        Lake(tmp_path / f"a{sign}b")
    assert f"cannot hold {sign};" in str(refused.value)


def test_version_flushes_and_grows_by_one_a_commit(tmp_path: Path) -> None:
    lake = Lake(tmp_path, flush_rows=1000)
    lake.append("predictions", predictions(0), 0)
    assert lake.version("predictions") == 0
    expect(Lake(tmp_path), predictions(0))
    assert lake.version("predictions") == 0
    lake.append("predictions", predictions(1), 1)
    assert lake.version("predictions") == 1


# labelled


@pytest.fixture
def served(tmp_path: Path) -> Lake:
    """Three predictions at hour 0 whose outcomes come at hours 2, 4 and never."""
    lake = Lake(tmp_path)
    lake.append("predictions", predictions(0), 0)
    lake.append("outcomes", outcomes(["p000.00-0"], hour=2, label=0), 0)
    lake.append("outcomes", outcomes(["p000.00-1"], hour=4, label=1), 1)
    return lake


@pytest.mark.parametrize(("hour", "known"), [(-1, 0), (0, 0), (2, 0), (2.01, 1), (4, 1), (5, 2), (999, 2)])
def test_outcomes_observed_later_are_not_seen(served: Lake, hour: float, known: int) -> None:
    found = served.labelled(Window(START, START + HOUR), START + hour * HOUR, 6 * HOUR)
    labels = pl.Series("_label", [0, 1][:known], dtype=pl.Int8)
    if known:
        assert_frame_equal(found, predictions(0)[:known].with_columns(labels))
    else:
        assert found.is_empty()


def test_the_last_outcome_before_as_of_counts_once(served: Lake) -> None:
    served.append("outcomes", outcomes(["p000.00-0", "stranger"], hour=8, label=1), 2)
    window = Window(START, START + HOUR)
    assert served.labelled(window, START + 5 * HOUR, HOUR)["_label"].to_list() == [0, 1]
    assert served.labelled(window, START + 9 * HOUR, HOUR)["_label"].to_list() == [1, 1]


def test_labels_far_later_than_the_delay_do_not_count(served: Lake) -> None:
    window = Window(START, START + HOUR)
    late = (window.length + 2 * HOUR + 7 * DAY) / HOUR
    served.append("outcomes", outcomes(["p000.00-2"], hour=late), 2)
    assert served.labelled(window, START + 20 * DAY, HOUR).height == 2
    assert served.labelled(window, START + 20 * DAY, 1.01 * HOUR).height == 3


# in the order in which rows land


@pytest.mark.parametrize("seed", range(4))
def test_landed_tells_each_row_once_whoever_writes_and_whatever_waits(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    own, other = Lake(tmp_path, source="own", flush_rows=7), Lake(tmp_path, source="other")
    cursor, told, written = own.cursor("predictions"), [], []
    for batch in range(40):
        writer, frame = (own, other)[int(rng.integers(2))], predictions(float(rng.integers(48)))
        frame = frame.with_columns(_id=pl.lit(f"{batch}-") + pl.col("_id"))
        writer.append("predictions", frame, batch)
        written += frame["_id"].to_list()
        if rng.random() < 0.3:
            own.flush("predictions")
        if rng.random() < 0.4:
            rows, cursor = own.landed("predictions", cursor)
            told += rows["_id"].to_list() if rows.height else []
    rows, cursor = own.landed("predictions", cursor)
    told += rows["_id"].to_list() if rows.height else []
    assert sorted(told) == sorted(written)
    assert own.landed("predictions", cursor)[0].is_empty()


def test_a_cursor_of_rows_that_waited_goes_on_in_another_process(tmp_path: Path) -> None:
    writer = Lake(tmp_path, source="own", flush_rows=1000)
    for batch in range(3):
        writer.append("predictions", predictions(batch, rows=1).with_columns(_id=pl.lit(str(batch))), batch)
    seen, cursor = writer.landed("predictions", Cursor())
    writer.append("predictions", predictions(3, rows=1).with_columns(_id=pl.lit("3")), 3)
    writer.close()
    rows, _ = Lake(tmp_path, source="reader").landed("predictions", cursor)
    assert (seen["_id"].to_list(), rows["_id"].to_list()) == (["0", "1", "2"], ["3"])


def test_rewritten_files_land_nothing(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    for batch in range(4):
        lake.append("predictions", predictions(batch), batch)
    _, cursor = lake.landed("predictions", Cursor())
    table = DeltaTable(str(tmp_path / "predictions"))
    table.optimize.compact()
    table.delete("_id = 'nobody'")
    lake.append("predictions", predictions(9), 9)
    rows, _ = lake.landed("predictions", cursor)
    assert rows.height == predictions(9).height
