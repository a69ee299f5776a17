"""The Python API: any table, the verdict of the commands, shown in a notebook, kept as a page."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import drift_pipeline as dp
from drift_pipeline.cli import main
from drift_pipeline.errors import InputError, SpecError

RNG = np.random.default_rng(0)
HEALTHY = pl.DataFrame(
    {
        "price": RNG.normal(10, 2, 3000),
        "rooms": RNG.integers(1, 60, 3000),
        "city": RNG.choice(["Ulm", "Köln", "Bonn"], 3000),
        "id": [f"r{k}" for k in range(3000)],
    }
)
MOVED = HEALTHY.with_columns(pl.col("price") + 3)


def table(form: str, frame: pl.DataFrame, folder: Path) -> Any:
    match form:
        case "polars":
            return frame
        case "pandas":
            return frame.to_pandas()
        case "arrow":
            return frame.to_arrow()
        case "parquet":
            frame.write_parquet(folder / f"{frame['price'].sum():.0f}.parquet")
            return folder / f"{frame['price'].sum():.0f}.parquet"
        case _:
            frame.write_csv(folder / f"{frame['price'].sum():.0f}.csv")
            return str(folder / f"{frame['price'].sum():.0f}.csv")


@pytest.mark.parametrize("form", ["polars", "pandas", "arrow", "parquet", "csv"])
def test_every_form_of_two_tables_gives_the_same_numbers(form: str, tmp_path: Path) -> None:
    found = dp.compare(table(form, HEALTHY, tmp_path), table(form, MOVED, tmp_path))
    plain = dp.compare(HEALTHY, MOVED)
    assert (found.verdict, plain.verdict) == ("BREACH", "BREACH")
    assert found.to_frame().equals(plain.to_frame())


def test_the_frame_has_one_row_a_column_worst_first() -> None:
    frame = dp.compare(HEALTHY, MOVED).to_frame()
    assert frame["column"].to_list()[0] == "price"
    assert sorted(frame["column"]) == ["city", "price", "rooms"]
    assert frame.row(0, named=True)["direction"] == "up"
    assert frame["psi"].dtype == pl.Float64
    assert isinstance(frame.to_pandas(), pd.DataFrame)


@pytest.mark.parametrize(
    ("choice", "compared"),
    [
        ({"columns": ["price", "city"]}, ["city", "price"]),
        ({"exclude": ["price"]}, ["city", "rooms"]),
        ({"exclude": "price"}, ["city", "rooms"]),
        ({"columns": ["rooms", "city"], "exclude": ["city"]}, ["rooms"]),
        ({"categorical": ["rooms"]}, ["city", "price", "rooms"]),
    ],
)
def test_columns_are_chosen_without_a_spec(choice: dict[str, list[str]], compared: list[str]) -> None:
    frame = dp.compare(HEALTHY, MOVED, **choice).to_frame()  # type: ignore[arg-type]
    assert sorted(frame["column"]) == compared
    kinds = dict(frame.select("column", "type").iter_rows())
    assert kinds.get("rooms", "numeric") == ("categorical" if "categorical" in choice else "numeric")


@pytest.mark.parametrize("option", ["columns", "exclude", "categorical"])
def test_a_column_that_is_not_there_is_refused_with_what_may_be_meant(option: str) -> None:
    with pytest.raises(InputError, match="no column 'pricee' in both tables; did you mean 'price'"):
        dp.compare(HEALTHY, MOVED, **{option: ["pricee"]})  # type: ignore[arg-type]


def test_the_command_and_the_call_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [table("parquet", frame, tmp_path) for frame in (HEALTHY, MOVED)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, paths), "--json", "--exclude", "city", "--categorical", "rooms"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out) == dp.compare(*paths, exclude=["city"], categorical=["rooms"]).to_json()


def test_a_test_of_data_fails_where_something_drifts_and_where_nothing_can_be_judged() -> None:
    dp.compare(HEALTHY, HEALTHY).assert_ok()
    with pytest.raises(AssertionError, match="price"):
        dp.compare(HEALTHY, MOVED).assert_ok()
    with pytest.raises(AssertionError, match="INCONCLUSIVE"):
        dp.compare(HEALTHY.head(20), HEALTHY.tail(20)).assert_ok()


def test_a_page_is_shown_inline_and_written(tmp_path: Path) -> None:
    found = dp.compare(HEALTHY, MOVED)
    inline = found._repr_html_()
    assert inline.startswith("<iframe srcdoc=")
    assert "<script" not in inline  # it is escaped within the attribute
    page = found.save(tmp_path / "c.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert json.loads(found.save(tmp_path / "c.json").read_text(encoding="utf-8")) == found.to_json()


SPEC = {
    "name": "homes",
    "owner": "ml@example.com",
    "task": "binary_classification",
    "features": {"price": "numeric", "city": "categorical"},
    "outcome": {"column": "sold"},
}


def test_a_spec_may_be_a_mapping_and_is_narrowed_by_columns() -> None:
    assert sorted(dp.compare(HEALTHY, MOVED, SPEC).to_frame()["column"]) == ["city", "price"]
    assert dp.compare(HEALTHY, MOVED, SPEC, exclude=["price"]).to_frame()["column"].to_list() == ["city"]
    with pytest.raises(SpecError, match="the spec: featuers: unknown key; did you mean 'features'"):
        dp.compare(HEALTHY, MOVED, {**SPEC, "featuers": {}})
    with pytest.raises(InputError, match="the spec of homes says what each column is"):
        dp.compare(HEALTHY, MOVED, SPEC, categorical=["price"])


def test_what_is_no_table_is_refused() -> None:
    with pytest.raises(InputError, match="a dict is no table"):
        dp.compare({"a": 1}, HEALTHY)


def test_a_replay_of_a_frame_leaves_a_summary_kpis_and_a_page(tmp_path: Path) -> None:
    from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, synthetic_history

    (tmp_path / "defs.yaml").write_text(SAMPLE_SPEC, encoding="utf-8")
    history = synthetic_history(40, 120, 0)
    played = dp.replay(history, tmp_path / "defs.yaml", reference="28d", triggers="drift")
    assert played.summary["rows"] == history.height
    kpis = played.kpis()
    assert kpis.columns == [
        *("at", "model", "version", "name", "verdict", "window", "reason"),
        *("value", "threshold", "bound", "n", "worst"),
    ]
    assert {"psi", "auroc"} <= set(kpis["name"])
    assert "<svg" in played.save(tmp_path / "r.html").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="there is no 'drfit'; there are: drift, schedule, both"):
        dp.replay(history, tmp_path / "defs.yaml", triggers="drfit")  # type: ignore[arg-type]
    folder = played.folder
    del played
    assert not folder.exists()


def test_a_calibration_of_a_frame_proposes_thresholds(tmp_path: Path) -> None:
    from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, synthetic_history

    (tmp_path / "defs.yaml").write_text(SAMPLE_SPEC, encoding="utf-8")
    found = dp.calibrate(synthetic_history(30, 400, 0), tmp_path / "defs.yaml", step="1d")
    frame = found.to_frame()
    assert frame.columns == ["key", "current", "proposed", "reason", "cost"]
    assert "kpis.psi.threshold" in frame["key"].to_list()
    assert found.save(tmp_path / "kpis.yaml").read_text(encoding="utf-8").splitlines()[-1] in str(found)
    assert found.to_json()["notes"] == list(found.notes)


def test_the_import_is_light_and_names_what_there_is() -> None:
    script = "import sys, drift_pipeline as dp; print('polars' in sys.modules, dir(dp)); dp.nothing"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert told.stdout.startswith(
        "False ['Calibration', 'Comparison', 'Home', 'Replayed', '__version__', 'calibrate', 'compare'"
    )
    assert "has no attribute 'nothing'; there are: Calibration" in told.stderr
