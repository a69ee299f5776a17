"""ModelSpec: one monitored model, put together from its parts and held to what its task allows."""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from drift_pipeline.clock import Zone
from drift_pipeline.spec.declarations import Declarations
from drift_pipeline.spec.graph import Problem, Step, ordered, problems
from drift_pipeline.spec.parts import (
    Columns,
    Gates,
    Kpis,
    Outcome,
    Part,
    Prediction,
    Retention,
    Retrain,
    Rollout,
    RowSource,
)
from drift_pipeline.spec.values import OWN_TRAINER, TRAINERS, ColumnType, Form, Task, Text, TimeZone

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


class ModelSpec(Part):  # noqa: PLW1641  # it holds mappings: nobody can hash it
    """One monitored model.

    `since` is the first day that has a partition in Dagster. `forms`: of categorical columns; where it names none, the
    form is found in the first reference and stays. `missing`: texts that stand for no value in any watched column.
    `timezone`: in which the model's hours and days are; times without a zone stay UTC. `declarations`: what stands in
    declarations.yaml beside the spec's file. `graph`: the steps of a model of several pipelines; empty of one.

    `task` is the discriminator: each value it takes fixes what `prediction`, `outcome` and the KPIs mean. Keys of
    another task are refused, its KPIs are None, and neither is written out.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)
    owner: str = Field(min_length=1)
    task: Task
    columns: Columns = Columns()
    features: dict[str, ColumnType] = Field(min_length=1)
    graph: dict[str, Step] = Field(default_factory=dict)
    prediction: Prediction = Prediction()
    outcome: Outcome
    protected: dict[str, Literal["categorical"]] = Field(default_factory=dict)
    forms: dict[str, Form] = Field(default_factory=dict)
    missing: tuple[Text, ...] = ()
    timezone: TimeZone = "UTC"
    kpis: Kpis = Kpis()
    retrain: Retrain = Retrain()
    gates: Gates = Gates()
    rollout: Rollout = Rollout()
    retention: Retention = Retention()
    declarations: Declarations = Declarations()
    since: date = date(2026, 1, 1)
    _folder: Path | None = PrivateAttr(default=None)

    @field_validator("task", mode="before")
    @classmethod
    def _task(cls, task: object) -> object:
        if task in get_args(Task):
            return task
        works = " or ".join(map(repr, get_args(Task)))
        several = "; several scores are several MonitoredModels: one a class, that class against the rest"
        raise ValueError(f"{task!r} is not supported; what works: {works}{several if 'multi' in str(task) else ''}")

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, document: Any) -> Any:
        if moved := [key for key in ("card", "risk") if isinstance(document, Mapping) and key in document]:
            raise ValueError(
                f"{' and '.join(moved)} moved out of the spec: write what stands there, as it stands there, into "
                "declarations.yaml beside defs.yaml"
            )
        return document

    @model_validator(mode="after")
    def _is_of_its_task(self) -> "ModelSpec":
        problems = [
            _problem((part, key), f"there is no {key} in a {self.task}: it belongs to the task {task}")
            for task, part, key in self._foreign()
            if key in (of := getattr(self, part)).model_fields_set and getattr(of, key) is not None
        ]
        trainer, known = self.retrain.trainer, TRAINERS[self.task]
        if trainer not in known and not OWN_TRAINER.fullmatch(trainer):
            message = f"there is no trainer {trainer!r}; there are: {', '.join(known)}, or ./train.py beside this file"
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
        if self.gates == Gates():  # a spec without any stays the document that it was before there were any
            document.pop("gates", None)
        if not self.graph:  # likewise
            document.pop("graph", None)
        for key in ["trainer"] if self.graph else ["steps"]:
            document.get("retrain", {}).pop(key, None)
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
        if problem := self._misplaced_gate() or self._unnamed_column():
            raise ValueError(problem)
        if odd := [name for name in self.forms if watched.get(name) != "categorical"]:
            raise ValueError(f"forms are of categorical columns, which {', '.join(odd)} is not")
        return self

    @model_validator(mode="after")
    def _steps_are_a_graph(self) -> "ModelSpec":
        if found := [_problem(*problem) for problem in self._graph_problems()]:
            raise ValidationError.from_exception_data("ModelSpec", found)
        return self

    def _graph_problems(self) -> Iterator[Problem]:
        if strange := [name for name in self.retrain.steps if name not in self.graph]:
            known = ", ".join(self.graph) or "none, since the spec declares no graph"
            yield ("retrain", "steps"), f"{strange[0]!r} is no step of the graph; there are: {known}"
        if self.graph and "trainer" in self.retrain.model_fields_set:
            yield ("retrain", "trainer"), "the steps of a graph have trainers of their own; write it there"
        if self.graph:
            yield from problems(self.graph, self.task, self.features, {*self.watched, self.outcome.column})

    def _unnamed_column(self) -> str:
        source, columns = self.retrain.source, self.columns
        if source.feast and columns.entity is None:
            return "retrain.source.feast asks for the features of an entity: name columns.entity"
        if source.databricks and None in (columns.timestamp, columns.prediction_id):
            return "retrain.source.databricks reads rows by time and id: name columns.timestamp and prediction_id"
        return ""

    def _misplaced_gate(self) -> str:
        watched, columns = {**self.features, **self.protected}, [test.column for test in self.gates.invariance]
        if odd := [name for name in columns if name not in watched or columns.count(name) > 1]:
            return f"gates.invariance names each column once, and {odd[0]} is no feature, not protected, or there twice"
        if odd := [name for name in self.gates.direction if self.features.get(name) != "numeric"]:
            return f"gates.direction is of numeric features, which {odd[0]} is not"
        if odd := [name for name in self.gates.minimum_slice if watched.get(name) != "categorical"]:
            return f"gates.minimum_slice is of categorical columns, features or protected, which {odd[0]} is not"
        return ""

    @property
    def folder(self) -> Path | None:
        """Where the spec's file lies, and beside it what it names; None of a spec that is of no file. It is where the
        spec is from, no part of it, and is not written out."""
        return self._folder

    def placed(self, folder: Path) -> "ModelSpec":
        """The same, of a file in this folder."""
        placed = self.model_copy()
        placed._folder = folder
        return placed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelSpec) and self.__dict__ == other.__dict__

    def with_forms(self, found: Mapping[str, Form]) -> "ModelSpec":
        """With a form for each categorical column: the declared one, else the one that was found, else text."""
        names = [name for name, kind in self.watched.items() if kind == "categorical"]
        return self.model_copy(
            update={"forms": {name: self.forms.get(name, found.get(name, "text")) for name in names}}
        )

    def with_negative(self, found: str | None) -> "ModelSpec":
        """With the negative label that was found, unless one is declared."""
        if found is None or self.outcome.negative is not None:
            return self
        return self.model_copy(update={"outcome": self.outcome.model_copy(update={"negative": found})})

    def trained_from_lake(self) -> "ModelSpec":
        """With the lake as the source of retrains, as where nothing outside is asked."""
        lake = self.retrain.model_copy(update={"source": RowSource()})
        return self if self.retrain.source.kind == "lake" else self.model_copy(update={"retrain": lake})

    @property
    def zone(self) -> Zone:
        """Whose hours and days are the model's."""
        return Zone(self.timezone)

    @property
    def steps(self) -> dict[str, Step]:
        """The graph's, in the order in which they are computed; none of a model that is one pipeline."""
        return ordered(self.graph, self.features) if self.graph else {}

    def of_step(self, name: str) -> "ModelSpec":
        """By which a step of the graph is trained: its inputs are the features, and its trainer the trainer."""
        step = self.graph[name]
        features = {one: self.features.get(one, "numeric") for one in step.inputs}
        retrain = self.retrain.model_copy(update={"trainer": step.trainer, "steps": ()})
        return self.model_copy(update={"features": features, "graph": {}, "retrain": retrain})

    @property
    def watched(self) -> dict[str, ColumnType]:
        """Every column whose distribution is watched: features first, then protected ones that are no feature."""
        return {**self.features, **self.protected}


def _problem(place: tuple[str, ...], message: str) -> InitErrorDetails:
    """An error at a place of the document, in the words of a ValueError."""
    error = PydanticCustomError("value_error", "Value error, {message}", {"message": message})
    return InitErrorDetails(type=error, loc=place, input=None)
