"""A spec drafted from a table: what the reader infers of each column, as commented YAML for a person to check."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches

import polars as pl

from drift_pipeline.detection.comparing.scan import sample_batches
from drift_pipeline.errors import InputError
from drift_pipeline.spec import Task
from drift_pipeline.telemetry.tables.infer import MOST_WHOLE_LEVELS, Column, Tables
from drift_pipeline.telemetry.tables.levels import form_of, levels
from drift_pipeline.telemetry.tables.numbers import TOKENS, Numbers
from drift_pipeline.telemetry.tables.table import Table
from drift_pipeline.telemetry.tables.times import read_times

_ID = re.compile(r"(?i)(^|_)(prediction|request|event|row)?_?(id|uuid|guid)$")
_SCORE = re.compile(r"(?i)(^|_)(score|prob|probability|proba|prediction|predicted|y_?hat|p)(_|$)")
_YES = ("1", "true", "yes", "y", "positive", "pos")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")


@dataclass(frozen=True)
class Draft:
    """`text`: the YAML; `features`: how many; `guessed`: what a person is to look at first."""

    text: str
    features: int
    guessed: tuple[str, ...]


def draft(data: Table, model: str, label: str, time: str | None = None) -> Draft:
    """The spec of a model whose history is `data`.

    Args:
        label: the column of the outcome.
        time: the column of the time; None = the first that holds times.

    Raises:
        InputError: the table cannot be read, lacks a column, or the label has one level, or a few more than two.
    """
    for asked in (label, *([time] if time else [])):
        if asked not in data.types:
            near = get_close_matches(asked, data.types, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(data.types)}"
            raise InputError(f"{data.name}: no column {asked!r}{meant}")
    sample = sample_batches(data.batches(dict.fromkeys(data.types)))
    if sample.is_empty():
        raise InputError(f"{data.name}: holds no rows")
    found = [column for column in Tables(data, data, sample, sample).infer() if column.name != label]
    return _Drafted(data, sample, found, model, label, time).draft()


class _Drafted:
    def __init__(
        self, data: Table, sample: pl.DataFrame, found: list[Column], model: str, label: str, time: str | None
    ) -> None:
        self._data, self._sample, self._found, self._model, self._label = data, sample, found, model, label
        self._time = time or next((column.name for column in found if self._holds_times(column)), None)
        self._id = next((column.name for column in found if self._is_an_id(column)), None)
        self._task, self._outcome = self._label_of(sample[label])
        self._score = next((column.name for column in found if self._is_a_score(column)), None)
        named = (self._time, self._id, self._score)
        self._features = [column for column in found if column.kind is not None and column.name not in named]
        self._left_out = [column for column in found if column.kind is None and column.name not in named]
        if not self._features:
            raise InputError(f"{data.name}: no column to watch: {'; '.join(f'{c.name}: {c.why}' for c in found)}")

    def draft(self) -> Draft:
        roles = (("time", self._time), ("prediction id", self._id), ("prediction", self._score))
        guessed = [f"{what}: {name or 'no column found'}" for what, name in roles]
        return Draft("\n".join(self._lines()) + "\n", len(self._features), (*guessed, f"task: {self._task}"))

    def _lines(self) -> Iterator[str]:
        yield f"# Drafted by drift init from {self._data.short}: check each line; what is left out has its default."
        yield "type: drift_pipeline.components.MonitoredModel"
        yield "attributes:"
        yield f"  name: {self._model}"
        yield "  owner: you@example.com  # who is told of incidents"
        yield f"  task: {self._task}"
        yield "  columns:" if self._time or self._id else "  columns: {}"
        yield self._role("timestamp", self._time, "when each prediction was made; needed by replay and adopt")
        yield self._role("prediction_id", self._id, "else the position of the row")
        yield "    # entity: user_id      # whose a row is: keeps its side of a canary, and can be erased"
        yield "    # latency_ms: latency  # of the answer, in milliseconds"
        yield "  features:"
        yield from (f"    {_key(c.name)}: {c.kind}  # {c.why.partition(': ')[2] or c.why}" for c in self._features)
        yield from (f"    # {_key(c.name)}: {c.why}" for c in self._left_out)
        yield from self._prediction()
        yield self._outcome
        yield "  # protected: {age_band: categorical}  # groups whose rate of positive decisions is to stay alike"
        yield "  # kpis: {psi: {threshold: 0.2}}       # drift calibrate proposes thresholds from a healthy history"
        yield "  # retrain: {min_rows: 2000}           # fewer labelled rows make no model"

    def _role(self, role: str, name: str | None, why: str) -> str:
        return f"    {role}: {_key(name)}" if name else f"    # {role}: COLUMN  # {why}"

    def _prediction(self) -> Iterator[str]:
        if self._score is None:
            yield "  # prediction: {score: COLUMN}  # what your model answered, if it is recorded"
        else:
            part = "value" if self._task == "regression" else "score"
            yield f"  prediction: {{{part}: {_key(self._score)}}}"

    def _holds_times(self, column: Column) -> bool:
        if column.kind is not None or not ("times" in column.why or "days" in column.why):
            return False
        try:
            return bool(read_times(self._sample[column.name]).unreadable.mean() == 0)
        except ValueError:
            return False

    def _is_an_id(self, column: Column) -> bool:
        values = self._sample[column.name]
        return bool(column.kind is None and _ID.search(column.name) and values.n_unique() == len(values))

    def _is_a_score(self, column: Column) -> bool:
        if column.kind != "numeric" or not _SCORE.search(column.name):
            return False
        if self._task == "regression":
            return True
        inside = self._data.read(self._sample[column.name], Numbers()).is_between(0, 1)
        return bool(inside.drop_nulls().all())

    def _label_of(self, values: pl.Series) -> tuple[Task, str]:
        known = levels(values, form_of(values)).drop_nulls()
        known = known.filter(~known.str.to_lowercase().is_in([*TOKENS]))
        counts = known.value_counts(name="n", sort=True)[known.name].to_list()
        delay = "delay: 0s}  # delay: how long after a prediction the label is known, such as 6h"
        if len(counts) > MOST_WHOLE_LEVELS and form_of(known) in ("integer", "decimal"):
            return "regression", f"  outcome: {{column: {_key(self._label)}, {delay}"
        if len(counts) != 2:
            raise InputError(
                f"{self._data.name}: column {self._label!r} holds {len(counts)} levels ({', '.join(counts[:5])}); a "
                "label has two, or is a number of many values; one class against the rest makes two of many, and what "
                "means not known is left empty"
            )
        positive = next((level for level in counts if level.lower() in _YES), counts[1])
        return (
            "binary_classification",
            f"  outcome: {{column: {_key(self._label)}, positive: {_value(positive)}, {delay}",
        )


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) and name.lower() not in _WORDS else json.dumps(name, ensure_ascii=False)


def _value(level: str) -> str:
    return level if level in ("true", "false") or re.fullmatch(r"-?\d+", level) else _key(level)
