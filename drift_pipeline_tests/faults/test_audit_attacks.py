"""Whoever can write to a home changes what happened: `drift audit verify` ends with 1 and says where."""

import hashlib
import json
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.checkpoints import sign
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import open_store
from drift_pipeline.evidence.verification import verify_home
from drift_pipeline.loop.home import opened
from drift_pipeline_tests.faults.homes import MODEL, NOW, settings_of, spec_of
from drift_pipeline_tests.replay.worlds import drift, replayed


@pytest.fixture(scope="module")
def live(lived_in: Path) -> Path:
    return lived_in / "home"


@pytest.fixture(scope="module")
def played() -> Path:
    return replayed()[1]


@pytest.fixture(params=["live", "played"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A home that may be broken, made by people and producers, or by a replay."""
    made: Path = request.getfixturevalue(request.param)
    return Path(shutil.copytree(made, tmp_path / "home", ignore=shutil.ignore_patterns("lake", "drift_reports")))


@contextmanager
def database(home: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(home / "control.db")) as connection, connection:
        yield connection


def change(home: Path, statement: str, *values: object) -> None:
    with database(home) as connection:
        assert connection.execute(statement, values).rowcount > 0


def count(home: Path) -> int:
    with database(home) as connection:
        return int(connection.execute("SELECT max(seq) FROM audit").fetchone()[0])


def rehash(home: Path, edit: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Every record changed or left out, and the whole chain hashed anew."""
    with database(home) as connection:
        rows, prev = connection.execute("SELECT body FROM audit ORDER BY seq").fetchall(), "0" * 64
        made: list[tuple[int, str, str]] = []
        for (body,) in rows:
            if (record := edit(json.loads(body))) is not None:
                text = canonical({**record, "seq": len(made) + 1, "prev": prev})
                prev = hashlib.sha256(text).hexdigest()
                made.append((len(made) + 1, text.decode(), prev))
        connection.execute("DELETE FROM audit")
        connection.executemany("INSERT INTO audit VALUES (?, ?, ?)", made)


def checkpoints(home: Path) -> list[Path]:
    return sorted((home / "gitops" / "checkpoints").iterdir())


def one(home: Path, pattern: str) -> Path:
    return min(home.glob(pattern))


# what is done to a home


def flip(home: Path) -> None:
    change(home, 'UPDATE audit SET body = replace(body, \'"actor":"\', \'"actor":"x\') WHERE seq = 3')


def take_out(home: Path) -> None:
    change(home, "DELETE FROM audit WHERE seq = 3")


def swap(home: Path) -> None:
    for old, new in ((3, -1), (4, 3), (-1, 4)):
        change(home, "UPDATE audit SET seq = ? WHERE seq = ?", new, old)


def cut_the_last(home: Path) -> None:
    change(home, "DELETE FROM audit WHERE seq = ?", count(home))


def cut_half(home: Path) -> None:
    change(home, "DELETE FROM audit WHERE seq > ?", count(home) // 2)


def cut_all(home: Path) -> None:
    change(home, "DELETE FROM audit")


def cut_all_and_the_checkpoints(home: Path) -> None:
    cut_all(home)
    shutil.rmtree(home / "gitops" / "checkpoints")


def cut_half_and_its_checkpoints(home: Path) -> None:
    cut_half(home)
    for path in checkpoints(home):
        if int(path.name[:12]) > count(home):
            path.unlink()


def rewrite_who(home: Path) -> None:
    rehash(home, lambda record: {**record, "actor": "nobody"})


def rewrite_without_one(home: Path) -> None:
    rehash(home, lambda record: None if record["seq"] == 4 else record)


def rewrite_and_drop_the_checkpoints(home: Path) -> None:
    rewrite_who(home)
    shutil.rmtree(home / "gitops" / "checkpoints")


def insert_before_the_first(home: Path, seq: int = 0) -> None:
    change(home, "INSERT INTO audit VALUES (?, ?, ?)", seq, "{}", "0")


def insert_far_before_the_first(home: Path) -> None:
    insert_before_the_first(home, -7)


def append_garbage(home: Path) -> None:
    change(home, "INSERT INTO audit VALUES (?, ?, ?)", count(home) + 1, '{"a":1}', "0" * 64)


def append_far_away(home: Path) -> None:
    change(home, "INSERT INTO audit VALUES (?, ?, ?)", 10**6, '{"a":1}', "0" * 64)


def edit_state(home: Path) -> None:
    change(home, "UPDATE state SET body = replace(body, '\"version\"', '\"v\"') WHERE kind = 'model'")


def edit_state_by_a_space(home: Path) -> None:
    change(home, "UPDATE state SET body = body || ' ' WHERE kind = 'model'")


def count_a_generation_on(home: Path) -> None:
    change(home, "UPDATE state SET generation = generation + 1 WHERE kind = 'model'")


def say_another_record_wrote_it(home: Path) -> None:
    change(home, "UPDATE state SET seq = seq + 1 WHERE kind = 'model'")


def delete_state(home: Path) -> None:
    change(home, "DELETE FROM state WHERE kind = 'model'")


def insert_state(home: Path) -> None:
    change(home, "INSERT INTO state VALUES ('producer', 'mallory', '{}', 1, 2)")


def insert_state_of_no_record(home: Path) -> None:
    change(home, "INSERT INTO state VALUES ('producer', 'mallory', '{}', 1, 1000000)")


def edit_outbox(home: Path) -> None:
    change(home, "UPDATE outbox SET body = replace(body, 'why', 'whi') WHERE topic = 'alerts'")


def delete_outbox(home: Path) -> None:
    change(home, "DELETE FROM outbox")


def insert_outbox(home: Path) -> None:
    change(home, "INSERT INTO outbox (id, topic, body, seq, attempts) VALUES ('x', 'alerts', '{}', 2, 0)")


def delete_checkpoints(home: Path) -> None:
    shutil.rmtree(home / "gitops" / "checkpoints")


def tear_a_checkpoint(home: Path) -> None:
    path = checkpoints(home)[-1]
    path.write_bytes(path.read_bytes()[:100])


def forge_a_checkpoint(home: Path) -> None:
    """The first one, under the name of the last."""
    checkpoints(home)[-1].write_text(json.dumps({**json.loads(checkpoints(home)[-1].read_text()), "payload": "e30="}))


def sign_by_a_strangers_key(home: Path) -> None:
    """The chain rewritten, a key dropped into `keys/`, and every checkpoint written anew by it."""
    rewrite_who(home)
    stranger = Signer.generate("trainer")
    stranger.save(home / "keys" / "stranger.pem")
    with ControlReaderOf(home) as store:
        records = list(store.records())
    for path in checkpoints(home):
        path.unlink()
    envelope = sign(records, stranger, NOW)
    (home / "gitops" / "checkpoints" / f"{len(records):012d}.dsse.json").write_text(json.dumps(envelope))


def drop_a_key(home: Path) -> None:
    Signer.generate("mallory").public.save(home / "keys" / "mallory.pub.json")


def delete_a_key(home: Path) -> None:
    max(home.glob("keys/*-*.pub.json")).unlink()


def rename_an_approver(home: Path) -> None:
    path = max(home.glob("keys/*-*.pub.json"))
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "identity": "somebody else"}))


def break_a_key(home: Path) -> None:
    (home / "keys" / "broken.pub.json").write_text("{}")


def delete_approvals(home: Path) -> None:
    shutil.rmtree(home / "gitops" / "approvals")


def break_an_approval(home: Path) -> None:
    path = one(home, "gitops/approvals/*/*.json")
    path.write_text(path.read_text().replace('"sig":"', '"sig":"00'))


def delete_a_document(home: Path) -> None:
    one(home, "evidence/*/*/card.md").unlink()


def edit_a_document(home: Path) -> None:
    path = one(home, "evidence/*/*/card.html")
    path.write_text(path.read_text() + "<!-- approved -->")


def swap_a_models_byte(home: Path) -> None:
    path = one(home, "registry/*/*/model.skops")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove_a_policy(home: Path) -> None:
    shutil.rmtree(one(home, "gitops/policies/*"))


class ControlReaderOf(closing[ControlReader]):
    def __init__(self, home: Path) -> None:
        super().__init__(ControlReader(f"sqlite:///{home / 'control.db'}"))


TAMPERED: list[tuple[Callable[[Path], None], int | None, str]] = [
    # what is done, the first bad record where it is one, what is said
    (flip, 3, "its hash is not the hash of its content"),
    (take_out, 3, "record 3 is due, record 4 stands there"),
    (swap, 3, "stands there"),
    (cut_the_last, -1, "records, "),
    (cut_half, -1, "records, "),
    (cut_all, 1, "is not there"),
    (cut_all_and_the_checkpoints, 1, "is not there"),
    (cut_half_and_its_checkpoints, -1, "is not there"),
    (rewrite_who, 1, "are not those of the checkpoint"),
    (rewrite_without_one, -1, "the checkpoint"),
    (rewrite_and_drop_the_checkpoints, None, "no checkpoint covers any of"),
    (insert_before_the_first, 1, ""),
    (insert_far_before_the_first, 1, ""),
    (append_garbage, -1, "a record has the fields"),
    (append_far_away, -1, "a record has the fields"),
    (edit_state, -1, f"the state model {MODEL} is not what it wrote"),
    (edit_state_by_a_space, -1, f"the state model {MODEL} is not what it wrote"),
    (count_a_generation_on, -1, f"the state model {MODEL} is not what it wrote"),
    (say_another_record_wrote_it, -1, f"the state model {MODEL} is not what it wrote"),
    (delete_state, -1, f"the state model {MODEL} that it wrote is gone"),
    (insert_state, 2, "the state producer mallory was written by no record"),
    (insert_state_of_no_record, -1, "record 1000000, which wrote the state producer mallory, is not there"),
    (edit_outbox, -1, "is not what it wrote"),
    (delete_outbox, -1, "that it wrote is gone"),
    (insert_outbox, 2, "the message x was written by no record"),
    (delete_checkpoints, None, "no checkpoint covers any of"),
    (tear_a_checkpoint, None, "cannot be read"),
    (forge_a_checkpoint, None, "bad signature under the key of"),
    (sign_by_a_strangers_key, None, "no known key signed this"),
    (drop_a_key, None, "mallory.pub.json: no record says that this key was added"),
    (delete_a_key, None, "is gone, and no record says that its key was revoked"),
    (rename_an_approver, None, "says another label or identity than the key was added with"),
    (break_a_key, None, "broken.pub.json: no public key file"),
    (delete_approvals, None, "is gone; record"),
    (break_an_approval, None, "was changed; record"),
    (delete_a_document, None, "card.md: is gone; record"),
    (edit_a_document, None, "card.html: was changed; record"),
    (swap_a_models_byte, -1, "model.skops is not the file that was registered"),
    (remove_a_policy, -1, "which is neither there nor erased"),
]


def test_a_home_that_nobody_touched_verifies_and_tells_how_old_its_last_checkpoint_is(home: Path) -> None:
    ended = drift("audit", "verify", "--home", home)
    assert (ended.code, ended.err) == (0, ""), ended.out
    told = drift("audit", "verify", "--home", home, "--json").summary
    assert told["records"] == told["covered_by_checkpoint"] == count(home)
    assert f"{told['checkpoints']} checkpoints, the last one of " in ended.out
    assert " ago" in ended.out


@pytest.mark.parametrize(("tamper", "first_bad", "said"), TAMPERED, ids=[named.__name__ for named, *_ in TAMPERED])
def test_what_was_changed_beside_the_audit_is_found_and_named(
    home: Path, tamper: Callable[[Path], None], first_bad: int | None, said: str
) -> None:
    tamper(home)
    ended = drift("audit", "verify", "--home", home, "--json")
    assert ended.code == 1, ended.out
    assert said in ended.summary["reason"]
    if first_bad != -1:  # whichever it is
        assert ended.summary["first_bad"] == first_bad
    shown = drift("audit", "verify", "--home", home)
    assert (shown.code, shown.err) == (1, "")
    assert "NOT VERIFIED" in shown.out


# what people do on purpose


@pytest.fixture
def site(live: Path, tmp_path: Path) -> Path:
    """A live home that may be worked with."""
    shutil.copytree(live.parent, tmp_path / "site")
    return tmp_path / "site"


def test_each_change_of_who_may_approve_is_audited_and_verifies(site: Path) -> None:
    home = site / "home"
    bob = drift("key", site / "bob.pem", "--label", "Bob", "--identity", "bob@example.com", "--home", home).out
    assert "trusted by" in bob
    assert drift("key", site / "eve.pem", "--label", "Eve").code == 0
    public = site / "eve.pub.json"
    assert drift("key", public, "--home", home).code == 0
    twice = drift("key", public, "--home", home)
    assert (twice.code, twice.out) == (4, "")
    assert "is trusted already" in twice.err
    assert drift("key", public, "--home", home, "--revoke").code == 0
    assert drift("key", public, "--home", home, "--revoke").code == 4
    assert drift("audit", "verify", "--home", home).code == 0
    shutil.copyfile(public, home / "keys" / "eve-again.pub.json")
    assert "was revoked" in drift("audit", "verify", "--home", home).out
    (home / "keys" / "eve-again.pub.json").unlink()
    assert drift("key", public, "--home", home, "--actor", "ops").code == 0
    told = [(r.event, r.actor, r.details["label"]) for r in records(home) if r.event.startswith("key.")][1:]
    assert [event for event, *_ in told] == ["key.added", "key.added", "key.revoked", "key.added"]
    assert told[-1][1:] == ("ops", "Eve")


def records(home: Path) -> list[Any]:
    with ControlReaderOf(home) as store:
        return list(store.records())


def test_a_home_changes_its_own_key_and_the_old_one_hands_over(site: Path) -> None:
    home = site / "home"
    before = checkpoints(home)
    for _ in range(2):
        assert drift("key", "--rotate", "--home", home).code == 0
        assert drift("producer", "add", f"app{count(home)}", "--home", home).code == 0
    told = drift("audit", "verify", "--home", home, "--json").summary
    assert (told["ok"], told["records"]) == (True, told["covered_by_checkpoint"])
    assert len(checkpoints(home)) > len(before)
    stranger = Signer.generate("trainer")
    stranger.save(home / "keys" / "trainer-x.pem")
    with database(home) as connection:  # who can write, but was not handed over to
        (body,) = connection.execute("SELECT body FROM state WHERE kind = 'home'").fetchone()
    key_id = json.loads(body)["key_id"]
    last = checkpoints(home)[-1]
    envelope = sign(records(home), stranger, NOW)
    last.write_text(json.dumps(envelope))
    assert "no known key signed this" in drift("audit", "verify", "--home", home).out
    assert key_id != stranger.key_id


def test_a_deleted_approval_of_a_rollout_under_way_is_a_withdrawal_once_the_loop_has_told_it(site: Path) -> None:
    settings = settings_of(site)
    one(settings.home, "gitops/approvals/*/*.json").unlink()
    assert not verify_home(settings).ok
    with opened(settings, ManualClock(NOW)) as at:
        at.resumed(spec_of(settings)).advance()
    assert verify_home(settings).ok
    assert [record.event for record in records(settings.home)][-1] == "approval.withdrawn"


# checkpoints


def test_checkpoints_are_written_after_so_many_records_and_after_so_long_and_each_is_kept(tmp_path: Path) -> None:
    settings, clock = settings_of(tmp_path).model_copy(update={"checkpoint_records": 10}), ManualClock(NOW)
    with closing(open_store(settings, clock)) as store:
        for number in range(25):
            store.commit(Entry("loop", "observed", str(number)), [Put("n", str(number), {})])
        sizes = [int(path.name[:12]) for path in checkpoints(settings.home)]
        assert sizes == [1, 11, 21]
        clock.advance_to(NOW + timedelta(minutes=9))
        store.commit(Entry("loop", "observed", "late"))
        assert len(checkpoints(settings.home)) == 3
        clock.advance_to(NOW + timedelta(minutes=10))
        store.checkpoint(only_if_due=True)  # as each tick does, whoever wrote the records
        store.checkpoint(only_if_due=True)
        assert [int(path.name[:12]) for path in checkpoints(settings.home)] == [1, 11, 21, 27]
        store.commit(Entry("loop", "observed", "last"))
    assert [int(path.name[:12]) for path in checkpoints(settings.home)] == [1, 11, 21, 27, 28]
    assert verify_home(settings).ok


@pytest.mark.parametrize(
    ("changed", "ok"), [({}, True), ({"checkpoint_records": 3}, False), ({"checkpoint_seconds": 60}, False)]
)
def test_records_that_wait_longer_for_a_checkpoint_than_the_settings_allow_are_a_finding(
    tmp_path: Path, changed: dict[str, int], ok: bool
) -> None:
    settings, clock = settings_of(tmp_path), ManualClock(NOW)
    store = open_store(settings, clock)
    for number in range(6):
        clock.advance_to(NOW + timedelta(minutes=number))
        store.commit(Entry("loop", "observed", str(number)))
    found = verify_home(settings.model_copy(update=changed))  # of a copy that was taken while it was used
    store.close()
    assert found.ok == ok
    assert ok or "are under no checkpoint" in found.reason


def test_a_record_that_was_decided_before_a_checkpoint_has_waited_since_the_checkpoint_alone(tmp_path: Path) -> None:
    """As of a tick that holds the time of its beginning while another process goes on."""
    settings, clock, slow = settings_of(tmp_path), ManualClock(NOW), ManualClock(NOW)
    clock.advance_to(NOW + timedelta(minutes=9))
    with closing(open_store(settings, clock)) as store, closing(open_store(settings, slow)) as other:
        store.commit(Entry("loop", "rollout.full", "m"))  # which is covered at once
        other.commit(Entry("loop", "model.promoted", "m"))
        clock.advance_to(NOW + timedelta(minutes=18))
        store.commit(Entry("loop", "observed", "1"))
        store.commit(Entry("loop", "observed", "2"))
        assert [int(path.name[:12]) for path in checkpoints(settings.home)] == [1, 2]
        assert verify_home(settings).ok
        assert not verify_home(settings.model_copy(update={"checkpoint_seconds": 500})).ok


def test_what_was_signed_once_is_not_signed_another_way_afterwards(site: Path) -> None:
    """A chain or checkpoint that was changed gets no new signature by which it would verify."""
    home, settings = site / "home", settings_of(site)
    rewrite_who(home)
    drift("producer", "add", "again", "--home", home)
    assert not verify_home(settings).ok
    last = checkpoints(home)[-1]
    last.unlink()
    drift("producer", "add", "once-more", "--home", home)
    assert not verify_home(settings).ok
    assert not last.exists()


# reading reads only


def lying(folder: Path) -> dict[str, tuple[str, int, int]]:
    """What every file holds, its mode and its time."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            stat.S_IMODE(path.stat().st_mode),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


READING = [
    ("audit", "verify"),
    ("audit", "list"),
    ("audit", "list", "--json"),
    ("audit", "show", MODEL),
    ("models",),
    ("versions", MODEL),
    ("decisions", MODEL, "--json"),
    ("status", MODEL),
    ("incident", "list", MODEL),
    ("status",),
    ("status", "--json"),
    ("incident", "list"),
    ("producer", "list"),
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
@pytest.mark.parametrize("state", ["closed", "in use", "copied with its log"])
def test_to_look_at_a_home_changes_nothing_in_it(
    site: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], state: str
) -> None:
    monkeypatch.setenv("DRIFT_MODELS", str(site / "models"))
    settings = settings_of(site)
    store = open_store(settings, ManualClock(NOW)) if state != "closed" else None
    if store is not None:
        store.commit(Entry("loop", "observed", "while it is looked at"))
        assert (settings.home / "control.db-wal").stat().st_size > 0
    home = settings.home
    if state == "copied with its log":
        home = site / "copy"
        shutil.copytree(settings.home, home, ignore=shutil.ignore_patterns("*-shm"))
    before = lying(home)
    ended = drift(*arguments, "--home", home)
    after = lying(home)
    if store is not None:
        store.close()
    assert (ended.code, ended.err) == (0, ""), ended.out
    before.pop("control.db-shm", None), after.pop("control.db-shm", None)  # SQLite's own, of who reads beside writers
    assert after == before


def test_a_store_of_an_earlier_version_is_refused_by_name(site: Path) -> None:
    home = site / "home"
    rehash(home, lambda record: {name: value for name, value in record.items() if name != "wrote"})
    for arguments in (("audit", "verify"), ("producer", "add", "x")):
        ended = drift(*arguments, "--home", home)
        assert (ended.code, ended.out) == (2, "")
        assert "an earlier drift-pipeline made this control store" in ended.err
