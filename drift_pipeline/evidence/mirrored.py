"""What a record of the audit is in a mirror of the registry: runs with their lineage, and how versions stand.

```
                       adopt -> MODEL          MODEL-dataset -> fit -> MODEL
MODEL, MODEL-dataset -> prove -> MODEL-evaluation      MODEL -> profile -> MODEL-reference
```
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.control.reader import ControlReader
from drift_pipeline.registry.backends import Registry
from drift_pipeline.registry.bundle import MANIFEST
from drift_pipeline.registry.mirror import Artifact, Run, Standing, Table, digest_alias
from drift_pipeline.settings import Settings

CANDIDATE, CHAMPION, ROLLED_BACK, IN_FORCE = "candidate", "champion", "rolled-back", "in-force"
_GATE = ("name", "outcome", "value", "bound", "limit", "reason")
_SIGNED = ("person", "role", "reason", "rollout", "gate", "label")
_ROLLOUT = ("rollout_id", "phase", "since", "reason", "approved_by")


def version_alias(version: str) -> str:
    """`v7` alone is the name that W&B gives to the eighth upload."""
    return f"drift-{version}"


@dataclass(frozen=True)
class Told:
    """What a record comes to; nothing of most."""

    run: Run | None = None
    standings: tuple[Standing, ...] = ()


@dataclass(frozen=True)
class Mirrored:
    """Tells the records of a home.

    home: the first record's hash, so that no two homes have runs of one name. registry: verifies what is told.
    """

    settings: Settings
    store: ControlReader
    registry: Registry
    home: str

    def of(self, record: AuditRecord) -> Told:
        """
        Raises:
            IntegrityError, InputError: what the record names is not in the registry as it was registered.
            LookupError, TypeError, ValueError, AttributeError: the record has not the form of its event.
        """
        kind = record.event if record.event in _TOLD else record.event.partition(".")[0]
        teller = _TOLD.get(kind)
        return teller(_Record(self, record)) if teller else Told()

    def standing(self, number: int, standings: Sequence[Standing]) -> Run:
        """How versions stand, as a run that names them anew: all that can be said of it without a network.

        number: of the last record that it tells. Raises as `of`.
        """
        called = [one for one in standings if one.add and one.kind == "model"]
        made = [self.bundle(one.digest, one.name, one.kind, aliases=one.add) for one in called]
        made = [replace(v, metadata={**v.metadata, **one.metadata}) for v, one in zip(made, called, strict=True)]
        aliases = {one.digest: {"is": list(one.add), "is_not": list(one.drop)} for one in standings}
        config = {one.digest: {"name": one.name, **one.metadata, **aliases[one.digest]} for one in standings}
        return Run(self.name(number, "stand"), "stand", f"as of record {number}", "standing", config, makes=made)

    def name(self, number: int, kind: str) -> str:
        return f"{self.home.removeprefix('sha256:')[:8]}-{number:08d}-{kind}"

    def bundle(self, digest: str, name: str, kind: str, **more: Any) -> Artifact:
        """A bundle as the registry keeps it, verified now."""
        bundle, folder = self.registry.get(digest), _folder(self.settings.registry, digest)
        files = {file: str(folder / file) for file in sorted([*bundle.files, MANIFEST])}
        told = {key: value for key, value in bundle.manifest.items() if key != "files"}
        aliases = [digest_alias(digest), *more.pop("aliases", ())]
        metadata = {"digest": digest, "manifest": told}
        return Artifact(name, kind, files, metadata=metadata, aliases=aliases, **more)


@dataclass(frozen=True)
class _Record:
    at: Mirrored
    record: AuditRecord

    @property
    def said(self) -> Mapping[str, Any]:
        return self.record.details

    @property
    def model(self) -> str:
        return self.record.subject

    def run(self, kind: str, version: str, **more: Any) -> Run:
        record = self.record
        about = {"audit_record": record.seq, "audit_hash": record.hash, "at": record.at, "version": version}
        return Run(
            name=self.at.name(record.seq, kind),
            kind=kind,
            title=f"{kind} {version}",
            group=f"{self.model}-{version}",
            **{**more, "config": {**about, **more.get("config", {})}},
        )

    def version(self, digest: str, **more: Any) -> Artifact:
        return self.at.bundle(digest, self.model, "model", **more)

    def document(self, name: str, kind: str, said: Mapping[str, Any], **more: Any) -> Artifact:
        """What there is no file of, as its canonical JSON."""
        data = canonical(said)
        metadata = {"digest": sha256(data), **more.pop("metadata", {})}
        aliases = [digest_alias(metadata["digest"]), *more.pop("aliases", ())]
        return Artifact(name, kind, texts={f"{kind}.json": data.decode()}, metadata=metadata, aliases=aliases)

    def dataset(self, candidate: Mapping[str, Any], version: str) -> Artifact:
        """The rows that trained and proved, pinned: window and Delta versions."""
        said = {"model": self.model, "data": candidate["data"], "proven_on": candidate["proven_on"]}
        return self.document(f"{self.model}-dataset", "dataset", said, aliases=[version_alias(version)], metadata=said)

    def candidate(self, digest: str) -> Mapping[str, Any]:
        found = self.at.store.get("candidate", f"{self.model}/{digest}")
        if found is None:
            raise LookupError(f"no candidate {digest}")
        return found.body

    def standing(self, digest: str, **more: Any) -> Standing:
        return Standing(self.model, digest, **more)


def _folder(registry: Path, digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return registry.absolute() / name[:2] / name


def _adopted(at: _Record) -> Told:
    version, digest = str(at.said["version"]), at.record.digests.get("bundle")
    if digest is None:  # another system answers; only its scores are known
        return Told(at.run("adopt", version, config={"external": True}))
    made = at.version(digest, aliases=[version_alias(version), CHAMPION])
    run = at.run("adopt", version, config={"rows": at.said["rows"]}, makes=[made])
    return Told(run, (at.standing(digest, add=[CHAMPION]),))


def _frozen(at: _Record) -> Told:
    version, digest = str(at.said["version"]), at.record.digests["reference"]
    bodies = (record.body for record in at.at.store.find("reference", f"{at.model}/"))
    of = next((str(body["digest"]) for body in bodies if body.get("bundle") == digest), "")
    uses = [at.version(of)] if of.startswith("sha256:") else []
    made = at.at.bundle(digest, f"{at.model}-reference", "reference", aliases=[version_alias(version), IN_FORCE])
    run = at.run("profile", version, config=dict(at.said), uses=uses, makes=[made])
    return Told(run, (Standing(made.name, digest, made.kind, add=[IN_FORCE]),))


def _trained(at: _Record) -> Told:
    version, digest = str(at.said["version"]), at.record.digests["bundle"]
    candidate = at.candidate(digest)
    made = at.version(digest, aliases=[version_alias(version), CANDIDATE])
    manifest = made.metadata["manifest"]
    validation = {key: value for key, value in manifest.items() if key.startswith("validation_")}
    summary = {**validation, **{f"cost_{key}": value for key, value in candidate["cost"].items()}}
    config = {"decision": at.said["decision"], "trainer": manifest["trainer"], "params": manifest["params"]}
    run = at.run("fit", version, config=config, history=searched(candidate), summary=summary)
    run = replace(run, uses=[at.dataset(candidate, version)], makes=[made])
    return Told(run, (at.standing(digest, add=[CANDIDATE]),))


def searched(candidate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of its search, as steps."""
    return [
        {"trial": number, "validation": trial["validation"], **{f"param_{k}": v for k, v in trial["params"].items()}}
        for number, trial in enumerate(candidate.get("searched", ()))
    ]


def _proven(at: _Record) -> Told:
    version, digest, said = str(at.said["version"]), at.record.digests["bundle"], at.said
    gates = {str(gate["name"]): {key: gate.get(key) for key in _GATE[1:]} for gate in said["results"]}
    made = at.document(
        f"{at.model}-evaluation", "evaluation", said, aliases=[version_alias(version)], metadata={"bundle": digest}
    )
    uses = [at.version(digest), at.dataset(at.candidate(digest), version)]
    run = at.run("prove", version, summary=scores(said), tables={"gates": gates_of(said)}, uses=uses, makes=[made])
    drop = [] if said["passed"] else [CANDIDATE]
    return Told(run, (at.standing(digest, metadata={"passed": said["passed"], "gates": gates}, drop=drop),))


def gates_of(said: Mapping[str, Any]) -> Table:
    """What a proof says of each gate."""
    return Table(_GATE, [[gate.get(key) for key in _GATE] for gate in said["results"]])


def scores(said: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a proof says: `auroc` or `mae` of the candidate, and of the champion on the same rows."""
    kpis = {key: value for key, value in said.items() if isinstance(value, Mapping) and {"before", "after"} <= {*value}}
    found = {name: kpi["after"] for name, kpi in kpis.items()}
    return {**found, **{f"{name}_champion": kpi["before"] for name, kpi in kpis.items()}, "passed": said["passed"]}


def _registered(at: _Record) -> Told:
    told = {"registered_at": at.record.at}
    return Told(standings=(at.standing(at.record.digests["bundle"], metadata=told, link=True),))


def _signed(at: _Record) -> Told:
    """An approval or a waiver: accepted, refused or withdrawn."""
    kind, _, outcome = at.record.event.partition(".")
    told = {key: at.said[key] for key in _SIGNED if at.said.get(key) is not None}
    told = {f"{kind}s": {str(at.record.seq): {"outcome": outcome, "at": at.record.at, **told}}}
    return Told(standings=(at.standing(at.record.digests["bundle"], metadata=told),))


def _rolled(at: _Record) -> Told:
    told = {key: at.said[key] for key in _ROLLOUT if key in at.said}
    metadata = {"rollout": told, "phases": {str(at.record.seq): {key: told[key] for key in ("phase", "reason")}}}
    moved = at.standing(str(at.said["candidate"]), metadata=metadata)
    match at.said["phase"]:
        case "full":
            return Told(standings=(replace(moved, add=[CHAMPION], drop=[CANDIDATE, ROLLED_BACK]),))
        case "rolled_back":
            back = replace(moved, add=[ROLLED_BACK], drop=[CANDIDATE, CHAMPION])
            answers = at.record.digests.get("champion")  # none of recorded scores
            return Told(standings=(back, *([at.standing(answers, add=[CHAMPION])] if answers else [])))
    return Told(standings=(moved,))


def _put_back(at: _Record) -> Told:
    digest = at.record.digests.get("bundle")
    return Told(standings=(at.standing(digest, add=[CHAMPION]),) if digest else ())


_TOLD: Mapping[str, Callable[[_Record], Told]] = {
    "model.adopted": _adopted,
    "model.registered": _registered,
    "model.put_back": _put_back,
    "reference.frozen": _frozen,
    "reference.restored": _frozen,
    "candidate.trained": _trained,
    "candidate.proven": _proven,
    "candidate.rejected": _proven,
    "approval": _signed,
    "waiver": _signed,
    "rollout": _rolled,
}
