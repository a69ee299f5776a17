"""Bundle: a model version's files and the manifest that lists each one's sha256, under the manifest's own digest.

Models are written by skops, never pickled: loading builds only the types of a pinned list. skops' bytes differ from
dump to dump, so the digest names the stored bytes; training again makes another version.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drift_pipeline.control.canonical import canonical, read_canonical, sha256
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.registry.graph import listed_steps

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

MANIFEST = "manifest.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LONGEST_TOLD = 1000
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

# What skops does not trust by itself and our trainers' pipelines hold. Types that carry out a call (functools.partial,
# FunctionTransformer) are trusted by name, and the function inside is checked by name again.
ALLOWED_TYPES = frozenset(
    {
        "functools.partial",
        "numpy.dtype",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.utils.validation.check_array",
    }
)


@dataclass(frozen=True)
class Bundle:
    """`digest` is the sha256 of the canonical manifest; `manifest["files"][name]` has each file's sha256 and size."""

    digest: str
    manifest: Mapping[str, Any]
    files: Mapping[str, bytes]


def make_bundle(fields: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
    """Seal files under one digest. `fields` say what they are: model, version, created_at, trainer, data, gates ...

    Raises:
        InputError: no file, a file name that is not plain, fields that are no JSON or name `files` themselves, or a
            graph that is none or disagrees with the files.
    """
    if not files:
        raise InputError("a bundle without files holds no model")
    if odd := [name for name in files if not _plain(name)]:
        raise InputError(f"{odd[0]!r} cannot name a file of a bundle: letters, digits and ._- only, and not {MANIFEST}")
    if "files" in fields:
        raise InputError("'files' of a manifest is computed; leave it out of the fields")
    listed = {name: {"sha256": sha256(data), "size": len(data)} for name, data in files.items()}
    try:
        listed_steps({**fields, "files": listed})
    except IntegrityError as error:
        raise InputError(str(error)) from error
    text = canonical({**fields, "files": listed})
    return Bundle(sha256(text), read_canonical(text), dict(files))


def read_manifest(digest: str, data: bytes) -> dict[str, Any]:
    """The manifest whose bytes have this digest.

    Raises:
        IntegrityError: other bytes, no manifest, or one whose graph is none or disagrees with its files.
    """
    if sha256(data) != digest:
        raise IntegrityError(f"{MANIFEST} of {digest} has other bytes: {sha256(data)}")
    manifest = read_canonical(data)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or not all(
        _plain(name) and isinstance(entry, dict) for name, entry in files.items()
    ):
        raise IntegrityError(f"{MANIFEST} of {digest} lists no files, or names that are not plain")
    listed_steps(manifest)
    return dict(manifest)


def check_file(manifest: Mapping[str, Any], name: str, data: bytes) -> bytes:
    """The file's bytes, if they are those that the manifest lists.

    Raises:
        IntegrityError: names the file.
    """
    entry = manifest["files"][name]
    if entry != {"sha256": sha256(data), "size": len(data)}:
        raise IntegrityError(f"{name} is not the file that was registered: {sha256(data)}, {len(data):,} bytes")
    return data


def checked_digest(digest: str) -> str:
    """Raises InputError where the text is no digest."""
    if not _DIGEST.fullmatch(digest):
        raise InputError(f"{digest!r} is not a digest: sha256: and 64 hexadecimal digits")
    return digest


def dump_pipeline(pipeline: "Pipeline") -> bytes:
    """Bytes that `load_pipeline` reads.

    Raises:
        InputError: the pipeline holds a type that would not be loaded again; better told now than at serving.
    """
    import skops.io

    data: bytes = skops.io.dumps(pipeline)
    if refused := sorted(untrusted_types(data) - ALLOWED_TYPES):
        raise InputError(f"the pipeline holds what a registry does not load: {', '.join(refused)}")
    return data


_TYPES: dict[str, frozenset[str]] = {}


def untrusted_types(data: bytes) -> frozenset[str]:
    """The types that a model's bytes make and skops does not trust by itself.

    Raises:
        IntegrityError: what `check_archive` finds wrong.
        Exception: what zipfile, json and skops raise on a stranger's bytes.

    Kept by digest: a retrain asks when it stores, proves and audits the same bytes, and each look is 0.1 s.
    """
    import skops.io

    from drift_pipeline.registry.archive import check_archive

    digest = sha256(data)
    if digest not in _TYPES:
        check_archive(data)
        if len(_TYPES) >= 16:
            _TYPES.clear()
        _TYPES[digest] = frozenset(skops.io.get_untrusted_types(data=data))
    return _TYPES[digest]


def load_pipeline(data: bytes) -> "Pipeline":
    """Build a pipeline from bytes, of allowed types only; nothing of an unknown type is imported or called.

    Raises:
        IntegrityError: names the types that are not allowed, or says what cannot be read.
    """
    import skops.io
    from sklearn.pipeline import Pipeline

    try:
        untrusted = untrusted_types(data)
        if refused := sorted(untrusted - ALLOWED_TYPES):
            raise IntegrityError(f"the model holds types that are not allowed: {', '.join(refused)}")
        loaded = skops.io.loads(data, trusted=sorted(untrusted))
    except IntegrityError:
        raise
    except Exception as error:  # whatever zipfile, json, numpy, skops and scikit-learn raise on a stranger's bytes
        raise IntegrityError(f"the model cannot be read: {type(error).__name__}: {error}"[:_LONGEST_TOLD]) from error
    if not isinstance(loaded, Pipeline):
        raise IntegrityError(f"the model is a {type(loaded).__name__}, not a Pipeline")
    return loaded


def _plain(name: str) -> bool:
    return bool(_FILE_NAME.fullmatch(name)) and name != MANIFEST
