"""What a request may say, and what it is told when it says something else."""

import json
import re
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.errors import InputError
from drift_pipeline.serving.protocol import Ask, metadata, read_ask
from drift_pipeline.spec import Form
from drift_pipeline.telemetry.tables.levels import CANONICAL, level
from drift_pipeline_tests.serving.worlds import SPECS, infer

ROWS = [(1.0, 2.0, "tv"), (3.5, None, None)]


def ask(document: Any) -> Ask:
    return read_ask(json.dumps(document).encode(), SPECS["fraud"])


def changed(tensor: int, **change: Any) -> dict[str, Any]:
    document = infer(ROWS)
    document["inputs"][tensor].update(change)
    return document


def test_columns_become_rows_in_the_order_of_the_features() -> None:
    document = infer(ROWS, id="r")
    document["inputs"].reverse()
    found = ask(document)
    assert [list(row) for row in found.rows] == [[1.0, 2.0, "tv"], [3.5, None, None]]
    assert found.ids == ["r-0", "r-1"]


def test_one_row_has_the_requests_id_and_a_request_without_one_gets_one() -> None:
    assert ask(infer(ROWS[:1], id="r")).ids == ["r"]
    first, second = (ask(infer(ROWS[:1])).ids[0] for _ in range(2))
    assert first != second


def test_a_protected_column_may_be_absent_and_is_not_scored() -> None:
    region = {"name": "region", "shape": [2], "datatype": "BYTES", "data": ["north", ""]}
    found = ask({"inputs": [*infer(ROWS)["inputs"], region]})
    assert found.columns["region"] == ["north", None]
    assert ask(infer(ROWS)).columns["region"] == [None, None]
    assert [len(row) for row in found.rows] == [3, 3]


def test_a_column_may_be_nested_and_of_any_type_that_its_kind_takes() -> None:
    nested = changed(0, shape=[2, 1], data=[[1], [2]], datatype="INT64")
    assert ask(nested).columns["amount"] == [1.0, 2.0]
    assert ask(changed(0, datatype="BOOL", data=[True, False])).columns["amount"] == [1.0, 0.0]


def test_an_entity_is_one_for_all_rows_or_one_a_row() -> None:
    assert ask(infer(ROWS, parameters={"entity": "ada"})).entities == ["ada", "ada"]
    assert ask(infer(ROWS, parameters={"entity": ["ada", None]})).entities == ["ada", None]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "the body: Input should be an object"),
        ({}, "inputs: Field required"),
        ({"inputs": []}, "the tensor 'amount' is missing"),
        (changed(0, name="amuont"), "no column 'amuont'; did you mean 'amount'?"),
        (changed(0, name="age"), "a tensor's name stands twice"),
        (changed(0, shape=[3]), "amount has the shape [3] and 2 cells"),
        (changed(1, shape=[3], data=[1, 2, 3]), "age has the shape [3] and 3 cells"),
        (changed(0, datatype="FP16"), "inputs.0.datatype"),
        (changed(0, datatype="BYTES", data=["1", "2"]), "amount is numeric, which BYTES is not"),
        (
            changed(2, datatype="FP64", data=[1, 2]),
            "device is categorical, of the form text, which FP64 is not; send BYTES",
        ),
        (changed(2, datatype="INT64", data=[1, 2]), "of the form text, which INT64 is not; send BYTES"),
        (changed(2, datatype="BOOL", data=[True, False]), "of the form text, which BOOL is not; send BYTES"),
        (changed(0, data=[1.0, "x"]), "amount holds a str, which is no FP64"),
        (changed(0, data=[1.0, True]), "amount holds a bool, which is no FP64"),
        (changed(0, datatype="INT64", data=[1, 1.5]), "amount holds a float, which is no INT64"),
        (changed(0, data=[1.0, float("nan")]), "amount holds a number that is not finite"),
        (changed(0, data=[1.0, float("inf")]), "amount holds a number that is not finite"),
        (changed(0, data=[1.0, 10**400]), "amount holds"),
        (infer(ROWS * 501), "1002 rows; send 1 to 1000"),
        (infer(ROWS, parameters={"ids": ["a"]}), "parameters.ids: 1 ids, 1 different; send one for each of 2 rows"),
        (infer(ROWS, parameters={"ids": ["a", "a"]}), "parameters.ids: 2 ids, 1 different"),
        (infer(ROWS, parameters={"ids": ["a", ""]}), "an id of 0 characters"),
        (infer(ROWS, id="x" * 200), "an id of 202 characters"),
        (infer(ROWS, parameters={"entity": ["ada"]}), "parameters.entity: 1 entities"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_the_name_of_its_place(document: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        ask(document)
    assert said in str(refused.value)


def of_form(form: Form, datatype: str, data: list[Any], missing: tuple[str, ...] = ()) -> Ask:
    spec = SPECS["fraud"].model_copy(update={"forms": {"device": form}, "missing": missing})
    return read_ask(json.dumps(changed(2, datatype=datatype, data=data)).encode(), spec)


@pytest.mark.parametrize(
    ("form", "datatype", "data", "levels"),
    [
        ("text", "BYTES", ["01", " tv "], ["01", "tv"]),
        ("text", "BYTES", ["", " "], [None, None]),
        ("text", "BYTES", ["True", "ünïcode\u2009"], ["True", "ünïcode"]),
        ("integer", "INT64", [3, -3], ["3", "-3"]),
        ("integer", "INT32", [3, None], ["3", None]),
        ("integer", "FP64", [3.0, -0.0], ["3", "0"]),
        ("integer", "FP32", [3, 3.5], ["3", "3.5"]),
        ("integer", "BOOL", [True, False], ["1", "0"]),
        ("integer", "BYTES", ["3.0", "03"], ["3", "03"]),
        ("integer", "INT64", [2**63, -(2**64)], ["9223372036854775808", "-18446744073709551616"]),
        ("decimal", "FP64", [0.5, 1.0], ["0.5", "1"]),
        ("decimal", "INT64", [1, None], ["1", None]),
        ("decimal", "BYTES", ["0.50", "1e3"], ["0.5", "1000"]),
        ("decimal", "FP64", [1e300, 5e-324], ["1e+300", "5e-324"]),
        ("decimal", "FP64", [10**400, 0], [str(10**400), "0"]),
        ("decimal", "FP32", [0.10000000149011612, 0.1], ["0.1", "0.1"]),
        ("integer", "FP32", [16777217, 3.0], ["16777217", "3"]),
        ("decimal", "FP32", [1e300, None], ["1e+300", None]),
        ("boolean", "BOOL", [True, False], ["true", "false"]),
        ("boolean", "INT64", [1, 0], ["true", "false"]),
        ("boolean", "BYTES", ["True", "0"], ["true", "false"]),
    ],
)
def test_a_category_is_brought_to_its_form_whatever_datatype_it_has(
    form: Form, datatype: str, data: list[Any], levels: list[str | None]
) -> None:
    found = of_form(form, datatype, data)
    assert found.columns["device"] == levels
    assert [row[2] for row in found.rows] == levels
    nested = changed(2, datatype=datatype, data=[[cell] for cell in data], shape=[2, 1])
    spec = SPECS["fraud"].model_copy(update={"forms": {"device": form}})
    assert read_ask(json.dumps(nested).encode(), spec).columns["device"] == levels


@pytest.mark.parametrize(
    ("form", "datatype", "data", "said"),
    [
        ("decimal", "BOOL", [True, False], "of the form decimal, which BOOL is not; send FP64 or FP32"),
        ("boolean", "FP64", [1.0, 0.0], "of the form boolean, which FP64 is not; send BOOL or INT64"),
        ("integer", "INT64", [1, 1.5], "holds a float, which is no INT64"),
        ("integer", "INT64", [1, True], "holds a bool, which is no INT64"),
        ("integer", "BYTES", ["1", 2], "holds a int, which is no BYTES"),
        ("decimal", "FP64", [1.0, float("inf")], "a number that is not finite"),
        ("integer", "FP64", [1.0, float("nan")], "a number that is not finite"),
        ("integer", "INT64", [[1, 2]], "cells"),
        ("decimal", "FP32", [float("inf"), 0.5], "a number that is not finite"),
    ],
)
def test_what_cannot_be_brought_to_a_form_is_refused_with_what_it_wants(
    form: Form, datatype: str, data: list[Any], said: str
) -> None:
    with pytest.raises(InputError) as refused:
        of_form(form, datatype, data)
    assert said in str(refused.value)


def test_a_number_of_too_many_digits_is_refused_and_1e400_is_not_finite() -> None:
    spec = SPECS["fraud"].model_copy(update={"forms": {"device": "decimal"}})
    for number, said in (("9" * 5000, "number out of range"), ("1e400", "not finite")):
        body = json.dumps(changed(2, datatype="FP64", data=[1.0, 77])).replace("77", number).encode()
        with pytest.raises(InputError, match=said):
            read_ask(body, spec)


def test_values_that_do_not_fit_the_form_are_counted_each_time() -> None:
    for _ in range(2):
        assert of_form("integer", "BYTES", ["x", "x"]).off_form == {"device": 2}
        assert of_form("integer", "BYTES", ["1", "x"]).off_form == {"device": 1}
    assert of_form("integer", "BYTES", ["1", ""]).off_form == {}
    assert of_form("text", "BYTES", ["x", "1"]).off_form == {}


def test_what_the_spec_calls_missing_is_null() -> None:
    assert of_form("text", "BYTES", ["?", "NA"], missing=("?",)).columns["device"] == [None, "NA"]
    assert of_form("integer", "INT64", [-1, 3], missing=("-1",)).columns["device"] == [None, "3"]


@pytest.mark.parametrize(("datatype", "data"), [("FP64", [-999.0, 2]), ("FP32", [-999, 2]), ("INT64", [-999, 2])])
def test_a_number_that_the_spec_calls_missing_is_null(datatype: str, data: list[float]) -> None:
    spec = SPECS["fraud"].model_copy(update={"missing": ("?", "-999")})
    found = read_ask(json.dumps(changed(0, datatype=datatype, data=data)).encode(), spec)
    assert found.columns["amount"] == [None, 2.0]


@pytest.mark.parametrize(
    ("form", "datatype"), [("text", "BYTES"), ("integer", "INT64"), ("decimal", "FP64"), ("boolean", "BOOL")]
)
def test_metadata_tell_the_datatype_that_suits_a_form(form: Form, datatype: str) -> None:
    told = metadata(SPECS["fraud"].model_copy(update={"forms": {"device": form}}), ["v1"])["inputs"]
    assert [(tensor["name"], tensor["datatype"]) for tensor in told] == [
        ("amount", "FP64"),
        ("age", "FP64"),
        ("device", datatype),
        ("region", "BYTES"),
    ]


def _of_single(cell: object) -> object:
    """A number that single precision holds, in the fewest digits that tell it."""
    if type(cell) is not float or abs(cell) > 3.4e38 or float(np.float32(cell)) != cell:
        return cell
    return float(str(np.float32(cell)))


CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 2**64, -(2**63), 10**400]),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from(["", " ", "1", "1.0", "true", "-0", "01", "\x00", "NA"]),
    st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.text(max_size=1), st.none(), max_size=1),
)


@given(
    form=st.sampled_from(get_args(Form)),
    datatype=st.sampled_from(["FP64", "FP32", "INT64", "INT32", "BOOL", "BYTES"]),
    data=st.lists(CELL, min_size=2, max_size=2),
    shape=st.sampled_from([[2], [2, 1], [2, 2], [1], [], [-1], [2, 1, 1]]),
    nested=st.booleans(),
    categorical=st.booleans(),
)
def test_whatever_a_tensor_holds_its_cells_are_levels_or_numbers_or_it_is_refused(
    form: Form, datatype: str, data: list[Any], shape: list[int], nested: bool, categorical: bool
) -> None:
    cells = [[cell] for cell in data] if nested else data
    document = changed(2 if categorical else 0, datatype=datatype, data=cells, shape=shape)
    spec = SPECS["fraud"].model_copy(update={"forms": {"device": form}, "missing": ("NA",)})
    try:
        found = read_ask(json.dumps(document).encode(), spec)
    except InputError:
        return
    if not categorical:
        assert all(cell is None or type(cell) is float for cell in found.columns["amount"])
        return
    data = [cell[0] if isinstance(cell, list) else cell for cell in data]
    if datatype == "FP32":
        data = [_of_single(cell) for cell in data]
    assert found.columns["device"] == [level(cell, form, ("NA",)) for cell in data]
    fits = [cell is None or bool(re.match(CANONICAL[form], str(cell), re.DOTALL)) for cell in found.columns["device"]]
    assert found.off_form == ({"device": fits.count(False)} if not all(fits) else {})
