"""One champion under watch: its frozen reference, and the profiles of what it has answered since it was armed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any, Literal

import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.counting.binning import Floats
from drift_pipeline.detection.counting.shape import Shape, shape_of
from drift_pipeline.detection.counting.stored import decode, encode
from drift_pipeline.detection.counting.windows import MINUTES_KEPT, Part, floor, sliding
from drift_pipeline.detection.judging.hints import SAMPLED_DAYS, Samples, sample_day
from drift_pipeline.detection.judging.monitor import Monitor, window_lengths
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.judging.verdict import FeatureFinding, Report
from drift_pipeline.detection.judging.waiting import prospects
from drift_pipeline.detection.reference.encoded import decode_reference, encode_reference
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.errors import ConflictError, InputError
from drift_pipeline.loop.state import Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.rollout.observe import EXTERNAL
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Cursor, Lake

MOST_SHAPES = 8
REFERENCE_FILE = "reference.bin"

_CURSOR = pl.Struct({"version": pl.Int64, "batch": pl.Int64, "source": pl.String})
_STORED: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "_time": pl.Datetime("us", "UTC"),
    "_version": pl.String,
    "binning": pl.String,
    "cursor": pl.Datetime("us", "UTC"),
    "predictions": _CURSOR,
    "outcomes": _CURSOR,
    "hours": pl.Int64,
    "labelled": pl.List(pl.Int64),
    "profile": pl.Binary,
}


class Watch:
    """Counts what lands in the order in which it lands, so that no row is missed or counted twice, however late it is.

    All it counts is in the lake: a watch that is made again takes up the stored profiles, and what landed since.
    """

    def __init__(
        self,
        champion: Version,
        reference: Reference,
        span: Window,
        armed_at: datetime,
        landed: Mapping[str, Cursor],
        versions: Mapping[str, int],
        *,
        lake: Lake,
        spec: ModelSpec,
        step: timedelta,
        labels_before: int | None = None,
    ) -> None:
        """
        Args:
            span: what the reference was frozen on, in the Delta `versions` of `predictions` and `outcomes`.
            armed_at: since when this champion is watched; rows of an earlier time are not.
            landed: the cursors of `predictions` and `outcomes` at that time.
            labels_before: how many outcomes the lake held at that time; None = nobody counted.
            step: time between two ticks.
        """
        self.champion, self.reference, self.span, self.armed_at = champion, reference, span, armed_at
        self.versions, self.labels_before = dict(versions), labels_before
        self._labels_landed: int | None = None  # not counted yet
        self._lake, self._spec, self._step = lake, spec, step
        self._landed, self._stored_at, self._profiles_kept = dict(landed), armed_at, -1
        self._monitor = Monitor(reference, spec, armed_at, step)
        self._slices = self._monitor.slices
        self._samples: dict[date, Floats] = {}
        self._reference_samples: Samples | None = None
        self._unlabelled = self._early = pl.DataFrame()

    def to_json(self, bundle: str) -> dict[str, Any]:
        """What `watch_at` makes the same watch of again, and what a document says of its baseline.

        `bundle` is the digest under which the registry keeps the reference.
        """
        baseline, performance = self.reference.baseline, performance_of(self._spec)
        return {
            **self.champion.to_json(),
            "from": self.span.start.isoformat(),
            "to": self.span.end.isoformat(),
            "at": self.armed_at.isoformat(),
            "rows": self.reference.rows,
            performance.kpi: baseline.value if baseline else None,
            f"{performance.kpi}_error": baseline.standard_error if baseline else None,
            "labels": baseline.rows if baseline else 0,
            "binning": self.reference.binning.digest,
            "delta": self.versions,
            "landed": {table: asdict(cursor) for table, cursor in self._landed.items()},
            "bundle": bundle,
            "labels_before": self.labels_before,
            "watched": _watched(self._spec),
        }

    def observe(self, now: datetime, leave_out: Sequence[Window] = (), *, keep: bool = True) -> Report:
        """Profile what landed since the last call and judge every KPI.

        Args:
            leave_out: rows of these spans of time stay out of the profiles.
            keep: store the profiles of each hour for whoever makes this watch again.

        Raises:
            ConflictError: another process stored profiles of this watch meanwhile; make it again.
        """
        labels = self._labels_until_now() if self._labels_landed is None else None
        # outcomes first: what is labelled by then has landed, and is read after
        outcomes, self._landed["outcomes"] = self._lake.landed("outcomes", self._landed["outcomes"])
        served, self._landed["predictions"] = self._lake.landed("predictions", self._landed["predictions"])
        self._labels_landed = (self._labels_landed or 0) + outcomes.height if labels is None else labels
        self._count(_outside(served, leave_out), outcomes, now)
        if keep and floor(now, HOUR) > self._stored_at:  # by now what is counted ends where the cursors stand
            self._store(floor(now, HOUR))
        return self._monitor.evaluate(now, self._sampled(now, {}))

    def _labels_until_now(self) -> int:
        """Outcomes that landed since this champion is watched, in whichever process; 0 where nobody counted before."""
        return 0 if self.labels_before is None else max(self._lake.rows("outcomes") - self.labels_before, 0)

    def look_back(self, now: datetime, versions: Mapping[str, int]) -> Report:
        """What a watch that was just made would have said at an earlier time, of rows and labels from before it.

        Args:
            versions: Delta versions of `predictions` and `outcomes` to read; none = as they are now.
        """
        window = Window(self.armed_at, now)
        served, outcomes = (self._lake.read(t, window, versions.get(t)) for t in ("predictions", "outcomes"))
        self._count(served, outcomes, now)
        return self._monitor.evaluate(now, self._sampled(now, versions))

    def _count(self, landed: pl.DataFrame, outcomes: pl.DataFrame, now: datetime) -> None:
        if not landed.is_empty():
            served = landed.filter(self._answered() & (pl.col("_time") >= self.armed_at))
            self._slices.add(served, now)
            self._unlabelled = pl.concat([self._unlabelled, served.select("_id", "_time", "_score")], rechunk=True)
        self._count_labels(outcomes, now)
        if self._unlabelled.height:  # whose label did not come until now, in whatever long time was read at once
            still = pl.col("_time") >= now - 2 * self._spec.outcome.delay - 7 * DAY
            self._unlabelled = self._unlabelled.filter(still)
        self._slices.consolidate(now)
        longest = window_lengths(self._spec, self._step)[-1]
        self._slices.forget(now - longest - 7 * DAY - self._spec.outcome.delay)

    def _store(self, hour: datetime) -> None:
        """Keep the profiles of all that was counted, and the cursors that they end at."""
        self._stored_at, digest = hour, self.reference.binning.digest
        landed = {table: asdict(cursor) for table, cursor in self._landed.items()}
        rows = [
            {
                "_id": f"{self.champion.name} {part.start.isoformat()} {hour.isoformat()} {part.length / HOUR:g}h",
                "_time": part.start,
                "_version": self.champion.name,
                "binning": digest,
                "cursor": hour,
                **landed,
                "hours": round(part.length / HOUR),
                "labelled": list(part.labelled),
                "profile": encode(part.profile),
            }
            for part in self._slices.new_parts()
        ]
        if not rows:
            return
        batch = int(hour.timestamp() // 3600)
        if self._lake.last_batch("profiles") != self._profiles_kept or not self._lake.append(
            "profiles", pl.DataFrame(rows, schema=_STORED), batch
        ):
            raise ConflictError(f"{self._spec.name}: another process stored this hour's profiles; take them up again")
        self._profiles_kept = batch

    def restore(self, now: datetime, leave_out: Sequence[Window] = ()) -> None:
        """Take up the stored profiles of this champion and reference; what landed since is read at the next
        `observe`."""
        self._profiles_kept = self._lake.last_batch("profiles")
        stored = self._lake.read("profiles", Window(floor(self.armed_at, DAY), max(now, self.armed_at)))
        if stored.is_empty():
            return
        ours = (pl.col("_version") == self.champion.name) & (pl.col("binning") == self.reference.binning.digest)
        stored = stored.filter(ours & (pl.col("cursor") > self.armed_at))
        if stored.is_empty():
            return
        self._slices.restore(map(self._part, _without_replaced(stored)))
        newest = stored.sort("cursor").row(-1, named=True)
        self._stored_at = newest["cursor"]
        self._landed = {table: Cursor(**newest[table]) for table in ("predictions", "outcomes")}
        oldest = max(self.armed_at, self._stored_at - 2 * self._spec.outcome.delay - 7 * DAY)
        self._take_up(leave_out, Window(oldest, now + DAY))

    def _take_up(self, leave_out: Sequence[Window], window: Window) -> None:
        """Of rows that are in the restored hours: which still wait for a label, and the newest ones by the minute; and
        the labels that wait for their row."""
        known, rows = (self._before_cursor(table, window) for table in ("outcomes", "predictions"))
        if known.height:
            early = known.join(rows, on="_id", how="anti", maintain_order="left") if rows.height else known
            self._early = early.with_columns(_read_at=pl.lit(self._stored_at))
        rows = _outside(rows, leave_out)
        rows = rows if rows.is_empty() else rows.filter(self._answered())
        if rows.is_empty():
            return
        labels = _first_labels(known) if known.height else pl.DataFrame(schema={"_id": pl.String, "_label": pl.Int8})
        minutes = rows.filter(pl.col("_time") >= self._stored_at - MINUTES_KEPT)
        self._slices.add_minutes(minutes, minutes.join(labels, on="_id", how="inner", maintain_order="left"))
        waiting = rows.select("_id", "_time", "_score")
        self._unlabelled = waiting.join(labels, on="_id", how="anti", maintain_order="left")

    def _before_cursor(self, table: Literal["predictions", "outcomes"], window: Window) -> pl.DataFrame:
        """Rows of the window that had landed when the profiles were stored."""
        rows, (after, _) = self._lake.read(table, window), self._lake.landed(table, self._landed[table])
        key = ["_id", "_time" if table == "predictions" else "_observed_at"]
        return rows if rows.is_empty() or after.is_empty() else rows.join(after, on=key, how="anti")

    def _part(self, row: Mapping[str, Any]) -> Part:
        profile = decode(self.reference.binning, row["profile"])
        return Part(row["_time"], row["hours"] * HOUR, profile, tuple(row["labelled"]))

    def _sampled(self, now: datetime, pinned: Mapping[str, int]) -> tuple[Samples, Samples]:
        """Samples of the last whole days, of which only those are read that no earlier tick has read."""
        if self._spec.kpis.multivariate is None:
            return {}, {}
        if self._reference_samples is None:
            newest = Window(max(self.span.start, self.span.end - 4 * WEEK - DAY), self.span.end)
            self._reference_samples = _days_sampled(self.reference, self._lake.read("predictions", newest))
        end = floor(now, DAY)
        days = [end - (back + 1) * DAY for back in reversed(range(SAMPLED_DAYS))]
        kept, self._samples = self._samples, {}
        for start in (day for day in days if day >= self.armed_at):
            if start.date() not in kept:
                frame = self._lake.read("predictions", Window(start, start + DAY), pinned.get("predictions"))
                kept[start.date()] = sample_day(self.reference.binning, frame, start.date())
            self._samples[start.date()] = kept[start.date()]
        return self._reference_samples, {day: rows for day, rows in self._samples.items() if len(rows)}

    def _answered(self) -> pl.Expr:
        """Which rows the champion answered: a recorded one's name elsewhere is not known here."""
        ours, elsewhere = pl.col("_version") == self.champion.name, pl.col("_route").eq_missing(EXTERNAL)
        return ours | elsewhere if self.champion.pipeline is None else ours & ~elsewhere

    def _count_labels(self, outcomes: pl.DataFrame, now: datetime) -> None:
        """A label that is read before its prediction waits for it for an hour."""
        read = outcomes.with_columns(_read_at=pl.lit(now)) if outcomes.height else outcomes
        told = [frame for frame in (self._early, read) if frame.height]
        if not told:
            return
        known = pl.concat(told, how="diagonal_relaxed")
        early = known.filter(pl.col("_read_at") >= now - HOUR)
        if self._unlabelled.height:
            first = _first_labels(known)
            self._slices.add_labels(self._unlabelled.join(first, on="_id", how="inner", maintain_order="left"), now)
            early = early.join(self._unlabelled, on="_id", how="anti", maintain_order="left")
            self._unlabelled = self._unlabelled.join(first, on="_id", how="anti", maintain_order="left")
        self._early = early

    def rows_counted(self) -> int:
        """Rows in the profiles that are at hand."""
        return self._slices.rows()

    def labelled_since(self, moment: datetime) -> int:
        """Labelled rows of this watch from the moment on; of its hour, which is not told apart, none count."""
        return self._slices.labelled() if moment <= self.armed_at else self._slices.labelled_since(moment)

    def labels(self, report: Report) -> dict[str, int]:
        """The labels since this champion is watched: those that landed, whosever they are, that were joined to its
        predictions, and of those how many the performance is judged on now."""
        kpi, joined = report.kpis.get(performance_of(self._spec).kpi), self._slices.labelled()
        return {
            "landed": max(self._labels_landed or 0, joined),
            "joined": joined,
            "judged": kpi.n if kpi and kpi.judged else 0,
        }

    def prospects(self) -> list[str]:
        """What can be judged at the pace of the reference's rows, the longest known first: drift, then performance."""
        return prospects(self.reference, self._spec, window_lengths(self._spec, self._step))

    def performance_now(self, report: Report) -> float | None:
        """The last estimate of the champion's performance: its newest window's, else its baseline, if it has one."""
        performance, baseline = performance_of(self._spec), self.reference.baseline
        change = report.kpis[performance.kpi].value or 0.0
        return None if baseline is None else performance.after(baseline.value, change)

    def shapes(self, report: Report) -> list[tuple[FeatureFinding, Shape]]:
        """What drifts and how it is distributed beside the reference, the largest distance first.

        Each column in the window where it differs most; where none drifts, those that differ most, which says so.
        """
        by_size = sorted(report.features, key=lambda f: (not f.drift, -f.distance))
        found = {f.name: f for f in reversed(by_size) if f.n and (f.drift or not report.drifting)}
        chosen = sorted(found.values(), key=lambda f: -f.distance)[: MOST_SHAPES if report.drifting else 3]
        return [(finding, self._shape(finding, report.at)) for finding in chosen]

    def _shape(self, finding: FeatureFinding, at: datetime) -> Shape:
        window = sliding(at, finding.window)
        return shape_of(finding.name, self.reference.matched(window).profile, self._slices.merge(window))


def _days_sampled(reference: Reference, frame: pl.DataFrame) -> dict[date, Floats]:
    """Samples of the reference's newest four weeks, by day."""
    newest = frame.filter(pl.col("_time") >= reference.span.end - 4 * WEEK)
    days = newest.with_columns(_day=pl.col("_time").dt.date()).partition_by("_day", as_dict=True, include_key=False)
    return {day: sample_day(reference.binning, rows, day) for (day,), rows in sorted(days.items())}


def _outside(rows: pl.DataFrame, spans: Sequence[Window]) -> pl.DataFrame:
    for span in spans if rows.height else ():
        rows = rows.filter(~pl.col("_time").is_between(span.start, span.end, closed="left"))
    return rows


def _first_labels(outcomes: pl.DataFrame) -> pl.DataFrame:
    return outcomes.select("_id", "_label").unique("_id", keep="first", maintain_order=True)


def _without_replaced(stored: pl.DataFrame) -> list[dict[str, Any]]:
    """The parts that count: a day takes the place of all parts of it that were stored by then."""
    folded = stored.filter(pl.col("hours") == 24).group_by(_day="_time").agg(pl.col("cursor").max().alias("_folded"))
    beside = stored.with_columns(_day=pl.col("_time").dt.truncate("1d")).join(folded, on="_day", how="left")
    is_day = (pl.col("hours") == 24) & (pl.col("cursor") == pl.col("_folded"))
    counts = beside.filter(pl.col("_folded").is_null() | (pl.col("cursor") > pl.col("_folded")) | is_day)
    return counts.sort("hours", "_time", descending=[True, False]).to_dicts()


def _watched(spec: ModelSpec) -> dict[str, Any]:
    """What the spec says that a frozen reference has bins or an edge for."""
    kpis = spec.kpis
    return {
        "columns": dict(spec.watched),
        "range_z": kpis.range_z.threshold if kpis.range_z else None,
        "latency_p95_ms": kpis.latency_p95_ms.threshold if kpis.latency_p95_ms else None,
        "decision": spec.prediction.threshold,
    }


def new_watch(
    champion: Version, span: Window, armed_at: datetime, *, lake: Lake, spec: ModelSpec, step: timedelta
) -> Watch:
    """The watch from `armed_at` on, against a reference frozen on the span as the lake has it now.

    Of the span's rows the champion's scores and labels count where it has not seen them.
    """
    reference = _freeze(champion, span, armed_at, lake.versions(), lake, spec, step)
    return watch_anew(champion, reference, span, armed_at, lake.versions(), lake=lake, spec=spec, step=step)


def watch_anew(
    champion: Version,
    reference: Reference,
    span: Window,
    armed_at: datetime,
    versions: Mapping[str, int],
    *,
    lake: Lake,
    spec: ModelSpec,
    step: timedelta,
) -> Watch:
    """A watch that counts what lands from now on."""
    landed = {"predictions": lake.cursor("predictions"), "outcomes": lake.cursor("outcomes")}
    before = lake.rows("outcomes")
    watch = Watch(
        champion, reference, span, armed_at, landed, versions, lake=lake, spec=spec, step=step, labels_before=before
    )
    watch.restore(armed_at)
    return watch


def _freeze(
    champion: Version,
    span: Window,
    armed_at: datetime,
    versions: Mapping[str, int],
    lake: Lake,
    spec: ModelSpec,
    step: timedelta,
) -> Reference:
    unseen = lake.labelled(
        Window(champion.unseen_from, span.end), as_of=armed_at, delay=spec.outcome.delay, versions=versions
    )
    scored = unseen.with_columns(champion.scores(unseen, spec))
    return freeze(lake.read("predictions", span, versions["predictions"]), scored, spec, window_lengths(spec, step))


def keep_reference(watch: Watch, registry: Registry, spec: ModelSpec) -> str:
    """Put the reference into the registry; returns the digest that names it."""
    fields = {
        "kind": "reference",
        "model": spec.name,
        "version": watch.champion.name,
        "at": watch.armed_at.isoformat(),
        "binning": watch.reference.binning.digest,
    }
    return registry.put(fields, {REFERENCE_FILE: encode_reference(watch.reference)}).digest


def watch_at(
    moment: datetime, *, lake: Lake, store: ControlStore, registry: Registry, spec: ModelSpec, step: timedelta
) -> Watch:
    """The watch that was kept just before the moment, its reference read from the registry.

    A reference that lacks what the spec asks for by now (a column, an edge, the null of a shorter window) is frozen
    again on its own rows.

    Raises:
        InputError: no model was watched then.
        IntegrityError: the registry's bytes are not those that were kept, or the rows are not in the lake any more.
    """
    references = [record.body for record in store.find("reference", f"{spec.name}/")]
    before = [body for body in references if datetime.fromisoformat(body["at"]) < moment]
    if not before:
        first = min((body["at"] for body in references), default=None)
        since = f"it is watched since {first}" if first else "adopt the model first, or run drift demo"
        raise InputError(f"{spec.name}: no model was watched before {moment:%Y-%m-%d %H:%M}; {since}")
    body = max(before, key=lambda body: datetime.fromisoformat(body["at"]))
    return watch_of(body, lake=lake, registry=registry, spec=spec, step=step)


def watch_of(body: Mapping[str, Any], *, lake: Lake, registry: Registry, spec: ModelSpec, step: timedelta) -> Watch:
    """The watch that `Watch.to_json` wrote; raises as `watch_at` does."""
    span = Window(datetime.fromisoformat(body["from"]), datetime.fromisoformat(body["to"]))
    champion, armed_at = Version.load(body, registry), datetime.fromisoformat(body["at"])
    reference = decode_reference(registry.get(body["bundle"]).files[REFERENCE_FILE])
    if body["watched"] != _watched(spec) or not set(window_lengths(spec, step)) <= reference.nulls.keys():
        reference = _freeze(champion, span, armed_at, body["delta"], lake, spec, step)
    landed = {table: Cursor(**cursor) for table, cursor in body["landed"].items()}
    return Watch(
        champion,
        reference,
        span,
        armed_at,
        landed,
        body["delta"],
        lake=lake,
        spec=spec,
        step=step,
        labels_before=body.get("labels_before"),
    )
