"""One champion under watch: its frozen reference, and the profiles of what it has answered since it was armed."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl

from drift_pipeline.clock import DAY, HOUR, WEEK, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.binning import Floats
from drift_pipeline.detection.hints import SAMPLED_DAYS, Samples, sample_day
from drift_pipeline.detection.monitor import Monitor, window_lengths
from drift_pipeline.detection.performance import performance_of
from drift_pipeline.detection.reference import Reference, freeze
from drift_pipeline.detection.shape import Shape, shape_of
from drift_pipeline.detection.stored import decode, encode
from drift_pipeline.detection.verdict import FeatureFinding, Report
from drift_pipeline.detection.windows import MINUTES_KEPT, Part, floor, sliding
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.loop.state import Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake

MOST_SHAPES = 8


_STORED: dict[str, pl.DataType | type[pl.DataType]] = {
    "_id": pl.String,
    "_time": pl.Datetime("us", "UTC"),
    "_version": pl.String,
    "binning": pl.String,
    "cursor": pl.Datetime("us", "UTC"),
    "hours": pl.Int64,
    "labelled": pl.List(pl.Int64),
    "profile": pl.Binary,
}


class Watch:
    """Everything is read from the lake: a watch that is made again catches up at its first `observe`."""

    def __init__(
        self,
        champion: Version,
        span: Window,
        armed_at: datetime,
        versions: Mapping[str, int],
        *,
        lake: Lake,
        spec: ModelSpec,
        step: timedelta,
    ) -> None:
        """Freeze the reference on `span`: its rows, and of those that the champion has not seen, scores and labels.

        Args:
            armed_at: since when this champion is watched; labels known by then make its baseline.
            versions: Delta versions of `predictions` and `outcomes` at that time.
            step: time between two ticks.
        """
        self.champion, self.span, self.armed_at, self.versions = champion, span, armed_at, versions
        self._lake, self._spec, self._step = lake, spec, step
        unseen = lake.labelled(
            Window(champion.unseen_from, span.end), as_of=armed_at, delay=spec.outcome.delay, versions=versions
        )
        scored = unseen.with_columns(champion.scores(unseen, spec))
        frame = lake.read("predictions", span, versions["predictions"])
        self.reference: Reference = freeze(frame, scored, spec, window_lengths(spec, step))
        self._monitor = Monitor(self.reference, spec, armed_at, step)
        self._slices = self._monitor.slices
        self._observed_to = armed_at
        self._samples: dict[date, Floats] = {}
        self._reference_samples = _days_sampled(self.reference, frame) if spec.kpis.multivariate else {}
        self._unlabelled = pl.DataFrame()

    def to_json(self) -> dict[str, Any]:
        """What `watch_at` makes the same watch of again, and what a document says of its baseline."""
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
            "delta": dict(self.versions),
            "edges": _edges(self._spec),
        }

    def observe(self, now: datetime, versions: Mapping[str, int] | None = None) -> Report:
        """Profile what landed since the last call and judge every KPI.

        Args:
            versions: Delta versions of `predictions` and `outcomes` to read; None = as they are now.
        """
        for end in sorted({max(floor(now, HOUR), self._observed_to), now}):
            self._count(Window(self._observed_to, end), versions or {})
            if versions is None and end == floor(end, HOUR):
                self._store(end)
        return self._monitor.evaluate(now, self._sampled(now, versions or {}))

    def _count(self, window: Window, pinned: Mapping[str, int]) -> None:
        landed, now = self._lake.read("predictions", window, pinned.get("predictions")), window.end
        if not landed.is_empty():
            served = landed.filter(pl.col("_version") == self.champion.name)
            self._slices.add(served, now)
            self._unlabelled = pl.concat([self._unlabelled, served.select("_id", "_time", "_score")])
        self._count_labels(self._lake.read("outcomes", window, pinned.get("outcomes")), now)
        self._observed_to = now
        self._slices.consolidate(now)
        longest = window_lengths(self._spec, self._step)[-1]
        self._slices.forget(now - longest - 7 * DAY - self._spec.outcome.delay)

    def _store(self, cursor: datetime) -> None:
        """Keep the profiles of all that was read up to the cursor, a whole hour; once, however often it is told."""
        digest = self.reference.binning.digest
        rows = [
            {
                "_id": f"{self.champion.name} {part.start.isoformat()} {cursor.isoformat()} {part.length / HOUR:g}h",
                "_time": part.start,
                "_version": self.champion.name,
                "binning": digest,
                "cursor": cursor,
                "hours": round(part.length / HOUR),
                "labelled": list(part.labelled),
                "profile": encode(part.profile),
            }
            for part in self._slices.new_parts()
        ]
        if rows:
            self._lake.append("profiles", pl.DataFrame(rows, schema=_STORED), batch=int(cursor.timestamp() // 3600))

    def restore(self, now: datetime) -> None:
        """Take up the stored profiles of this champion and reference; what is newer is read at the next `observe`."""
        stored = self._lake.read("profiles", Window(floor(self.armed_at, DAY), max(now, self.armed_at)))
        if stored.is_empty():
            return
        ours = (pl.col("_version") == self.champion.name) & (pl.col("binning") == self.reference.binning.digest)
        stored = stored.filter(ours & (pl.col("cursor") > self.armed_at))
        if stored.is_empty():
            return
        self._slices.restore(map(self._part, _without_replaced(stored)))
        self._observed_to = cursor = max(stored["cursor"].to_list())
        self._take_up(Window(max(self.armed_at, cursor - 2 * self._spec.outcome.delay - 7 * DAY), cursor))

    def _take_up(self, window: Window) -> None:
        """Of rows that are in the restored hours: which still wait for a label, and the newest ones by the minute."""
        rows = self._lake.read("predictions", window)
        rows = rows if rows.is_empty() else rows.filter(pl.col("_version") == self.champion.name)
        if rows.is_empty():
            return
        known = self._lake.read("outcomes", window)
        labels = _first_labels(known) if known.height else pl.DataFrame(schema={"_id": pl.String, "_label": pl.Int8})
        minutes = rows.filter(pl.col("_time") >= window.end - MINUTES_KEPT)
        self._slices.add_minutes(minutes, minutes.join(labels, on="_id", how="inner", maintain_order="left"))
        waiting = rows.select("_id", "_time", "_score")
        self._unlabelled = waiting.join(labels, on="_id", how="anti", maintain_order="left")

    def _part(self, row: Mapping[str, Any]) -> Part:
        profile = decode(self.reference.binning, row["profile"])
        return Part(row["_time"], row["hours"] * HOUR, profile, tuple(row["labelled"]))

    def _sampled(self, now: datetime, pinned: Mapping[str, int]) -> tuple[Samples, Samples]:
        """Samples of the last whole days, of which only those are read that no earlier tick has read."""
        if self._spec.kpis.multivariate is None:
            return {}, {}
        end = floor(now, DAY)
        days = [end - (back + 1) * DAY for back in reversed(range(SAMPLED_DAYS))]
        kept, self._samples = self._samples, {}
        for start in (day for day in days if day >= self.armed_at):
            if start.date() not in kept:
                frame = self._lake.read("predictions", Window(start, start + DAY), pinned.get("predictions"))
                kept[start.date()] = sample_day(self.reference.binning, frame, start.date())
            self._samples[start.date()] = kept[start.date()]
        return self._reference_samples, {day: rows for day, rows in self._samples.items() if len(rows)}

    def _count_labels(self, outcomes: pl.DataFrame, now: datetime) -> None:
        if outcomes.is_empty() or self._unlabelled.is_empty():
            return
        known = _first_labels(outcomes)
        self._slices.add_labels(self._unlabelled.join(known, on="_id", how="inner", maintain_order="left"), now)
        waiting = self._unlabelled.join(known, on="_id", how="anti", maintain_order="left")
        self._unlabelled = waiting.filter(pl.col("_time") >= now - 2 * self._spec.outcome.delay - 7 * DAY)

    def labelled_since(self, moment: datetime) -> int:
        """Labelled rows of this watch from the moment on."""
        return self._slices.labelled_since(max(moment, self.armed_at))

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


def _first_labels(outcomes: pl.DataFrame) -> pl.DataFrame:
    return outcomes.select("_id", "_label").unique("_id", keep="first", maintain_order=True)


def _without_replaced(stored: pl.DataFrame) -> list[dict[str, Any]]:
    """The parts that count: a day takes the place of all parts of it that were stored by then."""
    folded = stored.filter(pl.col("hours") == 24).group_by(_day="_time").agg(pl.col("cursor").max().alias("_folded"))
    beside = stored.with_columns(_day=pl.col("_time").dt.truncate("1d")).join(folded, on="_day", how="left")
    is_day = (pl.col("hours") == 24) & (pl.col("cursor") == pl.col("_folded"))
    counts = beside.filter(pl.col("_folded").is_null() | (pl.col("cursor") > pl.col("_folded")) | is_day)
    return counts.sort("hours", "_time", descending=[True, False]).to_dicts()


def _edges(spec: ModelSpec) -> dict[str, float | None]:
    """What the spec says and the frozen bins have an edge at."""
    kpis = spec.kpis
    return {
        "range_z": kpis.range_z.threshold if kpis.range_z else None,
        "latency_p95_ms": kpis.latency_p95_ms.threshold if kpis.latency_p95_ms else None,
        "decision": spec.prediction.threshold,
    }


def watch_at(
    moment: datetime, *, lake: Lake, store: ControlStore, registry: Registry, spec: ModelSpec, step: timedelta
) -> Watch:
    """The watch that was kept just before the moment, made again from the lake.

    Raises:
        InputError: no model was watched then.
        IntegrityError: the lake's or the registry's bytes are not those that the reference was frozen on.
    """
    references = [record.body for record in store.find("reference", f"{spec.name}/")]
    before = [body for body in references if datetime.fromisoformat(body["at"]) < moment]
    if not before:
        first = min((body["at"] for body in references), default=None)
        since = f"it is watched since {first}" if first else "adopt the model first, or run drift demo"
        raise InputError(f"{spec.name}: no model was watched before {moment:%Y-%m-%d %H:%M}; {since}")
    body = max(before, key=lambda body: datetime.fromisoformat(body["at"]))
    span = Window(datetime.fromisoformat(body["from"]), datetime.fromisoformat(body["to"]))
    champion, armed_at = Version.load(body, registry), datetime.fromisoformat(body["at"])
    watch = Watch(champion, span, armed_at, body["delta"], lake=lake, spec=spec, step=step)
    changed = body["edges"] != _edges(spec)  # then other bins are what the new threshold asks for
    if watch.reference.binning.digest != body["binning"] and not changed:
        raise IntegrityError(
            f"{spec.name}: the reference of {champion.name} comes out as {watch.reference.binning.digest}, not as "
            f"{body['binning']}: its rows in the lake, or what the spec watches, are not what they were"
        )
    return watch
