"""What a cluster's programs are told, and the images that its node is given, without any of them."""

import hashlib
import json
import re
import socket
import ssl
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline_tests.parts import archive, image, names, product
from drift_pipeline_tests.parts.cache import HERE, PINS, MissingError
from drift_pipeline_tests.parts.kubernetes_files import HEALTHY, PORT, flags, written

MADE_BY_ITSELF = {"flex-volume-plugin-dir", "data-dir", "root-dir", "cert-dir"}


def handshake(server: Path, client: ssl.SSLContext, name: str) -> None:
    """Of both in memory. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.with_suffix(".crt"), server.with_suffix(".key"))
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks = client.wrap_bio(back, there, server_hostname=name)
    answers = context.wrap_bio(there, back, server_side=True)
    waiting = [asks, answers]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass


def test_certificates_are_of_the_authority_and_of_their_hosts(tmp_path: Path) -> None:
    written(tmp_path)
    client = ssl.create_default_context(cafile=str(tmp_path / "keys" / "ca.crt"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("127.0.0.1", "localhost", "kubernetes.default.svc"):
        handshake(tmp_path / "keys" / "apiserver", client, name)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(tmp_path / "keys" / "apiserver", client, "example.com")
    (tmp_path / "other").mkdir()
    written(tmp_path / "other")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path / "other" / "keys" / "apiserver", client, "localhost")


@pytest.mark.parametrize("program", [*HEALTHY, "kubelet"])
def test_each_file_that_a_program_is_told_is_there(program: str, tmp_path: Path) -> None:
    written(tmp_path)
    told = flags(program, tmp_path)
    files = {name: value for name, value in told.items() if isinstance(value, Path) and name not in MADE_BY_ITSELF}
    assert files or program == "etcd"
    assert {name for name, value in files.items() if not value.is_file()} == set()


def test_each_user_has_an_entry_of_its_own_and_nobody_reads_keys(tmp_path: Path) -> None:
    token = written(tmp_path)
    admin = yaml.safe_load((tmp_path / "admin.yaml").read_text(encoding="utf-8"))
    assert admin["users"][0]["user"] == {"token": token}
    lines = (tmp_path / "keys" / "tokens.csv").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "system:masters" in line] == [f'{token},admin,admin,"system:masters"']
    assert len({line.partition(",")[0] for line in lines}) == 3
    assert {oct(key.stat().st_mode & 0o777) for key in (tmp_path / "keys").glob("*.key")} == {"0o600"}


def test_pods_find_the_api_server_where_it_is_and_know_their_names() -> None:
    policy, binding = yaml.safe_load_all((HERE / "pods.yaml").read_text(encoding="utf-8"))
    server, name = policy["spec"]["mutations"]
    assert set(re.findall(r'"(\d+)"', server["applyConfiguration"]["expression"])) == {str(PORT)}
    assert re.findall(r'name: "(\w+)"|fieldPath: "([\w.]+)"', name["jsonPatch"]["expression"]) == [
        ("HOSTNAME", ""),
        ("", "metadata.name"),
    ]
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]


def test_an_archive_has_each_blob_by_its_digest_but_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"a program")
    first = archive.program_layer({"/bin/program": tmp_path / "program"}, tmp_path / "first.tar")
    second = archive.program_layer({"/bin/other": tmp_path / "program"}, tmp_path / "second.tar")
    archive.write(tmp_path / "a.tar", "localhost/a:1", [first, second], {"User": "1:1"}, there={first.digest})
    with tarfile.open(tmp_path / "a.tar") as tar:
        files = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    blobs = {name.removeprefix("blobs/sha256/"): data for name, data in files.items() if name.startswith("blobs/")}
    assert {hashlib.sha256(data).hexdigest() for data in blobs.values()} == set(blobs)
    (told,) = json.loads(files["index.json"])["manifests"]
    assert told["annotations"]["io.containerd.image.name"] == "localhost/a:1"
    manifest = json.loads(blobs[told["digest"].removeprefix("sha256:")])
    assert [layer["digest"] for layer in manifest["layers"]] == [first.digest, second.digest]
    assert first.digest.removeprefix("sha256:") not in blobs
    assert len(blobs[second.digest.removeprefix("sha256:")]) == second.size
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["config"] == {"User": "1:1"}
    assert config["rootfs"]["diff_ids"] == [first.digest, second.digest]


def test_the_image_is_as_the_dockerfile_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told: dict[str, Any] = product.config()
    assert (told["User"], told["WorkingDir"], told["Entrypoint"]) == ("10001:10001", "/var/lib/drift", ["drift"])
    assert "DRIFT_HOME=/var/lib/drift" in told["Env"]
    assert image.sources(image.DOCKERFILE.read_text(encoding="utf-8"))[-1] == "drift_pipeline"
    monkeypatch.setenv("DRIFT_PARTS", str(tmp_path))
    with pytest.raises(MissingError, match=rf"install product makes it, {PINS['product']['minutes']} minutes"):
        product.find()


def test_an_image_is_named_after_all_that_it_is_made_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dockerfile, lock = tmp_path / "deploy" / "Dockerfile", tmp_path / "deploy" / "requirements.lock"
    package = tmp_path / "drift_pipeline" / "a.py"
    files = [dockerfile, lock, package, *(tmp_path / one for one in ("pyproject.toml", "README.md", "LICENSE"))]
    for file in (*files, tmp_path / "workspace.yaml"):
        file.parent.mkdir(exist_ok=True)
        file.write_text("a\n", encoding="utf-8")
    dockerfile.write_text(image.DOCKERFILE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(image, "TOP", tmp_path)
    monkeypatch.setattr(image, "DOCKERFILE", dockerfile)
    monkeypatch.setattr(product, "LOCK", lock)
    names = [(product._key(), product._folder().name)]
    package.write_text("b\n", encoding="utf-8")
    names.append((product._key(), product._folder().name))
    lock.write_text("b\n", encoding="utf-8")
    names.append((product._key(), product._folder().name))
    (first, base), (second, same), (third, other) = names
    assert len({first, second, third}) == 3
    assert base == same != other


def asked(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def address(name: str, namespace: str) -> str | None:
    if namespace == "away":
        raise ConnectionRefusedError
    return "127.10.0.7" if (name, namespace) == ("shop", "ml") else None


@pytest.mark.parametrize(
    ("name", "kind", "code", "answers"),
    [
        ("shop.ml.svc.cluster.local", 1, 0, 1),
        ("Shop.ML.svc.cluster.local", 1, 0, 1),
        ("shop.ml.svc.cluster.local", 28, 0, 0),  # no address of IPv6, and yet a name
        ("other.ml.svc.cluster.local", 1, 3, 0),
        ("shop.ml.svc.cluster.local.ml.svc.cluster.local", 1, 3, 0),
        ("example.com", 1, 3, 0),
        ("shop.away.svc.cluster.local", 1, 2, 0),
    ],
)
def test_names_are_those_of_services(name: str, kind: int, code: int, answers: int) -> None:
    told = names.answered(asked(name, kind), address)
    number, flags, questions, found, *_ = struct.unpack_from("!6H", told)
    assert (number, flags >> 15, flags & 0xF, questions, found) == (7, 1, code, 1, answers)
    assert told[12:].startswith(asked(name, kind)[12:])
    assert told.endswith(socket.inet_aton("127.10.0.7")) == bool(answers)


@pytest.mark.parametrize("datagram", [b"", b"\0" * 12, asked("shop.ml.svc.cluster.local")[:20]])
def test_what_is_no_question_is_known_as_such(datagram: bytes) -> None:
    with pytest.raises((IndexError, struct.error)):
        names.answered(datagram, address)
