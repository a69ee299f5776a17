"""A digest names a manifest, a manifest names its files, and a model is made of known types only."""

import functools
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.registry.bundle import check_file, dump_pipeline, load_pipeline, make_bundle, read_manifest

FIELDS = {"model": "fraud", "version": 1, "created_at": "2026-01-01T00:00:00Z"}


def test_the_manifest_lists_every_file_and_the_digest_is_its_own() -> None:
    bundle = make_bundle(FIELDS, {"model.skops": b"abc", "card.json": b""})
    assert bundle.manifest == {
        **FIELDS,
        "files": {
            "card.json": {"sha256": sha256(b""), "size": 0},
            "model.skops": {"sha256": sha256(b"abc"), "size": 3},
        },
    }
    assert bundle.digest == sha256(canonical(bundle.manifest))


@given(files=st.dictionaries(st.from_regex(r"[a-z]{1,5}\.bin", fullmatch=True), st.binary(max_size=9), min_size=1))
def test_the_digest_changes_with_any_byte_and_not_with_the_order(files: dict[str, bytes]) -> None:
    digest = make_bundle(FIELDS, files).digest
    assert make_bundle(dict(reversed(FIELDS.items())), dict(reversed(files.items()))).digest == digest
    name = next(iter(files))
    assert make_bundle(FIELDS, {**files, name: files[name] + b"x"}).digest != digest
    assert make_bundle({**FIELDS, "version": 2}, files).digest != digest


@pytest.mark.parametrize("name", ["../model", "a/b", "/etc/passwd", "", ".hidden", "a\\b", "manifest.json", "a\n"])
def test_a_file_name_is_plain(name: str) -> None:
    with pytest.raises(InputError, match="cannot name a file"):
        make_bundle(FIELDS, {"model.skops": b"", name: b""})
    evil = canonical({"files": {name: {"sha256": sha256(b""), "size": 0}}})
    with pytest.raises(IntegrityError, match="not plain"):
        read_manifest(sha256(evil), evil)


def test_fields_are_json_and_leave_the_files_to_the_bundle() -> None:
    with pytest.raises(InputError, match="'files'"):
        make_bundle({"files": {}}, {"m": b""})
    with pytest.raises(InputError, match="canonical JSON"):
        make_bundle({"auroc": float("nan")}, {"m": b""})
    with pytest.raises(InputError, match="no model"):
        make_bundle(FIELDS, {})


def test_other_bytes_are_refused_by_name() -> None:
    bundle = make_bundle(FIELDS, {"model.skops": b"abc"})
    text = canonical(bundle.manifest)
    assert read_manifest(bundle.digest, text) == bundle.manifest
    with pytest.raises(IntegrityError, match=r"manifest\.json .* other bytes"):
        read_manifest(bundle.digest, text.replace(b"fraud", b"freud"))
    for other in (b"abd", b"ab", b""):
        with pytest.raises(IntegrityError, match=r"model\.skops is not the file"):
            check_file(bundle.manifest, "model.skops", other)


@pytest.mark.parametrize("document", [{}, [], {"files": []}, {"files": {"m": "sha256:00"}}])
def test_a_manifest_without_a_list_of_files_is_none(document: object) -> None:
    data = canonical(document)
    with pytest.raises(IntegrityError, match="lists no files"):
        read_manifest(sha256(data), data)


class TestPipelines:
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_function_that_no_trainer_uses_is_refused_and_not_called(self, tmp_path: Path, wrapped: bool) -> None:
        """Wrapped in functools.partial, which is allowed, the function is still seen."""
        import skops.io
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer

        target = tmp_path / "owned"
        function = functools.partial(os.system, f"touch {target}") if wrapped else os.system
        evil = make_pipeline(FunctionTransformer(function))
        with pytest.raises(IntegrityError, match=r"not allowed: posix\.system"):
            load_pipeline(skops.io.dumps(evil))
        with pytest.raises(InputError, match=r"posix\.system"):
            dump_pipeline(evil)
        assert not target.exists()

    def test_a_model_that_is_no_pipeline_is_refused(self) -> None:
        import skops.io
        from sklearn.preprocessing import StandardScaler

        with pytest.raises(IntegrityError, match="a StandardScaler, not a Pipeline"):
            load_pipeline(skops.io.dumps(StandardScaler()))

    def test_broken_bytes_are_an_integrity_error_whatever_breaks(self) -> None:
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        data = dump_pipeline(make_pipeline(StandardScaler().fit([[0.0], [1.0]])))
        archive = zipfile.ZipFile(io.BytesIO(data))
        schema = archive.read("schema.json")
        random = np.random.default_rng(0)
        broken = [b"", b"PK", data[:-30]]
        for _ in range(150):
            text = bytearray(schema)
            text[random.integers(len(text))] = random.integers(32, 127)
            broken.append(_with_schema(archive, bytes(text)))
        refused = 0
        for candidate in broken:
            try:
                load_pipeline(candidate)
            except IntegrityError:
                refused += 1
        assert refused > 50


def _with_schema(archive: zipfile.ZipFile, schema: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, schema if name == "schema.json" else archive.read(name))
    return target.getvalue()
