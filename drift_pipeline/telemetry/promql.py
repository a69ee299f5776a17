"""A number that Prometheus has: the answer to one instant query, of now, or the reason why there is none."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from drift_pipeline.errors import UnavailableError

if TYPE_CHECKING:
    from httpx import AsyncClient

MOST_BYTES = 2**20  # of an answer
STALE_S = 60.0
_REST = 5  # times the timeout


class PrometheusServer:
    """Whatever speaks Prometheus' HTTP API at `url`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 5.0,
        token: str = "",
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """
        Args:
            timeout_seconds: for the whole of one answer.
            token: a bearer token that the server asks for.
        """
        self._url, self._timeout_seconds, self._monotonic, self._wall = (
            url.rstrip("/"),
            timeout_seconds,
            monotonic,
            wall,
        )
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._silent_until = -math.inf

    def ask(self, promql: str) -> float:
        """A finite number. A server that was late is not waited for again at once, by one model after the other.

        Raises:
            UnavailableError: it is not reached, or late; its answer is an error, empty, of several series, NaN,
                infinite, or not of now.
        """
        if self._monotonic() < self._silent_until:
            raise self._too_late()
        return self._number(asyncio.run(self._within(promql)))

    async def _within(self, promql: str) -> bytes:
        import httpx

        try:
            client = httpx.AsyncClient(headers=self._headers, verify=self._url.startswith("https:"), timeout=None)
            async with asyncio.timeout(self._timeout_seconds), client:
                return await self._call(client, promql)
        except TimeoutError as error:
            self._silent_until = self._monotonic() + _REST * self._timeout_seconds
            raise self._too_late() from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"Prometheus cannot be reached: {str(error) or type(error).__name__}") from error

    async def _call(self, client: "AsyncClient", promql: str) -> bytes:
        async with client.stream("POST", f"{self._url}/api/v1/query", data={"query": promql}) as response:
            answer = bytearray()
            async for chunk in response.aiter_bytes():
                answer += chunk
                if len(answer) > MOST_BYTES:
                    raise UnavailableError(f"Prometheus answers more than {MOST_BYTES:,} bytes: ask for one number")
        if response.status_code != 200:
            raise UnavailableError(f"Prometheus answers {response.status_code}: {_why(bytes(answer))}")
        return bytes(answer)

    def _number(self, answer: bytes) -> float:
        try:
            document = json.loads(answer)
            data = document["data"]
            samples = [data["result"]] if data["resultType"] == "scalar" else [one["value"] for one in data["result"]]
            found = [(float(at), float(value)) for at, value in samples]
            told = document["status"] == "success"
        except (LookupError, TypeError, ValueError, RecursionError) as error:
            raise UnavailableError(f"Prometheus does not answer with samples: {_why(answer)}") from error
        if not told or len(found) != 1:
            many = f"{len(found)} series: aggregate them to one" if found else "nothing: no series is that young"
            raise UnavailableError(f"Prometheus answers with {many}")
        ((at, value),) = found
        if not math.isfinite(value):
            raise UnavailableError(f"Prometheus answers {value}, which is no number: was there no traffic?")
        if not abs(self._wall() - at) <= STALE_S:
            raise UnavailableError(f"Prometheus answers with a sample of another time, {self._wall() - at:.0f} s old")
        return value

    def _too_late(self) -> UnavailableError:
        return UnavailableError(f"Prometheus did not answer within {self._timeout_seconds:g} s")


def _why(answer: bytes) -> str:
    """The error that it tells, or how it begins."""
    try:
        document: Any = json.loads(answer)
        return str(document["error"])[:200]
    except (LookupError, TypeError, ValueError, RecursionError):
        return repr(answer[:80])
