"""What an attestation says is what the store, the registry and the folder hold; what nobody recorded is null."""

import hashlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.control.statement import Statement, read_statement
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.evidence.approve import Given, approve
from drift_pipeline.evidence.attestation import ATTESTATION, MANIFEST, VERSION_TYPE, attest_version
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline_tests.evidence.worlds import AT, DAY, MODEL, Home, record, spec


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    made.store.close()


def attested(home: Home, bundle: Bundle, approvals: int = 1) -> Statement:
    """As it lies in the folder of the version after its documents were written."""
    declared = spec(rollout={"approvals": approvals})
    made = write_documents(home.settings, home.store, home.registry, declared, bundle.digest, home.clock.now())
    data = (made.folder / ATTESTATION).read_bytes()
    return read_statement(data, {"it": home.trainer.public}, VERSION_TYPE)[0]


def given(home: Home, label: str, days: int, identity: str | None = None) -> None:
    signer = home.signer(label, identity=identity)
    found = approve(home.settings, signer, MODEL, "v2", "read", timedelta(days=days), home.clock)
    assert isinstance(found, Given), found


def test_its_subjects_are_the_stored_bytes_of_the_bundle(home: Home) -> None:
    bundle = home.candidate()
    subjects = attested(home, bundle).subjects
    stored = home.settings.registry / bundle.digest[7:9] / bundle.digest[7:]
    assert {*subjects} == {path.name for path in stored.iterdir()} == {"manifest.json", "model.skops"}
    for name, digest in subjects.items():
        assert hashlib.sha256((stored / name).read_bytes()).hexdigest() == digest


def test_it_says_what_was_recorded_of_the_version(home: Home) -> None:
    bundle, body = home.candidate(), record("")
    told = attested(home, bundle).predicate
    assert (told["model"], told["version"], told["bundle"]) == (MODEL, "v2", bundle.digest)
    assert (told["environment"], told["at"], told["expires"]) == ("production", AT.isoformat(), None)
    assert told["decision"] == {"id": "fraud-12", "outcome": "proven", "rollout": None}
    assert told["metrics"] == {"kpi": "auroc", **body["auroc"], "validation": 0.7561}
    assert told["data"] == {
        "delta": {"predictions": 7, "outcomes": 6},
        "window": {"from": "2025-03-01T00:00:00+00:00", "to": "2026-02-20T00:00:00+00:00"},
        "filter": {"labels_known_at": "2026-03-01T00:00:00+00:00", "exclude": []},
        "proven_on": body["proven_on"],
    }
    assert (told["gates"], told["policy"], told["trainer"]) == (
        body["results"],
        body["policy_digest"],
        home.trainer.key_id,
    )
    assert told["code"]["trained_by"] is None
    assert told["code"]["attested_by"]["package"] == "drift-pipeline"
    assert told["sbom"] is None


@pytest.mark.parametrize(("passed", "outcome"), [(True, "proven"), (False, "rejected"), (None, "trained")])
def test_the_decision_is_what_the_gates_came_to(home: Home, passed: bool | None, outcome: str) -> None:
    assert attested(home, home.candidate(passed=passed)).predicate["decision"]["outcome"] == outcome


def test_of_a_version_that_was_adopted_it_names_the_rows_of_the_adoption_and_who_trained_it(home: Home) -> None:
    fields = {"model": MODEL, "version": "v1", "trained_from": "2025-09-01T00:00:00+00:00"}
    bundle = home.registry.put(fields, {"model.skops": b"first"})
    adopted = {"digest": bundle.digest, "version": "v1", "trainer": home.trainer.key_id, "cost": None}
    held = {"from": "2026-02-01T00:00:00+00:00", "to": "2026-03-01T00:00:00+00:00", "at": AT.isoformat()}
    puts = [
        Put("adopted", f"{MODEL}/{bundle.digest}", adopted),
        Put("holdout", MODEL, {**held, "delta": {"predictions": 1, "outcomes": 2}}),
    ]
    home.store.commit(Entry("loop", "model.adopted", MODEL, {"bundle": bundle.digest}), puts)
    told = attested(home, bundle).predicate
    assert told["decision"]["outcome"] == "adopted"
    assert told["data"]["delta"] == {"predictions": 1, "outcomes": 2}
    assert told["data"]["window"] == {"from": fields["trained_from"], "to": held["from"]}
    assert told["trainer"] == home.trainer.key_id
    assert told["gates"] is None


def test_it_expires_when_fewer_people_than_are_wanted_approve_it(home: Home) -> None:
    bundle = home.candidate()
    for label, days, identity, wanted in (
        ("ada", 10, None, None),
        ("ada2", 30, "ada", None),  # one person with two keys
        ("bob", 5, None, 5),
        ("eve", 20, None, 20),
    ):
        given(home, label, days, identity)
        expires = attested(home, bundle, approvals=2).predicate["expires"]
        assert expires == (wanted and (AT + wanted * DAY).isoformat()), label
    assert attested(home, bundle, approvals=4).predicate["expires"] is None


def test_an_sbom_among_the_documents_is_told_by_its_digest(home: Home) -> None:
    from drift_pipeline.evidence.card import CardFacts, make_card

    bundle = home.candidate()
    facts = CardFacts(spec(), bundle.manifest, bundle.digest, record(bundle.digest), None, (), 1, "production", AT)
    pages = {"sbom.cdx.json": b"{}", "card.md": b"#"}
    told: dict[str, Any] = dict(attest_version(facts, make_card(facts), pages, None).predicate)
    assert told["sbom"] == hashlib.sha256(b"{}").hexdigest()
    assert told["documents"] == {
        name: {"sha256": hashlib.sha256(page).hexdigest(), "size": len(page)} for name, page in pages.items()
    }


def test_the_manifest_is_signed_anew_with_each_version(home: Home) -> None:
    path, seen = home.settings.evidence / MANIFEST, set()
    for name in ("v1", "v2", "v3"):
        attested(home, home.candidate(name))
        seen.add(path.read_bytes())
    assert len(seen) == 3
