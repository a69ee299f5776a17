"""The sticky split: which requests the canary answers. Replay and the gateway ask the same function."""

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import polars

_BUCKETS = 10_000


def in_canary(key: str, rollout_id: str, percent: int) -> bool:
    """Whether the request of `key` (entity or prediction id) goes to the canary.

    The same key is always on the same side of one rollout, growing the percentage only adds keys, and who is in says
    nothing about another rollout.

    >>> [key for key in ("ada", "bob", "cleo", "dan") if in_canary(key, rollout_id="r1", percent=50)]
    ['bob', 'cleo', 'dan']

    Raises:
        ValueError: a percentage outside 0..100.
    """
    return _bucket(_keyed(rollout_id), key) < _below(percent)


def split(keys: "polars.Series", rollout_id: str, percent: int) -> npt.NDArray[np.bool_]:
    """`in_canary` of each key (n,), as booleans (n,); keys that are no text are taken as polars writes them.

    Raises:
        ValueError: a percentage outside 0..100, or a null key, which belongs to nobody.
    """
    import polars as pl

    below, keyed = _below(percent), _keyed(rollout_id)
    if keys.null_count():
        raise ValueError(
            f"{keys.null_count()} of {len(keys)} keys are null: use the prediction id where there is no entity"
        )
    chosen = (_bucket(keyed, key) < below for key in keys.cast(pl.String))
    return np.fromiter(chosen, dtype=np.bool_, count=len(keys))


def _below(percent: int) -> int:
    if not 0 <= percent <= 100:
        raise ValueError(f"a weight is a percentage from 0 to 100, not {percent}")
    return percent * _BUCKETS // 100


def _keyed(rollout_id: str) -> blake2b:
    """A hash's own key is at most 64 bytes long, a rollout id may be longer."""
    return blake2b(key=blake2b(rollout_id.encode(), digest_size=32).digest(), digest_size=8)


def _bucket(keyed: blake2b, key: str) -> int:
    """Uniform in [0, 10_000), to one part in 10^15."""
    hashed = keyed.copy()
    hashed.update(key.encode(errors="surrogatepass"))  # JSON can spell half a surrogate pair, and is routed too
    return int.from_bytes(hashed.digest(), "big") % _BUCKETS
