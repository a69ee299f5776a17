"""How versions stand in a mirror, by each record that changes it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.clock import system_clock
from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.store import ControlStore
from drift_pipeline.evidence.mirrored import Mirrored, scores, searched
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.settings import Settings

NEW, OLD = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.fixture
def mirrored(tmp_path: Path) -> Iterator[Mirrored]:
    settings = Settings(home=tmp_path, database="", registry_kind="wandb")
    store = ControlStore(settings.database_url, system_clock())
    yield Mirrored(settings, store, LocalRegistry(settings.registry), "f" * 64)
    store.close()


def record(event: str, digests: dict[str, str], **details: Any) -> AuditRecord:
    return AuditRecord(7, "0" * 64, "2026-01-01T00:00:00Z", "loop", event, "fraud", digests, None, details)


def rolled(phase: str, **digests: str) -> AuditRecord:
    told = {"phase": phase, "reason": "why", "candidate": NEW, "rollout_id": "fraud-v2", "since": "2026-01-01"}
    return record(f"rollout.{phase}", {"candidate": NEW, **digests}, **told)


@pytest.mark.parametrize(
    ("said", "stands"),
    [
        (rolled("shadow", champion=OLD), {NEW: ([], [])}),
        (rolled("awaiting_approval", champion=OLD), {NEW: ([], [])}),
        (rolled("canary", champion=OLD), {NEW: ([], [])}),
        (rolled("full", champion=OLD), {NEW: (["champion"], ["candidate", "rolled-back"])}),
        (
            rolled("rolled_back", champion=OLD),
            {NEW: (["rolled-back"], ["candidate", "champion"]), OLD: (["champion"], [])},
        ),
        (rolled("rolled_back"), {NEW: (["rolled-back"], ["candidate", "champion"])}),
        (record("model.put_back", {"bundle": OLD}, version="v1"), {OLD: (["champion"], [])}),
        (record("model.put_back", {}, version="v1"), {}),
        (record("model.registered", {"bundle": NEW}, version="v2"), {NEW: ([], [])}),
        (record("waiver.accepted", {"bundle": NEW}, reason="x", gate="auroc", role="approver"), {NEW: ([], [])}),
        (record("approval.withdrawn", {"bundle": NEW}, file="f", sha256="s"), {NEW: ([], [])}),
        (record("incident.opened", {}), {}),
        (record("documents.written", {}), {}),
    ],
    ids=lambda value: value.event if isinstance(value, AuditRecord) else "",
)
def test_a_record_says_how_versions_stand(mirrored: Mirrored, said: AuditRecord, stands: dict[str, Any]) -> None:
    told = mirrored.of(said)
    assert told.run is None
    assert {one.digest: (list(one.add), list(one.drop)) for one in told.standings} == stands


def test_what_was_signed_is_kept_by_its_record_so_that_it_is_told_once(mirrored: Mirrored) -> None:
    said = record("approval.accepted", {"bundle": NEW}, person="Ann", role="approver", rollout="fraud-v2")
    (one,) = mirrored.of(said).standings
    (found,) = one.metadata["approvals"].items()
    assert found[0] == "7"
    assert (found[1]["person"], found[1]["outcome"]) == ("Ann", "accepted")


def test_a_model_that_is_served_elsewhere_is_a_run_without_a_version(mirrored: Mirrored) -> None:
    told = mirrored.of(record("model.adopted", {}, version="v1", rows=5))
    assert told.run is not None
    assert (told.run.makes, told.standings) == ((), ())


def test_scores_of_either_task_are_told_beside_the_champions() -> None:
    assert scores({"mae": {"before": 2.0, "after": 1.0}, "data": {"from": "x"}, "passed": True}) == {
        "mae": 1.0,
        "mae_champion": 2.0,
        "passed": True,
    }


def test_a_candidate_of_before_trials_were_kept_has_none() -> None:
    assert searched({}) == []
