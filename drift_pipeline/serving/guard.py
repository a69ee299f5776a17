"""The guard of a canary: what it answered beside the champion, counted here, where a bad one is seen within a second.

The rollout's own verdict reads the lake, a tick later; this is the short way to the brake and never promotes anything.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from drift_pipeline.loop.routes import Route
from drift_pipeline.rollout.plan import Phase

RECENT_SECONDS = 60


@dataclass(frozen=True)
class SloCounts:
    """Rows since this process first saw the phase; `errors` are those without a usable score, `slow` those slower than
    the spec's latency threshold. `stable_*` is the champion in the same time. `recent`: the same of the last minute,
    for what broke late in a long phase; it has no `recent` of its own.
    """

    model: str
    version: str
    phase: str
    rows: int
    errors: int
    slow: int
    stable_rows: int
    stable_errors: int
    stable_slow: int
    recent: "SloCounts | None" = None


@dataclass
class _Tally:
    """[rows, errors, slow] in all, and by the second."""

    total: list[int] = field(default_factory=lambda: [0, 0, 0])
    seconds: deque[tuple[int, list[int]]] = field(default_factory=deque)

    def add(self, second: int, counts: tuple[int, int, int]) -> None:
        if not self.seconds or self.seconds[-1][0] != second:
            self.seconds.append((second, [0, 0, 0]))
            while self.seconds[0][0] <= second - RECENT_SECONDS:
                self.seconds.popleft()
        for tally in (self.total, self.seconds[-1][1]):
            for place, count in enumerate(counts):
                tally[place] += count

    def recent(self, second: int) -> list[int]:
        held = [counts for at, counts in self.seconds if at > second - RECENT_SECONDS]
        return [sum(column) for column in zip(*held, strict=True)] or [0, 0, 0]


def _counts(of: tuple[str, str, str], canary: list[int], stable: list[int]) -> SloCounts:
    (model, version, phase), (rows, errors, slow), (stable_rows, stable_errors, stable_slow) = of, canary, stable
    return SloCounts(model, version, phase, rows, errors, slow, stable_rows, stable_errors, stable_slow)


class Guard:
    """Counts and stops canaries. A stopped rollout stays stopped here for as long as the process lives."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._phase: dict[str, tuple[str, str, str]] = {}  # model: rollout id, version, phase
        self._tallies: dict[str, dict[str, _Tally]] = {}
        self._stopped: dict[str, str] = {}  # model: rollout id
        self._until: dict[str, float] = {}

    def watch(self, route: Route, bakes_for: float = 0.0) -> None:
        """Count from now on for this route's phase; the same phase again changes nothing.

        Args:
            bakes_for: seconds for which a champion just promoted is watched; 0 = not at all.
        """
        if route.candidate is not None and route.weight:
            watched, self._until[route.model] = route.candidate, float("inf")
        elif bakes_for > 0:
            watched, self._until[route.model] = route.champion, self._monotonic() + bakes_for
        else:
            self._phase.pop(route.model, None)
            return
        phase = (route.rollout_id, str(watched["version"]), str(route.phase))
        if self._phase.get(route.model) != phase:
            self._phase[route.model], self._tallies[route.model] = phase, defaultdict(_Tally)

    def count(self, model: str, route: str, rows: int, errors: int, slow: int) -> None:
        """`route` is stable or canary; without a canary nothing is counted."""
        if model in self._phase:
            self._tallies[model][route].add(int(self._monotonic()), (rows, errors, slow))

    def counts(self) -> list[SloCounts]:
        """Of each canary that is under way, and each champion that bakes, which was not stopped."""
        second = int(self._monotonic())
        found = []
        for model, (rollout_id, version, phase) in self._phase.items():
            if self._stopped.get(model) == rollout_id or self._monotonic() > self._until[model]:
                continue
            canary, stable = (self._tallies[model][route] for route in ("canary", "stable"))
            if phase == Phase.FULL:  # nobody answers beside it
                canary, stable = stable, _Tally()
            recent = _counts((model, version, phase), canary.recent(second), stable.recent(second))
            found.append(replace(_counts((model, version, phase), canary.total, stable.total), recent=recent))
        return found

    def stop(self, model: str) -> None:
        """Send nothing more to the canary that is under way."""
        if model in self._phase:
            self._stopped[model] = self._phase[model][0]

    def stopped(self, route: Route) -> bool:
        return self._stopped.get(route.model) == route.rollout_id
