"""Whose signatures count in a home: a key is appointed and dismissed by audited acts, and its file alone is nothing.

State `key/<key id>` has every key that was ever trusted: `role` is `approver` or `home` (the home's own, which attests
trainings, signs checkpoints and evidence), `roles` are those in which an approver signs (none named: `approver`),
`file` is where its public half, or the home's private one, lies in `keys/`. `trust/` has the public halves of the
home's own keys, to be copied to whoever verifies the evidence elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from drift_pipeline.clock import Clock
from drift_pipeline.control.checkpoints import HOME, KEY, Checkpoints
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import Put, Record
from drift_pipeline.control.signing import PublicKey, Signer, public_path
from drift_pipeline.control.store import ControlStore, Entry
from drift_pipeline.errors import ConflictError, InputError, IntegrityError, NothingToDoError, UnavailableError
from drift_pipeline.files import write_whole
from drift_pipeline.settings import Settings
from drift_pipeline.spec import APPROVER, ROLE

TRAINER = "trainer"
NO_STORE = (
    "no model is adopted here, for there is no control store (control.db); run drift demo or drift adopt, or name "
    "another DRIFT_HOME; a replay's --out folder is one as well"
)


def open_store(settings: Settings, clock: Clock, own: Signer | None = None) -> ControlStore:
    """A home's store, to write to: its chain begins with the key that signs its checkpoints, made here where it is
    new; they are written as the chain grows.

    Args:
        own: the key to begin with; None = a new one.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    store = ControlStore(settings.database_url, clock, checkpoints_of(settings, clock))
    try:
        if store.get(HOME, HOME) is None:
            with store.alone():
                signer = _begun(settings, own)
            with suppress(ConflictError):  # another process began it meanwhile, with the same file
                _commit_home(store, signer.public, "home.made", "drift", _first(settings).name, None)
        _publish(settings, store)
    except BaseException:
        store.close()
        raise
    return store


def require_store(settings: Settings) -> None:
    """Raise InputError where there is none: who would make one anew goes on beside a store that was moved away."""
    if settings.database:
        ControlReader(settings.database_url).close()
        return
    if settings.database_url and not (settings.home / "control.db").is_file():
        raise InputError(f"{settings.home.absolute()}: {NO_STORE}")


def checkpoints_of(settings: Settings, clock: Clock) -> Checkpoints:
    """Those of a home, as often as its settings want them."""
    records, age = settings.checkpoint_records, settings.checkpoint_age
    return Checkpoints(settings.checkpoints, settings.keys, clock.now, records=records, every=age)


def read_store(settings: Settings) -> ControlReader:
    """A home's store, to read only: nothing is made or changed. Raises InputError where there is none."""
    if not settings.database:
        require_store(settings)
    return ControlReader(settings.database_url)


def home_key(settings: Settings, store: ControlReader) -> PublicKey:
    """The home's own key. Raises InputError where the store has none, or its file cannot be read."""
    found = store.get(HOME, HOME)
    if found is None:
        raise InputError(f"{settings.home}: no record says which key is the home's own; adopt a model first")
    return PublicKey(bytes.fromhex(store.attest(found).body["public"]), TRAINER)


def home_signer(settings: Settings, store: ControlReader) -> Signer:
    """The home's own key, to sign with. Raises as `home_key`, and IntegrityError where its file holds another one."""
    key, found = home_key(settings, store), store.get(HOME, HOME)
    signer = Signer.load(settings.keys / (found.body["file"] if found else ""))
    if signer.key_id != key.key_id:
        raise IntegrityError(f"{settings.keys}: holds {signer.public}, and the home's own key is {key}")
    return signer


def approvers(settings: Settings, store: ControlReader) -> dict[str, PublicKey]:
    """Who may approve now, by key id: appointed, not dismissed, and with the very file that was appointed.

    A file that nobody appointed counts for nothing, and one that was deleted counts no more.
    """
    found = (_in_force(settings, record.body) for record in store.find(KEY) if _attested(store, record))
    return {key.key_id: key for key in found if key is not None}


def appoint(
    settings: Settings,
    store: ControlStore,
    key: PublicKey,
    actor: str,
    stem: str,
    roles: Sequence[str] = (APPROVER,),
) -> Path:
    """Let a key approve from now on; returns its public file in `keys/`, whose name begins with the stem.

    Args:
        roles: in which it signs; other ones are given by revoking it and adding it again.

    Raises:
        NothingToDoError: it is trusted already.
        InputError: it has no label, a role is no role's name, or the file cannot be written.
        ConflictError: somebody else appointed or dismissed it meanwhile.
    """
    before = store.get(KEY, key.key_id)
    if before is not None and (before.body["role"] == HOME or not before.body["revoked"]):
        held = ", ".join(before.body.get("roles") or [before.body["role"]])
        raise NothingToDoError(
            f"{settings.home}: {key} is trusted already, as {held}; other roles are given by revoking and adding it"
        )
    if odd := [role for role in roles or [""] if not re.fullmatch(ROLE, role) or role in (HOME, TRAINER)]:
        raise InputError(f"--role {odd[0]}: is no role; small letters, digits, - and _, and not {HOME} or {TRAINER}")
    if not (key.label or "").strip():
        raise InputError(f"{key}: its file has no label, so nobody knows whose it is; make a key by drift key --label")
    path = settings.keys / f"{stem}-{key.key_id[-12:]}.pub.json"
    body: dict[str, Any] = {"public": key.raw.hex(), "label": key.label, "identity": key.identity, "role": APPROVER}
    body |= {"roles": sorted(set(roles))}
    settings.keys.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # whatever lies there, nobody appointed it
    key.save(path)
    told = {"key_id": key.key_id, "label": key.label, "identity": key.identity, "person": key.person}
    told |= {"roles": body["roles"]}
    put = Put(KEY, key.key_id, {**body, "file": path.name, "revoked": False}, before.generation if before else 0)
    store.commit(Entry(actor, "key.added", key.person, details=told), [put])
    return path


def dismiss(settings: Settings, store: ControlStore, key_id: str, actor: str) -> None:
    """Let an approver's key count no more: at the next look, and also where its file is put back.

    Raises:
        InputError: it is no approver's key here.
        NothingToDoError: it counts no more since before.
    """
    before = store.get(KEY, key_id)
    if before is not None and before.body["revoked"]:
        raise NothingToDoError(f"{settings.home}: the key {key_id[:16]} was revoked before")
    if before is None or before.body["role"] != APPROVER:
        raise InputError(f"{settings.home}: the key {key_id[:16]} is no approver's here; nothing was changed")
    put = Put(KEY, key_id, {**before.body, "revoked": True}, before.generation)
    details = {"key_id": key_id, "label": before.body["label"], "identity": before.body["identity"]}
    store.commit(Entry(actor, "key.revoked", str(before.body["label"]), details=details), [put])
    (settings.keys / before.body["file"]).unlink(missing_ok=True)


def rotate(settings: Settings, store: ControlStore, actor: str) -> PublicKey:
    """Give the home a new key of its own. The old one signs a last checkpoint, which hands over to the new one.

    Raises:
        InputError, IntegrityError: the old key cannot be read or the chain does not hold; nothing is changed.
    """
    before = store.get(HOME, HOME)
    if before is None:
        raise InputError(f"{settings.home}: no record says which key is the home's own; adopt a model first")
    store.checkpoint()
    Signer.load(settings.keys / before.body["file"])
    signer = Signer.generate(TRAINER)
    path = settings.keys / f"trainer-{signer.key_id[-12:]}.pem"
    signer.save(path)
    _commit_home(store, signer.public, "key.rotated", actor, path.name, before)
    _publish(settings, store)
    return signer.public


def trusted_keys(place: Path) -> dict[str, PublicKey]:
    """What who verifies elsewhere trusts, by key id: of a `.pub.json`, or of each in a folder.

    Raises:
        UnavailableError: there is none; nothing can be said then.
        InputError, IntegrityError: a file that is no public key's.
    """
    files = sorted(place.glob("*.pub.json")) if place.is_dir() else [place] if place.exists() else []
    keys = [PublicKey.load(file) for file in files]
    if not keys:
        raise UnavailableError(
            f"{place}: holds no trusted key (*.pub.json), so nothing can be verified; have the trust/ folder of the "
            "home sent by another way than what it is to verify, and name it: --keys DIR"
        )
    return {key.key_id: key for key in keys}


def key_faults(settings: Settings, store: ControlReader) -> list[str]:
    """What lies in `keys/` and is not what was appointed, and what was appointed and does not lie there."""
    rows = {record.key: record.body for record in store.find(KEY)}
    lying = {path.name: path for path in sorted(settings.keys.glob("*.pub.json"))}
    gone = [body for body in rows.values() if not body["revoked"] and _public(body) not in lying]
    faults = [f"{settings.keys / _public(body)}: is gone, and no record says that its key was revoked" for body in gone]
    for name, path in lying.items():
        try:
            key = PublicKey.load(path)
        except (InputError, IntegrityError) as error:
            faults.append(str(error))
            continue
        body = rows.get(key.key_id)
        if body is None:
            faults.append(f"{path}: no record says that this key was added (drift key {name} --home adds it)")
        elif body["revoked"]:
            faults.append(f"{path}: this key was revoked, and its file lies here again")
        elif (key.label, key.identity) != (body["label"], body["identity"]):
            faults.append(f"{path}: it says another label or identity than the key was added with")
    return faults + _trust_faults(settings, rows)


def _trust_faults(settings: Settings, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What lies in `trust/` and is no key of the home itself: what it signs would pass for the home's evidence."""
    try:
        keys = [PublicKey.load(path) for path in sorted(settings.trust.glob("*.pub.json"))]
    except (InputError, IntegrityError) as error:
        return [str(error)]
    strange = [key for key in keys if key.key_id not in rows or rows[key.key_id]["role"] != HOME]
    return [f"{settings.trust}: holds {key}, which is no key of this home itself; remove it" for key in strange]


def _publish(settings: Settings, store: ControlReader) -> None:
    """The key that the home signs with lies in `trust/`; in a new folder also those that it had before. One of those
    that somebody took out of there stays out."""
    found, new = store.get(HOME, HOME), not settings.trust.is_dir()
    if found is None or (settings.trust / _public(found.body)).is_file():
        return
    for body in (record.body for record in store.find(KEY) if _attested(store, record)):
        if body["role"] == HOME and (new or body["public"] == found.body["public"]):
            key = PublicKey(bytes.fromhex(body["public"]), body["label"], body["identity"])
            write_whole(settings.trust / _public(body), key.to_bytes())


def _in_force(settings: Settings, body: Mapping[str, Any]) -> PublicKey | None:
    if body["role"] != APPROVER or body["revoked"]:
        return None
    roles = tuple(body.get("roles", (APPROVER,)))  # of keys that were appointed when there was one role
    key = PublicKey(bytes.fromhex(body["public"]), body["label"], body["identity"], roles)
    with suppress(InputError, IntegrityError):
        if PublicKey.load(settings.keys / body["file"]) == key:
            return key
    return None


def _attested(store: ControlReader, record: Record) -> bool:
    """A row that was written beside the audit is nobody's key."""
    with suppress(IntegrityError):
        store.attest(record)
        return True
    return False


def _public(body: Mapping[str, Any]) -> str:
    file = Path(body["file"])
    return public_path(file).name if file.suffix == ".pem" else file.name


def _first(settings: Settings) -> Path:
    return settings.keys / "trainer.pem"


def _begun(settings: Settings, own: Signer | None) -> Signer:
    """The key that lies there already, or a new one."""
    path = _first(settings)
    if not path.exists():
        settings.keys.mkdir(parents=True, exist_ok=True)
        public_path(path).unlink(missing_ok=True)  # of a process that died between the two
        (own or Signer.generate(TRAINER)).save(path)
    return Signer.load(path)


def _commit_home(store: ControlStore, key: PublicKey, event: str, actor: str, file: str, before: Record | None) -> None:
    told = {"key_id": key.key_id, "public": key.raw.hex()}
    row = {"public": key.raw.hex(), "label": key.label, "identity": key.identity, "role": HOME, "revoked": False}
    puts = [
        Put(HOME, HOME, {**told, "file": file}, before.generation if before else 0),
        Put(KEY, key.key_id, {**row, "file": file}),
    ]
    store.commit(Entry(actor, event, HOME, details={**told, "label": key.label}), puts)
