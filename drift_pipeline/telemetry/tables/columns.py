"""How each column of a model is read: levels of a form, labels, scores, milliseconds; the same at every door."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import polars as pl

from drift_pipeline.spec import Form, ModelSpec
from drift_pipeline.telemetry.tables.levels import form_of, level, levels, off_form
from drift_pipeline.telemetry.tables.numbers import SPELLED, TOKENS, Column, Numbers, Refuse, listed
from drift_pipeline.telemetry.tables.table import Read

FREQUENT = 0.01
_LARGEST = 1.7976931348623157e308
_NUMERIC: tuple[Form, ...] = ("integer", "decimal")


def _levels(values: pl.Series, form: Form, missing: Collection[str], refuse: Refuse) -> pl.Series:
    try:
        return levels(values, form, missing)
    except TypeError:
        refuse(values.is_not_null(), f"has the type {values.dtype}, which has no levels; give text or numbers")
        return pl.Series([None] * len(values), dtype=pl.String)


@dataclass
class Levels:
    """Reads one categorical column; counts what does not fit its form."""

    form: Form
    missing: Collection[str] = ()
    off: int = field(default=0, init=False)
    example: str = field(default="", init=False)

    def __call__(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:  # noqa: ARG002
        known = _levels(values, self.form, self.missing, refuse)
        if self.form != "text" and not (values.dtype.is_integer() and self.form in _NUMERIC):
            self._count(known)
        return known

    def _count(self, known: pl.Series) -> None:
        distinct = known.unique()
        if len(odd := distinct.filter(off_form(distinct, self.form).fill_null(value=False))):
            self.off += int(known.is_in(odd.implode()).sum())
            self.example = self.example or str(odd.min())


@dataclass
class Within:
    """Reads numbers that lie in an interval; what does not is refused."""

    numbers: Numbers
    low: float
    high: float
    problem: str

    def __call__(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:
        found = self.numbers(values, refuse, column)
        refuse(~found.is_between(self.low, self.high) & found.is_not_null(), self.problem)
        return found


def finite(missing: Collection[str]) -> Within:
    return Within(Numbers(missing=missing), -_LARGEST, _LARGEST, "is not finite")


@dataclass
class Labels:
    """Reads the labels of a classification: 1 where one is `positive`, 0 where it is the one other value.

    `unknown` are no labels. A number's spellings are one value: 1, 1.0, "1" and true.
    """

    positive: bool | int | str
    unknown: Collection[bool | int | float | str] = ()
    missing: Collection[str] = ()
    given: bool | int | str | None = None
    _negative: str | None = field(default=None, init=False)

    @property
    def negative(self) -> str | None:
        """The other value, as it was given or found; None before any was."""
        return self._negative if self.given is None else level(self.given, self._form)

    @property
    def _form(self) -> Form:
        return "text" if off_form(pl.Series([level(self.positive, "decimal")]), "decimal").any() else "decimal"

    def __call__(self, values: pl.Series, refuse: Refuse, column: Column) -> pl.Series:  # noqa: ARG002
        """Int8, null where not known."""
        form = self._form
        known = self._known(values, form, refuse)
        positive, self._negative = level(self.positive, form), self.negative
        others = known.filter(known != positive)
        if self._negative is None and len(others):
            counts = others.value_counts(name="n").sort(["n", others.name], descending=[True, False])
            commonest = counts[others.name].to_list()
            self._negative = "0" if "0" in commonest and form == "decimal" else commonest[0]
        odd = (known != positive) & (known != (self._negative or positive))
        if odd.any():
            two = f"{positive!r} (outcome.positive) and {self._negative!r}"
            refuse(odd, f"is a third label beside {two}; list what means not known in outcome.unknown")
        return (known == positive).cast(pl.Int8)

    @property
    def told(self) -> str:
        """Which number is taken as the negative label, where that is not 0; else ''."""
        if self._negative in (None, "0") or self._form == "text":
            return ""
        return f"{self.positive!r} is positive (outcome.positive), {self._negative!r} negative"

    def _known(self, values: pl.Series, form: Form, refuse: Refuse) -> pl.Series:
        known = _levels(values, form, self.missing, refuse)
        if self.unknown:
            known = known.set(known.is_in([level(one, form) or "" for one in self.unknown]), None)
        distinct = known.unique()
        if form == "decimal" and off_form(distinct, form).any():
            known = known.set(known.str.to_lowercase().is_in([*TOKENS]), None)
            hint = "write outcome.positive in quotes where it is a text"
            refuse(off_form(known, form).fill_null(value=False), f"is neither a number nor true or false; {hint}")
        return known


def forms_of(raw: pl.DataFrame, spec: ModelSpec, tokens: Collection[str] = ()) -> ModelSpec:
    """The spec with the form of each categorical column: as declared, else the narrowest that all its values fit.

    `tokens`: columns in which the usual words for no value are none, too.
    """
    names = [name for name, kind in spec.watched.items() if kind == "categorical" and name not in spec.forms]
    fit = [name for name in names if not raw[name].dtype.is_nested()]
    return spec.with_forms({name: _form(raw[name], missing_of(name, spec, tokens)) for name in fit})


def missing_of(name: str, spec: ModelSpec, tokens: Collection[str] = ()) -> frozenset[str]:
    """The texts that are no value of a column."""
    return listed(spec.missing) | (SPELLED if name in tokens else frozenset())


def _form(values: pl.Series, missing: Collection[str]) -> Form:
    form = form_of(values, missing)
    if form == "text":  # true in one file and 1 in the next
        known = levels(values, "boolean", missing).drop_nulls()
        form = "boolean" if len(known) and known.is_in(["true", "false"]).all() else form
    return form


def numbers_of(missing: Collection[str]) -> Numbers:
    """How a watched column of numbers is read."""
    return Numbers("is not a number; if the feature has levels, declare it categorical", missing)


def reads_of_facts(spec: ModelSpec) -> dict[str, Read]:
    """How the prediction, the label and the latency are read, by column."""
    missing, reads = listed(spec.missing), dict[str, Read]()
    if spec.columns.latency_ms is not None:
        reads[spec.columns.latency_ms] = Numbers("is not a number of milliseconds", missing)
    if spec.prediction.value is not None:
        reads[spec.prediction.value] = finite(missing)
    if spec.prediction.score is not None:
        score = Numbers("is not a score", missing)
        reads[spec.prediction.score] = Within(score, 0, 1, "is not a probability in 0..1")
    regression, outcome = spec.task == "regression", spec.outcome
    reads[outcome.column] = (
        finite(missing) if regression else Labels(outcome.positive, outcome.unknown, missing, outcome.negative)
    )
    return reads


def told_off_form(reads: Mapping[str, Read]) -> list[str]:
    """A note for each column of which values did not fit its form."""
    return [
        f"{name}: {read.off:,} values do not fit its form, {read.form}, such as {read.example!r}: levels of their own"
        for name, read in reads.items()
        if isinstance(read, Levels) and read.off
    ]


def frequent_token(known: pl.Series) -> str | None:
    """A note where a level looks like a missing value and is frequent."""
    found = known.filter(known.str.to_lowercase().is_in([*TOKENS]))
    if len(found) <= FREQUENT * len(known) or not len(found):
        return None
    token, share = found.mode().sort()[0], len(found) / len(known)
    return f"{known.name}: {token!r} is a level ({share:.1%} of the rows); if it means no value, list it under missing"
