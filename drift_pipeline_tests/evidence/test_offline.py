"""`drift verify`: a folder of evidence holds, as a copy anywhere, and nothing in it can be changed unseen."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import DAY
from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.statement import PAYLOAD_TYPE, Statement, read_statement, sign_statement
from drift_pipeline.control.trust import open_store, rotate
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence import offline
from drift_pipeline.evidence.attestation import ATTESTATION, EVIDENCE_TYPE, MANIFEST, VERSION_TYPE
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.evidence.offline import Verified, verify_evidence
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline_tests.evidence.worlds import Home, spec
from drift_pipeline_tests.replay.worlds import Ended, drift

OUTSIDE = Path(__file__).with_name("outside.py")
VERSIONS = ("churn/v1", "fraud/v1", "fraud/v2")


def documented(home: Home, name: str, model: str = "fraud", days: int = 0, **changes: Any) -> Bundle:
    """A version with its documents."""
    bundle = home.candidate(name, model, **changes)
    at = home.clock.now() + days * DAY
    write_documents(home.settings, home.store, home.registry, spec(name=model), bundle.digest, at)
    return bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("evidence") / "home")
    documented(home, "v1", passed=False)
    documented(home, "v2")
    documented(home, "v1", "churn")
    yield home
    home.store.close()


@pytest.fixture
def copy(made: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an auditor is sent, to be verified without waiting for a home that writes to it."""
    monkeypatch.setattr(offline, "_PAUSE_S", 0.0)
    for name in ("DRIFT_HOME", "DRIFT_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    return Path(shutil.copytree(made.settings.evidence, tmp_path / "sent"))


def verified(path: Path, home: Home, registry: Path | None = None) -> Verified:
    return verify_evidence(path, home.settings.trust, registry)


def told(path: Path, home: Home) -> list[tuple[str, str]]:
    return [(fault.file, fault.reason) for fault in verified(path, home).faults]


def files(path: Path) -> list[str]:
    return sorted(one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_file())


def typed(*arguments: object) -> Ended:
    return drift("verify", *arguments)


# what holds


def test_a_copy_verifies_with_the_keys_of_the_home_that_wrote_it(made: Home, copy: Path) -> None:
    found = verified(copy, made)
    assert found.faults == []
    assert found.files == sum(path.is_file() for path in copy.rglob("*")) == 1 + 3 * 11
    assert [(one.model, one.version, one.outcome) for one in found.versions] == [
        ("churn", "v1", "proven"),
        ("fraud", "v1", "rejected"),
        ("fraud", "v2", "proven"),
    ]
    assert {one.key_id for one in found.versions} == {made.trainer.key_id}
    assert found.audit is not None
    assert found.audit["head"] in {record.hash for record in made.store.records()}


@pytest.mark.parametrize("version", VERSIONS)
def test_one_version_alone_verifies(made: Home, copy: Path, version: str) -> None:
    found = verified(copy / version, made)
    assert (found.faults, found.at, f"{found.versions[0].model}/{found.versions[0].version}") == ([], None, version)


def test_a_folder_that_nobody_may_write_verifies_and_is_not_changed(made: Home, copy: Path) -> None:
    before = {name: (copy / name).stat().st_mtime_ns for name in files(copy)}
    for one in (copy, *copy.rglob("*")):
        one.chmod(0o555 if one.is_dir() else 0o444)
    assert told(copy, made) == []
    assert {name: (copy / name).stat().st_mtime_ns for name in files(copy)} == before
    for one in (copy, *copy.rglob("*")):
        one.chmod(0o755)


def test_the_bytes_of_the_models_are_verified_where_a_registry_is_named(made: Home, copy: Path, tmp_path: Path) -> None:
    assert not any(one.bytes_verified for one in verified(copy, made).versions)
    registry = Path(shutil.copytree(made.settings.registry, tmp_path / "registry"))
    assert all(one.bytes_verified for one in verified(copy, made, registry).versions)
    first, second, third = sorted(registry.glob("??/*"))
    (first / "model.skops").write_bytes(b"another model")
    shutil.rmtree(second)
    shutil.copytree(third, second)  # a bundle that is whole, and another one's
    reasons = [fault.reason for fault in verified(copy, made, registry).faults]
    assert len(reasons) == 2
    assert sum("model.skops is not the file that was registered" in reason for reason in reasons) == 1
    assert sum("has other bytes" in reason for reason in reasons) == 1
    shutil.rmtree(first)
    assert any("no bundle" in fault.reason for fault in verified(copy, made, registry).faults)


def test_what_the_old_key_signed_holds_after_a_new_one_took_over(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    documented(home, "v1")
    rotate(home.settings, home.store, "ops")
    documented(home, "v2")
    found = verified(home.settings.evidence, home)
    assert found.faults == []
    assert len({one.key_id for one in found.versions}) == 2
    assert "trust" not in verify_home(home.settings).reason
    (old,) = [path for path in home.settings.trust.iterdir() if home.trainer.key_id in path.read_text()]
    old.unlink()  # by whoever trusts it no more: it stays out
    open_store(home.settings, home.clock).close()
    assert [fault.file for fault in verified(home.settings.evidence, home).faults] == [f"fraud/v1/{ATTESTATION}"]
    home.store.close()


# what does not


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_a_byte_that_is_changed_in_any_file_is_told(made: Home, copy: Path, where: float) -> None:
    for name in files(copy):
        path = copy / name
        whole = bytearray(path.read_bytes())
        whole[int(where * (len(whole) - 1))] ^= 1
        sound = path.read_bytes()
        path.write_bytes(whole)
        assert name in {file for file, _ in told(copy, made)}, name
        if "/" in name:
            alone, _, file = name.rpartition("/")
            assert file in {file for file, _ in told(copy / alone, made)}, name
        path.write_bytes(sound)
    assert told(copy, made) == []


def test_no_byte_of_a_signed_file_can_be_another_one(made: Home) -> None:
    """JSON and base64 have more than one spelling of a value."""
    data, keys = (made.settings.evidence / MANIFEST).read_bytes(), {"it": made.trainer.public}
    read_statement(data, keys, EVIDENCE_TYPE)
    for at in range(len(data)):
        for other in {data[at] ^ 1, data[at] ^ 32, ord(" ")} - {data[at]}:
            with pytest.raises(IntegrityError):
                read_statement(data[:at] + bytes([other]) + data[at + 1 :], keys, EVIDENCE_TYPE)
    for odd in (data + b"\n", b" " + data, data[:-1], b"", b"[]", b"{}"):
        with pytest.raises(IntegrityError):
            read_statement(odd, keys, EVIDENCE_TYPE)


def _swapped(path: Path, one: str, other: str) -> None:
    first, second = (path / one).read_bytes(), (path / other).read_bytes()
    (path / one).write_bytes(second)
    (path / other).write_bytes(first)


def _linked(path: Path, link: str, target: Path) -> None:
    shutil.move(path / link, target)
    (path / link).symlink_to(target)


def _emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _replaced(path: Path, by: Callable[[Path], object]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    by(path)


CARD, SIGNED = "fraud/v2/card.md", f"fraud/v2/{ATTESTATION}"
ATTACKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a file more": (lambda path: (path / "fraud/v2/note.txt").write_text("x"), "fraud/v2/note.txt", "is not listed"),
    "a hidden file more": (lambda path: (path / "fraud/.x").touch(), "fraud/.x", "is not listed"),
    "a file more at the top": (lambda path: (path / "README.md").touch(), "README.md", "is not listed"),
    "a folder more": (lambda path: (path / "fraud/v2/more").mkdir(), "fraud/v2/more", "is not listed"),
    "a version more": (lambda path: shutil.copytree(path / "fraud/v2", path / "fraud/v3"), "fraud/v3", "is not listed"),
    "a model more": (lambda path: shutil.copytree(path / "fraud", path / "spam"), "spam", "is not listed"),
    "a document away": (lambda path: (path / CARD).unlink(), CARD, "is missing"),
    "an attestation away": (lambda path: (path / SIGNED).unlink(), SIGNED, "is missing"),
    "a version away": (lambda path: shutil.rmtree(path / "fraud/v1"), f"fraud/v1/{ATTESTATION}", "is missing"),
    "a model away": (lambda path: shutil.rmtree(path / "churn"), f"churn/v1/{ATTESTATION}", "is missing"),
    "the manifest away": (lambda path: (path / MANIFEST).unlink(), MANIFEST, "is missing"),
    "all of it away": (_emptied, MANIFEST, "is missing"),
    "a document renamed": (
        lambda path: (path / CARD).rename(path / "fraud/v2/card.txt"),
        "fraud/v2/card.txt",
        "is not listed",
    ),
    "a version renamed": (lambda path: (path / "fraud/v1").rename(path / "fraud/v9"), "fraud/v9", "is not listed"),
    "two documents swapped": (
        lambda path: _swapped(path, CARD, "fraud/v2/card.json"),
        CARD,
        "was changed: it holds",
    ),
    "two versions swapped": (
        lambda path: [
            (path / "fraud/v1").rename(path / "fraud/x"),
            (path / "fraud/v2").rename(path / "fraud/v1"),
            (path / "fraud/x").rename(path / "fraud/v2"),
        ],
        SIGNED,
        "is another one than",
    ),
    "another version's attestation": (
        lambda path: shutil.copy(path / "fraud/v1" / ATTESTATION, path / SIGNED),
        SIGNED,
        "is another one than",
    ),
    "an attestation in the place of the manifest": (
        lambda path: shutil.copy(path / SIGNED, path / MANIFEST),
        MANIFEST,
        "is wanted",
    ),
    "an attestation beside the manifest": (lambda path: shutil.copy(path / SIGNED, path), "fraud", "is not listed"),
    "an empty document": (lambda path: (path / CARD).write_bytes(b""), CARD, "it holds less"),
    "a longer document": (
        lambda path: (path / CARD).write_bytes((path / CARD).read_bytes() + b"x"),
        CARD,
        "it holds more",
    ),
    "an empty attestation": (lambda path: (path / SIGNED).write_bytes(b""), SIGNED, "is another one than"),
    "an empty manifest": (lambda path: (path / MANIFEST).write_bytes(b""), MANIFEST, "not canonical JSON"),
    "a document linked": (lambda path: _linked(path, CARD, path.parent / "card.md"), CARD, "is a link"),
    "an attestation linked": (lambda path: _linked(path, SIGNED, path.parent / "a"), SIGNED, "is a link"),
    "a manifest linked": (lambda path: _linked(path, MANIFEST, path.parent / "m"), MANIFEST, "is a link"),
    "a version linked": (lambda path: _linked(path, "fraud/v2", path.parent / "v2"), "fraud/v2", "is a link"),
    "a model linked": (lambda path: _linked(path, "fraud", path.parent / "f"), "fraud", "is a link"),
    "a link more": (lambda path: (path / "fraud/x").symlink_to("/nowhere"), "fraud/x", "is not listed"),
    "a folder for a document": (lambda path: _replaced(path / CARD, Path.mkdir), CARD, "is no file"),
    "a pipe for a document": (lambda path: _replaced(path / CARD, os.mkfifo), CARD, "is no file"),
    "a file for a version": (
        lambda path: _replaced(path / "fraud/v2", Path.touch),
        "fraud/v2",
        "is no folder",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_is_changed_beside_what_was_signed_is_named(made: Home, copy: Path, attack: str) -> None:
    harm, file, reason = ATTACKS[attack]
    harm(copy)
    assert any(name == file and reason in why for name, why in told(copy, made)), told(copy, made)


ALONE = [attack for attack, (_, file, _) in ATTACKS.items() if file.startswith("fraud/v2/") and "version" not in attack]


@pytest.mark.parametrize("attack", ALONE)
def test_what_is_changed_in_a_version_is_named_where_it_is_alone_as_well(made: Home, copy: Path, attack: str) -> None:
    ATTACKS[attack][0](copy)
    found = told(copy / "fraud/v2", made)
    assert (found[0][0] == MANIFEST) if attack == "an attestation away" else found, found


def test_an_attestation_of_another_version_does_not_fit_where_it_is_alone(made: Home, copy: Path) -> None:
    shutil.copy(copy / "fraud/v1" / ATTESTATION, copy / SIGNED)
    documents = {path.name for path in (copy / "fraud/v2").iterdir()} - {ATTESTATION}
    assert {file for file, _ in told(copy / "fraud/v2", made)} == documents


# who signs


def _signed(path: Path, by: Signer, wanted: str, keys: Signer, change: Callable[[Statement], Statement]) -> None:
    """What an attacker signs: what was signed, changed, with another key."""
    statement, _ = read_statement(path.read_bytes(), {"it": keys.public}, wanted)
    path.write_bytes(sign_statement(change(statement), by))


def test_what_a_stranger_signed_anew_is_refused(made: Home, copy: Path) -> None:
    stranger = Signer.generate("trainer")
    for name, wanted in ((MANIFEST, EVIDENCE_TYPE), *((f"{one}/{ATTESTATION}", VERSION_TYPE) for one in VERSIONS)):
        _signed(copy / name, stranger, wanted, made.trainer, lambda statement: statement)
    assert told(copy, made) == [(MANIFEST, f"no known key signed this; it is signed by {stranger.key_id}")]
    assert told(copy / "fraud/v2", made)[0][1].startswith("no known key signed this")


@pytest.mark.parametrize("claims", ["its own key id", "the key id of the home"])
def test_a_strangers_signature_beside_the_homes_or_in_its_place_is_refused(made: Home, copy: Path, claims: str) -> None:
    stranger, path = Signer.generate("trainer"), copy / "fraud/v2" / ATTESTATION
    envelope = json.loads(path.read_bytes())
    statement, _ = read_statement(path.read_bytes(), {"it": made.trainer.public}, VERSION_TYPE)
    other = stranger.sign(statement.to_json(), PAYLOAD_TYPE)
    (signature,) = other["signatures"]
    if claims == "its own key id":
        envelope["signatures"].append(signature)
    else:
        envelope["signatures"] = [{**signature, "keyid": made.trainer.key_id}]
    path.write_bytes(canonical(envelope))
    wanted = "more than one signature" if claims == "its own key id" else "bad signature"
    assert wanted in told(copy / "fraud/v2", made)[0][1]


def test_an_approvers_signature_does_not_pass_for_the_homes(made: Home, copy: Path) -> None:
    ada = made.signer("ada")
    _signed(copy / MANIFEST, ada, EVIDENCE_TYPE, made.trainer, lambda statement: statement)
    assert "no known key signed this" in told(copy, made)[0][1]


@pytest.mark.parametrize(
    ("predicate", "said"),
    [
        ({}, "says not what an attestation says"),
        ({"documents": {"../../x": {"sha256": "0" * 64, "size": 1}}}, "names no file of the folder"),
        ({"documents": {"card.md": None}}, "says not what an attestation says"),
        ({"decision": None}, "says not what an attestation says"),
        ({"documents": {"card.md": {"sha256": "0" * 64, "size": 1e300}}}, "is of no file"),
        ({"documents": {"card.md": {"sha256": "0" * 64, "size": -2}}}, "is of no file"),
    ],
)
def test_what_a_trusted_key_signed_and_nobody_understands_is_a_finding(
    made: Home, copy: Path, predicate: dict[str, Any], said: str
) -> None:
    path = copy / "fraud/v2" / ATTESTATION
    _signed(
        path,
        made.trainer,
        VERSION_TYPE,
        made.trainer,
        lambda one: Statement(one.predicate_type, one.subjects, {**one.predicate, **predicate} if predicate else {}),
    )
    assert said in told(copy / "fraud/v2", made)[0][1]


def test_a_key_that_somebody_puts_into_trust_is_named_by_the_audit(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    documented(home, "v1")
    stranger = Signer.generate("trainer").public
    stranger.save(home.settings.trust / "mine.pub.json")
    assert f"holds {stranger}, which is no key of this home itself" in verify_home(home.settings).reason
    home.store.close()


# documents that others add, and take away


def test_a_document_that_is_not_made_any_more_goes_and_both_ways_of_verifying_hold(tmp_path: Path) -> None:
    from drift_pipeline.evidence.sealing import seal

    home = Home(tmp_path / "home")
    documented(home, "v1")
    folder = home.settings.evidence / "fraud/v1"
    statement, _ = read_statement((folder / ATTESTATION).read_bytes(), {"it": home.trainer.public}, VERSION_TYPE)
    for pages in ({"a.md": b"a", "b.cdx.json": b"{}"}, {"b.cdx.json": b"[]"}, {"a.md": b"a"}):
        listed = {name: {"sha256": hashlib.sha256(page).hexdigest(), "size": len(page)} for name, page in pages.items()}
        seal(
            home.settings,
            home.store,
            pages,
            Statement(VERSION_TYPE, statement.subjects, {**statement.predicate, "documents": listed}),
        )
        assert files(folder) == sorted([ATTESTATION, *pages])
        assert told(home.settings.evidence, home) == []
        assert "evidence" not in verify_home(home.settings).reason
    (folder / "b.cdx.json").write_bytes(b"[]")
    assert "lies here again, and was withdrawn" in verify_home(home.settings).reason
    home.store.close()


@pytest.mark.parametrize("name", [MANIFEST, SIGNED, CARD])
def test_what_is_changed_or_taken_away_in_the_home_is_named_by_its_audit(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / "home")
    documented(home, "v2")
    path = home.settings.evidence / name
    path.write_bytes(path.read_bytes() + b" ")
    assert f"{path}: was changed" in verify_home(home.settings).reason
    path.unlink()
    assert f"{path}: is gone" in verify_home(home.settings).reason
    home.store.close()


# the command


@pytest.mark.parametrize("odd", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_any_more_is_named_and_holds_nothing_up(tmp_path: Path, odd: str) -> None:
    """A pipe has no end before somebody writes to it, and some devices have none at all."""
    home = Home(tmp_path / "home")
    documented(home, "v2")
    at = home.settings
    home.signer("ada")
    home.store.checkpoint()
    (card,) = at.evidence.glob("*/*/card.md")
    (key,) = at.keys.glob("ada*.pub.json")
    checkpoint, model = max(at.checkpoints.glob("*.json")), max(at.registry.glob("*/*/model.skops"))
    for path in (card, key, checkpoint, model):
        path.unlink()
        match odd:
            case "a pipe":
                os.mkfifo(path)
            case "a device":
                path.symlink_to("/dev/zero")
            case _:
                path.mkdir()
    found = verify_home(at)
    home.store.close()
    assert not found.ok
    for path in (card, key, checkpoint, model):
        assert path.name in found.reason, found.reason


def test_the_command_says_what_holds_and_who_signed_it(made: Home, copy: Path) -> None:
    ended = typed(copy, "--keys", made.settings.trust)
    assert (ended.code, ended.err) == (0, "")
    assert f"{copy}: verified: 34 files of 3 versions, signed by trainer ({made.trainer.key_id[:16]})" in ended.out
    assert "fraud v1  rejected, production" in ended.out
    assert typed(copy, "--home", made.settings.home).out == ended.out
    (key,) = made.settings.trust.iterdir()
    assert typed(copy, "--keys", key).out == ended.out
    document = json.loads(typed(copy, "--keys", key, "--registry", made.settings.registry, "--json").out)
    assert (document["ok"], document["faults"], document["files"]) == (True, [], 34)
    assert all(one["bytes_verified"] for one in document["versions"])


def test_the_command_ends_with_1_and_names_the_file(made: Home, copy: Path) -> None:
    (copy / CARD).write_text("x")
    ended = typed(copy, "--keys", made.settings.trust)
    assert ended.code == 1
    assert f"{CARD}: NOT VERIFIED: was changed" in ended.out
    document = json.loads(typed(copy, "--keys", made.settings.trust, "--json").out)
    assert (document["ok"], [one["file"] for one in document["faults"]]) == (False, [CARD])


def test_without_a_trusted_key_the_command_ends_with_3_and_says_what_to_do(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    for options in (("--keys", tmp_path / "none"), ("--home", tmp_path / "nowhere")):
        ended = typed(copy, *options)
        assert (ended.code, ended.out) == (3, "")
        assert "holds no trusted key" in ended.err
        assert "--keys DIR" in ended.err


def test_keys_that_lie_in_what_is_verified_are_refused(made: Home, copy: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(made.settings.trust, copy / "trust"))
    (tmp_path / "linked").symlink_to(own)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "it.pub.json").symlink_to(next(own.iterdir()))
    for keys in (own, copy, tmp_path / "linked", tmp_path / "keys", next(own.iterdir())):
        ended = typed(copy, "--keys", keys)
        assert (ended.code, ended.out) == (2, "")
        assert "lies in what is to be verified" in ended.err


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "is no folder"),
        ("home/evidence/manifest.dsse.json", "is no folder"),
        ("home", "is no evidence folder but holds one"),
        ("home/evidence/fraud", "holds versions of one model"),
    ],
)
def test_a_path_that_is_no_folder_of_evidence_ends_with_2(made: Home, copy: Path, path: str, said: str) -> None:
    ended = typed(made.settings.home.parent / path, "--keys", made.settings.trust)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_keys_that_are_not_there_are_bad_input(copy: Path, tmp_path: Path) -> None:
    ended = typed(copy, "--keys", tmp_path / "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert "there is no such folder" in ended.err


@pytest.mark.parametrize("held", ["no JSON", '{"keyid": "x", "public": "00"}'])
def test_a_key_file_that_is_none_is_told(copy: Path, tmp_path: Path, held: str) -> None:
    (tmp_path / "k.pub.json").write_text(held)
    ended = typed(copy, "--keys", tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert "k.pub.json" in ended.err


def test_a_name_that_moves_the_cursor_is_shown_without_it(made: Home, copy: Path) -> None:
    (copy / "fraud/v2/\x1b[2Jx").touch()
    ended = typed(copy, "--keys", made.settings.trust)
    assert ended.code == 1
    assert "\x1b" not in ended.out


# from outside


def outside(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The script, in a process that does not know this package."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-I", str(OUTSIDE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_securesystemslib_and_hashlib_verify_what_was_signed(made: Home, copy: Path) -> None:
    (key,) = made.settings.trust.iterdir()
    whole = outside(copy / MANIFEST, key, copy)
    assert (whole.returncode, whole.stdout.strip(), whole.stderr) == (0, EVIDENCE_TYPE, "")
    bundle = verified(copy / "fraud/v2", made).versions[0].bundle.removeprefix("sha256:")
    stored = made.settings.registry / bundle[:2] / bundle
    one = outside(copy / SIGNED, key, stored)
    assert (one.returncode, one.stdout.strip(), one.stderr) == (0, VERSION_TYPE, "")
    stranger = Signer.generate("x").public
    stranger.save(copy / "x.pub.json")
    assert outside(copy / SIGNED, copy / "x.pub.json", stored).returncode == 1
    (copy / "card.md").write_text("x")
    assert outside(copy / MANIFEST, key, stored).returncode == 1


def test_a_folder_of_a_registry_that_is_not_there_is_bad_input(made: Home, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder of a registry"):
        verified(copy, made, tmp_path / "nowhere")
