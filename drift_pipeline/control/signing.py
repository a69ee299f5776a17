"""Ed25519 keys and DSSE v1 envelopes: who signed it, and does it hold.

The libraries of cryptography are imported where they are used, so the control store starts without them.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.files import read_plain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


_MOST_BYTES = 1 << 16  # of a public file
# Unicode's Default_Ignorable_Code_Point: two names that differ in these alone look the same
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True)
class PublicKey:
    """32 raw bytes of an ed25519 public key; `str` is how a signer is shown to people, label included.

    Label (`replay-only`) and identity are no part of the key id. They are as trustworthy as the file they were read
    from, which is why no envelope carries them. `roles` are what a home appointed the key as; no file has them.
    """

    raw: bytes
    label: str | None = None
    identity: str | None = None
    roles: tuple[str, ...] = field(default=("approver",), compare=False)

    @property
    def person(self) -> str:
        """Whose key it is: two keys of one person are equal in this. The declared identity, else the label, without
        regard to case, width, spaces and letters that nobody sees; of a key with neither, the key id."""
        told = self.identity or self.label or self.key_id
        return " ".join(unicodedata.normalize("NFKC", _UNSEEN.sub("", told)).casefold().split())

    @property
    def key_id(self) -> str:
        return hashlib.sha256(self.raw).hexdigest()

    def __str__(self) -> str:
        return f"{self.label or 'unlabelled'} ({self.key_id[:16]})"

    def to_bytes(self) -> bytes:
        """The public file: `{keyid, label, identity, public}`."""
        told = {"label": self.label, "identity": self.identity}
        return canonical({"keyid": self.key_id, **told, "public": self.raw.hex()}) + b"\n"

    def save(self, path: Path) -> None:
        """Write the public file; InputError when the path is taken."""
        _write_new(path, self.to_bytes(), mode=0o644)

    @classmethod
    def load(cls, path: Path) -> "PublicKey":
        """Raises InputError when it is no public key file, IntegrityError when its key id is not that of its key."""
        try:
            fields = json.loads(read_plain(path, _MOST_BYTES))
            told = fields.get("label"), fields.get("identity")
            key, claimed = cls(bytes.fromhex(fields["public"]), *told), fields["keyid"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path}: no public key file {{keyid, label, public}}: {error}") from error
        if len(key.raw) != 32 or not all(isinstance(text, str | None) for text in told):
            raise InputError(f"{path}: an ed25519 public key is 64 hex digits, its label and identity texts or null")
        if claimed != key.key_id:
            raise IntegrityError(f"{path}: the key id {claimed} is not that of the key, {key.key_id}")
        return key


class Signer:
    """An ed25519 private key; `public` says who it is and shows its label."""

    def __init__(self, private: "Ed25519PrivateKey", label: str | None = None, identity: str | None = None) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw(), label, identity)

    def __repr__(self) -> str:
        return f"Signer({self.public})"

    @property
    def key_id(self) -> str:
        return self.public.key_id

    def raw_signature(self, data: bytes) -> bytes:
        """64 bytes over exactly these; for formats that are no envelope."""
        return self._private.sign(data)

    @classmethod
    def generate(cls, label: str | None = None, identity: str | None = None) -> "Signer":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate(), label, identity)

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read the PEM at `path` and the public file beside it, without which a key would lose its label unseen.

        Raises:
            InputError: a file is missing or holds something else.
            IntegrityError: the two files are not one pair.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            private = load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"{path}: no readable private key: {error}") from error
        if not isinstance(private, Ed25519PrivateKey):
            raise InputError(f"{path}: an ed25519 key is wanted, this is a {type(private).__name__}")
        public = PublicKey.load(public_path(path))
        if public.raw != private.public_key().public_bytes_raw():
            raise IntegrityError(f"{public_path(path)}: the public key of another private key than {path}")
        return cls(private, public.label, public.identity)

    def save(self, path: Path) -> None:
        """Write PEM PKCS8 with mode 0600, and the public file beside it; InputError when either path is taken.

        The public file comes first: a crash between the two leaves no private key without its label.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if path.exists():
            raise InputError(f"{path}: exists, and a key is never overwritten; choose another path")
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.public.save(public_path(path))
        _write_new(path, pem, mode=0o600)

    def sign(self, payload: Mapping[str, Any], payload_type: str) -> dict[str, Any]:
        """DSSE v1 envelope over the payload's canonical JSON, as a JSON-able dict. The same input gives the same bytes.

        Raises:
            InputError: the payload is not JSON.
        """
        from securesystemslib.dsse import Envelope
        from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # it does export them

        key = SSlibKey.from_crypto(self._private.public_key(), self.key_id)
        envelope = Envelope(canonical(dict(payload)), payload_type, {})
        envelope.sign(CryptoSigner(self._private, key))
        signed: dict[str, Any] = envelope.to_dict()
        return signed


def verify(
    envelope: Mapping[str, Any], keys: Mapping[str, PublicKey], payload_type: str
) -> tuple[dict[str, Any], frozenset[str]]:
    """Payload of an envelope, and the ids of the known keys that signed it: at least one, each counted once.

    A signature of an unknown key counts for nothing; a bad one under a known key's id refuses the envelope.
    The caller compares the number of ids with what it wants and shows each as `str(keys[id])`.

    Raises:
        IntegrityError: malformed, another payload type, no known signer, a bad signature, a payload not canonical.
    """
    sealed = _read_envelope(envelope)
    if sealed.payload_type != payload_type:
        raise IntegrityError(f"the payload type is {sealed.payload_type!r}, {payload_type!r} is wanted")
    known = {key.key_id: key for key in keys.values()}
    signers = frozenset(sealed.signatures) & frozenset(known)
    if not signers:
        signed_by = ", ".join(sorted(map(str, sealed.signatures))) or "nobody"
        raise IntegrityError(f"no known key signed this; it is signed by {signed_by}")
    for key_id in signers:
        _check_signature(sealed, known[key_id])
    payload = read_canonical(sealed.payload)
    if not isinstance(payload, dict):
        raise IntegrityError(f"the payload is a JSON object, not {type(payload).__name__}")
    return payload, signers


def public_path(path: Path) -> Path:
    """Where the public half of the private key at `path` stands: `key.pem` -> `key.pub.json`."""
    return path.with_suffix(".pub.json")


def _read_envelope(envelope: Mapping[str, Any]) -> Any:
    from securesystemslib.dsse import Envelope

    try:
        sealed = Envelope.from_dict(json.loads(json.dumps(dict(envelope))))  # it takes what it reads apart
        sealed.pae()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"no DSSE envelope: {type(error).__name__}: {error}") from error
    return sealed


def _check_signature(sealed: Any, key: PublicKey) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signature = bytes.fromhex(sealed.signatures[key.key_id].signature)
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, sealed.pae())
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(f"bad signature under the key of {key}") from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise InputError(f"{path}: exists, and a key is never overwritten; choose another path") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
