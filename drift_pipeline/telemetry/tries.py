"""Tries: what is wrong with one model does not stop the others, nor hold them up for more than a small part of the
time."""

import math
from collections.abc import Callable

from drift_pipeline.errors import DriftError, IntegrityError
from drift_pipeline.logs import told
from drift_pipeline.telemetry.landing import RenumberedError
from drift_pipeline.telemetry.sources.spool import Segment

SLOW_S, RESTS = 0.5, 20  # a try that fails after longer is done again after so many times as long


class Tries:
    """Of all models of one process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic, self._resting = monotonic, dict[str, tuple[float, Exception | None]]()

    def rests(self, model: str) -> Exception | None:
        """Why it is not tried now."""
        until, error = self._resting.get(model, (-math.inf, None))
        return error if self._monotonic() < until else None

    def land(self, model: str, segment: Segment, land: Callable[[], None]) -> Exception | None:
        """Why it did not land, whatever `land` raised."""
        began = self._monotonic()
        error = _failed(segment, land)
        now = self._monotonic()
        if error is not None and now - began > SLOW_S:
            self._resting[model] = now + RESTS * (now - began), error
        return error


def _failed(segment: Segment, land: Callable[[], None]) -> Exception | None:
    try:
        land()
    except RenumberedError as error:
        return error if segment.path.exists() else None  # another capture took it, and went on
    except DriftError as error:
        return error
    except Exception as error:  # the edge between models
        return IntegrityError(f"{segment.path}: cannot land: {told(error)}; it is tried again")
    return None
