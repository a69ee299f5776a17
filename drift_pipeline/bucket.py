"""A bucket of an S3-compatible store, in which lake, registry and reports of a home may lie, so that machines share it.

Credentials, region and endpoint are the environment's (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
`AWS_ENDPOINT_URL`, ...), read by the clients themselves: delta-rs, Polars and obstore stand on one library.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from drift_pipeline.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

SCHEME = "s3://"
TIMEOUT_S, CONNECT_S = 30, 5  # of one request
_RETRIES, _RETRY_S = 3, 20  # after so long a request that failed is not repeated
_STATUS = re.compile(r"\b([45]\d\d [A-Z][A-Za-z ]+)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_BUCKET = "NoSuchBucket"
_PROBE = "put-once"  # an object that says nothing


@dataclass(frozen=True)
class Bucket:
    """`s3://BUCKET/PREFIX`; `beside` is the folder that it would be on this machine, for locks and copies."""

    url: str
    beside: Path

    def __truediv__(self, name: str) -> "Bucket":
        return Bucket(f"{self.url}/{name}", self.beside / name)

    def __str__(self) -> str:
        return self.url

    def split(self) -> tuple[str, str]:
        """`s3://BUCKET`, and the path in it."""
        name, _, path = self.url.removeprefix(SCHEME).partition("/")
        return SCHEME + name, path


Place = Path | Bucket


def delta_options() -> dict[str, str]:
    """For delta-rs. A commit's file is put only where there is none of its number yet."""
    retries = {"max_retries": str(_RETRIES), "retry_timeout": f"{_RETRY_S}s"}
    return {**client_options(), **retries, "aws_conditional_put": "etag", **_endpoint()}


def polars_options() -> dict[str, str | int]:
    return {**client_options(), "max_retries": _RETRIES, "retry_timeout_ms": _RETRY_S * 1000, **_endpoint()}


def client_options() -> dict[str, str]:
    """Deadlines, and whether an endpoint that is named may be without TLS."""
    plain = str(_endpoint().get("aws_endpoint", "")).startswith("http://")
    return {"timeout": f"{TIMEOUT_S}s", "connect_timeout": f"{CONNECT_S}s", "allow_http": str(plain).lower()}


def _endpoint() -> dict[str, str]:
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return {"aws_endpoint": named} if named else {}


def is_away(error: Exception) -> bool:
    """Whether the store did not answer, or refused, whatever the client made of it: not that an object is gone."""
    said = str(error)
    absent = "404 Not Found" in said and _NO_BUCKET not in said
    ours = isinstance(error, OSError) and error.errno is None  # else this machine's disk said it
    return not absent and (ours or "Error performing" in said)


def why(error: Exception) -> str:
    """What a client's error comes to, and what to do. Its own words may quote a token, and are not told."""
    said, where = str(error), _endpoint().get("aws_endpoint", "Amazon S3").rpartition("@")[2]
    code = (_CODE.findall(said) or [""])[0]
    status = (_STATUS.findall(said) or [""])[0].strip()
    if "latest/api/token" in said or "security-credentials" in said or "169.254.1" in said:
        return "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives some"
    if code == _NO_BUCKET:
        return f"there is no such bucket at {where}; make it, or mend DRIFT_STORE"
    if status.startswith(("401", "403")) or "privileges" in said:
        told = f"403 {code}" if code else status or "403"
        return f"{where} refuses it ({told}); give the credentials rights to get, put, list and delete below it"
    if "timed out" in said or "TimedOut" in said:
        return f"{where} did not answer in time ({TIMEOUT_S} s a request); do it again once it does"
    if not status:
        return f"{where} cannot be reached; mend AWS_ENDPOINT_URL, or do it again once it is up"
    return f"{where} answered {status}{f' ({code})' if code else ''}; do it again later"


class Objects:
    """What lies below a place of a bucket, by its name there.

    Raises of each method: UnavailableError where the store does not answer, or refuses.
    """

    def __init__(self, place: Bucket) -> None:
        """Raises InputError where the package is not installed, or takes an `AWS_` variable for none."""
        self._place = place
        root, prefix = place.split()
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store

            self._store = S3Store(
                root.removeprefix(SCHEME),
                prefix=prefix or None,
                config=cast("S3Config", {**_endpoint(), "aws_conditional_put": "etag"}),
                client_options=cast("ClientConfig", client_options()),
                retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
            )
        except ImportError as error:
            raise InputError(f"{place}: the package obstore is not installed; install drift-pipeline[s3]") from error
        except BaseError as error:
            raise InputError(f"{place}: a variable of AWS_* cannot be used") from error

    def names(self, below: str = "") -> list[str]:
        with self._asked("listed"):
            return [one["path"] for some in self._store.list(below or None) for one in some]

    def get(self, name: str) -> bytes | None:
        """None where there is no such object."""
        with self._asked("read"):
            try:
                return bytes(self._store.get(name).bytes())
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
        return None

    def add(self, name: str, data: bytes) -> bool:
        """False where there is one of that name already, which stays."""
        from obstore.exceptions import AlreadyExistsError

        with self._asked("written"):
            try:
                self._store.put(name, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def put(self, name: str, data: bytes) -> None:
        """In the place of what was there."""
        with self._asked("written"):
            self._store.put(name, data)

    def delete(self, names: Sequence[str]) -> None:
        """Those that are there."""
        with self._asked("deleted"):
            if names:
                self._store.delete(names)

    def require_conditional(self) -> None:
        """Raises InputError where the store puts an object over one that `add` should have left: commits of two
        writers would be one."""
        if self.add(_PROBE, b"") and self.add(_PROBE, b""):
            raise InputError(
                f"{self._place}: the store ignores If-None-Match: *, so commits would be lost; use another"
            )

    def keeps_versions(self, name: str) -> bool:
        """Whether what is deleted stays there as an older version; told of an object that is there."""
        with self._asked("read"):
            try:
                return self._store.head(name).get("version") is not None
            except FileNotFoundError:
                return False

    @contextmanager
    def _asked(self, done: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            raise UnavailableError(f"{self._place}: cannot be {done}: {why(error)}") from None
