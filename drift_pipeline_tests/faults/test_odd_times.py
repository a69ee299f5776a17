"""Histories with times that no clock showed: read, laid aside with a note or refused by their line, never a trace."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from drift_pipeline_tests.replay.worlds import drift

ROWS = 200
SPEC = """
name: m
owner: a@example.com
task: binary_classification
columns: {timestamp: ts}
features: {x: numeric, seen: categorical}
outcome: {column: y, delay: 1h}
timezone: Pacific/Kiritimati
"""
USUAL = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=k) for k in range(ROWS)]
TEXTS = {
    "9999-12-31": ["9999-12-31"] * ROWS,
    "the end of 9999 in the west": ["9999-12-31T23:59:59-12:00"] * ROWS,
    "the start of year 1 in the east": ["0001-01-01T00:00:00+14:00"] * ROWS,
    "half of them 9999": [*(t.isoformat() for t in USUAL[::2]), *["9999-12-31T23:59:59Z"] * (ROWS // 2)],
    "one of them 9999": [*(t.isoformat() for t in USUAL[1:]), "9999-12-31T23:59:59.999999Z"],
    "seconds to 9999": ["253402300799"] * ROWS,
    "larger than any": ["9" * 25] * ROWS,
}
STORED = {
    "days beyond 9999": pl.Series([2**31 - 1] * ROWS).cast(pl.Date),
    "days before 1": pl.Series([-(2**31)] * ROWS).cast(pl.Date),
    "us beyond 9999": pl.Series([2**62] * ROWS).cast(pl.Datetime("us", "UTC")),
    "us before 1": pl.Series([-(2**62)] * ROWS).cast(pl.Datetime("us")),
    "ms beyond 9999": pl.Series([2**62] * ROWS).cast(pl.Datetime("ms", "Pacific/Kiritimati")),
    "ms before 1": pl.Series([-(2**62)] * ROWS).cast(pl.Datetime("ms", "America/New_York")),
    "one day beyond 9999": pl.Series([*(t.date() for t in USUAL[1:]), date(9999, 12, 31)]),
    "one us beyond 9999": pl.Series([*(t.timestamp() * 1e6 for t in USUAL[1:]), 2.0**60]).cast(pl.Datetime("us")),
}


def table(times: pl.Series, seen: pl.Series | None = None) -> pl.DataFrame:
    half = [k % 2 for k in range(ROWS)]
    levels = pl.Series(["a", "b"] * (ROWS // 2)) if seen is None else seen
    return pl.DataFrame({"ts": times, "x": [float(k) for k in range(ROWS)], "seen": levels, "y": half})


@pytest.mark.parametrize("column", ["ts", "seen"])
@pytest.mark.parametrize("name", [*TEXTS, *STORED])
def test_odd_times_are_told_and_no_trace(
    name: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = pl.Series(TEXTS[name]) if name in TEXTS else STORED[name]
    frame = table(odd) if column == "ts" else table(pl.Series(USUAL), odd)
    path = tmp_path / ("h.csv" if name in TEXTS else "h.parquet")
    if name in TEXTS:
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    spec = tmp_path / "models" / "m" / "defs.yaml"
    spec.parent.mkdir(parents=True)
    spec.write_text(SPEC)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    for ended in (
        drift("replay", path, "--spec", spec, "--out", tmp_path / "out", "--reference", "3d"),
        drift("calibrate", path, "--spec", spec, "--reference", "3d"),
        drift("adopt", "m", "--data", path, "--external", "--home", tmp_path / "home"),
        drift("compare", path, path),
    ):
        assert "Traceback" not in ended.err
        assert ended.code in (0, 2, 3), ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("maintenance", "begin", "m", "--to", "9999-12-31T23:59:59-12:00", "--reason", "x"),
        ("maintenance", "begin", "m", "--to", "0001-01-01T00:00:00+14:00", "--reason", "x"),
        ("incident", "snooze", "m", "--for", "99999999d", "--reason", "x"),
        ("incident", "snooze", "m", "--for", "9" * 5000 + "d", "--reason", "x"),
    ],
    ids=["west of 9999", "east of 1", "longer than a calendar", "many digits"],
)
def test_a_time_or_duration_beyond_the_calendar_is_refused_as_an_option(arguments: tuple[str, ...]) -> None:
    ended = drift(*arguments)
    assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err


SOON = "2026-01-01T00:00:00+00:00"
DRILLS = ["fast", "60", "60@never", f"nan@{SOON}", f"1e9@{SOON}", "60@9999-12-31T00:00:00+00:00"]


@pytest.mark.parametrize("drill", DRILLS)
@pytest.mark.parametrize("arguments", [("status",), ("up",), ("serve",), ("capture", "--once")], ids=" ".join)
def test_a_drill_that_is_none_is_refused_by_every_command(
    drill: str, arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "models" / "m" / "defs.yaml"
    spec.parent.mkdir(parents=True)
    spec.write_text(SPEC)
    monkeypatch.setenv("DRIFT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("DRIFT_HOME", str(tmp_path / "home"))
    assert drift("producer", "add", "app").code == 0
    monkeypatch.setenv("DRIFT_DRILL", drill)
    ended = drift(*arguments)
    assert (ended.code, "DRIFT_DRILL" in ended.err) == (2, True), ended.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRIFT_TICK_SECONDS", "often"),
        ("DRIFT_TICK_SECONDS", "0"),
        ("DRIFT_TICK_SECONDS", "9" * 5000),
        ("DRIFT_ENVIRONMENT", ""),
        ("DRIFT_DATABASE", "what"),
        ("DRIFT_DATABASE", "oracle://x"),
        ("DRIFT_DATABASE", "postgresql+psycopg://a:b@h:port/x"),
        ("DRIFT_MODELS", "/nowhere"),
        ("DRIFT_HOME", "what?x=1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_in_a_sentence(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    for arguments in (("tick",), ("status",), ("serve",), ("capture", "--once")):
        ended = drift(*arguments)
        assert (ended.code, "Traceback" in ended.err) == (2, False), ended.err
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
