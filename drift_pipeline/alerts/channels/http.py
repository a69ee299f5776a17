"""Posting an alert over HTTP, as webhook, Slack and PagerDuty do."""

import logging
import time
from collections.abc import Mapping
from typing import Annotated

import httpx
from pydantic import Field

from drift_pipeline.errors import InputError, UnavailableError

SECONDS = 4.0  # for one answer, and once more for a long one
_MOST_BYTES = 64 * 1024
_REFUSED = (400, 413, 415, 422)  # says that it is the alert; 401, 403 and 404 say that it is the channel
_TOLD = 200  # letters of an answer

Url = Annotated[str, Field(pattern=r"^https?://[^@\s]+$")]
Private = r"^(https://[^@\s]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^@\s]*)?)$"  # over TLS, or this machine
PrivateUrl = Annotated[str, Field(pattern=Private)]

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
        with httpx.stream("POST", url, content=body, headers=dict(headers), timeout=SECONDS) as answer:
            status, told = answer.status_code, _read(answer)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"is not reached: {type(error).__name__}") from None  # its text may tell the address
    if 200 <= status < 300:
        return
    for secret in filter(None, secrets):
        told = told.replace(secret, "***")
    why = f"answers {status}{f': {told[:_TOLD]}' if told else ''}"
    if status in _REFUSED:
        raise InputError(f"{why}: it refuses the alert")
    raise UnavailableError(why)


def _read(answer: httpx.Response) -> str:
    """The first of it, as one line; a receiver that trickles is not waited for."""
    kept, until = b"", time.monotonic() + SECONDS
    for part in answer.iter_bytes():
        kept += part
        if len(kept) > _MOST_BYTES or time.monotonic() > until:
            break
    text = kept[:_MOST_BYTES].decode(errors="replace")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
