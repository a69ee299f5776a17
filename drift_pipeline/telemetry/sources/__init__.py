"""Where events come from: one module a way in. The spool is always read; what else is, a URL names.

A way in is a module of this folder with a function that is named in `opened`.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Stop
from typing import TYPE_CHECKING, Protocol

from drift_pipeline.errors import InputError
from drift_pipeline.telemetry.sources.spool import Segment

if TYPE_CHECKING:
    from drift_pipeline.clock import Clock
    from drift_pipeline.settings import Settings
    from drift_pipeline.telemetry.sources.positions import Positions

SCHEMES = {"kafka": "kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC]", "otlp": "otlp://HOST:PORT"}


@dataclass(frozen=True)
class Batch(Segment):
    """Some consecutive messages of a log, whose place of the last one is `number`; `path` is only its name.

    Attributes:
        source: names the log in the lake, and no other one ever.
        after: the place up to which the log was read before.
        places: of each message, rising.
        unread: reasons of those that the way in itself could not read, by place.
        sent_at: of the first message, in seconds since 1970.
    """

    source: str
    after: int
    values: Sequence[bytes]
    places: Sequence[int]
    sent_at: float
    unread: Mapping[int, str] = field(default_factory=dict)

    @staticmethod
    def of(
        source: str,
        after: int,
        number: int,
        values: Sequence[bytes],
        places: Sequence[int],
        sent_at: float,
        unread: Mapping[int, str],
    ) -> "Batch":
        path = Path(source) / f"{number:020}.jsonl"
        return Batch(number, path, source, after, values, places, sent_at, unread)

    def lines(self) -> list[bytes]:
        """No line of an event needs its newlines, which lie between its values."""
        return [value.replace(b"\n", b" ") if b"\n" in value else value for value in self.values]

    @property
    def written_at(self) -> float:
        return self.sent_at


@dataclass(frozen=True)
class Lag:
    """How many messages of a partition are not in the lake yet; `oldest_at`: when the first of them was sent, in
    seconds since 1970, where that is known."""

    topic: str
    partition: int
    messages: int
    oldest_at: float | None


class Source(Protocol):
    """A log that keeps its messages until long after they were read. It is called by one thread."""

    def batches(self, stop: Stop) -> Generator[Batch, None, None]:
        """What has come, within a bound of memory; `done` is called of one before the next is asked for.

        What `done` was not called of is told again.

        Raises:
            UnavailableError: the log does not answer; told anew, and nothing is lost.
        """

    def done(self, batch: Batch, refused: Mapping[int, str]) -> None:
        """All of it is in the lake, or was set aside; read on behind it.

        Args:
            refused: reasons of those that are no events, by place.

        Raises:
            ConflictError: another process reads the log by now.
            UnavailableError: somebody who is to be told does not answer; the batch comes again.
        """

    @property
    def is_behind(self) -> bool:
        """Whether the last look left messages that are there already."""

    @property
    def is_at_end(self) -> bool:
        """Whether all that had come when it was last looked at is done."""

    def waiting_since(self) -> float | None:
        """When the oldest message that was seen and is not done was sent, in seconds since 1970."""

    def lags(self) -> Sequence[Lag]:
        """Of the partitions that this capture reads now, as the log told last; it is asked nothing for that."""


def opened(
    url: str, settings: "Settings", group: str, positions: "Positions", clock: "Clock"
) -> AbstractContextManager[Source]:
    """The source that a URL names.

    Args:
        group: which all captures of one home share, and no other home has.

    Raises:
        InputError: the URL or a setting cannot be used, or the package that it needs is not installed.
    """
    if (scheme := scheme_of(url)) != "kafka":
        raise InputError(f"--source: {scheme}:// is listened to, not read")
    try:
        from drift_pipeline.telemetry.sources.kafka.consumer import reading
    except ModuleNotFoundError as error:
        raise InputError(f"kafka:// needs {error.name}: pip install 'drift-pipeline[kafka]'") from error
    return reading(url, settings, group, positions, clock)


def scheme_of(url: str) -> str:
    """Raises InputError for one that is none of `SCHEMES`."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in SCHEMES:
        told = f"{scheme[:30]}:// is not known" if found else "the address names no scheme"
        raise InputError(f"--source: {told}; there are: {', '.join(SCHEMES.values())}")
    return scheme
