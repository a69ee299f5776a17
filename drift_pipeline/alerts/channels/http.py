"""Posting an alert over HTTP, as webhook, Slack and PagerDuty do."""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Timer
from typing import Annotated

import httpx
from pydantic import AfterValidator, Field

from drift_pipeline.errors import InputError, UnavailableError

SECONDS = 4.0  # for each thing that is waited for, such as a byte; twice as long for all of it
_MOST_BYTES = 64 * 1024
_REFUSED = (400, 413, 415, 422)  # says that it is the alert; 401, 403 and 404 say that it is the channel
_TOLD = 200  # letters of an answer

_PRIVATE = r"^(https://[^@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^@\s]*)?)$"  # over TLS, or this machine


def _address(url: str) -> str:
    """Raises ValueError, which does not tell it."""
    try:
        read = httpx.URL(url)
    except httpx.InvalidURL:
        read = httpx.URL()
    if not read.host or (read.port is not None and not 0 < read.port < 65536):
        raise ValueError("is no address: it has a host, and a port up to 65535 if any")
    return url


def is_private(url: str) -> bool:
    """Whether it is an address as `PrivateUrl` has it."""
    try:
        return bool(re.fullmatch(_PRIVATE, _address(url)))
    except ValueError:
        return False


Url = Annotated[str, Field(pattern=r"^https?://[^@\s]+$"), AfterValidator(_address)]
PrivateUrl = Annotated[str, Field(pattern=_PRIVATE), AfterValidator(_address)]

logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs whole addresses, and Slack's is a secret


def post(url: str, body: bytes, headers: Mapping[str, str], secrets: tuple[str, ...] = ()) -> None:
    """Returns once the receiver says that it has it.

    Args:
        secrets: are not told, whatever the receiver answers.

    Raises:
        InputError: the receiver refuses this body.
        UnavailableError: it was not reached in time, or answers anything else.
    """
    try:
        with _client() as client, client.stream("POST", url, content=body, headers=dict(headers)) as answer:
            status = answer.status_code
            if 200 <= status < 300:  # whatever else it would say
                return
            told = _read(answer)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"is not reached: {type(error).__name__}") from None  # its text may tell the address
    for secret in filter(None, secrets):
        told = told.replace(secret, "***")
    why = f"answers {status}{f': {told[:_TOLD]}' if told else ''}"
    if status in _REFUSED:
        raise InputError(f"{why}: it refuses the alert")
    raise UnavailableError(why)


@contextmanager
def _client() -> Iterator[httpx.Client]:
    """For one request; a receiver that trickles its answer is hung up on."""
    with httpx.Client(timeout=SECONDS) as client:
        end = Timer(2 * SECONDS, client.close)
        end.daemon = True
        end.start()
        try:
            yield client
        finally:
            end.cancel()


def _read(answer: httpx.Response) -> str:
    """The first of it, as one line, and as far as it came."""
    kept = b""
    with suppress(httpx.HTTPError):
        for part in answer.iter_bytes():
            kept += part
            if len(kept) > _MOST_BYTES:
                break
    text = kept[:_MOST_BYTES].decode(errors="replace")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
