"""Images as archives in the layout of the Open Container Initiative, which containerd imports without a registry."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}  # in Go's words
_OCI = "application/vnd.oci.image."


@dataclass(frozen=True)
class Layer:
    """A tar that is not compressed; `file` may be gone where whoever imports it has the digest already."""

    digest: str
    size: int
    file: Path


def layer(file: Path) -> Layer:
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return Layer(f"sha256:{digest}", file.stat().st_size, file)


def program_layer(files: Mapping[str, Path], out: Path) -> Layer:
    """Programs by where each is in the image, and the folders that a runtime mounts to."""
    with tarfile.open(out, "w") as tar:
        for name, mode in (("tmp", 0o1777), ("etc", 0o755), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, file in files.items():
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = file.stat().st_size, 0o755
            with file.open("rb") as data:
                tar.addfile(member, data)
    return layer(out)


def write(
    out: Path, name: str, layers: Sequence[Layer], config: Mapping[str, Any], there: Collection[str] = ()
) -> None:
    """An archive of one image, without the blobs that are `there`.

    Args:
        name: with its registry and tag, such as localhost/drift-pipeline:1.
        config: `Env`, `Entrypoint`, `User`, `WorkingDir` and so on.
    """
    with tarfile.open(out, "w") as tar:
        _add(tar, "oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"}).encode())
        for one in layers:
            if one.digest not in there:
                tar.add(one.file, _path(one.digest))
        rootfs = {"type": "layers", "diff_ids": [one.digest for one in layers]}
        image: dict[str, Any] = {
            "architecture": _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": config,
            "rootfs": rootfs,
        }
        image["history"] = [{"created_by": "drift_pipeline_tests"} for _ in layers]
        kind = f"{_OCI}layer.v1.tar"
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}manifest.v1+json",
            "config": _blob(tar, f"{_OCI}config.v1+json", image),
            "layers": [{"mediaType": kind, "digest": one.digest, "size": one.size} for one in layers],
        }
        told = _blob(tar, f"{_OCI}manifest.v1+json", manifest)
        told["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
        _add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [told]}).encode())


def _blob(tar: tarfile.TarFile, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    data = json.dumps(content, sort_keys=True).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _add(tar, _path(digest), data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def _path(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))
