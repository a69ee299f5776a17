"""Who signed is known exactly, or the envelope is refused with the reason."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.control.canonical import canonical, read_canonical
from drift_pipeline.control.signing import PublicKey, Signer, public_path, verify
from drift_pipeline.errors import InputError, IntegrityError

TYPE = "application/vnd.in-toto+json"
PAYLOAD: dict[str, Any] = {"subject": "fraud", "metrics": {"auroc": 0.91}}

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def keyring(*signers: Signer) -> dict[str, PublicKey]:
    return {signer.key_id: signer.public for signer in signers}


def resealed(signer: Signer, payload: bytes) -> dict[str, Any]:
    """An envelope whose signature holds although the payload was never canonical."""
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

    envelope = Envelope(payload, TYPE, {})
    key = SSlibKey.from_crypto(signer._private.public_key(), signer.key_id)
    envelope.sign(CryptoSigner(signer._private, key))
    sealed: dict[str, Any] = envelope.to_dict()
    return sealed


@given(json_values)
def test_canonical_json_reads_back_as_the_same_value(value: Any) -> None:
    assert read_canonical(canonical(value)) == value


@given(json_values)
def test_no_other_spelling_is_read(value: Any) -> None:
    with pytest.raises(IntegrityError, match="not canonical"):
        read_canonical(b" " + canonical(value))


@pytest.mark.parametrize("spelled", ["1.0", '{"b":1,"a":2}', '{"a":1,"a":1}', "NaN", "-0", "9007199254740993", "{"])
def test_a_value_that_is_spelled_otherwise_is_refused(spelled: str) -> None:
    with pytest.raises(IntegrityError, match="not canonical"):
        read_canonical(spelled)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 2**53, "\ud800", b"bytes", {1: 2}])
def test_what_json_cannot_hold_is_refused_with_its_place(bad: object) -> None:
    with pytest.raises(InputError, match=r"^\$\.metrics\.1 cannot be written as canonical JSON"):
        canonical({"fine": 1, "metrics": [0, bad]})


def test_a_nesting_too_deep_to_write_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InputError, match=r"^\$ cannot be written"):
        canonical(nested)


def test_a_signed_payload_comes_back_with_its_signer() -> None:
    signer = Signer.generate()
    assert verify(signer.sign(PAYLOAD, TYPE), keyring(signer), TYPE) == (PAYLOAD, frozenset([signer.key_id]))


def test_the_envelope_is_dsse_v1_over_canonical_json() -> None:
    """RFC 8032 test 1's key; the signature is checked with nothing but the PAE of the DSSE protocol."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    envelope = Signer(private).sign(PAYLOAD, TYPE)
    payload = b'{"metrics":{"auroc":0.91},"subject":"fraud"}'
    pae = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE.encode(), len(payload), payload)
    assert base64.b64decode(envelope["payload"]) == payload
    private.public_key().verify(base64.b64decode(envelope["signatures"][0]["sig"]), pae)
    assert envelope == Signer(private).sign(dict(reversed(PAYLOAD.items())), TYPE) == json.loads(json.dumps(envelope))


def test_a_changed_payload_is_refused() -> None:
    signer = Signer.generate("approver")
    envelope = signer.sign(PAYLOAD, TYPE)
    envelope["payload"] = base64.b64encode(canonical({**PAYLOAD, "subject": "other"})).decode()
    with pytest.raises(IntegrityError, match=r"bad signature under the key of approver \("):
        verify(envelope, keyring(signer), TYPE)


def test_a_signature_forged_under_a_known_key_id_is_refused_even_beside_a_good_one() -> None:
    known, other, forger = Signer.generate(), Signer.generate(), Signer.generate()
    envelope = other.sign(PAYLOAD, TYPE)
    forged = forger.sign(PAYLOAD, TYPE)["signatures"][0]
    envelope["signatures"].append({**forged, "keyid": known.key_id})
    with pytest.raises(IntegrityError, match="bad signature"):
        verify(envelope, keyring(known, other), TYPE)


def test_a_stranger_counts_for_nothing() -> None:
    known, stranger = Signer.generate(), Signer.generate()
    envelope = stranger.sign(PAYLOAD, TYPE)
    with pytest.raises(IntegrityError, match=f"no known key signed this; it is signed by {stranger.key_id}"):
        verify(envelope, keyring(known), TYPE)
    envelope["signatures"] += known.sign(PAYLOAD, TYPE)["signatures"]
    assert verify(envelope, keyring(known), TYPE)[1] == {known.key_id}


def test_one_key_under_two_names_is_one_signer() -> None:
    signer = Signer.generate()
    envelope = signer.sign(PAYLOAD, TYPE)
    assert verify(envelope, {"alice": signer.public, "bob": signer.public}, TYPE)[1] == {signer.key_id}
    envelope["signatures"] *= 2
    with pytest.raises(IntegrityError, match="Multiple signatures"):
        verify(envelope, keyring(signer), TYPE)


def test_an_envelope_of_another_type_is_refused() -> None:
    signer = Signer.generate()
    with pytest.raises(IntegrityError, match="the payload type is 'text/plain'"):
        verify(signer.sign(PAYLOAD, "text/plain"), keyring(signer), TYPE)


@pytest.mark.parametrize("payload", [b'{"a": 1}', b'{"a":1,"a":1}', b'{"b":1,"a":1}', b"\xff", b"[1]", b""])
def test_a_payload_that_is_not_canonical_is_refused_though_its_signature_holds(payload: bytes) -> None:
    signer = Signer.generate()
    with pytest.raises(IntegrityError, match=r"canonical|object"):
        verify(resealed(signer, payload), keyring(signer), TYPE)


@pytest.mark.parametrize(
    "change",
    [
        {"signatures": []},
        {"signatures": "no list"},
        {"signatures": [{"sig": "AAAA"}]},
        {"signatures": [{"keyid": 7, "sig": "AAAA"}]},
        {"signatures": [{"keyid": [], "sig": "AAAA"}]},
        {"payload": "%%%"},
        {"payload": None},
        {"payloadType": 5},
    ],
)
def test_a_malformed_envelope_is_refused_and_left_as_it_was(change: dict[str, Any]) -> None:
    signer = Signer.generate()
    envelope = {**signer.sign(PAYLOAD, TYPE), **change}
    before = json.dumps(envelope)
    with pytest.raises(IntegrityError):
        verify(envelope, keyring(signer), TYPE)
    assert json.dumps(envelope) == before


def test_a_saved_key_is_private_and_comes_back_with_its_label(tmp_path: Path) -> None:
    path = tmp_path / "replay.pem"
    signer = Signer.generate("replay-only")
    signer.save(path)
    again = Signer.load(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert verify(again.sign(PAYLOAD, TYPE), keyring(signer), TYPE)[1] == {signer.key_id}
    assert str(again.public) == f"replay-only ({signer.key_id[:16]})"
    assert PublicKey.load(public_path(path)) == signer.public
    assert json.loads(public_path(path).read_text()).keys() == {"keyid", "label", "identity", "public"}


@pytest.mark.parametrize("taken", ["key.pem", "key.pub.json"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError, match="never overwritten"):
        Signer.generate().save(tmp_path / "key.pem")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "mine")]


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        Signer.generate().save(tmp_path / "absent" / "key.pem")


def test_a_key_does_not_lose_or_swap_its_public_file_unseen(tmp_path: Path) -> None:
    path, other = tmp_path / "key.pem", tmp_path / "other.pem"
    Signer.generate("replay-only").save(path)
    Signer.generate("production").save(other)
    public_path(path).write_bytes(public_path(other).read_bytes())
    with pytest.raises(IntegrityError, match="another private key"):
        Signer.load(path)
    public_path(path).unlink()
    with pytest.raises(InputError, match="no public key file"):
        Signer.load(path)


def test_a_public_file_whose_key_id_is_not_of_its_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pub.json"
    key = Signer.generate().public
    path.write_text(json.dumps({"keyid": "0" * 64, "label": None, "public": key.raw.hex()}))
    with pytest.raises(IntegrityError, match="not that of the key"):
        PublicKey.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"keyid":"a","public":"zz"}', '{"keyid":"a","public":"00"}'])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(InputError):
        PublicKey.load(path)
    with pytest.raises(InputError):
        Signer.load(path)


def test_a_private_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path = tmp_path / "key.pem"
    pem = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem)
    with pytest.raises(InputError, match="an ed25519 key is wanted"):
        Signer.load(path)


def test_a_signer_does_not_show_its_private_key() -> None:
    signer = Signer.generate("ops")
    assert repr(signer) == f"Signer(ops ({signer.key_id[:16]}))"
    assert signer._private.private_bytes_raw().hex() not in repr(vars(signer))


@pytest.mark.parametrize("told", ["a\u200bda", "ada\ufe0f", "\u2066ada", "ADA\u00ad", "ad\U000e0061a"])
def test_letters_that_nobody_sees_make_no_other_person(told: str) -> None:
    assert Signer.generate(told).public.person == "ada"
