"""The loop's metrics, in the words of Prometheus: read from the control store and the home's folder when it is asked.

No row of the lake is read, and nothing in the home is made or changed. What cannot be read is counted, and the rest is
told.
"""

import logging
import os
import shutil
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from drift_pipeline import __version__
from drift_pipeline.clock import Clock
from drift_pipeline.control.figures import Delivery, Figures
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.observability.facts import Sample, asked, of_channels, of_home, of_model, told_until
from drift_pipeline.observability.series import BUCKETS, DELIVERY, DELIVERY_TOLD, SERIES
from drift_pipeline.settings import STORE, Settings
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.sources.set_aside import oldest

PARTS = ("control_store", "channels", "specs", "model", "spool", "home")
SIZE_EVERY_S, PROMISED_S = 300.0, 60.0
Opened = Callable[[], AbstractContextManager[ControlReader]]

log = logging.getLogger(__name__)


class LoopMetrics(Collector):
    """Of one home; asked from several threads at once it reads once."""

    def __init__(
        self,
        settings: Settings,
        specs: Mapping[str, ModelSpec],
        clock: Clock,
        opened: Opened,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            specs: looked up anew for each read.
            opened: the control store.
        """
        self._settings, self._specs, self._clock, self._opened = settings, specs, clock, opened
        self._monotonic, self._lock = monotonic, Lock()
        self._errors, self._said = Counter(dict.fromkeys(PARTS, 0)), set[str]()
        self._deliveries, self._size = Deliveries(), (float("-inf"), 0)
        self._read_at, self._found = float("-inf"), list[Metric]()
        self._written, self._text = float("-inf"), b""
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that to be registered is not to be read."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """What is so now; what another thread read since this was asked is taken as it is."""
        began = self._monotonic()
        with self._lock:
            if self._read_at < began:
                self._found = _families(list(self._samples()), self._deliveries)
                self._read_at = self._monotonic()
            return self._found

    def text(self, most_age_s: float) -> bytes:
        """As Prometheus reads it, or as it was not longer ago."""
        if self._monotonic() - self._written >= most_age_s:
            self._text, self._written = generate_latest(self._registry), self._monotonic()
        return self._text

    def _samples(self) -> Iterator[Sample]:
        began, now, samples = time.perf_counter(), self._clock.now(), list[Sample]()
        with self._part("specs"):
            specs = dict(self._specs)
        figures = self._figures()
        if figures is not None:
            self._errors["control_store"] += figures.damaged
            with self._part("channels"):
                samples += of_channels(figures)
                self._deliveries.add(figures.deliveries, now, told_until(figures))
            with self._part("control_store"):
                samples += of_home(figures, now)
            for model in figures.state["model"]:
                with self._part("model"):
                    samples += self._of_model(model, specs.get(model), figures, now)
        for part, found in (("spool", self._spool), ("home", self._home)):
            with self._part(part):
                samples += found()
        yield from samples
        yield Sample("drift_up", figures is not None)
        yield Sample("drift_build_info", 1, (__version__,))
        yield Sample("drift_exporter_read_seconds", time.perf_counter() - began)
        for part in PARTS:
            yield Sample("drift_exporter_errors_total", self._errors[part], (part,))

    def _of_model(self, model: str, spec: ModelSpec | None, figures: Figures, now: datetime) -> Iterator[Sample]:
        return of_model(model, spec, figures, now, self._settings.environment, self._settings.metrics_columns)

    def _figures(self) -> Figures | None:
        with self._part("control_store"), self._opened() as store:
            return store.figures(asked(self._deliveries.position))
        return None

    def _spool(self) -> Iterator[Sample]:
        for model, written_at in oldest(self._settings.home / "spool").items():
            yield Sample("drift_spool_oldest_event_timestamp_seconds", written_at, (model,))

    def _home(self) -> Iterator[Sample]:
        home, now = self._settings.home, self._monotonic()
        yield Sample("drift_home_disk_free_bytes", shutil.disk_usage(home).free)
        if not self._settings.database:
            yield Sample("drift_control_store_size_bytes", (home / STORE).stat().st_size)
        if now - self._size[0] >= SIZE_EVERY_S:
            self._size = now, size_of(home)
        yield Sample("drift_home_size_bytes", self._size[1])

    @contextmanager
    def _part(self, part: str) -> Iterator[None]:
        """The edge: what one part meets is counted, told in the log once, and hides no other."""
        try:
            yield
        except Exception as error:
            self._errors[part] += 1
            if (told := f"{part}: {type(error).__name__}: {error}") not in self._said and len(self._said) < 100:
                self._said.add(told)
                log.error("metrics of the %s", told)


class Deliveries:
    """How long alerts took, of those that were seen to be delivered; each counts once, whenever that was."""

    def __init__(self) -> None:
        self.position, self.due, self.late = 0, 0, 0  # of the first message that is not done
        self.buckets, self.seconds = [0] * (len(BUCKETS) + 1), 0.0
        self._due, self._done, self._behind = set[int](), set[int](), set[int]()

    def add(self, deliveries: Sequence[Delivery], now: datetime, told_until: int | None = None) -> None:
        """What the outbox holds from `position` on, in order.

        Args:
            told_until: the record up to which channels that fail now were told; what came later is not delivered.
        """
        for one in deliveries:
            if one.position in self._done:
                continue
            told = one.delivered_at is not None and (told_until is None or one.seq <= told_until)
            at = one.delivered_at if one.delivered_at and one.position not in self._behind and told else now
            if one.delivered_at is not None and not told:
                self._behind.add(one.position)
            took = max((at - one.at).total_seconds(), 0.0)
            if one.position not in self._due and (told or took > PROMISED_S):
                self._due.add(one.position)
                self.due, self.late = self.due + 1, self.late + (took > PROMISED_S)
            if told:
                self._done.add(one.position)
                self.buckets[bisect_left(BUCKETS, took)] += 1
                self.seconds += took
        if deliveries:
            waiting = (one.position for one in deliveries if one.position not in self._done)
            self.position = min(waiting, default=deliveries[-1].position + 1)
            for kept in (self._due, self._done, self._behind):
                kept -= {position for position in kept if position < self.position}

    def family(self) -> Metric:
        """The histogram."""
        counts, total = [], 0
        for bound, count in zip([*map(str, map(float, BUCKETS)), "+Inf"], self.buckets, strict=True):
            total += count
            counts.append((bound, float(total)))
        found = HistogramMetricFamily(DELIVERY, DELIVERY_TOLD)
        found.add_metric([], counts, self.seconds)
        return found


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder; what goes meanwhile is left out."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _families(samples: Sequence[Sample], deliveries: Deliveries) -> list[Metric]:
    """By name; each of the series, whether it has samples or none."""
    made: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for name, series in SERIES.items():
        kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
        made[name] = kind(name.removesuffix("_total"), series.told, labels=series.labels)
    counts = (("drift_alerts_due_total", deliveries.due), ("drift_alerts_late_total", deliveries.late))
    for name, value, labels in (*samples, *(Sample(name, count) for name, count in counts)):
        made[name].add_metric([_clean(label) for label in labels], float(value))
    return [*made.values(), deliveries.family()]


def _clean(label: str) -> str:
    """What can be written as UTF-8, whatever the name of a folder."""
    return label.encode("utf-8", "replace").decode()
