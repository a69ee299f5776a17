"""The gateway's connections: how many there may be, and how long one may take to ask and to be answered.

uvicorn bounds neither, nor the length of a head, nor how many requests a client sends before it reads an answer.
"""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # without a request under way
REQUEST_SECONDS = 30.0  # from the end of its head to the end of its answer
MOST_CONNECTIONS = 1000
MOST_OF_ADDRESS = 500
MOST_HEAD = 32 * 1024
MOST_PIPELINED = 16
_PIECE = 16 * 1024
_SWEEP_SECONDS = 1.0
_LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class Door:
    """Where there are too many connections, the one that has waited longest for its request makes room for a new one:
    who asks at once is served beside any number of those who never do.

    Args:
        lost: told each time that a connection was closed here, with the HTTP status for it.
    """

    def __init__(
        self,
        lost: Callable[[int], None],
        *,
        most: int = MOST_CONNECTIONS,
        most_of_address: int = MOST_OF_ADDRESS,
        head_seconds: float = HEAD_SECONDS,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.lost, self._most = lost, most if files == resource.RLIM_INFINITY else min(most, files // 2)
        self._most_of_address, self._head_seconds, self._request_seconds = (
            most_of_address,
            head_seconds,
            request_seconds,
        )
        self._waiting: dict[Connection, float] = {}  # since when; the oldest first
        self._busy: dict[Connection, float] = {}
        self._of_address: Counter[str] = Counter()
        self._sweeping: asyncio.TimerHandle | None = None

    def enter(self, connection: "Connection") -> None:
        self._of_address[connection.address] += 1
        self.waits(connection)
        if self._of_address[connection.address] > self._most_of_address:
            self._make_room(connection.address)
        elif len(self._waiting) + len(self._busy) > self._most:
            self._make_room(None)
        if self._sweeping is None:
            self._sweep()

    def leave(self, connection: "Connection") -> None:
        self._forget(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def waits(self, connection: "Connection") -> None:
        """No request of it is under way."""
        self._forget(connection)
        self._waiting[connection] = time.monotonic()

    def works(self, connection: "Connection") -> None:
        """The head of a request is there."""
        self._forget(connection)
        self._busy[connection] = time.monotonic()

    def _forget(self, connection: "Connection") -> None:
        self._waiting.pop(connection, None)
        self._busy.pop(connection, None)

    def _make_room(self, address: str | None) -> None:
        """The newcomer itself has to go where all others are busy."""
        oldest = next(one for one in self._waiting if address in (None, one.address))
        self._forget(oldest)
        oldest.give_up(503)

    def _sweep(self) -> None:
        now = time.monotonic()
        for held, seconds in ((self._waiting, self._head_seconds), (self._busy, self._request_seconds)):
            late = [one for one, since in held.items() if now - since > seconds]
            for connection in late:
                self._forget(connection)
                connection.give_up(408)
        there = bool(self._of_address)
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep) if there else None


class Connection(HttpToolsProtocol):
    """uvicorn's own, which tells the door what it is at."""

    door: Door  # of the class that `connections_of` makes
    address = ""
    _head: int | None = None  # bytes of a head that is not complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self.door.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """In pieces, so that what one of them holds in requests is bounded."""
        for start in range(0, len(data), _PIECE):
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE]
            self._head = None if self._head is None else self._head + len(piece)
            super().data_received(piece)
            if (self._head or 0) > MOST_HEAD:
                self.give_up(431)

    def on_message_begin(self) -> None:
        """What it raises, the parser hands on as a malformed request."""
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("too many requests before the first was answered")
        self._head = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head = None
        self.door.works(self)
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        more = bool(self.pipeline)
        super().on_response_complete()
        if more:
            self.door.works(self)
        elif not self.transport.is_closing():
            self.door.waits(self)

    def send_400_response(self, msg: str) -> None:
        self.door.lost(400)
        super().send_400_response(msg)

    def give_up(self, status: int) -> None:
        """Close; who is in the middle of a request is told that it took too long. What was not read yet is dropped."""
        if self.transport.is_closing():
            return
        self.door.lost(status)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
            return
        if self.cycle is not None and not self.cycle.response_started:
            self.transport.write(_LATE)
        self.transport.close()


def connections_of(door: Door) -> type[Connection]:
    """uvicorn makes its protocols itself, of a class."""
    return type("Connection", (Connection,), {"door": door})
