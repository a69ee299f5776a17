"""What `feast serve` answers now of the features of entities, over HTTP."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import IO, Any

import polars as pl

from drift_pipeline.errors import UnavailableError
from drift_pipeline.training.sources.masking import masked

TIMEOUT_S = 15.0
MOST_BYTES = 64_000_000
_AT_ONCE = 500


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is for one address."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def online_features(
    server: str, token: str, service: str, key: str, entities: Sequence[str | int], timeout_s: float = TIMEOUT_S
) -> pl.DataFrame:
    """The service's features of entities (n,), in their order; null where the server has none, or an expired one.

    Raises:
        UnavailableError: it does not answer in time, or not as a feature server does.
    """
    found = []
    for at in range(0, len(entities), _AT_ONCE):
        some = list(entities[at : at + _AT_ONCE])
        document = _asked(server, token, {"feature_service": service, "entities": {key: some}}, timeout_s)
        found.append(_read(document, len(some), server))
    return pl.concat(found, how="vertical_relaxed")


def _asked(server: str, token: str, question: Mapping[str, Any], timeout_s: float) -> Any:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = urllib.request.Request(  # the spec's pattern says http or https
        f"{server.rstrip('/')}/get-online-features", json.dumps(question).encode(), headers
    )
    try:
        with _OPENER.open(request, timeout=timeout_s) as answer:
            return json.loads(_whole(answer))
    except urllib.error.HTTPError as error:
        with error:
            why = masked(error.read(2000).decode(errors="replace"), token)
        raise UnavailableError(f"{server}: the feature server answers {error.code}: {why}") from None
    except (OSError, ValueError) as error:
        told = masked(str(getattr(error, "reason", error)) or type(error).__name__, token)
        raise UnavailableError(
            f"{server}: the feature server (retrain.source.feast.server) gives no answer: {told}"
        ) from None


def _whole(answer: IO[bytes]) -> bytes:
    data = answer.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return data


def _read(document: Any, rows: int, server: str) -> pl.DataFrame:
    try:
        names, results = document["metadata"]["feature_names"], document["results"]
        columns = {
            name: [
                value if status == "PRESENT" else None
                for value, status in zip(one["values"], one["statuses"], strict=True)
            ]
            for name, one in zip(names, results, strict=True)
        }
        found = pl.DataFrame(columns, strict=False)
    except (LookupError, TypeError, ValueError, pl.exceptions.PolarsError):
        raise UnavailableError(f"{server}: answers, and not as a feature server does") from None
    if found.height != rows:
        raise UnavailableError(f"{server}: answers {found.height:,} rows where {rows:,} were asked for")
    return found
