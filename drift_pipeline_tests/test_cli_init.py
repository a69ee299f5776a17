"""drift init: a spec drafted from a table can be read, says what was inferred, and is never written over."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from drift_pipeline.cli import main
from drift_pipeline.spec import ModelSpec, read_spec

RNG = np.random.default_rng(1)
N = 400
ROWS = pl.DataFrame(
    {
        "request_id": [f"r{k}" for k in range(N)],
        "ts": pl.datetime_range(pl.datetime(2026, 1, 1), pl.datetime(2026, 1, 1, 6, 39), "1m", eager=True),
        "amount": RNG.normal(10, 2, N),
        "my city": RNG.choice(["Ulm", "Köln"], N),
        "no": RNG.normal(0, 1, N),
        "note": [f"text {k}" for k in range(N)],
        "score": RNG.random(N),
        "fraud": RNG.integers(0, 2, N),
        "answer": RNG.choice(["yes", "no"], N),
        "minutes": RNG.normal(30, 5, N),
    }
)


def drafted(folder: Path, label: str, frame: pl.DataFrame = ROWS, code: int = 0) -> ModelSpec:
    frame.write_csv(folder / "data.csv")
    command = ["init", str(folder / "data.csv"), "--model", "fraud", "--label", label, "--out", str(folder / "models")]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == code
    return read_spec(folder / "models" / "fraud" / "defs.yaml") if not code else None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("label", "task", "positive"),
    [
        ("fraud", "binary_classification", 1),
        ("answer", "binary_classification", "yes"),
        ("minutes", "regression", None),
    ],
)
def test_a_draft_says_what_the_columns_are(tmp_path: Path, label: str, task: str, positive: object) -> None:
    spec = drafted(tmp_path, label)
    assert spec.task == task
    assert (spec.columns.timestamp, spec.columns.prediction_id, spec.prediction.column) == ("ts", "request_id", "score")
    assert spec.outcome.column == label
    if positive is not None:
        assert spec.outcome.positive == positive
    assert spec.features["amount"] == "numeric"
    assert spec.features["my city"] == "categorical"
    assert spec.features["no"] == "numeric"
    assert not {"note", "ts", "request_id", "score", label} & set(spec.features)
    text = (tmp_path / "models" / "fraud" / "defs.yaml").read_text(encoding="utf-8")
    assert "# note: left out: text, 400 distinct in 400: ids, or free text" in text


def test_a_draft_of_a_table_without_times_and_ids_can_be_read(tmp_path: Path) -> None:
    spec = drafted(tmp_path, "fraud", ROWS.select("amount", "fraud"))
    assert spec.columns.timestamp is None
    assert spec.features == {"amount": "numeric"}


@pytest.mark.parametrize(
    ("label", "frame", "told"),
    [
        ("fraudd", ROWS, "no column 'fraudd'; did you mean 'fraud'?"),
        ("note", ROWS, "column 'note' holds 400 levels"),
        ("fraud", ROWS.with_columns(pl.col("fraud") - 1).vstack(ROWS), "column 'fraud' holds 3 levels"),
        ("fraud", ROWS.select("fraud", "note"), "no column to watch: note: left out"),
        ("fraud", ROWS.clear(), "holds no rows"),
    ],
)
def test_what_cannot_be_drafted_is_refused(
    tmp_path: Path, label: str, frame: pl.DataFrame, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    drafted(tmp_path, label, frame, code=2)
    assert told in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_spec_that_is_there_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drafted(tmp_path, "fraud")
    drafted(tmp_path, "answer", code=2)
    assert "exists; name another --out or --model" in capsys.readouterr().err


def test_a_name_that_no_model_can_have_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ROWS.write_csv(tmp_path / "data.csv")
    with pytest.raises(SystemExit) as ended:
        main(
            ["init", str(tmp_path / "data.csv"), "--model", "Fraud 1", "--label", "fraud", "--out", str(tmp_path / "m")]
        )
    assert ended.value.code == 2
    assert "name: " in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
