"""Labels, scores and levels are read by one rule, whatever spelling or type they have."""

import polars as pl
import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.spec import Form
from drift_pipeline.telemetry.tables.columns import Labels, Levels, frequent_token, told_off_form
from drift_pipeline.telemetry.tables.table import Read, Table


def read(values: object, read: Read, rows: int = 10_000) -> list[object]:
    return pl.concat(Table.of(pl.DataFrame({"y": values})).batches({"y": read}, rows))["y"].to_list()


@pytest.mark.parametrize(
    ("positive", "values", "labels"),
    [
        (1, [0, 1, None], [0, 1, None]),
        (1, ["0.0", "1.0", "NA"], [0, 1, None]),
        (1, [False, True, None], [0, 1, None]),
        (1, ["False", "True", ""], [0, 1, None]),
        (1, [-1, 1, None], [0, 1, None]),
        (2, [1.0, 2.0, float("nan")], [0, 1, None]),
        (True, ["false", "TRUE", "-"], [0, 1, None]),
        (True, [0, 1, None], [0, 1, None]),
        (False, ["True", "False", ""], [0, 1, None]),
        ("1", [0.0, 1.0, None], [0, 1, None]),
        ("1", ["0.0", "1", None], [0, 1, None]),
        ("yes", ["no", " yes", ""], [0, 1, None]),
        ("01", ["1", "01", ""], [0, 1, None]),
    ],
)
def test_a_label_is_positive_where_it_equals_the_specs_value(
    positive: bool | int | str, values: list[object], labels: list[object]
) -> None:
    assert read(pl.Series(values), Labels(positive)) == labels


@pytest.mark.parametrize(
    ("positive", "values", "said"),
    [
        (1, [0, 1, -1], r"row 3: column 'y': -1 is a third label beside '1' \(outcome.positive\) and '0'"),
        (1, ["0", "1", "2", "2.0"], r"row 3: .*'2' is a third label .*outcome.unknown \(2 such rows\)"),
        ("yes", ["yes", "no", "no", "maybe"], r"row 4: .*'maybe' is a third label beside 'yes'.* and 'no'"),
        ("yes", ["yes", "no", "no", "NA"], r"row 4: .*'NA' is a third label"),
        ("yes", ["No", "No", "Yes"], r"row 3: .*'Yes' is a third label beside 'yes'"),
        (1, [0.3, 0.3, 0.7], r"row 3: .*0.7 is a third label"),
        (1, ["yes", "no"], r"row 1: .*'yes' is neither a number nor true or false; write outcome.positive in quotes"),
        (1, ["0", "1", "inf"], r"row 3: .*'inf' is neither a number"),
        (1, [[1], [0]], r"row 1: .*has the type List\(Int64\), which has no levels"),
    ],
)
def test_a_third_label_is_refused_with_its_place(positive: bool | int | str, values: list[object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(values, Labels(positive))


@pytest.mark.parametrize("values", [[0, 1, -1], [0.0, 1.0, -1.0], ["0", "1", "-1"], ["0", "1.0", "-1.0"]])
def test_what_the_spec_lists_as_unknown_is_no_label(values: list[object]) -> None:
    assert read(values, Labels(1, [-1])) == [0, 1, None]
    assert read(["yes", "no", "maybe"], Labels("yes", ["maybe"])) == [1, 0, None]


def test_a_third_label_in_a_later_batch_is_one_too() -> None:
    with pytest.raises(InputError, match=r"row 4: .*2 is a third label"):
        read([1, 0, 0, 2], Labels(1), rows=2)


@pytest.mark.parametrize(
    ("form", "values", "levels", "off"),
    [
        ("integer", [1.0, 2.0, None], ["1", "2", None], 0),
        ("integer", ["1.0", "x", "x"], ["1", "x", "x"], 2),
        ("integer", [True, False], ["1", "0"], 0),
        ("boolean", ["True", "0", "2"], ["true", "false", "2"], 1),
        ("decimal", [0.5, 1.0], ["0.5", "1"], 0),
        ("text", ["NA", "", "01"], ["NA", None, "01"], 0),
    ],
)
def test_what_does_not_fit_the_form_is_a_level_of_its_own_and_told(
    form: Form, values: list[object], levels: list[object], off: int
) -> None:
    reader = Levels(form)
    assert read(values, reader) == levels
    assert reader.off == off
    assert bool(told_off_form({"y": reader})) == bool(off)


def test_a_frequent_level_that_looks_like_no_value_is_told() -> None:
    assert frequent_token(pl.Series("c", ["NA"] * 2 + ["DE"] * 98)) == (
        "c: 'NA' is a level (2.0% of the rows); if it means no value, list it under missing"
    )
    assert frequent_token(pl.Series("c", ["DE"] * 200 + ["NA"])) is None
