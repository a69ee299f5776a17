"""Re-baselining: another champion is monitored, against a new reference or the one that was frozen with it before."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from drift_pipeline.clock import Window
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.monitoring.baselines import (
    MonitoringBaseline,
    in_force_before,
    keep_reference,
    new_baseline,
    read_baseline,
)
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.state import Memory, Version
from drift_pipeline.policy.incident import Incident


class Rebaselining:
    """Of one model. A new baseline is audited with the incident that ends by it, in one transaction."""

    def __init__(self, context: Context, memory: Memory) -> None:
        self._at, self._memory = context, memory

    def freeze(self, champion: Version, span: Window) -> ChampionMonitor:
        """Monitor the champion from now on, against a reference frozen on the world it knows."""
        return self.prepared(champion, span)()

    def prepared(self, champion: Version, span: Window) -> Callable[[], ChampionMonitor]:
        """All that takes time of `freeze`; what is returned does the rest."""
        at = self._at
        baseline = new_baseline(champion, span, at.clock.now(), lake=at.lake, spec=at.spec, step=at.step)
        monitor, bundle = self._begun(baseline), keep_reference(baseline, at.registry, at.spec)

        def record() -> ChampionMonitor:
            self._record("reference.frozen", monitor, bundle)
            return monitor

        return record

    def restore(self, champion: Version) -> ChampionMonitor | None:
        """Monitor a former champion against the newest reference that was frozen with it; None where it never had
        one."""
        body = self.newest(champion.digest)
        if not body:
            return None
        monitor = self._begun(self._read(body).again(champion, self._at.clock.now(), self._at.lake))
        self._record("reference.restored", monitor, body["bundle"])
        return monitor

    def follow(self, model: Mapping[str, Any], before: Version) -> ChampionMonitor:
        """Monitor the version that answers by now instead of the one before: a former champion as it was, else a new
        one on the rows that it was trained on and came since.

        Args:
            model: the version's document.
        """
        at, champion = self._at, Version.load(model, self._at.registry)
        if (monitor := self.restore(champion)) is not None:
            return monitor
        promoted = at.ledger.find("promoted")
        if promoted is None or promoted["digest"] != champion.digest:  # else it was told, and the process died
            details = {"version": champion.name, "from": before.name}
            puts = {"promoted": {"digest": champion.digest}}
            at.ledger.commit("model.promoted", details, {"bundle": champion.digest}, puts=puts)
        return self.freeze(champion, Window(champion.trained_from, at.clock.now()))

    def newest(self, digest: str | None = None) -> Mapping[str, Any]:
        """The newest baseline's document, of all or of one champion; empty where there is none."""
        bodies = [body for _, body in self._at.ledger.all("reference") if digest in (None, body["digest"])]
        return max(bodies, key=lambda body: datetime.fromisoformat(body["at"]), default={})

    def in_force(self, leave_out: Sequence[Window]) -> ChampionMonitor:
        """The monitor that the control store tells of, with what was counted until now.

        Args:
            leave_out: as for `ChampionMonitor.observe`.

        Raises:
            InputError: this model was never adopted.
            IntegrityError: the registry holds other bytes than the store's digests say.
        """
        bodies = [body for _, body in self._at.ledger.all("reference")]
        monitor = self._monitor(self._read(in_force_before(datetime.max.replace(tzinfo=UTC), bodies, self._at.spec)))
        monitor.restore(self._at.clock.now(), leave_out)
        return monitor

    def _read(self, body: Mapping[str, Any]) -> MonitoringBaseline:
        at = self._at
        return read_baseline(body, lake=at.lake, registry=at.registry, spec=at.spec, step=at.step)

    def _monitor(self, baseline: MonitoringBaseline) -> ChampionMonitor:
        return ChampionMonitor(baseline, lake=self._at.lake, spec=self._at.spec, step=self._at.step)

    def _begun(self, baseline: MonitoringBaseline) -> ChampionMonitor:
        monitor = self._monitor(baseline)
        monitor.restore(baseline.since)
        return monitor

    def _record(self, event: str, monitor: ChampionMonitor, bundle: str) -> None:
        ledger, memory, baseline = self._at.ledger, self._memory, monitor.baseline
        reference, champion = baseline.reference, baseline.champion
        before, memory.incident = memory.incident, Incident(reference=reference.binning.digest)
        details: dict[str, Any] = {
            "version": champion.name,
            "rows": reference.rows,
            "from": baseline.span.start.isoformat(),
            "to": baseline.span.end.isoformat(),
            self._at.performance.kpi: reference.baseline.value if reference.baseline else None,
            "binning": reference.binning.digest,
            "closes": before.key if before.open else None,
        }
        name = f"reference/{champion.name}"
        if ledger.find(name) is not None:
            name += f"@{baseline.since:%Y%m%dT%H%M%S}"
        ledger.find("incident")  # whatever it was, it was of another reference
        document = baseline.to_json(self._at.spec, bundle)
        puts: dict[str, Mapping[str, Any]] = {"incident": memory.incident.to_json(), name: document}
        ledger.recall()
        memo = memory.to_json(baseline.since)
        ledger.commit(event, details, {"reference": bundle}, puts=puts, memory=memo)
