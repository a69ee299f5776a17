"""What a chain and its checkpoints find, at which record, and what they say they cannot find."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.audit import (
    GENESIS,
    AuditRecord,
    Entry,
    read_record,
    seal,
    timestamp,
)
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.control.checkpoints import CHECKPOINT_TYPE, read_claim, sign
from drift_pipeline.control.merkle import tree_head
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import ControlStore
from drift_pipeline.control.verifying import Verification, verify
from drift_pipeline.errors import InputError, IntegrityError, UnavailableError

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SIGNER = Signer.generate("replay-only")
KEYS = {SIGNER.key_id: SIGNER.public}
A, B = sha256(b"a"), sha256(b"b")


def chain(*entries: Entry) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    for entry in entries:
        records.append(seal(entry, NOW, *((records[-1].seq + 1, records[-1].hash) if records else ())))
    return records


MADE = Entry("drift", "home.made", "home", {}, {"public": SIGNER.public.raw.hex()})


def plain(count: int, actor: str = "loop") -> list[AuditRecord]:
    """So many records, the first of which names the key that signs the checkpoints."""
    return chain(*[MADE, *(Entry(actor, "observed", f"model/{number}") for number in range(1, count))][:count])


def signed(records: list[AuditRecord], signer: Signer = SIGNER) -> tuple[str, dict[str, Any]]:
    return str(len(records)), sign(records, signer, NOW)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A store's file with six records, closed."""
    path = tmp_path / "control.db"
    with closing(ControlStore(f"sqlite:///{path}", ManualClock(NOW))) as store:
        store.commit(MADE)
        for number in range(1, 6):
            store.commit(Entry("loop", "observed", f"model/{number}", {"report": A}, {"psi": 0.1}))
    return path


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount == 1


def verified(path: Path, **arguments: Any) -> Verification:
    with closing(ControlStore(f"sqlite:///{path}", ManualClock(NOW))) as store:
        return verify(store.records(), **arguments)


def stored(path: Path) -> list[AuditRecord]:
    with closing(ControlStore(f"sqlite:///{path}", ManualClock(NOW))) as store:
        return list(store.records())


# The leaves and heads of the certificate-transparency reference implementation (merkle_tree_test).
CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_HEADS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_tree_heads_are_those_of_the_reference_vectors(size: int) -> None:
    assert tree_head(map(bytes.fromhex, CT_LEAVES[:size])).hex() == CT_HEADS[size]


@given(st.lists(st.binary(max_size=4), max_size=20))
def test_the_tree_head_is_the_recursive_definition_of_rfc_6962(leaves: list[bytes]) -> None:
    def head(part: list[bytes]) -> bytes:
        if len(part) < 2:
            return hashlib.sha256(*(b"\x00" + leaf for leaf in part)).digest()
        split = 1 << (len(part) - 1).bit_length() - 1
        return hashlib.sha256(b"\x01" + head(part[:split]) + head(part[split:])).digest()

    assert tree_head(leaves) == head(leaves)


def test_a_record_hashes_its_canonical_json_and_starts_from_64_zeros() -> None:
    record = seal(Entry("loop", "observed", "fraud", {"report": A}, {"psi": 0.5}), NOW)
    body = (
        f'{{"actor":"loop","at":"2026-03-01T00:00:00.000000Z","details":{{"psi":0.5}},"digests":{{"report":"{A}"}},'
        f'"event":"observed","policy_digest":null,"prev":"{"0" * 64}","seq":1,"subject":"fraud",'
        '"wrote":{"outbox":{},"state":{}}}'
    )
    assert record.body.decode() == body
    assert record.hash == hashlib.sha256(body.encode()).hexdigest()
    assert read_record(body, record.hash) == record


def test_times_are_utc_with_microseconds() -> None:
    assert timestamp(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T00:00:00.000000Z"
    with pytest.raises(InputError, match="no time zone"):
        timestamp(datetime(2026, 1, 1))  # noqa: DTZ001  # the naive time is the point


@pytest.mark.parametrize("digest", ["", "a" * 64, "sha256:" + "A" * 64, "sha256:" + "a" * 63, f"{A}\n"])
def test_a_digest_in_another_form_is_refused(digest: str) -> None:
    with pytest.raises(InputError, match="not sha256:<64 hex digits>"):
        seal(Entry("loop", "observed", "fraud", {"report": digest}), NOW)
    with pytest.raises(InputError, match="digest policy_digest"):
        seal(Entry("loop", "observed", "fraud", policy_digest=digest), NOW)


def test_an_untouched_chain_holds_and_tells_how_much_of_it_is_signed(database: Path) -> None:
    records = stored(database)
    found = verified(database, checkpoints=[signed(records[:4]), signed(records[:2])])
    assert found == Verification(
        True, 6, records[-1].hash, covered=4, checkpoints=2, signed_at=NOW, signers=frozenset({SIGNER.key_id})
    )
    assert verify([]) == Verification(True, 0, GENESIS)


BODY = "UPDATE audit SET body = replace(body, '{}', '{}') WHERE seq = {}"


@pytest.mark.parametrize(
    ("first_bad", "reason", "statements"),
    [
        (3, "hash of its content", [BODY.format("0.1", "0.2", 3)]),
        (6, "hash of its content", [BODY.format("loop", "eve", 6)]),
        (4, "hash of its content", [f"UPDATE audit SET hash = '{'f' * 64}' WHERE seq = 4"]),
        (3, "spelled otherwise", [BODY.format(",", ", ", 3)]),
        (3, "not canonical JSON", [BODY.format("{", "", 3)]),
        (3, "not canonical JSON", ["UPDATE audit SET body = CAST(x'7bff7d' AS TEXT) WHERE seq = 3"]),
        (3, "fields", [BODY.format("actor", "acter", 3)]),
        (3, "field details", [BODY.format('{"psi":0.1}', "[]", 3)]),
        (3, "digest report", [BODY.format("sha256:", "md5:", 3)]),
        (3, "record 3 is due, record 4", ["DELETE FROM audit WHERE seq = 3"]),
        (1, "record 1 is due, record 2", ["DELETE FROM audit WHERE seq = 1"]),
        (
            2,
            "record 2 is due, record 5",
            [
                "UPDATE audit SET seq = 99 WHERE seq = 2",
                "UPDATE audit SET seq = 2 WHERE seq = 5",
                "UPDATE audit SET seq = 5 WHERE seq = 99",
            ],
        ),
    ],
)
def test_a_flipped_deleted_or_reordered_record_is_named(
    database: Path, first_bad: int, reason: str, statements: list[str]
) -> None:
    edit(database, *statements)
    found = verified(database)
    assert (found.ok, found.first_bad, found.records) == (False, first_bad, first_bad - 1)
    assert reason in found.reason


def test_a_record_that_was_rehashed_breaks_the_link_of_the_next(database: Path) -> None:
    records = stored(database)
    forged = replace(records[2], actor="eve")
    forged = replace(forged, hash=forged.computed_hash())
    found = verify([*records[:2], forged, *records[3:]])
    assert (found.first_bad, found.records) == (4, 3)
    assert "does not follow" in found.reason


@given(st.data())
def test_any_change_of_order_or_number_inside_is_found_at_its_first_place(data: st.DataObject) -> None:
    records = plain(8)
    chosen = data.draw(st.lists(st.sampled_from(records), max_size=10))
    found = verify(chosen)
    agree = next((i for i, (a, b) in enumerate(zip(chosen, records, strict=False)) if a != b), min(len(chosen), 8))
    assert found.records == agree
    assert found.first_bad == (agree + 1 if len(chosen) > agree else None)


def test_a_cut_tail_is_found_by_a_checkpoint_and_by_nothing_else(database: Path) -> None:
    whole = signed(stored(database))
    edit(database, "DELETE FROM audit WHERE seq = 6", "DELETE FROM audit WHERE seq = 5")
    assert verified(database).ok
    found = verified(database, checkpoints=[whole])
    assert (found.ok, found.first_bad, found.records) == (False, 5, 4)
    assert "counts 6 records, 4 hold" in found.reason


def test_an_empty_store_does_not_pass_for_one_that_was_signed() -> None:
    assert not verify([], checkpoints=[signed(plain(1))]).ok
    assert verify(plain(2), checkpoints=[signed([])]).ok


def test_a_history_rewritten_as_a_whole_is_bounded_by_the_checkpoints() -> None:
    honest = plain(8)
    checkpoints = [signed(honest[:3]), signed(honest[:7])]
    rewritten = honest[:4]
    for _ in range(4):
        last = rewritten[-1]
        rewritten.append(seal(Entry("eve", "observed", "model"), NOW, last.seq + 1, last.hash))
    assert verify(rewritten).ok
    found = verify(rewritten, checkpoints=checkpoints)
    assert (found.ok, found.first_bad, found.covered) == (False, 4, 3)
    assert "records 4 to 7" in found.reason


def test_a_checkpoint_that_cannot_be_believed_fails_without_blaming_a_record() -> None:
    records = plain(3)
    other = Signer.generate()
    forged = {**sign(records, SIGNER, NOW), "signatures": other.sign({}, CHECKPOINT_TYPE)["signatures"]}
    for envelope in (forged, sign(records, other, NOW), {}, SIGNER.sign({"size": 3}, CHECKPOINT_TYPE)):
        found = verify(records, checkpoints=[signed(records), ("2", envelope)])
        assert (found.ok, found.first_bad, found.covered) == (False, None, 3)
        assert found.reason.startswith("checkpoint 2:")
    unsigned = chain(Entry("loop", "observed", "model"))  # no record says whose signature counts
    assert not verify(unsigned, checkpoints=[signed(unsigned)]).ok


def test_a_checkpoint_is_a_tree_head_and_is_never_made_of_a_broken_chain() -> None:
    records = plain(3)
    claim = read_claim(sign(records, SIGNER, NOW), KEYS)
    assert (claim.signer, claim.next) == (SIGNER.key_id, SIGNER.key_id)
    assert (claim.size, claim.head) == (3, records[-1].hash)
    assert claim.root == tree_head(bytes.fromhex(record.hash) for record in records).hex()
    with pytest.raises(IntegrityError, match="broken chain: record 2"):
        signed([records[0], records[2]])


@pytest.mark.parametrize("size", range(1, 18))
def test_a_checkpoint_that_goes_on_from_the_one_before_is_that_of_the_whole_chain(size: int) -> None:
    records = plain(17)
    before = read_claim(sign(records[:size], SIGNER, NOW), KEYS)
    gone_on = read_claim(sign(records[size:], SIGNER, NOW, before), KEYS)
    assert gone_on == read_claim(sign(records, SIGNER, NOW), KEYS)


def test_another_key_counts_once_the_one_before_it_has_signed_for_it() -> None:
    other = Signer.generate("next")
    rotated = Entry("ops", "key.rotated", "home", {}, {"public": other.public.raw.hex()})
    records = chain(MADE, rotated, Entry("loop", "observed", "model"))
    first = read_claim(handed := sign(records[:2], SIGNER, NOW, following=other.key_id), KEYS)
    last = ("3", sign(records[2:], other, NOW, first))
    assert verify(records, checkpoints=[("2", handed), last]).covered == 3
    usurped = verify(records, checkpoints=[last])
    assert (usurped.ok, usurped.first_bad) == (False, None)
    assert "signed it, where" in usurped.reason
    late = verify(records, checkpoints=[("2", handed), ("3", sign(records[2:], SIGNER, NOW, first))])
    assert not late.ok


def test_a_named_digest_must_exist_until_an_erased_record_covers_it() -> None:
    named = Entry("loop", "trained", "fraud", {"model": A})
    erased = Entry("dpo", "erased", "fraud", {"model": A})
    missing = verify(chain(Entry("loop", "observed", "fraud", {"report": B}), named), exists={B}.__contains__)
    assert (missing.first_bad, missing.records) == (2, 2)
    assert A in missing.reason
    assert verify(chain(named, erased), exists={B}.__contains__).ok
    assert verify(chain(named, erased, named), exists={B}.__contains__).first_bad == 3
    assert verify(chain(erased, named), exists={B}.__contains__).first_bad == 2


def test_the_policy_bundle_that_decided_must_exist_too() -> None:
    records = chain(Entry("loop", "decided", "fraud", policy_digest=A))
    assert verify(records, exists={A}.__contains__).ok
    assert verify(records, exists={B}.__contains__).first_bad == 1


def test_an_earlier_missing_digest_is_named_before_a_later_break() -> None:
    records = chain(Entry("loop", "trained", "fraud", {"model": A}), *(Entry("a", "b", "c") for _ in range(4)))
    assert verify([*records[:3], records[4]], exists={B}.__contains__).first_bad == 1


def test_a_storage_that_does_not_answer_leaves_the_question_open() -> None:
    def exists(digest: str) -> bool:
        raise UnavailableError("the object store did not answer")

    with pytest.raises(UnavailableError):
        verify(chain(Entry("loop", "trained", "fraud", {"model": A})), exists=exists)


def test_a_record_built_with_what_json_cannot_hold_is_a_bad_record() -> None:
    first, second = plain(2)

    def records() -> Iterator[AuditRecord]:
        yield first
        yield replace(second, details={"psi": float("nan")})

    assert verify(records()).first_bad == 2


def test_bodies_are_canonical_bytes() -> None:
    record = plain(1)[0]
    assert canonical({"seq": 1}) == b'{"seq":1}'
    assert read_record(record.body, record.hash) == record
