"""What the audit tells of a version: its reigns, the incidents in them, and a pack of one incident."""

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from drift_pipeline.control.audit import AuditRecord
from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.errors import InputError, NothingToDoError
from drift_pipeline.evidence.history import History, history_from
from drift_pipeline.evidence.incident_pack import ASKED, DAYS, find_incident, pack_files
from drift_pipeline.homes import open_home
from drift_pipeline_tests.replay.worlds import drift, replayed

START = datetime(2026, 1, 1, tzinfo=UTC)
OURS, OTHER, AFTER = "sha256:ours", "sha256:other", datetime.max.replace(tzinfo=UTC)


def record(day: int, event: str, bundle: str | None = None, **details: Any) -> AuditRecord:
    at, digests = (START + timedelta(days=day)).isoformat(), {"bundle": bundle} if bundle else {}
    return AuditRecord(day, "", at, "loop", event, "fraud", digests, None, details, hash="ab")


def kpis(*names: str, verdict: str = "BREACH") -> dict[str, Any]:
    return {"kpis": {name: {"verdict": verdict, "reason": f"{name} moved"} for name in names}, "features": ["amount"]}


def shipped(day: int, phase: str, candidate: str, champion: str) -> AuditRecord:
    return record(day, f"rollout.{phase}", candidate=candidate, champion=champion)


def told(*records: AuditRecord) -> History:
    return history_from(records, OURS)


def days(reigns: Iterable[Mapping[str, Any]]) -> list[tuple[int, int | None]]:
    def day(text: str | None) -> int | None:
        return None if text is None else (datetime.fromisoformat(text) - START).days

    return [(day(one["from"]) or 0, day(one["to"])) for one in reigns]


@pytest.mark.parametrize(
    ("records", "reigns"),
    [
        ([record(1, "model.adopted", OURS)], [(1, None)]),
        ([record(1, "model.adopted", OURS), shipped(4, "full", OTHER, OURS)], [(1, 4)]),
        ([shipped(2, "shadow", OURS, OTHER), shipped(3, "canary", OURS, OTHER)], []),
        ([shipped(2, "canary", OURS, OTHER), shipped(3, "rolled_back", OURS, OTHER)], []),
        ([shipped(3, "full", OURS, OTHER), shipped(5, "rolled_back", OURS, OTHER)], [(3, 5)]),
        (
            [
                record(1, "model.adopted", OURS),
                shipped(2, "full", OTHER, OURS),
                shipped(3, "rolled_back", OTHER, OURS),
            ],
            [(1, 2), (3, None)],
        ),
        ([record(1, "model.adopted", OURS), shipped(3, "rolled_back", OTHER, OURS)], [(1, None)]),
    ],
    ids=[
        "adopted",
        "replaced",
        "shadow and canary",
        "canary ended",
        "rolled back as champion",
        "back again",
        "another's",
    ],
)
def test_a_reign_is_while_the_version_answers(records: list[AuditRecord], reigns: list[tuple[int, int | None]]) -> None:
    assert days(told(*records).reigns) == reigns


def test_an_incident_is_of_the_champion_that_it_opened_under_and_ends_with_whatever_closes_it() -> None:
    found = told(
        record(1, "model.adopted", OURS),
        record(2, "incident.opened", key="i1", **kpis("psi", verdict="WARN")),
        record(3, "incident.joined", key="i1", **kpis("psi", "auroc")),
        record(4, "decision.made", decision="d1", action="RETRAIN", incident="i1"),
        shipped(5, "full", OTHER, OURS),
        record(6, "reference.frozen", closes="i1", version="v2"),
        record(7, "incident.opened", key="i2", **kpis("psi")),
        record(8, "erasure.ended", rows={"predictions": 3}),
    )
    (one,) = found.incidents
    assert [(kpi["kpi"], kpi["verdict"], days([{"from": kpi["since"], "to": None}])[0][0]) for kpi in one["kpis"]] == [
        ("psi", "BREACH", 2),
        ("auroc", "BREACH", 3),
    ]
    assert one["decisions"] == ["d1: RETRAIN"]
    assert one["closed_by"] == "v2"
    assert one["closed"] == (START + timedelta(days=6)).isoformat()


def test_an_incident_that_is_reopened_is_open() -> None:
    found = told(
        record(1, "model.adopted", OURS),
        record(2, "incident.opened", key="i1", **kpis("psi")),
        record(3, "incident.closed", key="i1"),
        record(4, "incident.reopened", key="i1", **kpis("psi")),
    )
    assert [one["closed"] for one in found.incidents] == [None]


# of a whole replay


def test_the_cards_of_a_replay_tell_the_reigns_and_incidents_that_its_home_does() -> None:
    """Its first champion's scores are recorded, which has no card: its incident is on none."""
    home = open_home(replayed()[1])
    (model,) = home.models()["model"]
    versions = [one for one in home.versions(model).to_dicts() if one["card"]]
    assert len(versions) > 1
    for one in versions:
        card = json.loads(Path(one["card"]).with_suffix(".json").read_text())
        fields = {field["id"]: field["value"] for section in card["sections"] for field in section["fields"]}
        start, end = one["answers_from"], one["answers_to"]
        if start is None:
            assert fields["history.reigns"] is None
            continue
        ((told_from, told_to),) = [(reign["from"], reign["to"]) for reign in fields["history.reigns"]]
        assert (datetime.fromisoformat(told_from), told_to and datetime.fromisoformat(told_to)) == (start, end)
        opened = [i["key"] for i in home.incidents(model).to_dicts() if start <= i["opened_at"] < (end or AFTER)]
        assert [i["incident"] for i in fields["history.incidents"]] == opened


def test_the_pages_of_a_replay_are_listed_by_drift_docs() -> None:
    home = replayed()[1]
    model = next((home / "evidence").iterdir()).name
    listed = drift("docs", model, "v2", "--home", home, "--json")
    assert listed.code == 0
    by = {one["document"]: one for one in listed.summary["documents"]}
    for name in ("card", "datasheet", "annex"):
        read = json.loads((home / "evidence" / model / "v2" / f"{name}.json").read_text())
        assert by[f"{name}.html"]["status"] == read["status"]
        assert by[f"{name}.html"]["missing"] == [f"{name}: {id}" for id in read["missing"]]
    assert by["ml-bom.cdx.json"]["there"]
    assert not by["sbom.cdx.json"]["there"], "a replay makes none"
    assert not listed.summary["complete"]
    refused = drift("docs", model, "v2", "--home", home, "--require-complete")
    assert refused.code == 1
    assert "DRAFT" in refused.out
    assert drift("docs", model, "v9", "--home", home).code == 2


@pytest.mark.parametrize(
    ("name", "harm", "code"),
    [
        ("annex.json", lambda path: path.write_bytes(path.read_bytes()[:100]), 2),
        ("datasheet.json", lambda path: path.write_text("[]"), 2),
        ("card.json", lambda path: path.unlink(), 2),
        ("ml-bom.cdx.json", lambda path: path.unlink(), 1),
        ("datasheet.html", lambda path: path.unlink(), 1),
    ],
)
def test_a_document_that_is_damaged_or_gone_is_told(
    tmp_path: Path, name: str, harm: Callable[[Path], object], code: int
) -> None:
    home = tmp_path / "home"
    shutil.copytree(replayed()[1], home)
    (folder,) = home.glob("evidence/*/v2")
    harm(folder / name)
    ended = drift("docs", folder.parent.name, "v2", "--home", home, "--require-complete")
    assert ended.code == code
    assert "Traceback" not in ended.err
    assert (f"{name}: cannot be read" in ended.err) if code == 2 else "not there" in ended.out


# an incident's pack

RECORDS = [
    record(1, "model.adopted", OURS),
    record(2, "incident.opened", key="i1", **kpis("psi")),
    record(3, "incident.closed", key="i1"),
    record(5, "incident.opened", key="i2", **kpis("auroc")),
    record(6, "decision.made", decision="d", action="retrain", incident="i2", reasons=["fell"]),
    record(7, "incident.joined", key="i2", **kpis("auroc", "psi")),
]


def packed(key: str | None, at: datetime) -> dict[str, bytes]:
    found = find_incident(RECORDS, "fraud", "payments@example.com", key)
    return pack_files(found, "v1", OURS, "production", b"at,name\n", at)


def test_a_pack_has_the_times_of_article_73_and_asks_people_the_rest() -> None:
    files = packed(None, START + timedelta(days=6))
    read = json.loads(files["incident.json"])
    found = {field["id"]: field for section in read["sections"] for field in section["fields"]}
    for name, limit in DAYS.items():
        due = START + timedelta(days=5 + limit)
        assert found[f"timer.{name}"]["value"] == {"days": limit, "due": due.isoformat(), "days_left": limit - 1.0}
    assert sorted(DAYS.values()) == [2, 10, 15]
    assert read["missing"] == [f"people.{name}" for name in ASKED]
    assert found["facts.kpis"]["value"] == ["auroc BREACH: auroc moved", "psi BREACH: psi moved"]
    assert found["done.decisions"]["value"][0].endswith("retrain: fell")
    assert all("supplied by payments@example.com" in found[id]["reason"] for id in read["missing"])


def test_a_pack_s_records_are_those_of_its_incident_and_its_manifest_is_of_its_files() -> None:
    files = packed("i1", START + timedelta(days=9))
    lines = files["records.jsonl"].splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [2, 3]
    assert all(canonical(json.loads(line)) == line for line in lines)
    manifest = json.loads(files["manifest.json"])
    assert manifest == {name: sha256(page) for name, page in files.items() if name != "manifest.json"}
    assert b"complian" not in b"".join(files.values())


def test_an_incident_that_was_not_is_named_with_those_that_were() -> None:
    with pytest.raises(InputError, match="no incident 'i3'; there were: i1, i2"):
        find_incident(RECORDS, "fraud", "me", "i3")
    with pytest.raises(NothingToDoError, match="had no incident"):
        find_incident(RECORDS[:1], "fraud", "me", None)


def test_drift_incident_pack_writes_one_into_a_new_folder(tmp_path: Path) -> None:
    home = replayed()[1]
    model = next((home / "evidence").iterdir()).name
    made = drift("incident", "pack", model, "--home", home, "--out", tmp_path / "pack", "--json")
    assert made.code == 0
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == sorted(made.summary["files"])
    rows = list(csv.DictReader(io.StringIO((tmp_path / "pack" / "kpis.csv").read_text())))
    assert {"at", "name", "verdict"} <= {*rows[0]}
    for words, code in (
        (("pack", model, "--out", tmp_path / "pack"), 2),
        (("pack", model, "nothing", "--out", tmp_path / "other"), 2),
        (("pack", "nobody", "--out", tmp_path / "other"), 2),
    ):
        assert drift("incident", *words, "--home", home).code == code
    assert not (tmp_path / "other").exists()
