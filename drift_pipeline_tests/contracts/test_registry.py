"""Every Registry keeps the bytes it was given under their digest, once, and says when it has none."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from drift_pipeline.bucket import Bucket
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import InputError
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.backends.bucket import BucketRegistry
from drift_pipeline.registry.backends.local import LocalRegistry

FIELDS = {"model": "fraud", "version": 1, "auroc": 0.8125, "gates": {"passed": True}}
FILES = {"model.skops": bytes(range(256)) * 100, "card.md": "# Fräud".encode(), "empty": b""}


@pytest.fixture(params=["local", pytest.param("bucket", marks=pytest.mark.live)])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    match request.param:
        case "local":
            return LocalRegistry(tmp_path / "registry")
        case "bucket":
            place: Bucket = request.getfixturevalue("s3_place")
            return BucketRegistry(place / "registry")
    raise AssertionError(request.param)


def test_what_was_put_is_got(registry: Registry) -> None:
    put = registry.put(FIELDS, FILES)
    got = registry.get(put.digest)
    assert got == put
    assert got.files == FILES
    assert {key: got.manifest[key] for key in FIELDS} == FIELDS
    assert got.digest == sha256(canonical(got.manifest))


def test_the_same_content_is_one_bundle_and_other_content_another(registry: Registry) -> None:
    first, again = registry.put(FIELDS, FILES), registry.put(FIELDS, FILES)
    other = registry.put({**FIELDS, "version": 2}, FILES)
    assert first == again
    assert first.digest != other.digest
    assert registry.get(first.digest) == first
    assert registry.get(other.digest) == other


def test_many_writers_of_one_bundle_all_succeed(registry: Registry) -> None:
    with ThreadPoolExecutor(max_workers=8) as pool:
        digests = {bundle.digest for bundle in pool.map(lambda _: registry.put(FIELDS, FILES), range(16))}
    assert len(digests) == 1
    assert registry.get(digests.pop()).files == FILES


def test_an_unknown_digest_is_told(registry: Registry) -> None:
    stranger = sha256(b"stranger")
    assert not registry.exists(stranger)
    with pytest.raises(InputError, match=stranger):
        registry.get(stranger)
    assert not registry.exists(stranger)
    assert registry.exists(registry.put(FIELDS, FILES).digest)


@pytest.mark.parametrize("digest", ["", "latest", "sha256:..", "sha256:" + "A" * 64, "sha256:" + "0" * 63, "0" * 64])
def test_what_is_no_digest_is_refused(registry: Registry, digest: str) -> None:
    for question in (registry.get, registry.exists):
        with pytest.raises(InputError, match="not a digest"):
            question(digest)


def test_a_bundle_that_cannot_be_sealed_is_not_kept(registry: Registry) -> None:
    for fields, files in ((FIELDS, {"../evil": b""}), ({"auroc": float("inf")}, FILES), (FIELDS, {})):
        with pytest.raises(InputError):
            registry.put(fields, files)
