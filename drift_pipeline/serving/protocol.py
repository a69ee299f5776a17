"""The Open Inference Protocol (v2, REST): what a request asks, checked against the spec, and how it is answered.

One tensor a column, of shape [n] or [n, 1]: each feature, and each protected column that is no feature, which is
written down and not scored, and may be left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite
from types import NoneType
from typing import Any, Literal, TypeVar
from uuid import uuid4

from pydantic import BaseModel, Field, ValidationError

from drift_pipeline.errors import InputError
from drift_pipeline.serving.scoring import Cell, Row
from drift_pipeline.spec import ColumnType, ModelSpec

MOST_ROWS = 1000
LONGEST_ID = 200
_INTEGERS = ("INT64", "INT32")
_TAKEN: Mapping[str, set[type]] = {
    **{name: {float, int, NoneType} for name in ("FP64", "FP32")},
    **{name: {int, NoneType} for name in _INTEGERS},
    "BOOL": {bool, NoneType},
    "BYTES": {str, NoneType},
}
_OF_KIND: Mapping[ColumnType, tuple[str, ...]] = {
    "numeric": ("FP64", "FP32", *_INTEGERS, "BOOL"),
    "categorical": ("BYTES", *_INTEGERS, "BOOL"),
}
Document = TypeVar("Document", bound=BaseModel)


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: Literal["FP64", "FP32", "INT64", "INT32", "BOOL", "BYTES"]
    data: list[Any]


class Parameters(BaseModel):
    """Ours: `entity` (one for all rows, or one a row) keeps its side of a rollout; `ids` name the predictions.

    A gateway with drills waits `delay_ms` before it answers, and `canary_delay_ms` where the canary does.
    """

    entity: str | list[str | None] | None = None
    ids: list[str] | None = None
    delay_ms: float = Field(default=0, ge=0, le=10_000)
    canary_delay_ms: float = Field(default=0, ge=0, le=10_000)


class InferRequest(BaseModel):
    """The protocol's other keys, such as `outputs`, change nothing here and are let pass."""

    id: str | None = None
    parameters: Parameters = Parameters()
    inputs: list[Tensor]


@dataclass(frozen=True)
class Ask:
    """`rows` (n) hold the features in their order, `columns` each watched column (n), None = null."""

    id: str
    ids: list[str]
    entities: list[str | None]
    columns: dict[str, list[Cell]]
    rows: list[Row]
    delay_ms: float = 0
    canary_delay_ms: float = 0


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
        near = get_close_matches(odd[0], spec.watched, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(spec.watched)}"
        raise InputError(f"inputs: {spec.name} has no column {odd[0]!r}; {hint}")
    if missing := [name for name in spec.features if name not in tensors]:
        raise InputError(
            f"inputs: the tensor {missing[0]!r} is missing; send one for each of {', '.join(spec.features)}"
        )
    n = len(_flat(tensors[next(iter(spec.features))]))
    if not 1 <= n <= MOST_ROWS:
        raise InputError(f"inputs: {n} rows; send 1 to {MOST_ROWS} in a request")
    absent: list[Cell] = [None] * n
    columns = {
        name: _column(tensors[name], kind, n) if name in tensors else absent for name, kind in spec.watched.items()
    }
    id = request.id or uuid4().hex
    ids, entities = _ids(id, request.parameters, n), _entities(request.parameters, n)
    rows: list[Row] = list(zip(*(columns[name] for name in spec.features), strict=True))
    return Ask(id, ids, entities, columns, rows, request.parameters.delay_ms, request.parameters.canary_delay_ms)


def _flat(tensor: Tensor) -> list[Any]:
    """The data, which may also be nested as the shape [n, 1] is."""
    data = tensor.data
    if data and type(data[0]) is list and all(type(cell) is list and len(cell) == 1 for cell in data):
        return [cell for (cell,) in data]
    return data


def _column(tensor: Tensor, kind: ColumnType, n: int) -> list[Cell]:
    name, data = tensor.name, _flat(tensor)
    if tensor.datatype not in _OF_KIND[kind]:
        raise InputError(
            f"inputs: {name} is {kind}, which {tensor.datatype} is not; send {' or '.join(_OF_KIND[kind])}"
        )
    if tensor.shape[:1] != [n] or tensor.shape[1:] not in ([], [1]) or len(data) != n:
        raise InputError(f"inputs: {name} has the shape {tensor.shape} and {len(data)} cells; send [{n}] or [{n}, 1]")
    if odd := set(map(type, data)) - _TAKEN[tensor.datatype]:
        raise InputError(f"inputs: {name} holds a {odd.pop().__name__}, which is no {tensor.datatype}")
    return _numbers(name, data) if kind == "numeric" else [_text(cell) for cell in data]


def _numbers(name: str, data: list[Any]) -> list[Cell]:
    try:
        numbers = [None if cell is None else float(cell) for cell in data]
    except OverflowError as error:
        raise InputError(f"inputs: {name} holds an integer that no FP64 can hold; send null for unknown") from error
    if not all([number is None or isfinite(number) for number in numbers]):  # noqa: C419  # a generator takes longer
        raise InputError(f"inputs: {name} holds a number that is not finite; send null for unknown")
    return [*numbers]


def _text(cell: Any) -> str | None:
    """A level as text; "" is how a history spells null."""
    if cell is None or cell == "":
        return None
    return cell if type(cell) is str else str(cell).lower()  # true, false


def _ids(id: str, parameters: Parameters, n: int) -> list[str]:
    ids = parameters.ids
    if ids is None:
        ids = [id] if n == 1 else [f"{id}-{row}" for row in range(n)]
    if len(ids) != n or len(set(ids)) != n:
        raise InputError(f"parameters.ids: {len(ids)} ids, {len(set(ids))} different; send one for each of {n} rows")
    if odd := [name for name in ids if not 1 <= len(name) <= LONGEST_ID]:
        raise InputError(f"parameters.ids: an id of {len(odd[0]):,} characters; send 1 to {LONGEST_ID}")
    return ids


def _entities(parameters: Parameters, n: int) -> list[str | None]:
    entities = parameters.entity
    if not isinstance(entities, list):
        return [entities] * n
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
    datatypes = {"numeric": "FP64", "categorical": "BYTES"}
    inputs = [{"name": name, "datatype": datatypes[kind], "shape": [-1]} for name, kind in spec.watched.items()]
    outputs = [{"name": "score", "datatype": "FP64", "shape": [-1]}]
    if spec.task == "binary_classification":
        outputs.append({"name": "decision", "datatype": "BOOL", "shape": [-1]})
    platform = "drift_pipeline"
    return {"name": spec.name, "versions": [*versions], "platform": platform, "inputs": inputs, "outputs": outputs}
