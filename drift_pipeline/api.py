"""What the commands do on tables and histories, for notebooks, scripts and tests of data.

>>> import polars as pl
>>> import drift_pipeline as dp
>>> healthy = pl.DataFrame({"price": [float(k % 97) for k in range(2000)]})
>>> found = dp.compare(healthy, healthy.with_columns(pl.col("price") * 2))
>>> found.verdict, found.to_frame()["direction"].to_list()
('BREACH', ['up'])

A table is a frame of pandas, Polars or Arrow in memory, or the path of a CSV (with , ; tab or |), CSV.GZ or Parquet
file, a folder of them or a Delta table. A spec is a `ModelSpec`, the path of its YAML, or a mapping with the same keys.
Errors are `InputError` (a table) and `SpecError` (a spec) of `drift_pipeline.errors`; each says what is wrong, where
and what to do.
"""

import html
import json
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from drift_pipeline.clock import parse_duration
from drift_pipeline.detection.comparing import comparison
from drift_pipeline.detection.comparing.plan import Choice
from drift_pipeline.detection.judging.verdict import Verdict
from drift_pipeline.errors import InputError
from drift_pipeline.files import write_whole
from drift_pipeline.replays.comparison import comparison_page, comparison_table
from drift_pipeline.spec import ModelSpec, read_spec, spec_of
from drift_pipeline.telemetry.tables.table import Table

if TYPE_CHECKING:  # what only a calibration or a replay needs takes a second to import
    from drift_pipeline.detection.calibration import proposals
    from drift_pipeline.replays.options import Triggers

Spec = ModelSpec | str | Path | Mapping[str, Any]
FailOn = Literal["inconclusive", "warn", "breach"]
_ORDER = (Verdict.INCONCLUSIVE, Verdict.WARN, Verdict.BREACH)
_SCALARS = ("verdict", "type", "psi", "psi_lower", "hellinger", "p_value", "distance", "distance_lower", "range_z")


@dataclass(frozen=True)
class Comparison:
    """What `compare` found. In a notebook it shows itself; `str` is what `drift compare` prints.

    found: the comparison by its parts, columns and KPIs worst first.
    names: what the two tables are called, (reference, current).
    """

    found: comparison.Comparison
    names: tuple[str, str]

    @property
    def verdict(self) -> str:
        """One of "OK", "WARN", "BREACH" and "INCONCLUSIVE", of the columns and KPIs that could be judged."""
        return str(self.found.verdict)

    def to_frame(self) -> pl.DataFrame:
        """One row a column, worst first; `.to_pandas()` makes it a pandas frame.

        `column, verdict, type, psi, psi_lower, hellinger, p_value, distance, distance_lower, range_z` (a share),
        `missing_reference, missing_current` (shares), `direction, reason`. Distances are KS of numbers and the share
        that moved of levels; `_lower` are the bounds that the verdict is judged by.
        """
        rows = [
            {
                "column": name,
                **{key: told[key] for key in _SCALARS},
                **{f"missing_{side}": told["missing"][side] for side in ("reference", "current")},
                "direction": told["direction"],
                "reason": told["reason"],
            }
            for name, told in self.found.to_json()["features"].items()
        ]
        return pl.DataFrame(rows, infer_schema_length=None)

    def to_json(self) -> dict[str, Any]:
        """All that is known, as `drift compare --json` prints it."""
        return self.found.to_json()

    def save(self, path: str | Path) -> Path:
        """Write it as one HTML page, or as JSON where the path ends in `.json`.

        Raises:
            InputError: the path cannot be written.
        """
        path = Path(path)
        return write_whole(path, json.dumps(self.to_json(), indent=2) if path.suffix == ".json" else self._page())

    def fails(self, fail_on: FailOn = "breach") -> bool:
        """Whether the verdict is `fail_on` or worse; INCONCLUSIVE is the least of the three."""
        order = [str(verdict).lower() for verdict in _ORDER]
        if fail_on not in order:
            raise InputError(f"fail_on {fail_on!r}: one of {', '.join(order)}")
        return self.found.verdict in _ORDER[order.index(fail_on) :]

    def assert_ok(self, fail_on: FailOn = "breach") -> None:
        """For tests of data: raise AssertionError, with the table, where it fails or where nothing could be judged."""
        if self.fails(fail_on) or self.found.verdict is Verdict.INCONCLUSIVE:
            raise AssertionError(str(self))

    def _page(self) -> str:
        return comparison_page(self.found, self.names)

    def _repr_html_(self) -> str:
        return _inline(self._page())

    def __str__(self) -> str:
        return comparison_table(self.found, self.names)

    def __repr__(self) -> str:
        return f"<Comparison {self.found.rolled_up.told()}: {self.names[1]} against {self.names[0]}>"


def compare(
    reference: object,
    current: object,
    spec: Spec | None = None,
    *,
    columns: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    categorical: str | Sequence[str] = (),
    min_judged: float | None = None,
    progress: comparison.Progress = lambda _rows, _words: None,
) -> Comparison:
    """Compare two tables, `current` with `reference`, as `drift compare` does.

    Args:
        spec: what the columns are, and what score, label, group and latency are called; None: types are inferred.
        columns: only these; none = all that both tables have.
        exclude: all but these.
        categorical: the values of these are levels, whatever they look like; without a spec.
        min_judged: INCONCLUSIVE where fewer columns are judged: a number as int, a share as float.
        progress: is called with (rows read of this side, what is being done).

    Raises:
        InputError: a side is no table, cannot be read or has no row, a column that is named is not in both, or a column
            means something else on each side.
        SpecError: the spec cannot be read.
    """
    sides = Table.of(reference, "reference"), Table.of(current, "current")
    choice = Choice(*(_names(some) for some in (columns, exclude, categorical)))
    found = comparison.compare_files(*sides, None if spec is None else _spec(spec), progress, choice)
    return Comparison(found if min_judged is None else found.asking(min_judged), (sides[0].name, sides[1].name))


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` measured and proposes; `str` is what `drift calibrate` prints."""

    found: "proposals.Calibration"
    spec: ModelSpec
    notes: tuple[str, ...]

    def to_frame(self) -> pl.DataFrame:
        """One row a threshold: `key, current, proposed, reason, cost`."""
        schema = {"key": pl.String, "current": pl.Float64, "proposed": pl.Float64}
        rows = [proposal.to_json() for proposal in self.found.proposals]
        return pl.DataFrame(rows, schema={**schema, "reason": pl.String, "cost": pl.String}, strict=False)

    def to_json(self) -> dict[str, Any]:
        return {**self.found.to_json(), "notes": list(self.notes)}

    def save(self, path: str | Path) -> Path:
        """Write the proposed thresholds as YAML for the spec. Raises InputError where it cannot be written."""
        from drift_pipeline.replays.calibration import snippet

        return write_whole(Path(path), snippet(self.found, self.spec))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        from drift_pipeline.replays.calibration import calibration_table

        return calibration_table(self.found, self.spec)


def calibrate(
    data: object,
    spec: Spec,
    *,
    timestamp: str | None = None,
    outcomes: object | None = None,
    reference: str | timedelta | None = None,
    step: str | timedelta = "1m",
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Calibration:
    """Measure false alarms on a healthy history, as `drift calibrate` does, and propose thresholds.

    Args:
        timestamp: the time column where the spec names none.
        outcomes: a table of labels by prediction id, where they are not in `data`.
        reference: only the first span, such as "90d"; None = all of it counts as healthy.
        step: the time between two ticks when live.
        progress: is called with (done, in all, what is being done).

    Raises:
        InputError: the history cannot be read.
        SpecError: the spec cannot be read.
    """
    from drift_pipeline.detection.calibration import proposals
    from drift_pipeline.telemetry.history import read_history

    known = _spec(spec)
    history = read_history(Table.of(data), known, timestamp, None if outcomes is None else Table.of(outcomes))
    found = proposals.calibrate(history, known, None if reference is None else _span(reference), _span(step), progress)
    return Calibration(found, known, history.notes)


@dataclass(frozen=True)
class Replayed:
    """What `replay` came to. In a notebook it shows its report.

    folder: summary.json, report.html, kpis.parquet, the cards of all versions and the audit (`drift audit verify`).
    summary: `summary.json`.
    """

    folder: Path
    summary: dict[str, Any]

    def kpis(self) -> pl.DataFrame:
        """The KPIs of each tick, `kpis.parquet`: `at, model, version, name, verdict, window, reason, value, threshold,
        bound, n, worst` (the columns that the KPI is worst for)."""
        return pl.read_parquet(self.folder / "kpis.parquet")

    def save(self, path: str | Path) -> Path:
        """Write the report as one HTML page. Raises InputError where it cannot be written."""
        return write_whole(Path(path), self._page())

    def _page(self) -> str:
        return (self.folder / "report.html").read_text(encoding="utf-8")

    def _repr_html_(self) -> str:
        return _inline(self._page())


def replay(
    data: object,
    spec: Spec,
    out: str | Path | None = None,
    *,
    timestamp: str | None = None,
    outcomes: object | None = None,
    reference: str | timedelta = "90d",
    step: str | timedelta = "1d",
    start: datetime | None = None,
    end: datetime | None = None,
    triggers: "Triggers" = "both",
    policy: str | Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Replayed:
    """Run the whole loop over a recorded history, as `drift replay` does.

    Args:
        out: a new or empty folder for the results; None = a temporary one, which goes with the answer.
        timestamp: the time column where the spec names none.
        outcomes: a table of labels by prediction id, where they are not in `data`.
        reference: the first training span.
        step: the time between two ticks.
        start: leave out what is older; without a time zone: UTC.
        end: leave out what is newer.
        triggers: what may retrain, "drift", "schedule" or "both".
        policy: a folder of Rego rules; None = the packaged ones.
        overwrite: replace what a former replay left in `out`.
        progress: is called with (ticks done, ticks in all, what is being done).

    Raises:
        InputError: the history cannot be read, is too short, or `out` cannot be written.
        SpecError: the spec cannot be read.
    """
    from drift_pipeline.replays.options import Options, between
    from drift_pipeline.replays.output import publish, refuse_out, work_folder, write_summary
    from drift_pipeline.replays.replay import Replay
    from drift_pipeline.replays.summary import summarise
    from drift_pipeline.settings import FILES_ALONE, Settings
    from drift_pipeline.telemetry.history import read_history

    folder = (Path(tempfile.mkdtemp(prefix="drift_replay_")) if out is None else Path(out)).absolute()
    refuse_out(folder, overwrite)
    known = _spec(spec)
    labels = None if outcomes is None else Table.of(outcomes)
    history = between(read_history(Table.of(data), known, timestamp, labels), _utc(start), _utc(end))
    options = Options(_span(reference), _span(step), triggers, seed, None if policy is None else Path(policy))
    with work_folder(folder) as work:
        with Replay(history, known, Settings(home=work, **FILES_ALONE), options, progress) as running:
            summary = summarise(running.run())
        write_summary(work, summary)
        publish(work, folder)
    found = Replayed(folder, summary)
    if out is None:
        weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return found


def _spec(spec: Spec) -> ModelSpec:
    if isinstance(spec, ModelSpec):
        return spec
    return read_spec(Path(spec)) if isinstance(spec, str | Path) else spec_of(spec)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _span(span: str | timedelta) -> timedelta:
    if isinstance(span, timedelta):
        return span
    try:
        return parse_duration(span)
    except ValueError as error:
        raise InputError(str(error)) from error


def _utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _inline(page: str) -> str:
    """A page within a notebook's: a frame of its own, so that neither's style reaches the other."""
    return (
        f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:40em;border:1px solid #8884" '
        'sandbox="allow-scripts"></iframe>'
    )
