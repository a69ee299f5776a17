"""What of two tables is to be compared, and how their columns are read: by a spec, or as their values say."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from drift_pipeline.detection.comparing.headerless import named_by_numbers
from drift_pipeline.detection.comparing.scan import Named, sample_batches
from drift_pipeline.errors import InputError
from drift_pipeline.spec import Columns, ColumnType, ModelSpec, Outcome, Task
from drift_pipeline.telemetry.tables.columns import Levels, missing_of, numbers_of, reads_of_facts
from drift_pipeline.telemetry.tables.infer import Column, Tables
from drift_pipeline.telemetry.tables.numbers import listed
from drift_pipeline.telemetry.tables.table import Read, Table

PERFORMANCE: Mapping[Task, tuple[str, ...]] = {"binary_classification": ("auroc",), "regression": ("mae", "residuals")}
Sides = tuple[Table, Table]


@dataclass(frozen=True)
class Lacking:
    """A watched column that one table has not. `missing`: the share of each side's rows without it."""

    kind: ColumnType
    why: str
    missing: tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """`spec`: of what both tables have; `lacking`: watched columns that one has not, and why they are not judged;
    `untold`: KPIs that the spec names and the tables cannot tell, and why."""

    spec: ModelSpec
    named: Named
    read: tuple[Column, ...]
    untold: Mapping[str, str]
    lacking: Mapping[str, Lacking]

    @property
    def categorical(self) -> list[str]:
        return [name for name, kind in self.spec.watched.items() if kind == "categorical"]

    def reads(self) -> dict[str, Read | None]:
        """How a table's columns are read, but for levels, which want a form: those stay as they are stored."""
        facts, missing = reads_of_facts(self.spec), listed(self.spec.missing)
        numbers = {n: None if kind == "categorical" else numbers_of(missing) for n, kind in self.spec.watched.items()}
        return {**numbers, **{name: facts[name] for name in self.named.present}}

    def levels(self) -> dict[str, Levels]:
        """How the levels are read, in the forms of the spec."""
        tokens = self.tokens
        return {n: Levels(self.spec.forms[n], missing_of(n, self.spec, tokens)) for n in self.categorical}

    @property
    def tokens(self) -> set[str]:
        """Columns whose levels are numbers or truth values, so that NA and its like are none."""
        return {column.name for column in self.read if column.tokens}


@dataclass(frozen=True)
class Choice:
    """Of all columns only these, and none of those; of which the values are levels, whatever they look like."""

    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()

    def of(self, names: Iterable[str]) -> list[str]:
        """The chosen ones of `names`. Raises InputError where a chosen one is not among them."""
        names = list(names)
        for asked in (*self.columns, *self.exclude, *self.categorical):
            if asked not in names:
                near = get_close_matches(asked, names, n=1)
                meant = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(names)}"
                raise InputError(f"there is no column {asked!r} in both tables{meant}")
        return [name for name in names if (not self.columns or name in self.columns) and name not in self.exclude]


EVERY_COLUMN = Choice()


def planned(sides: Sides, spec: ModelSpec | None, choice: Choice) -> Plan:
    """Raises InputError where the two have no column in common, or what a column is differs between them."""
    reference, current = sides
    common = [name for name in reference.types if name in current.types]
    if not common:
        names = [", ".join(table.types) or "none" for table in sides]
        hint = "; the first row of a CSV is its header: is it missing?" if any(map(named_by_numbers, sides)) else ""
        raise InputError(f"no common column: {reference.name} has {names[0]}; {current.name} has {names[1]}{hint}")
    if spec is None:
        return _by_inference(sides, common, choice)
    return _by_spec(_narrowed(spec, choice), common, sides)


def _narrowed(spec: ModelSpec, choice: Choice) -> ModelSpec:
    """The spec with the chosen ones of its columns."""
    if choice.categorical:
        raise InputError(f"the spec of {spec.name} says what each column is; name categorical columns there")
    names = choice.of(spec.watched)
    kept = {
        part: {name: kind for name, kind in columns.items() if name in names}
        for part, columns in (("features", spec.features), ("protected", spec.protected))
    }
    return spec.model_copy(update=kept)


def _by_inference(sides: Sides, common: list[str], choice: Choice) -> Plan:
    as_stored = dict.fromkeys(chosen := choice.of(common))
    sample, now = sample_batches(sides[0].batches(as_stored)), next(sides[1].batches(as_stored))
    for table, rows in zip(sides, (sample, now), strict=True):
        if rows.is_empty():
            raise InputError(f"{table.name}: holds no rows")
    read = list(Tables(*sides, sample, now).infer(choice.categorical))
    read += [Column(name, None, "left out: as asked") for name in common if name not in chosen]
    watched = {column.name: column.kind for column in read if column.kind is not None}
    if not watched:
        raise InputError(f"no column to compare: {'; '.join(f'{column.name}: {column.why}' for column in read)}")
    only = [
        Column(name, None, f"left out: {_not_in(name, other, table)}")
        for table, other in (sides, sides[::-1])
        for name in table.types
        if name not in other.types
    ]
    spec = ModelSpec(
        name="comparison", owner="nobody", task="binary_classification", features=watched, outcome=Outcome(column="")
    )
    return Plan(spec, Named(), (*read, *only), {}, {})


def _not_in(name: str, table: Table, other: Table) -> str:
    """That the table has no such column, and which of those that only it has may be meant."""
    by_small = {new.lower(): new for new in table.types if new not in other.types}
    near = get_close_matches(name.lower(), by_small, n=1)
    where = table.lacking[name].name if name in table.lacking else table.short
    return f"not in {where}{f'; did you mean {by_small[near[0]]!r}, which is?' if near else ''}"


def _by_spec(spec: ModelSpec, common: list[str], sides: Sides) -> Plan:
    """The spec, less what one of the tables lacks."""
    lacking = {
        name: Lacking(
            kind,
            "; ".join(_not_in(name, *pair) for pair in (sides, sides[::-1]) if name not in pair[0].types),
            (float(name not in sides[0].types), float(name not in sides[1].types)),
        )
        for name, kind in spec.watched.items()
        if name not in common
    }
    read = [
        Column(name, None, f"not judged: {lacking[name].why}")
        if name in lacking
        else Column(name, kind, f"{kind}: by the spec")
        for name, kind in spec.watched.items()
    ]
    features = {name: kind for name, kind in spec.features.items() if name in common}
    if not features:
        raise InputError(f"no feature of {spec.name} is in both tables; common are {', '.join(common)}")
    score, label, latency = (
        name if name in common else None
        for name in (spec.prediction.column, spec.outcome.column, spec.columns.latency_ms)
    )
    named = Named(score, label if score else None, latency)
    prediction = spec.prediction.model_copy(update={} if score else {"score": None, "value": None})
    left = spec.model_copy(
        update={
            "features": features,
            "protected": {name: kind for name, kind in spec.protected.items() if name in common},
            "prediction": prediction,
            "columns": Columns(latency_ms=latency),
        }
    )
    return Plan(left, named, tuple(read), dict(_untold(spec, left, named, common)), lacking)


def _untold(spec: ModelSpec, left: ModelSpec, named: Named, common: list[str]) -> Iterator[tuple[str, str]]:
    """KPIs that the spec asks for, of which a table lacks a column."""
    for name, reason in _without(spec, left, named, common):
        if getattr(spec.kpis, name) is not None:
            yield name, reason


def _without(spec: ModelSpec, left: ModelSpec, named: Named, common: list[str]) -> Iterator[tuple[str, str]]:
    words, performance = "{} {!r} is not in both tables", PERFORMANCE[spec.task]
    if spec.prediction.column is not None and named.score is None:
        for name in (*performance, "demographic_parity"):
            yield name, words.format("the prediction", spec.prediction.column)
    elif spec.outcome.column not in common:
        yield from ((name, words.format("the label", spec.outcome.column)) for name in performance)
    if spec.columns.latency_ms is not None and named.latency_ms is None:
        yield "latency_p95_ms", words.format("the latency", spec.columns.latency_ms)
    if spec.protected and not left.protected:
        yield "demographic_parity", "no protected column is in both tables"
