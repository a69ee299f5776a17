"""What a request may say, and what it is told when it says something else."""

import json
from typing import Any

import pytest

from drift_pipeline.errors import InputError
from drift_pipeline.serving.protocol import Ask, read_ask
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
    assert ask(changed(2, datatype="BOOL", data=[True, None])).columns["device"] == ["true", None]
    assert ask(changed(2, datatype="INT32", data=[7, 8])).columns["device"] == ["7", "8"]
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
        (changed(2, datatype="FP64", data=[1, 2]), "device is categorical, which FP64 is not"),
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
