"""What a window has lost of its cycle: hours without a row, as in an outage or a maintenance window."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from drift_pipeline.clock import DAY, Window
from drift_pipeline.detection.counting.windows import nominal
from drift_pipeline.detection.reference.reference import HOURS_A_WEEK, Reference

LEAST_HELD = 0.8  # of the rows of a cycle: a week without one of its days is judged, without two it is not
_SURELY = 8  # rows that are expected and did not come: by chance once in 3,000 times


@dataclass(frozen=True)
class Cycle:
    """`held`: the share of its cycle that a window holds; `lost`: the hours of the cycle that it surely lost.

    The share is of rows as the reference has them, over what chance leaves of it in a window of so few rows.
    """

    held: float = 1.0
    lost: frozenset[int] = frozenset()

    @property
    def whole(self) -> bool:
        return self.held >= LEAST_HELD


def cycle_of(reference: Reference, window: Window, begun: Iterable[datetime], rows: int) -> Cycle:
    """Of a window in which hours (or days) with rows have `begun`; of more than a day, by the day of the week.

    Windows under a day are taken as they are, and so are those of days where only hours of the day are known.
    """
    long, hours = nominal(window) > DAY, len(reference.by_hour)
    if not rows or nominal(window) < DAY or hours < 24 or (long and hours < HOURS_A_WEEK):
        return Cycle()
    an_hour = 24 if long else 1
    expected: Counter[int] = Counter()
    for hour in reference.touched(window):
        expected[hour // an_hour] += reference.by_hour[hour].rows
    total, came = expected.total(), {reference.hour(start) // an_hour for start in begun}
    if not total:
        return Cycle()
    shares = {part: count / total for part, count in expected.items()}
    by_chance = sum(share * -math.expm1(-rows * share) for share in shares.values())
    held = sum(share for part, share in shares.items() if part in came)
    lost = {part for part, share in shares.items() if part not in came and rows * share >= _SURELY}
    gone = frozenset(hour for part in lost for hour in range(part * an_hour, (part + 1) * an_hour))
    return Cycle(held / by_chance, gone)
