"""Seeded traffic: rows of a model's own history, drawn again, with a drift put in at a time of the caller's choice.

What is drawn depends on the seed and on nothing else: neither on the clock nor on what a gateway answers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from drift_pipeline.clock import DAY, Window
from drift_pipeline.errors import InputError
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.tables.levels import level

InjectedKind = Literal["covariate", "concept", "unfairness", "schema", "schema_break", "latency", "canary_latency"]
Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]
MOST_ROWS = 50  # of a request
_BLOCK = 1000  # rows that are drawn together
_REQUESTS_PER_SECOND = 20  # as long as rows fit in that many
_LOW_SHARE = 0.1  # of the rows whose features a disfavoured group gets: those the champion scores lowest
_UNKNOWN_LEVEL = "level_of_no_training"
_LATENCY_MS = 150.0  # where the spec has no threshold of its own


@dataclass(frozen=True)
class Injected:
    """A drift from `at_seconds` on. `size` 1 is clearly visible, 0 nothing:

    covariate: numbers move by `size` standard deviations, and `size`/2 of each category's rows to its rarest level.
    concept: with probability `size`/2 a label follows another rule: what spoke loudest for it speaks against it.
    unfairness: `size` of a group's rows get the features, and the label, of a row that the champion scores low.
    schema: the first feature is null, or a level that nobody saw, in `size` of the rows.
    schema_break: the first feature is left out of the requests.
    latency: each request asks the gateway to take `size` times the spec's latency threshold longer.
    canary_latency: the same, where the canary answers.

    Raises:
        InputError: another kind, a time below 0 or a size below 0.
    """

    kind: InjectedKind
    at_seconds: float
    size: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(InjectedKind):
            raise InputError(
                f"there is no drift {self.kind!r} to inject; there are: {', '.join(get_args(InjectedKind))}"
            )
        if not self.at_seconds >= 0 or not 0 <= self.size < float("inf"):
            raise InputError(f"{self.kind}: begins at 0 s or later with a size of 0 or more, not {self}")


@dataclass(frozen=True)
class Request:
    """One infer request, due at `at_seconds`: its body, and what the outcome of each row (n,) will be."""

    at_seconds: float
    ids: tuple[str, ...]
    body: dict[str, Any]
    labels: tuple[float | str | bool, ...]


def history_of(lake: Lake, spec: ModelSpec, now: datetime) -> pl.DataFrame:
    """Labelled rows of the model's own history: those it was adopted with, or else all that it answered.

    Raises:
        InputError: there are none.
    """
    rows = lake.labelled(Window(datetime(1678, 1, 1, tzinfo=UTC), now + DAY), now, spec.outcome.delay)
    if rows.is_empty():
        raise InputError(
            f"{spec.name}: no labelled row in {lake.root}; drift adopt {spec.name} --data HISTORY lands some"
        )
    adopted = rows.filter(pl.col("_route") == "history")
    return adopted if adopted.height else rows


def requests(
    spec: ModelSpec,
    source: pl.DataFrame,
    *,
    rows_per_second: float,
    duration_seconds: float,
    seed: int,
    drifts: Sequence[Injected] = (),
    prefix: str = "",
) -> Iterator[Request]:
    """All requests in order of time; ids are `<prefix><number>`.

    Args:
        source: labelled rows, at least 2, as `history_of` gives them.

    Raises:
        InputError: no rate, no rows, or an unfairness without a protected column.
    """
    if not 0 < rows_per_second < float("inf") or not 0 < duration_seconds < float("inf"):
        raise InputError(f"traffic has a rate and a duration above 0, not {rows_per_second}/s for {duration_seconds} s")
    if source.height < 2:
        raise InputError(f"{spec.name}: {source.height} labelled rows; traffic is drawn from 2 or more")
    if not spec.protected and any(drift.kind == "unfairness" for drift in drifts):
        raise InputError(f"{spec.name}: no protected column in the spec, so nobody can be treated unfairly")
    return _drawn(_World(spec, source), rows_per_second, duration_seconds, seed, drifts, prefix)


def _drawn(
    world: "_World",
    rows_per_second: float,
    duration_seconds: float,
    seed: int,
    drifts: Sequence[Injected],
    prefix: str,
) -> Iterator[Request]:
    total = int(rows_per_second * duration_seconds)
    size = int(np.clip(round(rows_per_second / _REQUESTS_PER_SECOND), 1, MOST_ROWS))
    block_rows = _BLOCK // size * size
    for block, first in enumerate(range(0, total, block_rows)):
        at = np.arange(first, min(first + block_rows, total)) / rows_per_second
        cells = world.cells(world.draw(np.random.default_rng([seed, block]), at, drifts))
        ids = [f"{prefix}{first + row}" for row in range(len(at))]
        for start in range(0, len(at), size):
            part = slice(start, start + size)
            own = {name: column[part] for name, column in cells.items()}
            yield world.request(own, ids[part], float(at[start]), drifts)


class _World:
    """The history, what each of its rows would be under another rule, and how a drift changes a row."""

    def __init__(self, spec: ModelSpec, source: pl.DataFrame) -> None:
        self._spec = spec
        reasons = _reasons(spec, source)
        favour = np.sum(reasons, axis=0)
        told = source["_score"].cast(pl.Float64).fill_nan(None) if "_score" in source.columns else None
        scores = favour if told is None or told.null_count() else told.to_numpy()
        least = max(1, int(_LOW_SHARE * source.height))
        self._low = np.argsort(scores, kind="stable")[:least]
        kept = [*spec.watched, "_label", *(["_entity"] if "_entity" in source.columns else [])]
        self._source = source.select(kept).with_columns(pl.Series("_turned", _turned(spec, source, reasons)))
        self._spread = {
            name: float(source[name].cast(pl.Float64).fill_nan(None).std() or 1.0)  # type: ignore[arg-type]
            for name, kind in spec.features.items()
            if kind == "numeric"
        }
        self._rarest = {
            name: _level(source, name, rare=True) for name, kind in spec.features.items() if name not in self._spread
        }

    def draw(self, random: np.random.Generator, at: Floats, drifts: Sequence[Injected]) -> pl.DataFrame:
        """Rows at these times (n,), each drift in turn. Each draws its own numbers whether it has begun or not, so
        that a drift changes nothing before it begins."""
        drawn = random.integers(0, self._source.height, len(at))
        rows = self._source[drawn]
        for drift in drifts:
            begun = at >= drift.at_seconds
            match drift.kind:
                case "covariate":
                    rows = self._moved(rows, begun, drift.size, random)
                case "concept":
                    turned = begun & (random.random(len(at)) < drift.size / 2)
                    rows = rows.with_columns(_where(turned, pl.col("_turned"), "_label"))
                case "unfairness":
                    rows = self._disfavoured(rows, begun & (random.random(len(at)) < drift.size), random)
                case "schema":
                    rows = self._broken(rows, begun & (random.random(len(at)) < drift.size))
                case "schema_break" | "latency" | "canary_latency":
                    pass  # of the request, not of its rows
        return rows

    def _moved(self, rows: pl.DataFrame, begun: Chosen, size: float, random: np.random.Generator) -> pl.DataFrame:
        moved = [_where(begun, pl.col(name) + size * spread, name) for name, spread in self._spread.items()]
        for name, rarest in self._rarest.items():
            chosen = begun & (random.random(rows.height) < size / 2)
            moved.append(_where(chosen, pl.lit(rarest, dtype=pl.String), name))
        return rows.with_columns(moved)

    def _disfavoured(self, rows: pl.DataFrame, chosen: Chosen, random: np.random.Generator) -> pl.DataFrame:
        """The protected columns stay as they are. The label comes with the features: the world's rule still holds."""
        column = next(iter(self._spec.protected))
        group = (rows[column] == _level(self._source, column, rare=False)).fill_null(value=False).to_numpy()
        donors = self._source[self._low[random.integers(0, len(self._low), rows.height)]]
        given = [name for name in (*self._spec.features, "_label", "_turned") if name not in self._spec.protected]
        return rows.with_columns(_where(group & chosen, donors[name], name) for name in given)

    def _broken(self, rows: pl.DataFrame, chosen: Chosen) -> pl.DataFrame:
        name, kind = next(iter(self._spec.features.items()))
        instead = pl.lit(None, dtype=pl.Float64) if kind == "numeric" else pl.lit(_UNKNOWN_LEVEL)
        return rows.with_columns(_where(chosen, instead, name))

    def cells(self, rows: pl.DataFrame) -> dict[str, list[Any]]:
        """The columns as JSON has them: numbers that are finite, texts, and nulls."""
        column_types = self._spec.watched
        typed = [
            pl.when(pl.col(name).cast(pl.Float64).is_finite()).then(pl.col(name).cast(pl.Float64)).alias(name)
            if kind == "numeric"
            else pl.col(name).cast(pl.String)
            for name, kind in column_types.items()
        ]
        return rows.with_columns(typed).to_dict(as_series=False)

    def request(
        self, cells: Mapping[str, list[Any]], ids: Sequence[str], at: float, drifts: Sequence[Injected]
    ) -> Request:
        begun = [drift for drift in drifts if at >= drift.at_seconds]
        left_out = next(iter(self._spec.features)) if any(drift.kind == "schema_break" for drift in begun) else None
        parameters: dict[str, Any] = {"ids": [*ids]}
        if "_entity" in cells:
            parameters["entity"] = cells["_entity"]
        limit = self._spec.kpis.latency_p95_ms
        for kind, name in (("latency", "delay_ms"), ("canary_latency", "canary_delay_ms")):
            if slowed := [drift.size for drift in begun if drift.kind == kind]:
                parameters[name] = sum(slowed) * (limit.threshold if limit else _LATENCY_MS)
        tensors = [
            {
                "name": name,
                "shape": [len(ids)],
                "datatype": "FP64" if kind == "numeric" else "BYTES",
                "data": cells[name],
            }
            for name, kind in self._spec.watched.items()
            if name != left_out
        ]
        labels = tuple(_told(self._spec, label) for label in cells["_label"])
        return Request(at, tuple(ids), {"id": ids[0], "parameters": parameters, "inputs": tensors}, labels)


def _where(chosen: Chosen, instead: pl.Expr | pl.Series, name: str) -> pl.Expr:
    return pl.when(pl.Series(chosen)).then(instead).otherwise(pl.col(name)).alias(name)


def _told(spec: ModelSpec, label: float) -> float | str | bool:
    """A label as a producer tells it, which `outcome.positive` reads back."""
    positive = spec.outcome.positive
    if spec.task == "regression" or label == 1:
        return float(label) if spec.task == "regression" else positive
    if spec.outcome.negative is not None:
        return _as_told(spec.outcome.negative, positive)
    if isinstance(positive, bool):
        return not positive
    known = level(positive, "decimal")  # "true" is 1, and its negation no other text but a negation
    return f"not {positive}" if isinstance(positive, str) and known not in ("0", "1") else int(known == "0")


def _as_told(negative: bool | int | str, positive: bool | int | str) -> float | str | bool:
    """A number beside a positive that is none of the texts: JSON tells the two apart, and so does the reader."""
    return float(negative) if isinstance(negative, str) and not isinstance(positive, str) else negative


def _level(source: pl.DataFrame, name: str, *, rare: bool) -> str | None:
    """The column's rarest or most frequent level, of equals the first; None where all is null."""
    counts = (
        source[name].drop_nulls().cast(pl.String).value_counts(name="n").sort("n", name, descending=[not rare, False])
    )
    return str(counts[name][0]) if counts.height else None


def _reasons(spec: ModelSpec, source: pl.DataFrame) -> list[Floats]:
    """How far each feature of each row (n,) speaks for a high label, the loudest feature first: r_j z_j, with z_j the
    standardised feature (a level counts as the mean label of its rows, a null as 0) and r_j its correlation with the
    label."""
    label = _standard(source["_label"].cast(pl.Float64).to_numpy())
    found = []
    for name, kind in spec.features.items():
        number = (
            pl.col(name).cast(pl.Float64) if kind == "numeric" else pl.col("_label").cast(pl.Float64).mean().over(name)
        )
        column = _standard(source.select(number).to_series().fill_nan(None).to_numpy())
        found.append(float(np.mean(column * label)) * column)
    return sorted(found, key=np.std, reverse=True)


def _standard(values: Floats) -> Floats:
    """Mean 0 and deviation 1; 0 for a constant and where a value is missing."""
    known = values[np.isfinite(values)]
    spread = float(known.std()) if len(known) else 0.0
    if not spread:
        return np.zeros(len(values))
    return np.where(np.isfinite(values), (values - known.mean()) / spread, 0.0)


def _turned(spec: ModelSpec, source: pl.DataFrame, reasons: Sequence[Floats]) -> Floats:
    """Each row's label (n,) under the other rule, with as many positives: the loudest reason is turned round.

    A rule on features is learnt again by a retraining; labels that were turned at random would be noise for ever. The
    other reasons stay, for a rule that is turned round whole is what the gates take for poison.
    """
    label, favour = source["_label"].cast(pl.Float64), np.sum(reasons[1:], axis=0) - reasons[0]
    if spec.task == "regression":
        return np.asarray(label.mean() + float(label.std() or 0.0) * _standard(favour))  # type: ignore[operator, arg-type]
    order = np.argsort(-favour, kind="stable")
    turned = np.zeros(source.height)
    turned[order[: int(label.sum())]] = 1.0
    return turned
