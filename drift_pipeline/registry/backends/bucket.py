"""A registry in a bucket, with copies of what was read from it in a folder of this machine."""

import logging
from collections.abc import Mapping
from typing import Any

from drift_pipeline.bucket import Bucket, Objects
from drift_pipeline.control.canonical import canonical
from drift_pipeline.errors import DriftError, InputError, IntegrityError
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import MANIFEST, Bundle, check_file, checked_digest, make_bundle, read_manifest

log = logging.getLogger(__name__)


class BucketRegistry:
    """`<place>/<first 2 hex>/<hex>/`, each file put only where there is none. The manifest comes last: without it there
    is no bundle, and what a killed writer left is what the next one would have put.

    A copy serves `get` while the store is away; it is verified as the bundle is.
    """

    def __init__(self, place: Bucket, *, copies: bool = True) -> None:
        """
        Args:
            copies: False = each `get` reads what lies in the bucket, for who verifies it.

        Raises:
            InputError: as `Objects`.
        """
        self._place, self._objects = place, Objects(place)
        self._copies = LocalRegistry(place.beside) if copies else None

    def put(self, manifest_fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        bundle = make_bundle(manifest_fields, files)
        if not self.exists(bundle.digest):
            for name, data in {**bundle.files, MANIFEST: canonical(bundle.manifest)}.items():
                self._objects.add(f"{_folder(bundle.digest)}/{name}", data)
        return self._fetched(bundle.digest)

    def get(self, digest: str) -> Bundle:
        if self._copies is not None and self._copies.exists(digest):
            try:
                return self._copies.get(digest)
            except IntegrityError as error:
                log.warning("%s; it is a copy, and is read from %s", error, self._place)
        return self._fetched(digest)

    def exists(self, digest: str) -> bool:
        return self._objects.get(f"{_folder(digest)}/{MANIFEST}") is not None

    def _fetched(self, digest: str) -> Bundle:
        data = self._objects.get(f"{_folder(digest)}/{MANIFEST}")
        if data is None:
            raise InputError(f"{self._place}: no bundle {digest} was registered here")
        manifest = read_manifest(digest, data)
        bundle = Bundle(digest, manifest, {name: self._file(manifest, digest, name) for name in manifest["files"]})
        self._copy(bundle)
        return bundle

    def _file(self, manifest: Mapping[str, Any], digest: str, name: str) -> bytes:
        data = self._objects.get(f"{_folder(digest)}/{name}")
        if data is None:
            raise IntegrityError(f"{name} is missing from {self._place}/{_folder(digest)}")
        return check_file(manifest, name, data)

    def _copy(self, bundle: Bundle) -> None:
        """Nothing hangs on it."""
        if self._copies is None:
            return
        try:
            fields = {name: value for name, value in bundle.manifest.items() if name != "files"}
            self._copies.put(fields, bundle.files)
        except DriftError as error:
            log.warning("%s; no copy is kept", error)


def _folder(digest: str) -> str:
    hexadecimal = checked_digest(digest).removeprefix("sha256:")
    return f"{hexadecimal[:2]}/{hexadecimal}"
