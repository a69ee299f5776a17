"""`drift compare`: verdicts as exit codes, one message for what cannot be compared, and a page that stands alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, Drift, synthetic_history
from drift_pipeline_tests.replay.pages import read_page
from drift_pipeline_tests.replay.worlds import Ended, drift


def table(n: int, seed: int, shift: float = 0.0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    columns = {"x": rng.standard_normal(n) + shift, "<b>": rng.standard_normal(n), "kind": rng.choice([1, 2, 3], n)}
    return pl.DataFrame(columns)


def compare(folder: Path, reference: pl.DataFrame, current: pl.DataFrame, *options: object) -> Ended:
    reference.write_csv(folder / "before.csv")
    current.write_parquet(folder / "after.parquet")
    return drift("compare", folder / "before.csv", folder / "after.parquet", *options)


BEFORE, SAME, MOVED, FAR = table(3000, 0), table(3000, 1), table(3000, 2, shift=0.3), table(3000, 3, shift=1.0)
THIN = [side.with_columns(x=pl.when(pl.int_range(pl.len()) < 150).then("x")) for side in (BEFORE, SAME)]


@pytest.mark.parametrize(
    ("current", "options", "code"),
    [
        (SAME, (), 0),
        (SAME, ("--fail-on", "warn"), 0),
        (MOVED, (), 0),
        (MOVED, ("--fail-on", "breach"), 0),
        (MOVED, ("--fail-on", "warn"), 1),
        (FAR, (), 1),
        (FAR, ("--fail-on", "warn"), 1),
        (FAR[:100], (), 3),
        (FAR[:100], ("--fail-on", "inconclusive"), 1),
        (MOVED, ("--fail-on", "inconclusive"), 1),
        (SAME, ("--fail-on", "inconclusive"), 0),
        (SAME, ("--min-judged", "1.0"), 0),
        (SAME, ("--min-judged", "4"), 3),
        (FAR, ("--min-judged", "4"), 1),
        (SAME, ("--min-judged", "0"), 2),
        (SAME, ("--min-judged", "1.5"), 2),
        (SAME, ("--min-judged", "101%"), 2),
        (SAME, ("--min-judged", "most"), 2),
    ],
)
def test_the_verdict_is_the_exit_code(
    tmp_path: Path, current: pl.DataFrame, options: tuple[str, ...], code: int
) -> None:
    assert compare(tmp_path, BEFORE, current, *options).code == code


def test_the_table_is_worst_first_and_fits_100_letters(tmp_path: Path) -> None:
    ended = compare(tmp_path, BEFORE, FAR)
    lines = ended.out.splitlines()
    assert lines[0].startswith("BREACH (3 of 3 columns, 2 of 2 KPIs judged): ")
    rows = [line.split()[1] for line in lines if line.split()[:1] in (["BREACH"], ["OK"]) and "+" in line]
    assert rows[0] == "x"
    assert max(map(len, lines[1:])) <= 100
    assert "rows count as independent" in ended.out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ((), 0),
        (("--min-judged", "2"), 0),
        (("--min-judged", "3"), 3),
        (("--min-judged", "0.6"), 0),
        (("--min-judged", "67%"), 3),
        (("--min-judged", "3", "--fail-on", "inconclusive"), 1),
    ],
)
def test_how_many_columns_have_to_be_judged_can_be_asked_for(
    tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    assert compare(tmp_path, *THIN, *options).code == code


def test_a_thin_column_is_named_and_the_others_are_judged(tmp_path: Path) -> None:
    found = compare(tmp_path, *THIN, "--json").summary
    assert (found["verdict"], found["judged"], found["configured"]) == ("OK", 2, 2)
    assert found["columns"] == {
        "judged": 2,
        "of": 3,
        "not_judged": {"x": "150 effective rows, 200 are needed"},
    }
    assert compare(tmp_path, *THIN).out.splitlines()[0].startswith("OK (2 of 3 columns, 2 of 2 KPIs judged): ")


def test_without_a_spec_it_says_how_each_column_is_read(tmp_path: Path) -> None:
    ended = compare(tmp_path, BEFORE, SAME)
    assert ended.err.splitlines() == [
        "x: numeric: float",
        "<b>: numeric: float",
        "kind: categorical: 3 distinct integers",
    ]


def test_json_is_one_document_on_stdout(tmp_path: Path) -> None:
    ended = compare(tmp_path, BEFORE, MOVED, "--json")
    found = ended.summary
    assert ended.complaints == []
    assert (found["verdict"], found["rows"]) == ("WARN", {"reference": 3000, "current": 3000})
    assert next(iter(found["features"])) == "x"
    assert set(found["features"]["x"]) >= {"type", "psi", "hellinger", "ks", "range_z", "missing", "verdict", "reason"}
    assert found["features"]["x"]["ks"]["low"] == found["features"]["x"]["ks"]["statistic"]
    assert found["features"]["kind"]["ks"] is None
    assert found["features"]["x"]["direction"] == "up"


def test_a_spec_names_the_kpis(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SAMPLE_SPEC)
    drifted = synthetic_history(20, 500, 1, drifts=(Drift("latency", day=0),))
    ended = compare(tmp_path, synthetic_history(20, 500, 0), drifted, "--spec", tmp_path / "spec.yaml")
    assert ended.code == 1
    assert "BREACH       latency_p95_ms" in ended.out
    assert ended.complaints == []


def read(page: Path) -> Any:
    return read_page(page.read_text(encoding="utf-8"))


def test_the_page_shows_its_facts_worst_first_and_asks_no_network(tmp_path: Path) -> None:
    ended = compare(tmp_path, BEFORE, FAR, "--html", tmp_path / "page.html", "--json")
    page = read(tmp_path / "page.html")
    assert page.rows["data-column"] == list(ended.summary["features"])
    assert page.addresses == []
    assert page.tags["svg"] >= 3
    facts = {shown.path: shown.value for shown in page.shown}
    assert (facts["verdict"], facts["rows.current"]) == ("BREACH", 3000)
    assert facts["columns.0.psi"] == ended.summary["features"]["x"]["psi"]
    assert "<b><b></b>" not in (tmp_path / "page.html").read_text(encoding="utf-8")  # a column's name is no markup


def test_terminal_page_and_json_show_one_number_under_one_name(tmp_path: Path) -> None:
    gone = BEFORE.with_columns(x=pl.when(pl.int_range(pl.len()) < 2900).then(None).otherwise("x"))
    for after in (FAR, MOVED, gone, gone.head(300)):  # drift, a thin column, and one without a value to compare
        told = compare(tmp_path, BEFORE, after, "--html", tmp_path / "page.html", "--json").summary["features"]
        lines = compare(tmp_path, BEFORE, after).out.splitlines()
        head = next(line for line in lines if line.startswith("verdict"))
        shown = {fact.path: fact for fact in read(tmp_path / "page.html").shown}
        for place, (name, column) in enumerate(told.items()):
            (line,) = [line for line in lines if line[13:36].strip() == name]
            for heading, key in (("PSI", "psi"), ("distance", "distance"), ("lower", "distance_lower")):
                end = head.index(heading) + len(heading)
                cell = line[:end].split()[-1]
                assert cell == ("-" if column[key] is None else f"{column[key]:.4f}"), (name, key)
                assert shown[f"columns.{place}.{key}"].value == column[key]
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<dt>distance</dt>" in text
    assert "<dt>lower</dt>" in text
    assert "less its sampling bias" in text
    assert "less its sampling bias" in " ".join(" ".join(lines).split())


def test_what_was_not_measured_is_no_zero(tmp_path: Path) -> None:
    none = BEFORE.with_columns(x=pl.lit(None, pl.Float64))
    found = compare(tmp_path, BEFORE, none, "--json").summary["features"]["x"]
    assert (found["psi"], found["hellinger"], found["ks"]) == (None, None, None)
    assert found["distance"] == 1.0  # of the missing share, as its direction says


def test_what_is_not_configured_is_one_line_below_the_kpis(tmp_path: Path) -> None:
    compare(tmp_path, BEFORE, FAR, "--html", tmp_path / "page.html")
    page = read(tmp_path / "page.html")
    assert page.rows["data-kpi"] == ["psi", "range_z"]
    assert any("Not configured: auroc (no prediction is named)" in text for text in page.texts)


@pytest.mark.parametrize(
    ("first", "rows", "warned"),
    [
        ("A11,6,A34", ["A11,{},A34", "A12,{},A32"], True),
        ("1,0.5,2011-01-01x", ["{},0.5,p", "{},0.7,q"], True),
        ("5,9,4", ["{},3,4", "{},7,9"], True),
        ("status,amount,history", ["A11,{},A34", "A12,{},A32"], False),
        ("0,1,2", ["{},3,4", "{},7,9"], False),
        ("2019,2020,2021", ["{},3,4", "{},7,9"], False),
        ("A11,amount,history", ["A11,{},A34", "A12,{},A32"], False),
    ],
    ids=["levels", "numbers", "numbers that do not count up", "names", "positions", "years", "one of three"],
)
def test_a_csv_without_a_header_is_warned_of(first: str, rows: list[str], warned: bool, tmp_path: Path) -> None:
    lines = [first, *(rows[number % 2].format(number % 40) for number in range(400))]
    for name in ("before.csv", "after.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    ended = drift("compare", tmp_path / "before.csv", tmp_path / "after.csv")
    said = "before.csv: its first row looks like values, not like names of columns" in " ".join(ended.out.split())
    assert said == warned


def test_a_page_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = compare(tmp_path, BEFORE, SAME, "--html", tmp_path / "file" / "page.html")
    assert (ended.code, "cannot be written" in ended.err) == (2, True)


# what cannot be compared


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("x\n1\n", None, "there is no such file"),
        (None, "x\n1\n", "there is no such file"),
        ("", "x\n1\n", "before.csv: the file is empty"),
        ("x\n1\n", "", "after.csv: the file is empty"),
        ("x\n", "x\n1\n", "before.csv: holds no rows"),
        ("x\n1\n", "x\n", "after.csv: holds no rows"),
        ("x\n1\n", "y\n1\n", "no common column"),
        ("x\n1.5\n", "x\nhigh\n", "column 'x' holds numbers in before.csv and text in after.csv"),
        ("x\n2026-01-01\n", "x\n2026-01-02\n", "no column to compare: x: left out: times"),
        ("x\n1\n", "x\n1,2\n", "after.csv: cannot be read"),
    ],
)
def test_bad_input_is_one_message_and_two(tmp_path: Path, before: str | None, after: str | None, said: str) -> None:
    for name, text in (("before.csv", before), ("after.csv", after)):
        if text is not None:
            (tmp_path / name).write_text(text)
    ended = drift("compare", tmp_path / "before.csv", tmp_path / "after.csv")
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1


def test_damaged_parquet_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "after.parquet").write_bytes(b"PAR1 but not")
    BEFORE.write_parquet(tmp_path / "before.parquet")
    ended = drift("compare", tmp_path / "before.parquet", tmp_path / "after.parquet")
    assert (ended.code, "after.parquet: cannot be read" in ended.err) == (2, True)


def test_the_json_has_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    empty = BEFORE.with_columns(x=pl.lit(None, pl.Float64))
    for current in (SAME, empty, FAR[:5]):
        document = compare(tmp_path, BEFORE, current, "--json").out
        json.loads(document, parse_constant=pytest.fail)
