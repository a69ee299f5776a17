"""Who may look: anybody on this machine; from elsewhere, who has the key."""

import base64
import binascii
import hmac
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from drift_pipeline.errors import InputError
from drift_pipeline.settings import Settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

KEY_FILE, LEAST = "pages.key", 16
HEALTH = "/health"
_LOCAL = ("localhost", "127.0.0.1", "[::1]")


def key_for(settings: Settings, host: str) -> str:
    """The key that is asked for: DRIFT_PAGES_KEY, else what `keys/pages.key` holds; empty = none, on loopback alone.

    Raises:
        InputError: the host can be reached from elsewhere and there is no key, or one that can be guessed.
    """
    key = settings.pages_key.get_secret_value().strip()
    if not key:
        with suppress(FileNotFoundError):
            key = (settings.keys / KEY_FILE).read_text(encoding="utf-8").strip()
    if not key and is_loopback(host):
        return ""
    if not key:
        raise InputError(
            f"--host {host}: others can reach it, so a key is asked for: set DRIFT_PAGES_KEY, or write one into "
            f"{settings.keys / KEY_FILE}; or stay on 127.0.0.1"
        )
    if len(key) < LEAST:
        raise InputError(f"the pages' key has {len(key)} letters; at least {LEAST} cannot be guessed")
    return key


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Door:
    """ASGI: refuses who has no key (401); without a key, who asks by another name than this machine's (403): a page of
    somebody else whose name was made to lead here would be shown what it holds.

    The key comes as a bearer token or as the password of basic authentication, whatever the user's name.
    """

    def __init__(self, app: "ASGIApp", key: str) -> None:
        self._app, self._digest = app, sha256(key.encode()).digest() if key else b""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if scope["type"] == "http" and scope["path"] != HEALTH:
            refused = self._refusal(scope["headers"])
            if refused is not None:
                await _answer(send, *refused)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, bytes] | None:
        found = dict(headers)
        if self._digest:
            given = _given(found.get(b"authorization", b""))
            return (
                None if hmac.compare_digest(sha256(given).digest(), self._digest) else (401, b"the key is asked for\n")
            )
        host = found.get(b"host", b"").decode("latin-1")
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        return None if name.lower() in _LOCAL else (403, b"these pages answer to localhost alone\n")


def _given(header: bytes) -> bytes:
    kind, _, value = header.strip().partition(b" ")
    if kind.lower() == b"bearer":
        return value.strip()
    if kind.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


async def _answer(send: "Send", status: int, words: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="drift", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": words})
