"""What one producer may cost the event loop that all share: rows, bytes as they arrive, and time that led to nothing.

The rows are the producer's own rate. Bytes and time bound what no rate of rows does: bodies that are refused. A body is
refused before it is parsed where it holds more values than a full request has, so that parsing one takes milliseconds.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request

from drift_pipeline.errors import InputError
from drift_pipeline.serving.keys import Producer

BURST_SECONDS = 2  # of each rate may come at once
MOST_BYTES = 2 * 1024 * 1024
MOST_VALUES = 50_000  # 1,000 rows of 24 tensors are 24,000; parsing as many took 25 ms at worst, on one core of 2026
AT_ONCE_BYTES = 16 * 1024
HELD_BODIES = 4  # as much as so many of the longest may one producer have sent in part
BYTES_A_ROW = 8192  # 24 tensors of one cell are 2,000
LEAST_BYTES = 64 * 1024  # a second, however low the rate of rows
WASTE = 0.01  # seconds a second of parsing what was refused
BURST_WASTE = 0.1
LOOKS, BURST_LOOKS = 0.05, 0.5  # seconds a second of the metrics, which cost more the more models there are
MOST_WASTE = 0.5  # of a request: what takes longer is not its own, such as a collection of garbage
FREE_WASTE = 0.001  # of a request: a bad row among good ones costs what a good one does


@dataclass
class Bucket:
    """`per_second` flow in, `most` are held; full at first. Below 0 is a debt, which what flows in pays first."""

    per_second: float
    most: float
    monotonic: Callable[[], float] = time.monotonic
    held: float = field(init=False)
    at: float = field(init=False)

    def __post_init__(self) -> None:
        self.held, self.at = self.most, self.monotonic()

    def take(self, amount: float) -> float:
        """0.0 when it was taken, else in how many seconds it could be; inf for more than it ever holds."""
        self._fill()
        if amount > self.most:
            return math.inf
        if wait := self.seconds_to(amount):
            return wait
        self.held -= amount
        return 0.0

    def charge(self, amount: float) -> None:
        """Take it in any case."""
        self._fill()
        self.held -= amount

    def seconds_to(self, amount: float) -> float:
        """In how many seconds it holds as much."""
        self._fill()
        return max(0.0, (amount - self.held) / self.per_second)

    def _fill(self) -> None:
        now = self.monotonic()
        self.held, self.at = min(self.most, self.held + (now - self.at) * self.per_second), now


class Allowance:
    """One producer's. Its requests of more than `AT_ONCE_BYTES` are worked off one at a time, in slices.

    Args:
        most_bytes: of one body.
        most_values: of JSON in one body; None where its reader bounds them.
    """

    def __init__(
        self,
        producer: Producer,
        monotonic: Callable[[], float] = time.monotonic,
        most_bytes: int = MOST_BYTES,
        most_values: int | None = MOST_VALUES,
    ) -> None:
        rows, name = producer.rows_per_second, producer.name
        bytes_per_second = max(LEAST_BYTES, rows * BYTES_A_ROW)
        self.producer, self._turn, self._held = producer, asyncio.Lock(), 0
        self._most_bytes, self._most_values, self._most_held = most_bytes, most_values, HELD_BODIES * most_bytes
        self._rows = Bucket(rows, BURST_SECONDS * rows, monotonic)
        self._bytes = Bucket(bytes_per_second, max(most_bytes, BURST_SECONDS * bytes_per_second), monotonic)
        self._waste = Bucket(WASTE, BURST_WASTE, monotonic)
        self._looks = Bucket(LOOKS, BURST_LOOKS, monotonic)
        self._told_rows = f"{name} may send {rows:,} rows a second"
        self._told_bytes = f"{name} may send {bytes_per_second:,} bytes a second"
        self._told_held = f"{name} may have {self._most_held:,} bytes on their way at once"
        self._told_looks = f"{name} may take {LOOKS:.0%} of the time for metrics"
        self._told_waste = f"{name} sent much that was refused"

    def take_rows(self, rows: int) -> None:
        """Raises HTTPException: 413 for more than may ever come at once, else 429 with the time to wait."""
        wait = self._rows.take(rows)
        if math.isinf(wait):
            told = f"{rows:,} rows at once; {self._told_rows}, twice that at once: send smaller requests"
            raise HTTPException(413, told)
        _refuse_for(wait, self._told_rows)

    def charge_rows(self, rows: int) -> None:
        """Those of a request that is taken whole: the next one waits until they are paid for."""
        self._rows.charge(rows)

    def charge_bytes(self, length: int) -> None:
        """What a body came to beyond what was sent of it."""
        self._bytes.charge(length)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body, not asked for where its producer has sent too much, nor read on where it is too long.

        Raises:
            HTTPException: 413 or 429, before it is parsed.
        """
        self._refuse_longer(int(request.headers.get("content-length", 0)))
        self._refuse_debts()
        parts, length = [], 0
        try:
            async for part in request.stream():
                parts.append(part)
                length += len(part)
                self._held += len(part)
                self._bytes.charge(len(part))
                self._refuse_longer(length)
                _refuse_for(float(self._held > self._most_held), self._told_held)
            data = b"".join(parts)
            self._refuse_fuller(data)
            async with self._turn if length > AT_ONCE_BYTES else nullcontext():
                self._refuse_debts()
                yield data
        finally:
            self._held -= length

    @contextmanager
    def parsing(self) -> Iterator[None]:
        """What is refused in here was not free: a malformed request costs a row, and any the processor's time."""
        began = time.thread_time()
        try:
            yield
        except (InputError, HTTPException) as refusal:
            self._rows.charge(isinstance(refusal, InputError))
            self._waste.charge(min(max(0.0, time.thread_time() - began - FREE_WASTE), MOST_WASTE))
            raise

    @contextmanager
    def looking(self) -> Iterator[None]:
        """At the metrics, for which the loop's time is paid. Raises HTTPException: 429, for who looked too much."""
        _refuse_for(self._looks.seconds_to(0), self._told_looks)
        began = time.thread_time()
        yield
        self._looks.charge(time.thread_time() - began)

    def _refuse_debts(self) -> None:
        _refuse_for(self._rows.seconds_to(1), self._told_rows)
        _refuse_for(self._bytes.seconds_to(0), self._told_bytes)
        _refuse_for(self._waste.seconds_to(0), self._told_waste)

    def _refuse_longer(self, length: int) -> None:
        if length > self._most_bytes:
            raise HTTPException(
                413, f"the body is longer than {self._most_bytes:,} bytes; send fewer rows in a request"
            )

    def _refuse_fuller(self, data: bytes) -> None:
        """Each value of JSON stands behind a comma or an opening bracket; those in texts are counted as well."""
        if self._most_values is None:
            return
        if (values := len(data) - len(data.translate(None, b",[{"))) > self._most_values:
            told = f"the body holds some {values:,} values, more than {self._most_values:,}"
            raise HTTPException(413, f"{told}; send fewer rows in a request")


def _refuse_for(seconds: float, told: str) -> None:
    if seconds:
        raise HTTPException(429, f"{told}; wait, then send again", {"Retry-After": str(math.ceil(seconds))})
