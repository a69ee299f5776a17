"""ModelSpec: what a user declares about one monitored model, one YAML a model.

Every value that is left out has a default; the defaults of `kpis` are the specification's KPI matrix.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from drift_pipeline.clock import DAY, HOUR, Zone, format_duration, parse_duration
from drift_pipeline.errors import SpecError


def _duration(value: object) -> object:
    if isinstance(value, int | float):
        raise ValueError(f"{value!r} has no unit: write a number and a unit of s, m, h, d, w, such as 6h")
    return parse_duration(value) if isinstance(value, str) else value


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _zone(name: str) -> str:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"there is no time zone {name!r}; write one such as Europe/Berlin or UTC") from error
    return name


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str),
    Field(ge=timedelta()),
]
Kind = Literal["numeric", "categorical"]
Form = Literal["text", "integer", "decimal", "boolean"]
Task = Literal["binary_classification", "regression"]
TRAINERS: dict[Task, tuple[str, ...]] = {
    "binary_classification": ("gradient_boosting", "logistic_regression"),
    "regression": ("gradient_boosting", "ridge"),
}
# The keys that only one task has
_OWN: dict[Task, tuple[tuple[str, str], ...]] = {
    "binary_classification": (
        ("prediction", "score"),
        ("prediction", "threshold"),
        ("outcome", "positive"),
        ("kpis", "auroc"),
        ("kpis", "demographic_parity"),
        ("kpis", "estimated_auroc"),
    ),
    "regression": (("prediction", "value"), ("kpis", "mae"), ("kpis", "residuals")),
}


class Part(BaseModel):
    """Frozen, and an unknown key is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(Part):
    """Where the standard facts stand in the user's data; None = the data does not have it."""

    timestamp: str | None = None
    prediction_id: str | None = None
    entity: str | None = None
    latency_ms: str | None = None
    version: str | None = None


class Prediction(Part):
    """The column of what was predicted, which may be absent in replay.

    A classification has `score`, a probability, and the score from which the decision is positive; a regression has
    `value`.
    """

    score: str | None = None
    threshold: float = Field(default=0.5, ge=0, le=1)
    value: str | None = None

    @property
    def column(self) -> str | None:
        return self.score or self.value


class Outcome(Part):
    """The label's column, how long after a prediction it is known, and of a classification its positive value.

    `unknown`: values that stand for a label that is not known yet, such as -1.
    """

    column: str
    positive: bool | int | str = 1
    unknown: tuple[bool | int | float | str, ...] = ()
    delay: Duration = timedelta()


class Psi(Part):
    threshold: float = Field(default=0.2, gt=0)
    window: Duration = Field(default=30 * DAY, gt=timedelta())


class RangeZ(Part):
    threshold: float = Field(default=4, gt=0)


class Drop(Part):
    drop: float = Field(gt=0, lt=1)


class Rise(Part):
    rise: float = Field(gt=0)


class Ceiling(Part):
    threshold: float = Field(gt=0)


class Level(Part):
    level: float = Field(default=0.01, gt=0, lt=0.5)


class Kpis(Part):
    """The KPI matrix; null switches a KPI off, which makes it NOT_CONFIGURED.

    `auroc` and `demographic_parity` are of classifications, `mae` and `residuals` of regressions.
    `estimated_auroc` and `multivariate` are hints beside the matrix: they may warn, and are off unless given.
    """

    psi: Psi | None = Psi()
    range_z: RangeZ | None = RangeZ()
    auroc: Drop | None = Drop(drop=0.05)
    latency_p95_ms: Ceiling | None = Ceiling(threshold=150)
    demographic_parity: Drop | None = Drop(drop=0.03)
    mae: Rise | None = Rise(rise=0.1)
    residuals: Ceiling | None = Ceiling(threshold=0.05)
    estimated_auroc: Drop | None = None
    multivariate: Level | None = None


class Span(Part):
    """A span of event time that training leaves out, such as an outage: [start, end), ISO times in UTC."""

    start: str
    end: str

    @field_validator("start", "end", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value  # YAML reads an unquoted time as a time

    @model_validator(mode="after")
    def _readable(self) -> "Span":
        start, end = (datetime.fromisoformat(text) for text in (self.start, self.end))
        if (start.tzinfo is None) != (end.tzinfo is None) or end <= start:
            raise ValueError(f"a span ends after it starts, in one time zone: {self.start} .. {self.end}")
        return self


class Retrain(Part):
    """When and on what a model is retrained.

    min_rows counts labelled rows: a training set below it is refused, and a drift-caused retrain waits
    until as many labels of the changed world have come. Half of them train, half prove.
    """

    cron: str = "0 3 1 * *"
    cooldown: Duration = 14 * DAY
    max_per_month: int = Field(default=6, ge=0)
    window: Duration = Field(default=365 * DAY, gt=timedelta())
    min_rows: int = Field(default=1000, ge=100)
    exclude: tuple[Span, ...] = ()
    trainer: str = "gradient_boosting"
    trials: int = Field(default=12, ge=1)

    @field_validator("cron")
    @classmethod
    def _cron(cls, cron: str) -> str:
        from croniter import croniter

        if not croniter.is_valid(cron) or len(cron.split()) != 5:
            raise ValueError(f"{cron!r} is not a cron line of five fields, such as '0 3 1 * *'")
        return cron


class Rollout(Part):
    """How a new version is shipped; durations are the shortest time in a phase, `deadline` the longest.

    A phase also wants `min_samples` served by the new version; without them at the deadline it is rolled back.
    """

    shadow: Duration = HOUR
    canary_weight: int = Field(default=10, ge=1, le=50)
    canary: Duration = HOUR
    approvals: int = Field(default=1, ge=1)
    min_samples: int = Field(default=20, ge=1)
    deadline: Duration = 14 * DAY


class Retention(Part):
    """How long telemetry is kept, six months at least. Documents, approvals and the audit are never deleted."""

    telemetry: Duration = Field(default=400 * DAY, ge=183 * DAY)


class Risk(Part):
    profile: Literal["limited_risk"] = "limited_risk"


class Card(Part):
    """What a model card says that only people know; what is left out is shown there as missing."""

    intended_use: str | None = None
    intended_users: str | None = None
    out_of_scope_use: str | None = None
    ethical_considerations: str | None = None
    caveats: str | None = None


class ModelSpec(Part):
    """One monitored model.

    `since` is the first day that has a partition in Dagster. `forms`: of categorical columns; where it names none, the
    form is found in the first reference and stays. `missing`: texts that stand for no value in any watched column.
    `timezone`: in which the model's hours and days are; times without a zone stay UTC.

    `task` is the discriminator: each value it takes fixes what `prediction`, `outcome` and the KPIs mean. Keys of
    another task are refused, its KPIs are None, and neither is written out.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)
    owner: str = Field(min_length=1)
    task: Task
    columns: Columns = Columns()
    features: dict[str, Kind] = Field(min_length=1)
    prediction: Prediction = Prediction()
    outcome: Outcome
    protected: dict[str, Literal["categorical"]] = Field(default_factory=dict)
    forms: dict[str, Form] = Field(default_factory=dict)
    missing: tuple[Annotated[str, BeforeValidator(_as_text)], ...] = ()
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    kpis: Kpis = Kpis()
    retrain: Retrain = Retrain()
    rollout: Rollout = Rollout()
    retention: Retention = Retention()
    risk: Risk = Risk()
    card: Card = Card()
    since: date = date(2026, 1, 1)

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, task: object) -> object:
        if task in get_args(Task):
            return task
        works = " or ".join(map(repr, get_args(Task)))
        several = "; several scores are several MonitoredModels: one a class, that class against the rest"
        raise ValueError(f"{task!r} is not supported; what works: {works}{several if 'multi' in str(task) else ''}")

    @model_validator(mode="after")
    def _is_of_its_task(self) -> "ModelSpec":
        problems = [
            _problem((part, key), f"there is no {key} in a {self.task}: it belongs to the task {task}")
            for task, part, key in self._foreign()
            if key in (of := getattr(self, part)).model_fields_set and getattr(of, key) is not None
        ]
        if (trainer := self.retrain.trainer) not in (known := TRAINERS[self.task]):
            message = f"there is no trainer {trainer!r}; there are: {', '.join(known)}"
            problems.append(_problem(("retrain", "trainer"), message))
        if problems:
            raise ValidationError.from_exception_data("ModelSpec", problems)
        off = {key: None for _, part, key in self._foreign() if part == "kpis"}
        object.__setattr__(self, "kpis", self.kpis.model_copy(update=off))
        return self

    def _foreign(self) -> list[tuple[Task, str, str]]:
        """The keys that other tasks have and this one has not."""
        return [(task, *place) for task, places in _OWN.items() if task != self.task for place in places]

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = write(self)
        for _, part, key in self._foreign():
            document.get(part, {}).pop(key, None)
        return document

    @model_validator(mode="after")
    def _columns_are_distinct(self) -> "ModelSpec":
        watched = {**self.features, **self.protected}
        if odd := [name for name in watched if name.startswith("_")]:
            raise ValueError(f"columns that start with an underscore are the lake's own; rename {', '.join(odd)}")
        if self.outcome.column in watched:
            raise ValueError(f"the outcome {self.outcome.column!r} cannot be a feature: the model would see its label")
        if clash := [n for n in self.protected if self.features.get(n, "categorical") != "categorical"]:
            raise ValueError(f"a protected column is categorical, also as a feature: {', '.join(clash)}")
        if odd := [name for name in self.forms if watched.get(name) != "categorical"]:
            raise ValueError(f"forms are of categorical columns, which {', '.join(odd)} is not")
        return self

    def with_forms(self, found: Mapping[str, Form]) -> "ModelSpec":
        """With a form for each categorical column: the declared one, else the one that was found, else text."""
        names = [name for name, kind in self.watched.items() if kind == "categorical"]
        return self.model_copy(
            update={"forms": {name: self.forms.get(name, found.get(name, "text")) for name in names}}
        )

    @property
    def zone(self) -> Zone:
        """Whose hours and days are the model's."""
        return Zone(self.timezone)

    @property
    def watched(self) -> dict[str, Kind]:
        """Every column whose distribution is watched: features first, then protected ones that are no feature."""
        return {**self.features, **self.protected}


def _problem(place: tuple[str, str], message: str) -> InitErrorDetails:
    """An error at a place of the document, in the words of a ValueError."""
    error = PydanticCustomError("value_error", "Value error, {message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=None)


def read_spec(path: Path, overrides: Sequence[str] = ()) -> ModelSpec:
    """Read a model's YAML: the flat attributes, or a whole `defs.yaml` of one `MonitoredModel`.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` pairs that replace what the file says, as `--set` takes them.

    Raises:
        SpecError: unreadable, templated (`{{`), an unknown key or a bad value; names file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    try:
        if line := _template_line(text):
            raise SpecError(
                f"{path}:{line}: '{{{{' found; a spec holds no template and no secret: write the value itself"
            )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if repeated := _repeated_key(root, set()):
            raise SpecError(f"{path}:{repeated.start_mark.line + 1}: the key {repeated.value!r} stands twice; keep one")
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:  # a ValueError: 2026-02-31 and its like
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SpecError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(document, dict) or root is None:
        raise SpecError(f"{path}: a spec is a YAML mapping with name, owner, task, features and outcome")
    prefix: tuple[str, ...] = ()
    if "attributes" in document:
        prefix = ("attributes",)
        document = document["attributes"]
        if not isinstance(document, dict):
            raise SpecError(f"{path}: 'attributes' must be a mapping")
    set_keys = [_override(document, pair) for pair in overrides]
    try:
        return ModelSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(_explain(error, path, root, prefix, set_keys)) from error


def _template_line(text: str) -> int | None:
    """Line of the first `{{` outside of comments, counted from 1."""
    for token in yaml.scan(text):
        if "{{" in getattr(token, "value", "") or text.startswith("{{", token.start_mark.index):
            return int(token.start_mark.line) + 1
    return None


def _repeated_key(node: yaml.Node | None, seen: set[int]) -> yaml.ScalarNode | None:
    """The first key that its mapping holds already: YAML itself would silently take the last."""
    if id(node) in seen:  # an alias
        return None
    seen.add(id(node))
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    return key
                known.add(key.value)
        children = [value for _, value in node.value]
    return next((found for child in children if (found := _repeated_key(child, seen))), None)


def _override(document: dict[str, Any], pair: str) -> tuple[str, ...]:
    key, separator, value = pair.partition("=")
    keys = tuple(key.split("."))
    if not separator or not all(keys):
        raise SpecError(f"--set {pair}: write dotted.key=value, such as kpis.auroc.drop=0.03")
    node: dict[str, Any] = document
    for part in keys[:-1]:
        child = node.get(part)
        if not isinstance(child, dict):
            child = node[part] = {}
        node = child
    try:
        node[keys[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"--set {pair}: the value is not valid YAML") from error
    return keys


def _explain(
    error: ValidationError,
    path: Path,
    root: yaml.Node,
    prefix: tuple[str, ...],
    set_keys: Sequence[tuple[str, ...]],
) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        keys = tuple(str(part) for part in problem["loc"] if part != "[key]")
        if any(keys[: len(given)] == given for given in set_keys):
            where = "--set"
        else:
            where = f"{path}:{_line_of(root, prefix + keys)}"
        message = re.sub(r"^Value error, ", "", problem["msg"])
        if problem["type"] == "extra_forbidden":
            message = "unknown key" + _did_you_mean(keys)
        elif problem["type"] == "missing":
            message = "required, and missing"
        elif problem["type"] == "literal_error":
            message = f"{problem['input']!r} is not supported; what works: {problem['ctx']['expected']}"
        lines.append(f"{where}: {'.'.join(keys) or 'spec'}: {message}")
    return "\n".join(lines)


def _did_you_mean(keys: tuple[str, ...]) -> str:
    from difflib import get_close_matches

    model: Any = ModelSpec
    for key in (key for key in keys[:-1] if not key.isdigit()):  # a digit: the place in a list
        annotation = model.model_fields[key].annotation
        model = next((a for a in getattr(annotation, "__args__", (annotation,)) if hasattr(a, "model_fields")), None)
        if model is None:
            return ""
    near = get_close_matches(keys[-1], model.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(model.model_fields)}"


def _line_of(node: yaml.Node, keys: tuple[str, ...]) -> int:
    """Line of the deepest node that the keys reach, counted from 1."""
    line: int = node.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == key), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
    return line
