"""SealedSecrets: what is sealed is read by who has the private key, as the controller reads it, and by nobody else."""

import base64
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from drift_pipeline.control.sealed_secret import MOST_BYTES, Certificate, Scope, SealedSecret, seal
from drift_pipeline.errors import InputError

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
YEAR = timedelta(days=365)


@cache
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def short() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


def certificate_of(key: Any, since: datetime = AT - YEAR, ends: datetime = AT + YEAR) -> bytes:
    """As the controller signs its own."""
    signs = key if isinstance(key, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey) else private()
    made = x509.CertificateBuilder(x509.Name([]), x509.Name([]), key.public_key(), 1, since, ends)
    hashed = None if isinstance(signs, ed25519.Ed25519PrivateKey) else SHA256()
    return made.sign(signs, hashed).public_bytes(Encoding.PEM)


@cache
def parsed() -> Certificate:
    return Certificate.parse(certificate_of(private()), "cert.pem", AT)


def unseal(document: Mapping[str, Any], key: rsa.RSAPrivateKey) -> dict[str, bytes]:
    """As the controller does (pkg/crypto and sealedsecret_expansion.go of sealed-secrets): the label is of what the
    object itself is called and annotated."""
    metadata = document["metadata"]
    noted = metadata.get("annotations", {})
    label = f"{metadata['namespace']}/{metadata['name']}"
    if noted.get("sealedsecrets.bitnami.com/cluster-wide") == "true":
        label = ""
    elif noted.get("sealedsecrets.bitnami.com/namespace-wide") == "true":
        label = metadata["namespace"]
    found = {}
    for name, text in document["spec"]["encryptedData"].items():
        data = base64.b64decode(text, validate=True)
        (length,) = struct.unpack(">H", data[:2])
        wrapped, sealed = data[2 : 2 + length], data[2 + length :]
        session = key.decrypt(wrapped, padding.OAEP(padding.MGF1(SHA256()), SHA256(), label.encode()))
        found[name] = AESGCM(session).decrypt(bytes(12), sealed, None)
    return found


def sealed(values: Mapping[str, bytes], scope: Scope = Scope.STRICT) -> SealedSecret:
    label = scope.label("ml", "drift")
    return SealedSecret("ml", "drift", scope, {key: seal(parsed(), value, label) for key, value in values.items()})


KEYS = st.from_regex(r"[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,20}", fullmatch=True) | st.sampled_from(["y", "on", "1e3", "null"])


@settings(max_examples=50)
@given(
    values=st.dictionaries(KEYS, st.binary(max_size=5000), min_size=1, max_size=3),
    scope=st.sampled_from(Scope),
)
def test_what_is_sealed_is_read_with_the_private_key_in_each_scope(values: dict[str, bytes], scope: Scope) -> None:
    made = sealed(values, scope)
    text = made.to_yaml()
    assert unseal(yaml.safe_load(text), private()) == values
    assert SealedSecret.parse(text, "there") == made
    assert not any(value in text for value in values.values() if len(value) > 8)


def test_the_key_may_have_any_length() -> None:
    other = Certificate(short().public_key(), "", AT)
    made = SealedSecret("ml", "drift", Scope.STRICT, {"key": seal(other, b"value", b"ml/drift")})
    assert unseal(yaml.safe_load(made.to_yaml()), short()) == {"key": b"value"}


def test_the_largest_value_is_sealed_and_no_larger_one() -> None:
    value = bytes(range(256)) * (MOST_BYTES // 256)
    made = sealed({"all": value})
    told = {"metadata": {"namespace": "ml", "name": "drift"}, "spec": {"encryptedData": made.encrypted}}
    assert unseal(told, private()) == {"all": value}
    with pytest.raises(InputError, match=r"ml/drift: its values have 1,048,577 bytes together"):
        sealed({"all": value, "more": b"1"})


def test_the_object_is_what_kubeseal_writes() -> None:
    document = yaml.safe_load(sealed({"DRIFT_DATABASE": b"x"}, Scope.NAMESPACE).to_yaml())
    encrypted = document["spec"].pop("encryptedData")
    wide = {"sealedsecrets.bitnami.com/namespace-wide": "true"}
    metadata = {"name": "drift", "namespace": "ml", "annotations": wide}
    assert [*encrypted] == ["DRIFT_DATABASE"]
    assert len(base64.b64decode(encrypted["DRIFT_DATABASE"])) == 2 + 256 + 1 + 16
    assert document == {
        "apiVersion": "bitnami.com/v1alpha1",
        "kind": "SealedSecret",
        "metadata": metadata,
        "spec": {"template": {"metadata": metadata, "type": "Opaque"}},
    }


@pytest.mark.parametrize(
    ("scope", "change", "reads"),
    [
        (Scope.STRICT, {"name": "other"}, False),
        (Scope.STRICT, {"namespace": "other"}, False),
        (Scope.STRICT, {"annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}}, False),
        (Scope.NAMESPACE, {"name": "other"}, True),
        (Scope.NAMESPACE, {"namespace": "other"}, False),
        (Scope.CLUSTER, {"name": "other", "namespace": "other"}, True),
    ],
)
def test_a_value_is_read_where_its_scope_says_alone(scope: Scope, change: dict[str, Any], reads: bool) -> None:
    document = yaml.safe_load(sealed({"key": b"value"}, scope).to_yaml())
    document["metadata"] |= change
    if reads:
        assert unseal(document, private()) == {"key": b"value"}
        return
    with pytest.raises(ValueError, match="Decryption failed"):
        unseal(document, private())


def test_a_value_that_was_changed_is_not_read_and_two_sealings_of_one_differ() -> None:
    first, second = sealed({"key": b"value"}), sealed({"key": b"value"})
    assert first.encrypted != second.encrypted
    data = bytearray(base64.b64decode(first.encrypted["key"]))
    data[-1] ^= 1
    document = yaml.safe_load(first.to_yaml())
    document["spec"]["encryptedData"]["key"] = base64.b64encode(data).decode()
    with pytest.raises(InvalidTag):
        unseal(document, private())


def test_of_several_certificates_the_first_counts() -> None:
    both = certificate_of(private()) + certificate_of(short())
    assert Certificate.parse(both, "cert.pem", AT).key.key_size == 2048


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (lambda: b"", "is no certificate in PEM"),
        (lambda: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is no certificate in PEM"),
        (lambda: certificate_of(private(), ends=AT), r"expired 2026-03-02 12:00 UTC"),
        (lambda: certificate_of(ed25519.Ed25519PrivateKey.generate()), "its key is not RSA"),
        (lambda: certificate_of(short()), "has 1024 bits, and 2048 are the least"),
    ],
)
def test_a_certificate_that_will_not_do_is_one_sentence(pem: Any, said: str) -> None:
    with pytest.raises(InputError, match=rf"^cert\.pem: .*{said}") as refused:
        Certificate.parse(pem(), "cert.pem", AT)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("namespace", "name"), [("", "a"), ("ML", "a"), ("m.l", "a"), ("ml", "A"), ("ml", "a/b")])
def test_a_name_that_is_none_is_refused(namespace: str, name: str) -> None:
    with pytest.raises(InputError, match=r"^(namespace|name) '"):
        SealedSecret(namespace, name, Scope.STRICT, {})
    with pytest.raises(InputError, match="63 at most"):
        SealedSecret("ml", "a" * 64, Scope.STRICT, {})


@pytest.mark.parametrize("key", ["", ".", "..", "..a", "a/b", "a b", "DRIFT_DATABASE=postgresql://u:hunter2@h/d"])
def test_a_key_that_is_none_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(InputError) as refused:
        SealedSecret("ml", "a", Scope.STRICT, {key: "AAAA"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"{", b"\xff", b"a: [" * 2000, b"kind: SealedSecret", b"{apiVersion: v1, kind: Secret}"),
        b"{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: 3, spec: {encryptedData: {}}}",
        b"{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: a}, spec: {encryptedData: {}}}",
        b"{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: a, namespace: 3}, spec: "
        b"{encryptedData: {a: b}}}",
        b"{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {name: a, namespace: b}, spec: "
        b"{encryptedData: {a: AAAA}}}",
    ],
)
def test_what_is_no_such_object_is_refused(text: bytes) -> None:
    with pytest.raises(InputError, match=r"^there: is no SealedSecret of bitnami\.com/v1alpha1"):
        SealedSecret.parse(text, "there")
