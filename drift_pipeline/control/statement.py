"""In-toto Statement v1 in a DSSE envelope: what somebody signs about files, which it names by their sha256.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. A statement is a plain dict in canonical JSON:
its signature is over bytes that any tool for DSSE and in-toto reads.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.signing import PublicKey, Signer, verify
from drift_pipeline.errors import IntegrityError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """`subjects` has the sha256 of each file, in 64 hex digits, by its name."""

    predicate_type: str
    subjects: Mapping[str, str]
    predicate: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        subjects = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(self.subjects.items())]
        head = {"_type": STATEMENT_TYPE, "predicateType": self.predicate_type}
        return {**head, "subject": subjects, "predicate": dict(self.predicate)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Statement":
        """Raises IntegrityError where it is not what `to_json` wrote."""
        try:
            subjects = {one["name"]: one["digest"]["sha256"] for one in document["subject"]}
            found = cls(document["predicateType"], subjects, document["predicate"])
            named = all(isinstance(name, str) and _HEX.fullmatch(digest) for name, digest in subjects.items())
            if named and isinstance(found.predicate, dict) and found.to_json() == document:
                return found
        except (LookupError, TypeError, AttributeError) as error:
            raise IntegrityError(f"no in-toto statement: {type(error).__name__}: {error}") from error
        raise IntegrityError("no in-toto statement of files by their sha256")


def sign_statement(statement: Statement, signer: Signer) -> bytes:
    """A file's content: the envelope in canonical JSON. Raises InputError where the predicate is not JSON."""
    return canonical(signer.sign(statement.to_json(), PAYLOAD_TYPE))


def read_statement(data: bytes, keys: Mapping[str, PublicKey], predicate_type: str) -> tuple[Statement, PublicKey]:
    """What was signed, and by whom, if these are the very bytes that `sign_statement` wrote.

    Raises:
        IntegrityError: another spelling, no known signer or one beside it, a bad signature, another predicate.
    """
    envelope = read_canonical(data)
    if not isinstance(envelope, dict):
        raise IntegrityError("no DSSE envelope: it is no JSON object")
    payload, signers = verify(envelope, keys, PAYLOAD_TYPE)
    statement = Statement.from_json(payload)
    if statement.predicate_type != predicate_type:
        raise IntegrityError(f"it says {statement.predicate_type}, {predicate_type} is wanted")
    if canonical(_spelled(envelope, payload)) != data:  # base64 has several spellings of one value
        raise IntegrityError("it holds more than one signature, or another spelling than was signed")
    return statement, next(key for key in keys.values() if key.key_id in signers)


def _spelled(envelope: Mapping[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """The envelope of the first signature alone."""
    first = envelope["signatures"][0]
    signature = base64.b64encode(base64.b64decode(first["sig"])).decode()
    return {
        "payload": base64.b64encode(canonical(dict(payload))).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": first["keyid"], "sig": signature}],
    }
