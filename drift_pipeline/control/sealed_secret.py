"""SealedSecrets as kubeseal writes them: secrets that may lie in git, for a cluster's controller alone reads them.

Each value is, in base64: the length of the next part (uint16, big endian); a session key of its own, under RSA-OAEP
with SHA-256 and the scope as its label; the value under that key by AES-256-GCM, with a nonce of zeros, since no
session key is used twice. It is encrypted, not signed.
"""

import base64
import re
import secrets
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

from drift_pipeline.control.manifests import to_yaml
from drift_pipeline.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MOST_BYTES = 1024 * 1024  # of all values of a Secret, as Kubernetes has it
_NONCE, _TAG_BYTES, _SESSION_BYTES, _LEAST_BITS = bytes(12), 16, 32, 2048
_API, _KIND, _ANNOTATION = "bitnami.com/v1alpha1", "SealedSecret", "sealedsecrets.bitnami.com/"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LONGEST = 63
_KEY = r"(?!\.\.)(?!\.$)[-._a-zA-Z0-9]{1,253}"


class Scope(StrEnum):
    """Where a sealed value may be read: under its namespace and name, in its namespace, or anywhere in the cluster."""

    STRICT = "strict"
    NAMESPACE = "namespace-wide"
    CLUSTER = "cluster-wide"

    def label(self, namespace: str, name: str) -> bytes:
        told = {Scope.STRICT: f"{namespace}/{name}", Scope.NAMESPACE: namespace, Scope.CLUSTER: ""}
        return told[self].encode()

    @property
    def annotations(self) -> dict[str, str]:
        return {} if self is Scope.STRICT else {f"{_ANNOTATION}{self}": "true"}


@dataclass(frozen=True)
class Certificate:
    """A controller's; `fingerprint` is the hex SHA-256 of its DER, `ends` when it expires."""

    key: "RSAPublicKey"
    fingerprint: str
    ends: datetime

    @classmethod
    def parse(cls, pem: bytes, where: str, now: datetime) -> "Certificate":
        """The first one in the PEM. Raises InputError: no certificate, expired, not RSA, or a key of too few bits."""
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            found = x509.load_pem_x509_certificate(pem)
            key = found.public_key()
        except (ValueError, UnsupportedAlgorithm) as error:
            raise InputError(f"{where}: is no certificate in PEM; `kubeseal --fetch-cert` writes one") from error
        ends = found.not_valid_after_utc
        if ends <= now:
            raise InputError(f"{where}: expired {ends:%Y-%m-%d %H:%M} UTC; fetch the controller's newest certificate")
        if not isinstance(key, RSAPublicKey):
            raise InputError(f"{where}: its key is not RSA, and a controller's is; `kubeseal --fetch-cert` writes one")
        if key.key_size < _LEAST_BITS:
            raise InputError(f"{where}: its RSA key has {key.key_size} bits, and {_LEAST_BITS} are the least")
        return cls(key, found.fingerprint(SHA256()).hex(), ends)


@dataclass(frozen=True)
class SealedSecret:
    """One object; `encrypted` has the sealed values in base64, by key."""

    namespace: str
    name: str
    scope: Scope
    encrypted: Mapping[str, str]

    def __post_init__(self) -> None:
        require_names(self.namespace, self.name)
        require_keys(self.encrypted)
        if (size := sum(map(_plain_bytes, self.encrypted.values()))) > MOST_BYTES:
            raise InputError(
                f"{self.namespace}/{self.name}: its values have {size:,} bytes together, and a Secret has "
                f"{MOST_BYTES:,} at most; seal them under several names"
            )

    def to_yaml(self) -> bytes:
        """As `kubeseal -o yaml` has it: what the Secret is to be called and annotated stands in the template."""
        told = {"annotations": self.scope.annotations} if self.scope.annotations else {}
        metadata = {"name": self.name, "namespace": self.namespace, **told}
        spec = {"encryptedData": dict(self.encrypted), "template": {"metadata": metadata, "type": "Opaque"}}
        return to_yaml({"apiVersion": _API, "kind": _KIND, "metadata": metadata, "spec": spec})

    @classmethod
    def parse(cls, text: bytes, where: str) -> "SealedSecret":
        """Raises InputError where it is no such object."""
        try:
            document: Any = yaml.safe_load(text)
            if (document["apiVersion"], document["kind"]) != (_API, _KIND):
                raise ValueError
            metadata, encrypted = document["metadata"], {**document["spec"]["encryptedData"]}
            noted = metadata.get("annotations") or {}
            wide = [scope for scope in (Scope.CLUSTER, Scope.NAMESPACE) if noted.get(f"{_ANNOTATION}{scope}") == "true"]
            return cls(metadata["namespace"], metadata["name"], (wide or [Scope.STRICT])[0], encrypted)
        except (yaml.YAMLError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{where}: is no {_KIND} of {_API}; move it away, or name another file") from error


def seal(certificate: Certificate, value: bytes, label: bytes) -> str:
    """One value, in base64; the same value is sealed otherwise each time."""
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256

    session = secrets.token_bytes(_SESSION_BYTES)
    wrapped = certificate.key.encrypt(session, OAEP(MGF1(SHA256()), SHA256(), label))
    sealed = struct.pack(">H", len(wrapped)) + wrapped + AESGCM(session).encrypt(_NONCE, value, None)
    return base64.b64encode(sealed).decode()


def require_names(namespace: str, name: str) -> None:
    """Raise InputError where one is none of Kubernetes'. A file is called so, too: a name has 63 letters at most."""
    if len(namespace) > _LONGEST or not re.fullmatch(_LABEL, namespace):
        raise InputError(f"namespace {namespace!r}: small letters, digits and - make one, {_LONGEST} at most")
    if len(name) > _LONGEST or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", name):
        raise InputError(f"name {name!r}: small letters, digits, - and . make a Secret's, {_LONGEST} at most")


def require_keys(keys: Iterable[str]) -> None:
    """Raise InputError where one is none of a Secret's. It may be a value that somebody typed, and is not told."""
    if not all(re.fullmatch(_KEY, key) for key in keys):
        raise InputError(
            "a KEY is of letters, digits, -, _ and .; its value is never typed, but read from the file of that name in "
            "DRIFT_SECRETS_DIR, or by --from-file KEY=FILE"
        )


def _plain_bytes(sealed: str) -> int:
    """How long the value is that was sealed. Raises ValueError where nothing was."""
    data = base64.b64decode(sealed, validate=True)
    if len(data) < 2 or (size := len(data) - 2 - int.from_bytes(data[:2], "big") - _TAG_BYTES) < 0:
        raise ValueError("too short for a sealed value")
    return size
