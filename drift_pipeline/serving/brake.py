"""The brake: what breaches its SLO is stopped here and now, and that is told until somebody has heard it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from drift_pipeline.rollout.plan import Phase
from drift_pipeline.serving.guard import Guard, SloCounts
from drift_pipeline.serving.metrics import Metrics
from drift_pipeline.serving.models import Models

log = logging.getLogger(__name__)
Judge = Callable[[SloCounts], str | None]  # a reason = stop this canary
RolledBack = Callable[[str, str, str], None]  # model, rollout, reason; called until it returns: bears repetition
JUDGE_SECONDS = 0.2


class Brake:
    """Of one process's gateway, on whose event loop all but `rolled_back` runs."""

    def __init__(
        self, guard: Guard, models: Models, metrics: Metrics, judge_slo: Judge, rolled_back: RolledBack
    ) -> None:
        self._guard, self._models, self._metrics = guard, models, metrics
        self._judge_slo, self._rolled_back = judge_slo, rolled_back
        self._to_tell: dict[tuple[str, str], str] = {}  # model and rollout: the reason
        self._judged_at = float("-inf")

    async def judge(self) -> None:
        """All of them, for the last bad row may have come too soon after another to be judged by itself."""
        self._judge()

    def judge_now(self, model: str) -> None:
        """At a bad row, unless another one was just now: a slow canary holds up this very loop, and what is due each
        second comes late."""
        now = time.monotonic()
        if now - self._judged_at >= JUDGE_SECONDS:
            self._judged_at = now
            self._judge(model)

    def _judge(self, only: str | None = None) -> None:
        """Stop each canary, and each champion just promoted, that has breached; the next request is another's."""
        for counts in self._guard.counts(only):
            if reason := self._judge_slo(counts):
                served = self._models.served[counts.model]
                about = {"model": counts.model, "rollout": served.route.rollout_id}
                log.warning("%s: %s is stopped: %s", counts.model, counts.version, reason, extra=about)
                self._guard.stop(counts.model)
                back = served.previous if counts.phase == Phase.FULL and served.previous else served.champion
                self._models.served[counts.model] = replace(served, champion=back, weight=0)
                self._metrics.weight.labels(counts.model).set(0)
                self._to_tell[counts.model, served.route.rollout_id] = reason

    async def tell(self) -> None:
        """Report what was stopped. Raises what the last that failed did, once all others are told."""
        failed: Exception | None = None
        for (model, rollout_id), reason in list(self._to_tell.items()):
            try:
                await asyncio.to_thread(self._rolled_back, model, rollout_id, reason)
            except Exception as error:  # the edge between models
                failed = error
            else:
                del self._to_tell[model, rollout_id]
        if failed is not None:
            raise failed
