"""The Open Inference Protocol (v2, REST): what a request asks, checked against the spec, and how it is answered.

One tensor a column, of shape [n] or [n, 1]: each feature, and each protected column that is no feature, which is
written down and not scored, and may be left out. A categorical column's cells are brought to its form, whatever
datatype they came in; what does not fit the form is a level of its own text, and counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from math import isfinite
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar
from uuid import uuid4

import polars as pl
from pydantic import BaseModel, FailFast, Field, ValidationError

from drift_pipeline.errors import InputError
from drift_pipeline.serving.scoring import Cell, Row
from drift_pipeline.spec import Form, ModelSpec
from drift_pipeline.telemetry.cells import Cells, cells_of

MOST_ROWS = 1000
LONGEST_ID = 200
_INTEGERS, _FLOATS = ("INT64", "INT32"), ("FP64", "FP32")
_TAKEN: Mapping[str, set[type]] = {
    **{name: {float, int, NoneType} for name in ("FP64", "FP32")},
    **{name: {int, NoneType} for name in _INTEGERS},
    "BOOL": {bool, NoneType},
    "BYTES": {str, NoneType},
}
_NUMERIC = (*_FLOATS, *_INTEGERS, "BOOL")
_OF_FORM: Mapping[Form, tuple[str, ...]] = {  # the first is the one that suits it
    "text": ("BYTES",),
    "integer": (*_INTEGERS, *_FLOATS, "BOOL", "BYTES"),
    "decimal": (*_FLOATS, *_INTEGERS, "BYTES"),
    "boolean": ("BOOL", *_INTEGERS, "BYTES"),
}
Document = TypeVar("Document", bound=BaseModel)
Item = TypeVar("Item")
Items = Annotated[list[Item], FailFast()]  # one error is told: thousands take longer to collect than all to read


class Tensor(BaseModel):
    name: str
    shape: Items[int]
    datatype: Literal["FP64", "FP32", "INT64", "INT32", "BOOL", "BYTES"]
    data: list[Any]


class Parameters(BaseModel):
    """Ours: `entity` (one for all rows, or one a row) keeps its side of a rollout; `ids` name the predictions.

    A gateway with drills waits `delay_ms` before it answers, and `canary_delay_ms` where the canary does.
    """

    entity: str | list[Any] | None = None  # their types are checked with their number
    ids: list[Any] | None = None
    delay_ms: float = Field(default=0, ge=0, le=10_000)
    canary_delay_ms: float = Field(default=0, ge=0, le=10_000)


class InferRequest(BaseModel):
    """The protocol's other keys, such as `outputs`, change nothing here and are let pass."""

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: Items[Tensor]


@dataclass(frozen=True)
class Ask:
    """`rows` (n) hold the features in their order, `columns` each watched column (n), None = null.

    `off_form`: of the columns that have such, how many values do not fit the form.
    """

    id: str
    ids: list[str]
    entities: list[str | None]
    columns: dict[str, list[Cell]]
    rows: list[Row]
    delay_ms: float = 0
    canary_delay_ms: float = 0
    off_form: Mapping[str, int] = field(default_factory=dict)

    def parts(self, rows: int) -> "Iterator[Ask]":
        """The same in parts of so many rows at most; `off_form` is of the whole."""
        if len(self.rows) <= rows:
            yield self
            return
        for start in range(0, len(self.rows), rows):
            some = slice(start, start + rows)
            columns = {name: cells[some] for name, cells in self.columns.items()}
            yield replace(self, ids=self.ids[some], entities=self.entities[some], columns=columns, rows=self.rows[some])


def read_document(kind: type[Document], body: bytes) -> Document:
    """Raises InputError, which says where in the JSON the trouble is."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise InputError(f"{where}: {first['msg']}; send {kind.__name__} as JSON, see GET /v2/models") from error


def read_ask(body: bytes, spec: ModelSpec) -> Ask:
    """Raises InputError, which names the tensor."""
    request = read_document(InferRequest, body)
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if len(tensors) != len(request.inputs):
        raise InputError("inputs: a tensor's name stands twice; send one tensor a column")
    if odd := [name for name in tensors if name not in spec.watched]:
        near = get_close_matches(odd[0][:LONGEST_ID], spec.watched, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(spec.watched)}"
        raise InputError(f"inputs: {spec.name} has no column {odd[0][:LONGEST_ID]!r}; {hint}")
    if missing := [name for name in spec.features if name not in tensors]:
        raise InputError(
            f"inputs: the tensor {missing[0]!r} is missing; send one for each of {', '.join(spec.features)}"
        )
    n = len(_flat(tensors[next(iter(spec.features))]))
    if not 1 <= n <= MOST_ROWS:
        raise InputError(f"inputs: {n} rows; send 1 to {MOST_ROWS} in a request")
    absent: list[Cell] = [None] * n
    cells = cells_of(spec)
    columns = {name: _column(tensors[name], cells, n) if name in tensors else absent for name in spec.watched}
    off_form = {
        name: count
        for name, known in cells.levels.items()
        if known.off_form and (count := known.count_off_form(columns[name]))
    }
    id = request.id or uuid4().hex
    ids, entities = _ids(id, request.parameters, n), _entities(request.parameters, n)
    rows: list[Row] = list(zip(*(columns[name] for name in spec.features), strict=True))
    delays = request.parameters.delay_ms, request.parameters.canary_delay_ms
    return Ask(id, ids, entities, columns, rows, *delays, off_form)


def _flat(tensor: Tensor) -> list[Any]:
    """The data, which may also be nested as the shape [n, 1] is."""
    data = tensor.data
    if data and type(data[0]) is list and all(type(cell) is list and len(cell) == 1 for cell in data):
        return [cell for (cell,) in data]
    return data


def _column(tensor: Tensor, cells: Cells, n: int) -> list[Cell]:
    name, data = tensor.name, _flat(tensor)
    levels = cells.levels.get(name)
    taken = _NUMERIC if levels is None else _OF_FORM[levels.form]
    if tensor.datatype not in taken:
        what = "numeric" if levels is None else f"categorical, of the form {levels.form}"
        raise InputError(f"inputs: {name} is {what}, which {tensor.datatype} is not; send {' or '.join(taken)}")
    if tensor.shape[:1] != [n] or tensor.shape[1:] not in ([], [1]) or len(data) != n:
        raise InputError(f"inputs: {name} has the shape {tensor.shape} and {len(data)} cells; send [{n}] or [{n}, 1]")
    if odd := set(map(type, data)) - _TAKEN[tensor.datatype]:
        raise InputError(f"inputs: {name} holds a {odd.pop().__name__}, which is no {tensor.datatype}")
    if levels is None:
        numbers = _numbers(name, data)
        return [None if number in cells.missing else number for number in numbers] if cells.missing else [*numbers]
    if tensor.datatype in _FLOATS:
        _refuse_infinite(name, [cell for cell in data if type(cell) is float])
    return [*levels.of(_shortest(data) if tensor.datatype == "FP32" else data)]


def _numbers(name: str, data: list[Any]) -> list[float | None]:
    try:
        numbers = [None if cell is None else float(cell) for cell in data]
    except OverflowError as error:
        raise InputError(f"inputs: {name} holds an integer that no FP64 can hold; send null for unknown") from error
    _refuse_infinite(name, numbers)
    return numbers


def _shortest(data: list[Any]) -> list[Any]:
    """Single precision as it is written: 0.1 where a producer spells it out as 0.10000000149011612."""
    given = pl.Series([cell if type(cell) is float else None for cell in data], dtype=pl.Float64)
    single = given.cast(pl.Float32)
    known = given.zip_with(single.cast(pl.Float64) != given, single.cast(pl.String).cast(pl.Float64)).to_list()
    return [cell if short is None else short for cell, short in zip(data, known, strict=True)]


def _refuse_infinite(name: str, numbers: Sequence[float | None]) -> None:
    if not all([number is None or isfinite(number) for number in numbers]):  # noqa: C419  # a generator takes longer
        raise InputError(f"inputs: {name} holds a number that is not finite; send null for unknown")


def _ids(id: str, parameters: Parameters, n: int) -> list[str]:
    ids = parameters.ids
    if ids is None:
        ids = [id] if n == 1 else [f"{id}-{row}" for row in range(n)]
    if odd := set(map(type, ids)) - {str}:
        raise InputError(f"parameters.ids: holds a {odd.pop().__name__}; an id is a text")
    if len(ids) != n or len(set(ids)) != n:
        raise InputError(f"parameters.ids: {len(ids)} ids, {len(set(ids))} different; send one for each of {n} rows")
    if wrong := [name for name in ids if not 1 <= len(name) <= LONGEST_ID]:
        raise InputError(f"parameters.ids: an id of {len(wrong[0]):,} characters; send 1 to {LONGEST_ID}")
    return ids


def _entities(parameters: Parameters, n: int) -> list[str | None]:
    entities = parameters.entity
    if not isinstance(entities, list):
        return [entities] * n
    if odd := set(map(type, entities)) - {str, NoneType}:
        raise InputError(f"parameters.entity: holds a {odd.pop().__name__}; an entity is a text or null")
    if len(entities) != n:
        raise InputError(f"parameters.entity: {len(entities)} entities; send one text, or one for each of {n} rows")
    return entities


def response(
    spec: ModelSpec, ask: Ask, version: str, parameters: Mapping[str, object], scores: Sequence[float | None]
) -> dict[str, Any]:
    """A row that no model could score is null."""
    shape = [len(scores)]
    outputs: list[dict[str, Any]] = [{"name": "score", "shape": shape, "datatype": "FP64", "data": scores}]
    if spec.task == "binary_classification":
        threshold = spec.prediction.threshold
        decisions = [None if score is None else score >= threshold for score in scores]
        outputs.append({"name": "decision", "shape": shape, "datatype": "BOOL", "data": decisions})
    return {
        "model_name": spec.name,
        "model_version": version,
        "id": ask.id,
        "parameters": dict(parameters),
        "outputs": outputs,
    }


def metadata(spec: ModelSpec, versions: Sequence[str]) -> dict[str, Any]:
    """What the protocol tells of a model; `versions` are those that are loaded."""
    levels = cells_of(spec).levels
    suits = {name: _OF_FORM[levels[name].form][0] if name in levels else "FP64" for name in spec.watched}
    inputs = [{"name": name, "datatype": datatype, "shape": [-1]} for name, datatype in suits.items()]
    outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    if spec.task == "binary_classification":
        outputs.append({"name": "decision", "datatype": "BOOL", "shape": [-1]})
    platform = "drift_pipeline"
    return {"name": spec.name, "versions": [*versions], "platform": platform, "inputs": inputs, "outputs": outputs}
