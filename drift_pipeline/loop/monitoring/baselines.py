"""The baseline that a champion is monitored against: its reference, what that was frozen on, and since when."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.clock import Window
from drift_pipeline.detection.judging.monitor import lengths_of, window_lengths
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.detection.reference.encoded import decode_reference, encode_reference
from drift_pipeline.detection.reference.reference import Reference, freeze
from drift_pipeline.errors import InputError
from drift_pipeline.loop.state import Version
from drift_pipeline.registry.backends import Registry
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Cursor, Lake

REFERENCE_FILE = "reference.bin"


@dataclass(frozen=True)
class MonitoringBaseline:
    """`span` is what the reference was frozen on, in the Delta `versions` of `predictions` and `outcomes`.

    The champion is monitored `since` then: rows of an earlier time are not. `landed` are the cursors of both
    tables at that time.
    """

    champion: Version
    reference: Reference
    span: Window
    since: datetime
    versions: Mapping[str, int]
    landed: Mapping[str, Cursor]

    def again(self, champion: Version, now: datetime, lake: Lake) -> "MonitoringBaseline":
        """The same reference, for a champion that is monitored anew from now on."""
        return replace(self, champion=champion, since=now, landed=_cursors(lake))

    def to_json(self, spec: ModelSpec, bundle: str) -> dict[str, Any]:
        """What `read_baseline` makes the same baseline of again, and what documents say of it.

        `bundle` is the digest under which the registry keeps the reference.
        """
        held_out, kpi = self.reference.baseline, performance_of(spec).kpi
        return {
            **self.champion.to_json(),
            "from": self.span.start.isoformat(),
            "to": self.span.end.isoformat(),
            "at": self.since.isoformat(),
            "rows": self.reference.rows,
            kpi: held_out.value if held_out else None,
            f"{kpi}_error": held_out.standard_error if held_out else None,
            "labels": held_out.rows if held_out else 0,
            "binning": self.reference.binning.digest,
            "delta": dict(self.versions),
            "landed": {table: asdict(cursor) for table, cursor in self.landed.items()},
            "bundle": bundle,
            "watched": _frozen_for(spec),
        }


def new_baseline(
    champion: Version, span: Window, now: datetime, *, lake: Lake, spec: ModelSpec, step: timedelta
) -> MonitoringBaseline:
    """From now on, against a reference frozen on the span as the lake has it now.

    Of the span's rows the champion's scores and labels count where it has not seen them. `step` is the time between
    two ticks.
    """
    reference = _freeze(champion, span, now, lake.versions(), lake, spec, step)
    return MonitoringBaseline(champion, reference, span, now, lake.versions(), _cursors(lake))


def keep_reference(baseline: MonitoringBaseline, registry: Registry, spec: ModelSpec) -> str:
    """Put the reference into the registry; returns the digest that names it."""
    fields = {
        "kind": "reference",
        "model": spec.name,
        "version": baseline.champion.name,
        "at": baseline.since.isoformat(),
        "binning": baseline.reference.binning.digest,
    }
    return registry.put(fields, {REFERENCE_FILE: encode_reference(baseline.reference)}).digest


def read_baseline(
    body: Mapping[str, Any], *, lake: Lake, registry: Registry, spec: ModelSpec, step: timedelta
) -> MonitoringBaseline:
    """The baseline that `to_json` wrote, its reference read from the registry.

    A reference that lacks what the spec asks for by now (a column, an edge, the null of a shorter window) is frozen
    again on its own rows.

    Raises:
        IntegrityError: the registry's bytes are not those that were kept, or the rows are not in the lake any more.
    """
    span = Window(datetime.fromisoformat(body["from"]), datetime.fromisoformat(body["to"]))
    champion, since = Version.load(body, registry), datetime.fromisoformat(body["at"])
    reference = decode_reference(registry.get(body["bundle"]).files[REFERENCE_FILE])
    if body["watched"] != _frozen_for(spec) or not set(lengths_of(reference, spec, step)) <= reference.nulls.keys():
        reference = _freeze(champion, span, since, body["delta"], lake, spec, step)
    landed = {table: Cursor(**cursor) for table, cursor in body["landed"].items()}
    return MonitoringBaseline(champion, reference, span, since, body["delta"], landed)


def in_force_before(moment: datetime, bodies: Iterable[Mapping[str, Any]], spec: ModelSpec) -> Mapping[str, Any]:
    """Of what `to_json` wrote, the newest that began before the moment. Raises InputError where none did."""
    known = list(bodies)
    before = [body for body in known if datetime.fromisoformat(body["at"]) < moment]
    if not before:
        first = min((body["at"] for body in known), default=None)
        since = f"it is watched since {first}" if first else "adopt the model first, or run drift demo"
        raise InputError(f"{spec.name}: no model was watched before {moment:%Y-%m-%d %H:%M}; {since}")
    return max(before, key=lambda body: datetime.fromisoformat(body["at"]))


def _freeze(
    champion: Version,
    span: Window,
    now: datetime,
    versions: Mapping[str, int],
    lake: Lake,
    spec: ModelSpec,
    step: timedelta,
) -> Reference:
    window = Window(champion.unseen_from, span.end)
    unseen = lake.labelled(window, as_of=now, delay=spec.outcome.delay, versions=versions)
    scored = unseen.with_columns(champion.scores(unseen, spec))
    return freeze(lake.read("predictions", span, versions["predictions"]), scored, spec, window_lengths(spec, step))


def _frozen_for(spec: ModelSpec) -> dict[str, Any]:
    """What the spec says that a frozen reference has bins or an edge for."""
    kpis = spec.kpis
    return {
        "columns": dict(spec.watched),
        "range_z": kpis.range_z.threshold if kpis.range_z else None,
        "latency_p95_ms": kpis.latency_p95_ms.threshold if kpis.latency_p95_ms else None,
        "decision": spec.prediction.threshold,
        "timezone": spec.timezone,
    }


def _cursors(lake: Lake) -> dict[str, Cursor]:
    return {"predictions": lake.cursor("predictions"), "outcomes": lake.cursor("outcomes")}
