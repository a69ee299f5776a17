"""Deciding: the facts of a tick go to the policy, and what it wants retrained goes into the queue."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.clock import HOUR
from drift_pipeline.detection.judging.verdict import Report, Verdict
from drift_pipeline.loop.candidates import Candidates
from drift_pipeline.loop.context import Context
from drift_pipeline.loop.monitoring.champion_monitor import ChampionMonitor
from drift_pipeline.loop.pauses import Pauses
from drift_pipeline.loop.queue import Queue
from drift_pipeline.loop.recovery import Recoveries
from drift_pipeline.loop.releasing.rollouts import Rollouts
from drift_pipeline.loop.retraining.trainings import Trainings
from drift_pipeline.loop.state import MONTH, Memory
from drift_pipeline.policy.decide import Action, Decision, Facts, RetrainFacts, Trigger, decide
from drift_pipeline.policy.engines import PolicyEngine

TRAINS = (Action.RETRAIN, Action.HOTFIX_RETRAIN)
NO_CANARY = (
    "another system answers: what is retrained is scored in the shadow, but its canary is sent nothing and ends at the "
    "rollout's deadline, unless requests go through the gateway by then"
)


class Deciding:
    """Of one model."""

    def __init__(self, context: Context, policy: PolicyEngine, memory: Memory, recoveries: Recoveries) -> None:
        self._at, self._policy, self._memory, self._recoveries = context, policy, memory, recoveries
        self._pauses, self._queue = Pauses(context), Queue(context)
        self._trainings, self._rollouts = Trainings(context), Rollouts(context)
        self._candidates = Candidates(context, self._rollouts)

    def decide(
        self,
        trigger: Trigger,
        report: Report,
        monitor: ChampionMonitor,
        *,
        actor: str = "policy",
        reason: str = "",
        steps: Sequence[str] = (),
        also: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[str, Decision] | None:
        """Ask the policy; arguments and answer as of `Loop.decide`.

        Args:
            also: state to put with the decision, unless nobody could decide: then it is asked again.
        """
        incident = self._memory.incident
        if trigger is Trigger.DRIFT and not incident.open and self._recoveries.pending(monitor, report) is None:
            return None
        facts = self.facts(trigger, report, monitor)
        decision = decide(facts, self._policy)
        drifted = facts.incident.key if facts.incident else ""
        subject = drifted if trigger is Trigger.DRIFT else f"{trigger}-{report.at:%Y%m%dT%H%M}"
        said = (str(trigger), subject, str(decision.action))
        if decision.unavailable:
            said = ("", drifted, "unavailable")  # whoever asks, it is told once
        asked_for = decision.unavailable and trigger in (Trigger.OPERATOR, Trigger.HOTFIX)
        if decision.action not in TRAINS and said == self._memory.decided and not asked_for:
            return None
        decision_id, puts = self._numbered()
        if decision.action in TRAINS:
            puts |= self._queue.entry(decision_id, decision, trigger, drifted or subject, report.at, steps)
        self._memory.decided = said
        self._at.ledger.commit(
            "decision.made",
            {
                **_told(decision_id, decision, facts, reason),
                **({"steps": list(steps)} if steps else {}),
                **({"note": NO_CANARY} if decision.action in TRAINS and monitor.champion.recorded else {}),
            },
            puts={**puts, **({} if decision.unavailable else also or {})},
            actor=actor,
            policy_digest=decision.policy_digest,
            memory=self._memory.to_json(report.at),
        )
        return decision_id, decision

    def decide_schedule(self, report: Report, monitor: ChampionMonitor) -> tuple[str, Decision] | None:
        """Ask for the retrain that the spec's calendar says is due; once for each time it is due, whoever asks."""
        due = self.due()
        if due is None:
            return None
        return self.decide(Trigger.SCHEDULE, report, monitor, also={"scheduled": {"due": due.isoformat()}})

    def due(self) -> datetime | None:
        """When a retrain came due by the calendar that nobody asked for yet; read from the control store alone."""
        spec, ledger = self._at.spec, self._at.ledger
        due, found = spec.zone.last_due(spec.retrain.cron, self._at.clock.now()), ledger.find("scheduled")
        asked = [found["due"]] if found else [body["at"] for _, body in ledger.all("reference")]
        return due if due > max(map(datetime.fromisoformat, asked)) else None

    def facts(self, trigger: Trigger, report: Report, monitor: ChampionMonitor) -> Facts:
        """What the policy is told."""
        performance, spec = self._at.performance, self._at.spec
        kpis = {name: str(kpi.verdict) for name, kpi in report.kpis.items()}
        change = report.kpis[performance.kpi].value
        fall = None if change is None else performance.fall(change)
        pending = self._recoveries.pending(monitor, report)
        if pending is not None and not self._memory.incident.open:
            kpis[performance.kpi], fall = str(Verdict.BREACH), self._recoveries.short_of(pending, monitor, report)
        return Facts(
            model=spec.name,
            now=report.at,
            trigger=trigger,
            incident=self._recoveries.facts(pending, monitor, report),
            kpis=kpis,
            drifting_features=report.drifting,
            performance=performance.kpi,
            fall=fall,
            fall_allowed=performance.allowed(spec),
            retrain=self._retrain_facts(trigger, report.at, monitor.champion.digest),
            rollout_active=self._rollouts.active is not None,
            paused=self._pauses.paused(),
        )

    def _retrain_facts(self, trigger: Trigger, now: datetime, champion: str) -> RetrainFacts:
        done, retrain = self._trainings.done, self._at.spec.retrain
        left = done.attempted + retrain.cooldown - now if done.attempted else timedelta()
        return RetrainFacts(
            running=done.attempted == now or self._queue.under_way(trigger),
            cooldown_left_hours=max(left / HOUR, 0.0),
            this_month=sum(at > now - MONTH for at in done.at),
            max_per_month=retrain.max_per_month,
            rejected_in_a_row=done.rejected_in_a_row,
            gpu_hours_this_month=sum(hours for at, hours in done.gpu_hours if at > now - MONTH),
            max_gpu_hours=retrain.max_gpu_hours,
            candidate=self._candidates.waiting(champion),
        )

    def _numbered(self) -> tuple[str, dict[str, Mapping[str, Any]]]:
        """The next decision's id, and the state that counts it."""
        made = self._at.ledger.find("decisions")
        count = (made["count"] if made else 0) + 1
        return f"{self._at.spec.name}-{count}", {"decisions": {"count": count}}


def _told(decision_id: str, decision: Decision, facts: Facts, reason: str) -> dict[str, Any]:
    """What the audit says."""
    return {
        "decision": decision_id,
        "action": str(decision.action),
        "trigger": str(facts.trigger),
        "incident": facts.incident.key if facts.incident else None,
        "reasons": list(decision.reasons),
        **({"capacity": str(decision.capacity)} if decision.capacity else {}),
        **({"by": dict(decision.by)} if decision.by else {}),
        "facts": facts.to_json(),
        **({"reason": reason} if reason else {}),
    }
