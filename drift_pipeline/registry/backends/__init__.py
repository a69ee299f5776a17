"""Registry: the Protocol of what keeps bundles. It stores bytes under digests and decides nothing."""

from collections.abc import Mapping
from typing import Any, Protocol

from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.settings import Settings


class Registry(Protocol):
    """Obligations of every backend (`drift_pipeline_tests/contracts/test_registry.py` holds them to it):

    - `put` is atomic: a bundle is there whole or not at all, whenever the writer dies, and stays once `put` returned.
    - `put` is idempotent: the same fields and files give the same digest and are stored once, by whoever comes first.
    - `get` returns only bytes whose digests it has computed itself; tags, names and the backend's own checks are no
      authority. Bytes that differ or are missing raise IntegrityError, which names the file; `put` of a bundle that is
      there but damaged raises it too, and repairs nothing: somebody should know.
    - A digest that was never put raises InputError from `get`, and is False from `exists`; `exists` promises that a
      bundle is there, not that it is intact.
    - A backend that does not answer, or is full, raises UnavailableError.
    """

    def put(self, manifest_fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle: ...

    def get(self, digest: str) -> Bundle: ...

    def exists(self, digest: str) -> bool: ...


def registry_of(settings: Settings) -> Registry:
    """The one that the settings name, of a process that serves or goes on with the loop. Who verifies a home reads what
    lies in it, and so takes the kept one.

    Raises InputError where a package is not installed.
    """
    from drift_pipeline.registry.backends.wandb import WandbRegistry

    match settings.registry_kind:
        case "local":
            return kept_registry(settings)
        case "wandb":
            return WandbRegistry(settings)


def kept_registry(settings: Settings, *, copies: bool = True) -> Registry:
    """Where the home's bundles lie, below it or in its bucket.

    Args:
        copies: False = only what lies in the bucket counts, no copy of it on this machine.

    Raises InputError where a package is not installed.
    """
    from drift_pipeline.registry.backends.bucket import BucketRegistry
    from drift_pipeline.registry.backends.local import LocalRegistry

    if settings.bucket is None:
        return LocalRegistry(settings.registry)
    return BucketRegistry(settings.bucket / "registry", copies=copies)
