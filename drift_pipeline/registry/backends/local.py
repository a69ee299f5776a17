"""A registry in a folder: `<root>/<first 2 hex>/<hex>/` with manifest.json and the files it lists."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from drift_pipeline.control.canonical import canonical
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError
from drift_pipeline.files import read_plain, sync_entries
from drift_pipeline.registry.bundle import MANIFEST, Bundle, check_file, checked_digest, make_bundle, read_manifest


class LocalRegistry:
    """Bundles are written to a hidden folder beside, synced and renamed: a rename is all or nothing.

    A writer that was killed leaves its hidden folder; nobody reads it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, manifest_fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        bundle = make_bundle(manifest_fields, files)
        with _answering(self._root):
            if not self.exists(bundle.digest):
                self._write(bundle)
        return self.get(bundle.digest)

    def get(self, digest: str) -> Bundle:
        folder = self._folder(digest)
        with _answering(self._root):
            if not folder.is_dir():
                raise InputError(f"{self._root}: no bundle {digest} was registered here")
            manifest = read_manifest(digest, _read(folder, MANIFEST))
            files = {name: check_file(manifest, name, _read(folder, name)) for name in manifest["files"]}
        return Bundle(digest, manifest, files)

    def exists(self, digest: str) -> bool:
        with _answering(self._root):
            return self._folder(digest).is_dir()

    def _folder(self, digest: str) -> Path:
        hexadecimal = checked_digest(digest).removeprefix("sha256:")
        return self._root / hexadecimal[:2] / hexadecimal

    def _write(self, bundle: Bundle) -> None:
        final = self._folder(bundle.digest)
        final.parent.mkdir(parents=True, exist_ok=True)
        incoming = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._root))
        try:
            for name, data in {**bundle.files, MANIFEST: canonical(bundle.manifest)}.items():
                _write_synced(incoming / name, data)
            incoming.chmod(0o755)
            sync_entries(incoming)
            try:
                incoming.rename(final)
            except OSError:
                if not final.is_dir():  # else somebody else put the same bundle first
                    raise
            for folder in (final.parent, self._root):
                sync_entries(folder)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)


@contextmanager
def _answering(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{root}: the registry does not answer: {error}") from error


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_plain(folder / name)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise IntegrityError(f"{name} is missing from {folder}") from error


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
