"""Arming: a champion comes under watch against a reference, a new one or the one that was frozen with it before."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from drift_pipeline.clock import Clock, Window
from drift_pipeline.control.store import ControlStore
from drift_pipeline.detection.judging.performance import performance_of
from drift_pipeline.loop.ledger import Ledger
from drift_pipeline.loop.state import Memory, Version
from drift_pipeline.loop.watch import Watch, keep_reference, new_watch, watch_anew, watch_at, watch_of
from drift_pipeline.policy.incident import Incident
from drift_pipeline.registry.backends import Registry
from drift_pipeline.spec import ModelSpec
from drift_pipeline.telemetry.lake import Lake


class Arming:
    """Of one model. What is armed is audited with the incident that ends by it, in one transaction."""

    def __init__(
        self,
        spec: ModelSpec,
        ledger: Ledger,
        lake: Lake,
        store: ControlStore,
        registry: Registry,
        clock: Clock,
        memory: Memory,
        *,
        step: timedelta,
    ) -> None:
        self._spec, self._ledger, self._lake, self._store = spec, ledger, lake, store
        self._registry, self._clock, self._memory, self._step = registry, clock, memory, step

    def new(self, champion: Version, span: Window) -> Watch:
        """Against a reference frozen on the world it knows."""
        now = self._clock.now()
        watch = new_watch(champion, span, now, lake=self._lake, spec=self._spec, step=self._step)
        return self._armed("reference.frozen", watch, keep_reference(watch, self._registry, self._spec))

    def newest(self, digest: str | None = None) -> Mapping[str, Any]:
        """The reference that was armed last, of all or of one champion; empty where there is none."""
        bodies = [body for _, body in self._ledger.all("reference") if digest in (None, body["digest"])]
        return max(bodies, key=lambda body: datetime.fromisoformat(body["at"]), default={})

    def again(self, champion: Version) -> Watch | None:
        """A former champion, against the newest reference that was frozen with it; None where it never had one."""
        body = self.newest(champion.digest)
        if not body:
            return None
        before = watch_of(body, lake=self._lake, registry=self._registry, spec=self._spec, step=self._step)
        watch = watch_anew(
            champion,
            before.reference,
            before.span,
            self._clock.now(),
            before.versions,
            lake=self._lake,
            spec=self._spec,
            step=self._step,
        )
        return self._armed("reference.rearmed", watch, body["bundle"])

    def taken_up(self, leave_out: Sequence[Window]) -> Watch:
        """The watch that the control store says is armed, with what was counted until now.

        Args:
            leave_out: as for `Watch.observe`.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the registry holds other bytes than the store's digests say.
        """
        watch = watch_at(
            datetime.max.replace(tzinfo=UTC),
            lake=self._lake,
            store=self._store,
            registry=self._registry,
            spec=self._spec,
            step=self._step,
        )
        watch.restore(self._clock.now(), leave_out)
        return watch

    def _armed(self, event: str, watch: Watch, bundle: str) -> Watch:
        champion, memory, kpi = watch.champion, self._memory, performance_of(self._spec).kpi
        before, memory.incident = memory.incident, Incident(reference=watch.reference.binning.digest)
        details: dict[str, Any] = {
            "version": champion.name,
            "rows": watch.reference.rows,
            "from": watch.span.start.isoformat(),
            "to": watch.span.end.isoformat(),
            kpi: watch.reference.baseline.value if watch.reference.baseline else None,
            "binning": watch.reference.binning.digest,
            "closes": before.key if before.open else None,
        }
        name = f"reference/{champion.name}"
        if self._ledger.find(name) is not None:
            name += f"@{watch.armed_at:%Y%m%dT%H%M%S}"
        self._ledger.find("incident")  # whatever it was, it was of another reference
        puts: dict[str, Mapping[str, Any]] = {"incident": memory.incident.to_json(), name: watch.to_json(bundle)}
        self._ledger.recall()
        self._ledger.commit(event, details, {"reference": bundle}, puts=puts, memory=memory.to_json(watch.armed_at))
        return watch
