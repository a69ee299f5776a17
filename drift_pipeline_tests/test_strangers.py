"""Tables as people really have them, by `drift compare`: read rightly or refused by name, never a wrong number."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline_tests.replay.worlds import Ended, drift

N = 900
SPEC = "name: m\nowner: o\ntask: binary_classification\noutcome: {column: y}\nfeatures: "
Write = Callable[[Path, pl.DataFrame], Path]


def csv(name: str = "rows.csv", **options: Any) -> Write:
    def write(folder: Path, rows: pl.DataFrame) -> Path:
        rows.write_csv(folder / name, **options)
        return folder / name

    return write


def parquet(folder: Path, rows: pl.DataFrame) -> Path:
    rows.write_parquet(folder / "rows.parquet")
    return folder / "rows.parquet"


PLAIN = csv()


def world(seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "x": rng.standard_normal(N).round(4),
            "price": (rng.lognormal(7, 1, N) * 100).round() / 100,
            "grade": rng.integers(1, 5, N),
            "flag": rng.random(N) < 0.3,
            "site": rng.choice(["A", "B", "C"], N),
        }
    )


def texts(column: str, spelled: str) -> pl.Expr:
    return pl.col(column).map_elements(spelled.format, pl.String).alias(column)


@dataclass(frozen=True)
class Case:
    """`before`, `after`: what is done to a column of both worlds, which are alike; `told`: what the answer says."""

    before: pl.Expr | pl.Series | None = None
    after: pl.Expr | pl.Series | None = None
    write: Write = PLAIN
    write_before: Write | None = None
    spec: str | None = None
    code: int = 0
    told: tuple[str, ...] = ()
    judged: str | None = None


NUMBERS = pl.int_range(N)
SHUFFLED = pl.Series(np.random.default_rng(9).permutation(2 * N))
FIRST, REST = SHUFFLED[:N], SHUFFLED[N:]
DAYS = pl.datetime(2025, 1, 1) + pl.duration(days=pl.int_range(N) % 150)
LATER = DAYS + pl.duration(days=200)
GRADE_AS_FLOAT = pl.when(pl.int_range(pl.len()) > 0).then(pl.col("grade").cast(pl.Float64))
GRADE, FLAG = f"{SPEC}{{x: numeric, grade: categorical}}\n", f"{SPEC}{{x: numeric, flag: categorical}}\n"

CASES = {
    "whole levels that one missing value made floats": Case(
        after=GRADE_AS_FLOAT.alias("grade"), write=parquet, spec=GRADE, judged="grade"
    ),
    "the same without a spec": Case(after=GRADE_AS_FLOAT.alias("grade"), write=parquet, judged="grade"),
    "whole levels as texts": Case(after=texts("grade", "{}.0"), write=parquet, spec=GRADE, judged="grade"),
    "truth values of Parquet against pandas' CSV": Case(
        after=texts("flag", "{}"), write_before=parquet, spec=FLAG, judged="flag"
    ),
    "the same without a spec, and 1 and 0": Case(
        after=pl.col("flag").cast(pl.Int64), write_before=parquet, judged="flag"
    ),
    "a column without a name": Case(
        before=FIRST.alias(""), after=REST.alias(""), told=("'': left out: it has no name",), judged="x"
    ),
    "a row number that pandas named": Case(
        before=FIRST.alias("Unnamed: 0"), after=REST.alias("Unnamed: 0"), told=("'Unnamed: 0': left out",), judged="x"
    ),
    "an index that pandas stored": Case(
        before=FIRST.alias("__index_level_0__"),
        after=REST.alias("__index_level_0__"),
        write=parquet,
        told=("'__index_level_0__': left out: it has no name",),
    ),
    "numbers without a gap over both tables": Case(
        before=FIRST.alias("n"), after=REST.alias("n"), told=("'n': left out: whole numbers, all distinct",), judged="x"
    ),
    "semicolons": Case(write=csv(separator=";"), judged="price"),
    "semicolons and a decimal comma": Case(write=csv(separator=";", decimal_comma=True), judged="price"),
    "tabs": Case(write=csv(separator="\t"), write_before=csv(), judged="price"),
    "thousands separators": Case(after=texts("price", "{:,.2f}"), judged="price"),
    "a dash for a missing number": Case(
        after=pl.when(NUMBERS % 20 > 0).then(pl.col("price").cast(pl.String)).otherwise(pl.lit("-")).alias("price"),
        judged="price",
    ),
    "a blank after each separator": Case(after=texts("price", " {}"), judged="price"),
    "thousands or decimals": Case(
        after=(pl.col("grade") * 1000 + 5).map_elements("{:,}".format, pl.String).alias("price"),
        code=2,
        told=("line 2: column 'price': ", "may be thousands or decimals"),
    ),
    "numbers with a unit against numbers": Case(
        after=texts("price", "{} kg"), code=2, told=("column 'price' holds numbers in", "and text in")
    ),
    "numbers with a unit on both sides": Case(
        before=texts("price", "{} kg"), after=texts("price", "{} kg"), told=("they come with a unit",), judged="x"
    ),
    "numbers but for a few": Case(
        after=pl.when(NUMBERS % 50 > 0).then(pl.col("x").cast(pl.String)).otherwise(pl.lit("low")).alias("x"),
        code=2,
        told=("line 2: column 'x': 'low' is not a number, as nearly all are", "(18 such rows)"),
    ),
    "a watched column is gone": Case(
        after=pl.col("x").alias("X"),
        spec=f"{SPEC}{{x: numeric, site: categorical}}\n",
        code=3,
        told=("INCONCLUSIVE x ", "not in rows.csv; did you mean 'X', which is?"),
        judged="site",
    ),
    "a watched column was never there": Case(
        before=pl.col("x").alias("X"),
        spec=f"{SPEC}{{x: numeric, site: categorical}}\n",
        code=3,
        told=("INCONCLUSIVE x ", "not in rows.csv"),
    ),
    "truth values as numbers": Case(
        after=texts("flag", "{}"), write_before=parquet, spec=f"{SPEC}{{flag: numeric}}\n", judged="flag"
    ),
    "a level that looks like no value": Case(
        before=pl.col("site").replace({"A": "NA"}),
        after=pl.col("site").replace({"A": "NA"}),
        told=("note: site: 'NA' is a level (",),
        judged="site",
    ),
    "NA among whole levels that nobody declared": Case(
        before=pl.when(NUMBERS > 9).then(pl.col("grade").cast(pl.String)).otherwise(pl.lit("NA")).alias("grade"),
        after=pl.when(NUMBERS > 9).then(pl.col("grade")).alias("grade"),
        judged="grade",
    ),
    "NA among truth values that nobody declared": Case(
        before=pl.when(NUMBERS > 9).then(texts("flag", "{}")).otherwise(pl.lit("NA")).alias("flag"),
        after=pl.when(NUMBERS > 9).then(pl.col("flag")).alias("flag"),
        judged="flag",
    ),
    "levels that do not fit the form": Case(
        after=pl.when(NUMBERS > 4).then(pl.col("grade").cast(pl.String)).otherwise(pl.lit("A+")).alias("grade"),
        spec=GRADE,
        told=("5 values do not fit its form, integer, such as 'A+'",),
    ),
    **{
        f"dates written {form}": Case(
            before=DAYS.dt.to_string(form).alias("day"),
            after=LATER.dt.to_string(form).alias("day"),
            told=("'day': left out: ",),
            judged="x",
        )
        for form in ("%Y-%m-%d", "%-m/%-d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%b-%Y", "%Y%m%d", "%A, %d %B %Y", "%G-W%V")
    },
}


def changed(rows: pl.DataFrame, change: pl.Expr | pl.Series | None) -> pl.DataFrame:
    """With the changed column first; X stands in place of x."""
    if change is None:
        return rows
    name = change.name if isinstance(change, pl.Series) else change.meta.output_name()
    return rows.select(change, pl.exclude(name, *(["x"] if name == "X" else [])))


def compared(case: Case, folder: Path, *options: object) -> Ended:
    paths = []
    for seed, (change, write) in enumerate(((case.before, case.write_before or case.write), (case.after, case.write))):
        (folder / str(seed)).mkdir(exist_ok=True)
        paths.append(write(folder / str(seed), changed(world(seed), change)))
    if case.spec is not None:
        (folder / "spec.yaml").write_text(case.spec)
        options = (*options, "--spec", folder / "spec.yaml")
    return drift("compare", *paths, *options)


@pytest.mark.parametrize("name", CASES)
def test_a_stranger_s_table_is_read_rightly_or_refused_by_name(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    ended = compared(case, tmp_path)
    assert ended.code == case.code, ended.err + ended.out
    answer = ended.err if case.code == 2 else ended.out
    assert [words for words in case.told if words not in " ".join(answer.split())] == []
    if case.judged:
        found = compared(case, tmp_path, "--json").summary["features"][case.judged]
        plain = compared(Case(), tmp_path, "--json").summary["features"]
        assert found["verdict"] == "OK"
        if case.before is None and case.judged in plain and found["missing"] == plain[case.judged]["missing"]:
            assert (found["psi"], found["distance"]) == (plain[case.judged]["psi"], plain[case.judged]["distance"])


def test_what_is_left_out_is_told_in_every_form_of_the_answer(tmp_path: Path) -> None:
    case = CASES["dates written %d.%m.%Y"]
    page = tmp_path / "page.html"
    ended = compared(case, tmp_path, "--html", page)
    assert "'day': left out: times" in ended.out
    assert "left out: times" in page.read_text()
    assert compared(case, tmp_path, "--json").summary["read"]["day"] == {"type": None, "why": "left out: times"}


def test_labels_of_texts_tell_the_auroc_that_numbers_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = pl.DataFrame({"x": rng.random(N), "s": rng.random(N).round(3), "y": rng.integers(0, 2, N)})
    spec = f"{SPEC}{{x: numeric}}\nprediction: {{score: s}}\n"
    spellings: tuple[tuple[list[Any], str], ...] = (
        ([0, 1], "{column: y}"),
        (["False", "True"], "{column: y}"),
        (["bad", "good"], "{column: y, positive: good}"),
        ([0.0, 1.0], "{column: y, positive: true, unknown: [-1]}"),
    )
    told = []
    for number, (values, outcome) in enumerate(spellings):
        (tmp_path / "spec.yaml").write_text(spec.replace("{column: y}", outcome))
        path = tmp_path / f"{number}.csv"
        rows.with_columns(pl.col("y").replace_strict(dict(enumerate(values)))).write_csv(path)
        ended = drift("compare", path, path, "--spec", tmp_path / "spec.yaml", "--json")
        told.append(ended.summary["kpis"]["auroc"]["reason"])
    assert told == [told[0]] * 4


@pytest.mark.parametrize("odd", ["1.2", "-0.1", "inf", "high"])
def test_a_score_that_is_no_probability_is_refused_with_its_line(odd: str, tmp_path: Path) -> None:
    for name, score in (("was", "0.5"), ("now", odd)):
        lines = [f"{number % 7},{score if number == 500 else 0.25},{number % 2}" for number in range(N)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["x,s,y", *lines, ""]))
    (tmp_path / "spec.yaml").write_text(f"{SPEC}{{x: numeric}}\nprediction: {{score: s}}\n")
    ended = drift("compare", tmp_path / "was.csv", tmp_path / "now.csv", "--spec", tmp_path / "spec.yaml")
    assert (ended.code, f"now.csv: line 502: column 's': '{odd}' is" in ended.err) == (2, True)


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["line feeds", "Windows"])
def test_blank_lines_of_a_csv_are_no_rows(tmp_path: Path, end: str) -> None:
    rows = [f"{number % 7},{number}.5" for number in range(N)]
    (tmp_path / "plain.csv").write_text(end.join(["level,x", *rows, ""]), newline="")
    gaps = ["level,x", *rows[:300], *[""] * 50, *rows[300:], "", "", ""]
    (tmp_path / "gaps.csv").write_text(end.join(gaps), newline="")
    found = drift("compare", tmp_path / "plain.csv", tmp_path / "gaps.csv", "--json").summary
    assert (found["verdict"], found["rows"]) == ("OK", {"reference": N, "current": N})
    (tmp_path / "bad.csv").write_text(end.join([*gaps[:-3], "3,what"]), newline="")
    (tmp_path / "spec.yaml").write_text(f"{SPEC}{{x: numeric}}\n")
    ended = drift("compare", tmp_path / "plain.csv", tmp_path / "bad.csv", "--spec", tmp_path / "spec.yaml")
    assert (ended.code, f"line {N + 52}" in ended.err) == (2, True), ended.err
