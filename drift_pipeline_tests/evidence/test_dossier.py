"""Datasheet, annex dossier, ML-BOM and SBOM say what facts and people say, and of the rest that it is missing."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from drift_pipeline.errors import SpecError, UnavailableError
from drift_pipeline.evidence import sbom
from drift_pipeline.evidence.card import CardFacts, State, card_files, make_card
from drift_pipeline.evidence.card.forest import drift_history
from drift_pipeline.evidence.dossier import dossier_files
from drift_pipeline.evidence.history import History
from drift_pipeline.settings import Settings
from drift_pipeline.spec import Profile, spec_of
from drift_pipeline.spec.questions import LAW
from drift_pipeline_tests.evidence.test_card import facts
from drift_pipeline_tests.evidence.worlds import AT, DECLARED, SAID, spec

HOSTILE = "<script>alert('1')</script> | [x](javascript:y) `z` {{ 7 * 7 }}"
PROFILES: tuple[Profile, ...] = ("limited_risk", "art6_3_exempt", "high_risk", "public_deployer")
COMPOSITION = {
    "rows": 31000,
    "from": "2025-09-01T00:00:00+00:00",
    "to": "2026-02-19T00:00:00+00:00",
    "positives": 9100,
    "routes": {"history": 20000, "stable": 10000, "canary": 1000},
    "missing": {"country": 12},
    "groups": {"gender": {"f": 15000, "m": 15999, "x": 1}},
}
INCIDENT = {
    "incident": "fraud-7",
    "opened": "2026-02-25T00:00:00+00:00",
    "closed": None,
    "closed_by": None,
    "kpis": [{"kpi": "auroc", "since": "2026-02-25T00:00:00+00:00", "verdict": "BREACH", "reason": HOSTILE}],
    "decisions": ["fraud-8: RETRAIN"],
}
HISTORY = History(
    reigns=({"from": "2026-02-20T00:00:00+00:00", "to": None},),
    incidents=(INCIDENT,),
    erasures=({"at": "2026-02-28T00:00:00+00:00", "event": "erasure.ended", "rows": {"predictions": 3}},),
)


def told(profile: Profile | None = None, declared: Mapping[str, Any] | None = None, **changes: Any) -> CardFacts:
    risk = {} if profile is None else {"risk": {"profile": profile}}
    found = facts(declared=spec(declarations={"card": SAID, **risk, **(declared or {})}), history=HISTORY, **changes)
    return replace(found, record={**(found.record or {}), "composition": COMPOSITION})


def files(given: CardFacts) -> dict[str, bytes]:
    return dossier_files(given, make_card(given))


def fields(given: CardFacts, document: str) -> dict[str, dict[str, Any]]:
    read = json.loads(files(given)[f"{document}.json"])
    return {field["id"]: field for section in read["sections"] for field in section["fields"]}


# of every document


@pytest.mark.parametrize("profile", PROFILES)
def test_a_document_counts_what_is_filled_and_says_who_has_to_supply_the_rest(profile: Profile) -> None:
    for name in ("annex", "datasheet"):
        written = files(told(profile))
        read = json.loads(written[f"{name}.json"])
        found = [field for section in read["sections"] for field in section["fields"]]
        missing = [field for field in found if field["state"] == "MISSING"]
        filled = sum(field["state"] in ("auto", "declared") for field in found)
        of = sum(field["state"] != "NOT_APPLICABLE" for field in found)
        assert read["status"] == f"DRAFT {filled}/{of}"
        assert read["missing"] == [field["id"] for field in missing] != []
        for field in missing:
            assert "declarations.yaml; to be supplied by payments@example.com" in field["reason"]
            assert field["value"] is None
        for end in ("md", "html"):
            page = written[f"{name}.{end}"].decode()
            assert f"DRAFT {filled}/{of}" in page
            assert page.count("MISSING") >= len(missing)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_document_says_compliant(profile: Profile) -> None:
    for page in files(told(profile)).values():
        assert "complian" not in page.decode().lower()


def test_what_others_wrote_is_text_and_nothing_else() -> None:
    said = {"datasheet": {"purpose": HOSTILE}, "annexes": {"provider": HOSTILE}, "asserted_by": HOSTILE}
    for name, page in files(told("high_risk", said)).items():
        if name.endswith(".html"):
            assert "<script" not in page.decode()
            assert "{{ 7 * 7 }}" in page.decode()
        if name.endswith(".md"):
            assert "[x](javascript" not in page.decode()


def test_the_same_facts_are_the_same_bytes() -> None:
    assert files(told("high_risk")) == files(told("high_risk"))


def test_a_declaration_says_who_and_when_and_a_person_may_say_that_it_does_not_apply() -> None:
    said = {
        "asserted_by": "ada",
        "at": "2026-02-01",
        "annexes": {
            "provider": "Bank",
            "submitter": {"value": "Eve", "by": "eve", "at": "2026-02-02"},
            "url": {"not_applicable": "internal"},
        },
    }
    found = fields(told("high_risk", said), "annex")
    first, second, third = (found[f"viii.{name}"] for name in ("1_provider", "2_submitter", "13_url"))
    assert (first["value"], first["asserted_by"], first["at"]) == ("Bank", "ada", "2026-02-01")
    assert (second["value"], second["asserted_by"], second["at"]) == ("Eve", "eve", "2026-02-02")
    assert (third["state"], third["reason"], third["asserted_by"]) == ("NOT_APPLICABLE", "internal", "ada")
    assert {field["law_version"] for field in found.values()} == {LAW}
    assert {*first} == {*["id", "value", "state", "reason", "source", "asserted_by", "at", "law_version"]}


@pytest.mark.parametrize("value", ["", "  ", []])
def test_an_empty_declaration_is_missing(value: Any) -> None:
    found = fields(told(declared={"datasheet": {"purpose": value}}), "datasheet")
    assert found["motivation.purpose"]["state"] == "MISSING"


# datasheet


def test_the_datasheet_tells_what_the_data_is_made_of_and_what_was_erased_since() -> None:
    found = fields(told(), "datasheet")
    for name in ("rows", "from", "to", "positives", "missing", "groups"):
        assert found[f"composition.{name}"]["value"] == COMPOSITION[name]
    assert found["maintenance.erasures_since"]["value"] == [dict(one) for one in HISTORY.erasures]
    bias = found["collection.selection_bias"]["value"]
    assert "1,000 of 31,000 rows came by the route canary." in bias
    assert any(sentence.startswith("Canary rows are those of the 10 %") for sentence in bias)
    assert any(sentence.startswith("A shadow decides nothing") for sentence in bias)


def test_the_datasheet_tells_the_exclusions() -> None:
    spans = [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00Z"}]
    given = told()
    given = replace(given, spec=spec(declarations={"card": SAID}, retrain={"exclude": spans}))
    assert fields(given, "datasheet")["preprocessing.exclusions"]["value"] == spans


def test_routes_that_were_not_recorded_are_not_made_up() -> None:
    given = told()
    given = replace(given, record={**(given.record or {}), "composition": {**COMPOSITION, "routes": None}})
    bias = fields(given, "datasheet")["collection.selection_bias"]["value"]
    assert bias[0] == "By which routes the rows came was not recorded."
    assert not any(sentence.startswith("Canary rows") for sentence in bias)


# annexes


@pytest.mark.parametrize(
    ("profile", "points"),
    [
        ("limited_risk", [*range(1, 14)]),
        ("art6_3_exempt", [1, 2, 3, 4, 5, 6, 8]),
        ("high_risk", [*range(1, 14)]),
        ("public_deployer", [*range(1, 6)]),
    ],
)
def test_each_profile_has_the_points_of_its_annex(profile: Profile, points: list[int]) -> None:
    found = fields(told(profile), "annex")
    numbers = {id.split(".")[1].split("_")[0] for id in found if id.startswith("viii.")}
    assert sorted(int(number) for number in numbers if number.isdigit()) == points
    annex_iv = {id.split(".")[1][0] for id in found if id.startswith("iv.")}
    assert sorted(annex_iv) == ([str(point) for point in range(1, 10)] if profile == "high_risk" else [])
    assert sum(id.startswith("article_50.") for id in found) == 5
    assert "iv.2f_changes_foreseen" in found or profile != "high_risk"


def test_a_voluntary_dossier_asserts_no_duty() -> None:
    line = "No registration duty is asserted"
    assert line in files(told("limited_risk"))["annex.html"].decode()
    assert line in files(told(None))["annex.md"].decode()
    assert line not in files(told("high_risk"))["annex.html"].decode()


def test_a_classification_that_nobody_declared_is_missing() -> None:
    assert fields(told(None), "annex")["classification.profile"]["state"] == "MISSING"
    found = fields(told("high_risk"), "annex")["classification.profile"]
    assert (found["state"], found["value"]) == ("declared", "high_risk")


@pytest.mark.parametrize(
    ("risk", "refused"),
    [
        ({"profile": "art6_3_exempt", "profiling": True}, True),
        ({"profile": "limited_risk", "annex_iii": "5(b)", "profiling": True}, True),
        ({"annex_iii": "5(b)", "profiling": True}, True),
        ({"profile": "art6_3_exempt", "profiling": False}, False),
        ({"profile": "limited_risk", "profiling": True}, False),
        ({"profile": "high_risk", "annex_iii": "5(b)", "profiling": True}, False),
    ],
)
def test_profiling_in_a_case_of_annex_iii_is_always_high_risk(risk: dict[str, Any], refused: bool) -> None:
    if refused:
        with pytest.raises(SpecError, match="that profiles natural persons is always high-risk"):
            spec_of({**DECLARED, "declarations": {"risk": risk}})
    else:
        spec_of({**DECLARED, "declarations": {"risk": risk}})


def test_a_version_outside_of_the_envelope_is_under_review_in_the_annex() -> None:
    review = "SUBSTANTIAL_MODIFICATION_REVIEW: outside of the declared envelope: rows came by canary"
    gate = {"name": "change_envelope", "outcome": "fail", "value": 1, "bound": None, "limit": 0, "reason": review}
    given = told("high_risk")
    given = replace(given, record={**(given.record or {}), "results": [gate]})
    assert fields(given, "annex")["changes.state"]["value"] == review


# the card's history


def test_the_card_tells_the_incidents_of_its_reign_in_a_picture_and_a_table() -> None:
    card = make_card(told())
    assert card.fields["history.incidents"].value == [INCIDENT]
    assert card.fields["history.reigns"].state is State.AUTO
    drawn = drift_history(HISTORY.reigns, HISTORY.incidents, AT.isoformat())
    assert 'class="lane-BREACH"' in drawn
    assert 'class="reign"' in drawn
    assert "<script" not in drawn


def test_a_version_that_was_not_champion_has_no_drift_history() -> None:
    assert make_card(facts()).fields["history.reigns"].state is State.NOT_APPLICABLE


def test_groups_that_were_recorded_with_fewer_figures_are_shown_with_those() -> None:
    """As those of versions that were proven before."""
    given = told()
    kept = ("columns", "levels", "rows", "positives", "auroc", "auroc_low", "auroc_high", "note")
    groups = [{name: group[name] for name in kept} for group in (given.record or {})["groups"]]
    given = replace(given, record={**(given.record or {}), "groups": groups})
    pages = card_files(make_card(given))
    assert pages["card.html"].decode().count('by group"') == 1
    assert b"True positive rate" not in pages["card.html"] + pages["card.md"]
    assert validated(files(given)["ml-bom.cdx.json"]) is None


# bills of materials


def validated(document: bytes) -> object:
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(document.decode())


@pytest.mark.parametrize(
    "given",
    [
        lambda: told("high_risk"),
        lambda: told(environment_bom=b"{}"),
        lambda: facts(record=None, reference=None),
        lambda: facts(declared=spec(declarations={})),
        lambda: replace(told(), record={**(told().record or {}), "composition": None, "groups": []}),
    ],
    ids=["whole", "with an SBOM", "adopted", "nothing declared", "nothing recorded"],
)
def test_the_ml_bom_is_valid_cyclonedx(given: Any) -> None:
    assert validated(files(given())["ml-bom.cdx.json"]) is None


def test_the_validator_refuses_an_ml_bom_with_a_key_that_is_none() -> None:
    document = json.loads(files(told())["ml-bom.cdx.json"])
    document["components"][0]["modelCard"]["surprise"] = 1
    assert validated(json.dumps(document).encode()) is not None


def test_the_ml_bom_tells_figures_of_groups_with_their_intervals_and_what_is_missing() -> None:
    given = told(declared={"card": {"caveats": None}})
    (model, *_) = json.loads(files(given)["ml-bom.cdx.json"])["components"]
    card = make_card(given)
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    group = card.fields["quantitative.groups"].value[0]
    (found,) = [m for m in metrics if m.get("slice") == "age_band=18-39" and m["type"] == "true_positive_rate"]
    assert float(found["value"]) == pytest.approx(group["true_positive_rate"], rel=1e-5)
    assert float(found["confidenceInterval"]["lowerBound"]) == pytest.approx(group["true_positive_low"], rel=1e-5)
    missing = [p["value"] for p in model["modelCard"]["properties"] if p["name"] == "drift:missing"]
    assert missing == [field.id for field in card.missing]


@pytest.mark.slow
def test_an_sbom_is_made_once_an_environment_and_is_valid(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database="")
    path = sbom.keep_sbom(settings)
    made = path.read_bytes()
    assert validated(made) is None
    before = path.stat().st_mtime_ns
    assert sbom.keep_sbom(settings).stat().st_mtime_ns == before
    path.unlink()
    assert sbom.keep_sbom(settings).read_bytes() == made, "the same environment is the same bytes"


def test_a_version_has_the_sbom_of_the_environment_that_it_was_trained_in_and_no_other(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, database="")
    settings.environments.mkdir()
    (settings.environments / f"{'1' * 64}.cdx.json").write_bytes(b"it")
    assert sbom.kept_sbom(settings, {"environment": "sha256:" + "1" * 64}, None) == b"it"
    assert sbom.kept_sbom(settings, {"environment": "sha256:" + "2" * 64}) is None
    assert sbom.kept_sbom(settings, {}, None) is None


def test_a_tool_that_fails_makes_no_sbom_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(UnavailableError, match="made no SBOM"):
        sbom.keep_sbom(Settings(home=tmp_path, database=""))
    assert not [*tmp_path.rglob("*.json")]
