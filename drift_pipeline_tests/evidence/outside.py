"""Verifies a DSSE envelope of an in-toto statement with securesystemslib alone: what an auditor could write.

Run as `python outside.py ENVELOPE PUBLIC_KEY [FOLDER]`; it imports nothing of drift_pipeline. The subjects have to be
files of the folder. Ends with 0 and prints the predicate's type, or with an error.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]  # it does export it


def main(envelope_file: str, key_file: str, folder: str = "") -> None:
    raw = bytes.fromhex(json.loads(Path(key_file).read_bytes())["public"])
    key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(raw), hashlib.sha256(raw).hexdigest())
    envelope = Envelope.from_dict(json.loads(Path(envelope_file).read_bytes()))
    verified = envelope.verify([key], threshold=1)  # raises where it does not hold
    assert [*verified] == [key.keyid], verified
    assert envelope.payload_type == "application/vnd.in-toto+json", envelope.payload_type
    statement = json.loads(envelope.payload)
    assert statement.keys() == {"_type", "subject", "predicateType", "predicate"}, statement.keys()
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert re.fullmatch(r"https://\S+", statement["predicateType"])
    assert isinstance(statement["predicate"], dict)
    assert statement["subject"], "a statement is about something"
    for subject in statement["subject"]:
        assert subject.keys() == {"name", "digest"}, subject
        assert re.fullmatch(r"[0-9a-f]{64}", subject["digest"]["sha256"])
        if folder:
            held = hashlib.sha256((Path(folder) / subject["name"]).read_bytes()).hexdigest()
            assert held == subject["digest"]["sha256"], subject["name"]
    print(statement["predicateType"])  # noqa: T201  # a script
    assert not [name for name in sys.modules if name.startswith("drift_pipeline")]


if __name__ == "__main__":
    main(*sys.argv[1:])
