"""The guard of a canary: what it answered beside the champion, counted here, where a bad one is seen within a second.

The rollout's own verdict reads the lake, a tick later; this is the short way to the brake and never promotes anything.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from drift_pipeline.loop.routes import Route
from drift_pipeline.rollout.plan import Phase

RECENT_ROWS = (32, 256)  # of a canary, however many good ones there were before
RECENT_SECONDS = 60  # of a champion just promoted: nobody answers beside it, and a hiccup is not its fault
Counts = tuple[int, int, int]  # rows, errors, slow


@dataclass(frozen=True)
class SloCounts:
    """Rows since this process first saw the phase; `errors` are those without a usable score, `slow` those slower than
    the spec's latency threshold. `stable_*` is the champion in the same time. `recent`: the same of the last rows, or
    the last minute, for what broke late in a long phase; these have no `recent` of their own.
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
    recent: "tuple[SloCounts, ...]" = ()


@dataclass
class _Tally:
    """What was counted in all, of the version that is watched and beside it; and how it stood before each of the last
    requests to the watched one: (second, watched, beside)."""

    version: str
    is_canary: bool
    watched: Counts = (0, 0, 0)
    beside: Counts = (0, 0, 0)
    before: deque[tuple[float, Counts, Counts]] = field(default_factory=deque)

    def add(self, version: str, counts: Counts, second: float) -> None:
        if version != self.version:
            self.beside = _sum(self.beside, counts)
            return
        if self.is_canary or not self.before or int(second) > int(self.before[-1][0]):
            self.before.append((second, self.watched, self.beside))
        self.watched = _sum(self.watched, counts)
        while len(self.before) > 1 and self._is_over(self.before[1], second, max(RECENT_ROWS)):
            self.before.popleft()

    def recent(self, second: float) -> Iterator[tuple[Counts, Counts]]:
        """Watched and beside, of each span of recent rows that was filled; of the last minute, where rows are few."""
        for rows in RECENT_ROWS if self.is_canary else (1,):
            over = (then for then in reversed(self.before) if self._is_over(then, second, rows))
            if (then := next(over, None)) is not None:
                yield _less(self.watched, then[1]), _less(self.beside, then[2])

    def _is_over(self, then: tuple[float, Counts, Counts], second: float, rows: int) -> bool:
        """Whether the span from then to now is long enough."""
        lasted = self.is_canary or then[0] <= second - RECENT_SECONDS
        return lasted and self.watched[0] - then[1][0] >= rows


def _sum(left: Counts, right: Counts) -> Counts:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def _less(left: Counts, right: Counts) -> Counts:
    return left[0] - right[0], left[1] - right[1], left[2] - right[2]


class Guard:
    """Counts and stops canaries. A stopped rollout stays stopped here for as long as the process lives."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._phase: dict[str, tuple[str, str, str]] = {}  # model: rollout id, version, phase
        self._tallies: dict[str, _Tally] = {}
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
            self._phase[route.model] = phase
            self._tallies[route.model] = _Tally(phase[1], is_canary=route.phase is not Phase.FULL)

    def count(self, model: str, version: str, rows: int, errors: int, slow: int) -> None:
        """Of a version that answered; while none is watched nothing is counted."""
        if model in self._phase:
            self._tallies[model].add(version, (rows, errors, slow), self._monotonic())

    def counts(self, only: str | None = None) -> list[SloCounts]:
        """Of each canary that is under way, and each champion that bakes, which was not stopped.

        Args:
            only: of this model alone.
        """
        second, found = self._monotonic(), []
        for model, (rollout_id, version, phase) in self._phase.items():
            if self._stopped.get(model) == rollout_id or second > self._until[model] or only not in (None, model):
                continue
            tally = self._tallies[model]
            recent = [SloCounts(model, version, phase, *watched, *beside) for watched, beside in tally.recent(second)]
            in_all = SloCounts(model, version, phase, *tally.watched, *tally.beside)
            found.append(replace(in_all, recent=tuple(recent)))
        return found

    def stop(self, model: str) -> None:
        """Send nothing more to the canary that is under way."""
        if model in self._phase:
            self._stopped[model] = self._phase[model][0]

    def stopped(self, route: Route) -> bool:
        return self._stopped.get(route.model) == route.rollout_id
