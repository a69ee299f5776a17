"""SSH signatures (OpenSSH's PROTOCOL.sshsig) and keys in OpenSSH's spelling, made without a private key in a file."""

import base64
import hashlib
import re
import struct
from datetime import datetime

from drift_pipeline.control.signing import PublicKey, Signer

_KIND, _HASH = b"ssh-ed25519", b"sha512"


def ssh_signature(signer: Signer, message: bytes, namespace: str) -> str:
    """Armoured, over the message's SHA-512; the same input gives the same text. `ssh-keygen -Y verify` checks it."""
    named = _string(namespace.encode()) + _string(b"") + _string(_HASH)
    signed = signer.raw_signature(b"SSHSIG" + named + _string(hashlib.sha512(message).digest()))
    blob = b"SSHSIG" + struct.pack(">I", 1) + _string(_public(signer.public)) + named
    blob += _string(_string(_KIND) + _string(signed))
    text = base64.b64encode(blob).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join(["-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----"])


def principal(key: PublicKey) -> str:
    """How a key is named in `allowed_signers`, and as who signed: `Ada_Lovelace@<the end of its key id>`.

    >>> principal(PublicKey(bytes(32), "Ada, Lovelace"))
    'Ada_Lovelace@591d0d5f2925'
    """
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", key.label or "").strip("_") or "unlabelled"
    return f"{name}@{key.key_id[-12:]}"


def allowed_signer(key: PublicKey, until: datetime | None) -> str:
    """A line of `allowed_signers`.

    Args:
        until: aware; what the key signs later does not count. OpenSSH 9.1 and later read it.
    """
    ends = f',valid-before="{until:%Y%m%d%H%M%S}Z"' if until else ""
    return f'{principal(key)} namespaces="git"{ends} {_KIND.decode()} {base64.b64encode(_public(key)).decode()}'


def _public(key: PublicKey) -> bytes:
    return _string(_KIND) + _string(key.raw)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
