"""Files of the GitOps repository that are made from the control store alone: who answers, also as an object that a
cluster takes, and whose commits count."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from drift_pipeline.control.canonical import canonical
from drift_pipeline.control.checkpoints import HOME, KEY
from drift_pipeline.control.manifests import to_yaml
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.control.rows import Record
from drift_pipeline.control.signing import PublicKey
from drift_pipeline.control.sshsig import allowed_signer
from drift_pipeline.errors import IntegrityError

SIGNERS = "allowed_signers"
CHAMPIONS = "champions"
MANIFESTS = "manifests"  # what a cluster is to have: plain Kubernetes objects


def derived(store: ControlReader) -> dict[str, tuple[int, bytes]]:
    """By path: the last record that the file tells of, and what it holds. A row that its record does not fit is left
    out."""
    found = {}
    for model in store.keys("model"):
        with suppress(IntegrityError):
            if (row := store.get("model", model)) is not None:
                champion, spec = _champion(store, row), store.get("spec", model)
                found[f"{CHAMPIONS}/{model}.json"] = row.seq, champion
                seq = max(row.seq, spec.seq) if spec else row.seq
                found[manifest_of(model)] = seq, _manifest(model, champion, store.attest(spec) if spec else None)
    with suppress(IntegrityError):
        keys = [store.attest(row) for row in store.find(KEY)]
        found[SIGNERS] = max((row.seq for row in keys), default=0), _signers(store, keys)
    return found


def derived_faults(store: ControlReader, folder: Path, written: int) -> Iterator[str]:
    """Such files below the folder that are gone or hold something else.

    Args:
        written: what later records tell of is yet to be written, by the next tick.
    """
    files = derived(store)
    for name, (seq, data) in files.items():
        path = folder / name
        with suppress(OSError):
            if path.read_bytes() == data:
                continue
        if seq <= written:
            what = "was changed" if path.exists() else "is gone"
            yield f"{path}: {what}; record {seq} of the audit tells what it holds"
    models = store.keys("model")
    known = {f"{CHAMPIONS}/{model}.json" for model in models} | {manifest_of(model) for model in models}
    for path in sorted([*folder.glob(f"{CHAMPIONS}/*"), *folder.glob(f"{MANIFESTS}/models/*")]):
        name = path.relative_to(folder).as_posix()
        if name not in known and not path.name.startswith("."):  # what a killed writer left is read by nobody
            yield f"{path}: is of no model that is adopted here"


def manifest_of(model: str) -> str:
    """Where the object lies that tells a cluster of the model."""
    return f"{MANIFESTS}/models/{model}.yaml"


def signer_of(body: Record) -> PublicKey:
    """The key of a row, under the name by which it signs commits: the home's own are all the home's."""
    label = HOME if body.body["role"] == HOME else body.body["label"]
    return PublicKey(bytes.fromhex(body.body["public"]), label)


def _champion(store: ControlReader, row: Record) -> bytes:
    """`{model, digest, version, since, event, rollout, approvals: [{key_id, person}], seq, record}`.

    The last two are of the record that made it the champion; approvals are those that the promotion rested on: an
    adoption and a rollback ask for none.
    """
    body, by = store.attest(row).body, next(store.records(after=row.seq - 1))
    told = {name: body.get(name) for name in ("digest", "version")} | {
        "model": row.key,
        "since": by.at,
        "event": by.event,
    }
    told |= {"rollout": by.details.get("rollout_id"), "approvals": by.details.get("approved_by", [])}
    return canonical({**told, "seq": by.seq, "record": by.hash}) + b"\n"


def _manifest(model: str, champion: bytes, spec: Record | None) -> bytes:
    """A ConfigMap `drift-MODEL-model` of the champion's file and the digest of the spec in force, in whatever namespace
    it is applied to. No model's name has a `-`, so that each has a name of its own."""
    labels = {"app.kubernetes.io/part-of": "drift-pipeline", "app.kubernetes.io/managed-by": "drift"}
    data = {"champion.json": champion.decode()} | ({"spec": str(spec.body["digest"])} if spec else {})
    metadata = {"name": f"drift-{model.replace('_', '-')}-model", "labels": labels}
    return to_yaml({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})


def _signers(store: ControlReader, keys: list[Record]) -> bytes:
    """A line for each key that was ever trusted: what it signed before it was revoked or handed over stays good."""
    own, lines = sorted(row.seq for row in keys if row.body["role"] == HOME), []
    for row in keys:
        after = [seq for seq in own if seq > row.seq] if row.body["role"] == HOME else []
        ended = after[0] if after else row.seq if row.body["revoked"] else None
        lines.append(allowed_signer(signer_of(row), None if ended is None else _second_after(store, ended)))
    return "".join(f"{line}\n" for line in sorted(lines)).encode()


def _second_after(store: ControlReader, seq: int) -> datetime:
    """git counts whole seconds."""
    at = datetime.fromisoformat(next(store.records(after=seq - 1)).at)
    return at.replace(microsecond=0) + timedelta(seconds=1)
