"""Positions: how far each log was read, kept in the lake of the dead letters as commits that may hold no row.

A log is read on from here, whatever its broker thinks, so that a home that is restored from a copy reads again what
it does not hold.
"""

from collections.abc import Callable, Sequence

from drift_pipeline.telemetry.event import DeadLetter
from drift_pipeline.telemetry.lake import Lake
from drift_pipeline.telemetry.landing import dead_letters_frame


class Positions:
    """Of all sources of a home, by their names."""

    def __init__(self, lake_of: Callable[[str, str], Lake]) -> None:
        """
        Args:
            lake_of: as for `Capture`.
        """
        self._lake_of = lake_of

    def of(self, source: str) -> int:
        """The last place that was read, -1 before the first.

        Raises:
            IntegrityError, UnavailableError: the lake cannot be read.
        """
        return self._lake(source).last_batch("dead_letters")

    def advance(self, source: str, place: int, after: int, letters: Sequence[DeadLetter] = ()) -> None:
        """All up to this place is landed, or in the letters.

        Raises:
            OvertakenError: the source does not stand at `after`: another process reads it, and nothing is written.
            UnavailableError: the disk does not take it.
        """
        frame = dead_letters_frame(letters, [(place, n) for n in range(len(letters))])
        self._lake(source).append_next("dead_letters", frame, place, after)

    def _lake(self, source: str) -> Lake:
        return self._lake_of("", f"{source}.read")
