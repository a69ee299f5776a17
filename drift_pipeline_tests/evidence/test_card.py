"""A model card says what the facts say, in three forms that agree, and says of the rest that it is missing."""

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from drift_pipeline.control.canonical import canonical, sha256
from drift_pipeline.detection.statistics.auroc import paired_auroc_difference
from drift_pipeline.errors import InputError, IntegrityError
from drift_pipeline.evidence.card import CardFacts, State, make_card
from drift_pipeline.evidence.groups import auroc_interval, group_analysis, share_interval
from drift_pipeline.evidence.pages import number
from drift_pipeline.registry.bundle import make_bundle
from drift_pipeline.rollout.approval import Accepted, Refusal
from drift_pipeline.spec import ModelSpec
from drift_pipeline_tests.evidence.cards import write_card
from drift_pipeline_tests.evidence.worlds import AT, DAY, DECLARED, MODEL, SAID, block, curves, read_json, record, spec

HOSTILE = "<script>alert('1')</script> \"quoted\" | [link](javascript:x) `code` & {{ 7 * 7 }}"
FILES = {"model.skops": b"a model"}
MANIFEST = {
    "model": MODEL,
    "version": "v2",
    "created_at": "2026-03-01T00:00:00+00:00",
    "trainer": "gradient_boosting",
    "params": {"max_iter": 125, "learning_rate": 0.05427960265555804, "l2_regularization": 1.5e-7},
    "rows": 31000,
    "trained_from": "2025-09-01T00:00:00+00:00",
    "validation_auroc": 0.7561,
    "features": {"amount": "numeric", "country": "categorical"},
    "libraries": {"scikit-learn": "1.9.1"},
}
APPROVAL = Accepted(
    predicateType="https://drift-pipeline.dev/approval/v2",
    model=MODEL,
    digest="sha256:" + "0" * 64,
    rollout="fraud-v2",
    environment="production",
    role="approver",
    approver="cd" * 32,
    label="ada",
    trainer="ab" * 32,
    reason="the gates hold",
    at=AT - DAY,
    expires=AT + DAY,
    person="ada",
)


def facts(manifest: dict[str, Any] | None = None, declared: ModelSpec | None = None, **changes: Any) -> CardFacts:
    bundle = make_bundle(manifest or MANIFEST, FILES)
    reference = {
        "version": "v2",
        "digest": bundle.digest,
        "from": "2025-09-01T00:00:00+00:00",
        "to": "2026-03-02T00:00:00+00:00",
        "unseen_from": "2026-02-20T00:00:00+00:00",
        "rows": 52000,
        "labels": 4100,
        "auroc": 0.7712,
        "auroc_error": 0.0081,
        "delta": {"predictions": 8, "outcomes": 7},
        "binning": "sha256:" + "7b" * 32,
    }
    told: dict[str, Any] = {
        "record": record(bundle.digest),
        "reference": reference,
        "approvals": (APPROVAL,),
        "approvals_wanted": 1,
        "environment": "production",
        "at": AT,
        **changes,
    }
    return CardFacts(declared or spec(), bundle.manifest, bundle.digest, **told)


def without(*names: str) -> dict[str, Any]:
    digest = make_bundle(MANIFEST, FILES).digest
    return {name: value for name, value in record(digest).items() if name not in names}


def written(told: CardFacts, folder: Path) -> tuple[dict[str, Any], str, str]:
    """card.json, card.md, card.html as they are read back."""
    write_card(make_card(told), folder)
    return read_json(folder / "card.json"), *((folder / f"card.{end}").read_text() for end in ("md", "html"))  # type: ignore[return-value]


class Page(HTMLParser):
    """What stands in each field of the page: its text, and the numbers (value, shown)."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, tuple[list[str], list[tuple[str, str]]]] = {"": ([], [])}
        self.tags: list[str] = []
        self._field = ""
        self._value: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        if "field" in (given.get("class") or "").split():
            self._field = str(given["id"])
            self.fields[self._field] = ([], [])
        if tag == "section":
            self._field = ""
        self._value = given["value"] if tag == "data" else None

    def handle_data(self, data: str) -> None:
        text, numbers = self.fields[self._field]
        text.append(data)
        if self._value is not None:
            numbers.append((self._value, data))
        self._value = None

    def text(self, field: str) -> str:
        return " ".join("".join(self.fields[field][0]).split())


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def fields_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {field["id"]: field for section in document["sections"] for field in section["fields"]}


# what it says


def test_the_card_equals_the_facts(tmp_path: Path) -> None:
    told = facts()
    document, _, _ = written(told, tmp_path)
    found = {id: field["value"] for id, field in fields_of(document).items()}
    assert told.record is not None
    assert found["quantitative.groups"] == told.record["groups"]
    assert found["gates.results"] == told.record["results"]
    assert found["details.params"] == MANIFEST["params"]
    assert found["lineage.files"] == {"model.skops": {"sha256": sha256(b"a model"), "size": 7}}
    assert found["lineage.data"] == told.record["data"]
    assert found["lineage.policy_digest"] == told.record["policy_digest"]
    assert found["lineage.bundle_digest"] == document["digest"] == told.digest
    assert found["comparison.champion_auroc"] == told.record["auroc"]["before"]
    assert found["comparison.candidate_auroc"] == told.record["auroc"]["after"]
    assert found["comparison.gain"] == told.record["auroc"]["after"] - told.record["auroc"]["before"]
    assert found["evaluation.reference_rows"] == 52000
    assert found["training.cost"] == told.record["cost"]
    assert [found[f"use.{name}"] for name in ("intended_use", "intended_users", "out_of_scope_use")] == list(
        SAID.values()
    )[:3]


def test_the_page_holds_every_number_of_the_card_and_shows_it_rounded(tmp_path: Path) -> None:
    document, _, page = written(facts(), tmp_path)
    shown = Page(page)
    for id, field in fields_of(document).items():
        read = shown.fields[id][1]
        assert [float(value) for value, _ in read] == list(numbers(field["value"])), id
        assert [text for _, text in read] == [number(value) for value in numbers(field["value"])], id


def test_the_markdown_holds_every_number_of_the_card_rounded(tmp_path: Path) -> None:
    document, text, _ = written(facts(), tmp_path)
    for field, told in zip(fields_of(document).values(), text.split("\n**")[1:], strict=True):
        cells = re.split(r"[\s|,;()]+", re.sub(r"(?<=\d),(?=\d{3})", "", told))
        for value in numbers(field["value"]):
            assert number(value).replace(",", "") in cells, (field["id"], value)


def test_the_groups_stand_in_a_markdown_table(tmp_path: Path) -> None:
    document, text, _ = written(facts(), tmp_path)
    groups = fields_of(document)["quantitative.groups"]["value"]
    rows = [line for line in text.splitlines() if line.startswith(("| age_band", "| gender"))]
    assert len(rows) == len(groups)
    for row, group in zip(rows, groups, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert cells[:2] == [", ".join(group["columns"]), ", ".join(group["levels"])]
        shown = [group[name] for name in ("rows", "positives", "auroc", "auroc_low", "auroc_high")]
        assert cells[2:7] == ["none" if value is None else number(value) for value in shown]


def test_every_interval_is_drawn_where_its_numbers_are(tmp_path: Path) -> None:
    document, _, page = written(facts(), tmp_path)
    groups = fields_of(document)["quantitative.groups"]["value"]
    ends = ("auroc", "selection", "true_positive", "false_positive")
    drawn = sum(group[f"{name}_low"] is not None for group in groups for name in ends)
    assert page.count(", 95 % interval ") - page.count(" positive, 95 % interval ") == drawn > 20
    forests = re.findall(r'<svg [^>]*aria-label="[^"]* by group".*?</svg>', page)
    assert len(forests) == 4
    for forest in forests:
        whiskers = re.findall(r'x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+" class="whisker"', forest)
        points = re.findall(r'cx="([\d.]+)" [^>]*class="point"', forest)
        for (left, right), point in zip(whiskers, points, strict=True):
            assert 132 <= float(left) <= float(point) <= float(right) <= 326


def test_every_field_says_where_it_is_from(tmp_path: Path) -> None:
    told = facts()
    for field in make_card(told).fields.values():
        assert field.source.kind
        assert field.source.uri
        assert (field.asserted_by is None) == (field.state is State.MISSING)
        assert (field.reason is None) == (field.state in (State.AUTO, State.DECLARED))
    documents = make_card(told).documents
    assert documents["manifest"].sha256 == told.digest
    assert documents["candidate"].sha256 == sha256(canonical(dict(told.record or {})))
    assert documents["candidate"].uri == f"control:candidate/{MODEL}/{told.digest}"


def test_a_person_s_words_are_told_apart_from_what_was_recorded() -> None:
    fields = make_card(facts()).fields
    assert (fields["use.intended_use"].state, fields["use.intended_use"].asserted_by) == (
        State.DECLARED,
        "payments@example.com",
    )
    assert fields["details.params"].state is State.AUTO


# what it does not say


def test_a_card_with_everything_is_no_draft(tmp_path: Path) -> None:
    document, text, page = written(facts(), tmp_path)
    assert document["missing"] == []
    assert "DRAFT" not in text + page
    count, of = document["status"].split("/")
    assert count == of


@pytest.mark.parametrize(
    ("told", "missing", "why"),
    [
        (
            lambda: facts(declared=spec(declarations={"card": {**SAID, "caveats": None}})),
            "caveats.caveats",
            "write card.caveats into",
        ),
        (
            lambda: facts(declared=spec(declarations={"card": {**SAID, "intended_use": ""}})),
            "use.intended_use",
            "write card.intended_use",
        ),
    ],
)
def test_what_is_missing_is_shown_with_who_must_supply_it(told: Any, missing: str, why: str, tmp_path: Path) -> None:
    document, text, page = written(told(), tmp_path)
    field = fields_of(document)[missing]
    assert document["missing"] == [missing]
    assert (field["state"], field["value"]) == ("MISSING", None)
    assert why in field["reason"]
    assert field["reason"].endswith("to be supplied by payments@example.com")
    count, of = re.fullmatch(r"DRAFT (\d+)/(\d+)", document["status"]).groups()  # type: ignore[union-attr]
    assert int(of) - int(count) == 1
    assert f"**{document['status']}**" in text
    assert document["status"] in page
    assert f"MISSING {field['reason']}" in Page(page).text(missing)


@pytest.mark.parametrize(
    ("told", "lacking"),
    [
        (lambda: facts(record=without("groups")), "quantitative.groups"),
        (lambda: facts(record=without("cost")), "training.cost"),
        (lambda: facts(record=without("data"), reference=None), "lineage.data"),
        (lambda: facts(record=without("trainer")), "lineage.trainer_key"),
        (lambda: facts(record=without("policy_digest")), "lineage.policy_digest"),
        (lambda: facts({**MANIFEST, "params": None}), "details.params"),
        (lambda: facts(record=without("curves")), "curves.roc"),
    ],
)
def test_what_the_machine_did_not_record_is_asked_of_nobody_and_makes_no_draft(
    told: Any, lacking: str, tmp_path: Path
) -> None:
    document, text, page = written(told(), tmp_path)
    field = fields_of(document)[lacking]
    assert (field["state"], field["value"], document["missing"]) == ("NOT_RECORDED", None, [])
    assert field["reason"].startswith("nothing was recorded")
    assert "supplied by" not in field["reason"]
    assert f"not recorded {field['reason']}" in Page(page).text(lacking)
    count, of = document["status"].split("/")
    assert int(count) < int(of)
    assert "DRAFT" not in text + page


def test_a_first_version_has_no_champion_and_no_gates() -> None:
    card = make_card(facts(record=None))
    for id in ("comparison.champion_auroc", "gates.results", "lineage.policy_digest", "evaluation.proven_on"):
        assert card.fields[id].state is State.NOT_APPLICABLE
        assert "the first version" in str(card.fields[id].reason)
    assert card.fields["quantitative.auroc"].value == 0.7712
    assert card.fields["rollout.outcome"].state is State.NOT_APPLICABLE
    assert card.missing == ()
    assert card.fields["lineage.data"].value == {"predictions": 8, "outcomes": 7}
    assert "No gate was asked about this version." in card.fields["limits.not_proven"].value


def test_a_candidate_that_was_no_champion_has_no_reference(tmp_path: Path) -> None:
    document, _, _ = written(facts(reference=None), tmp_path)
    assert {fields_of(document)[f"evaluation.reference_{name}"]["state"] for name in ("rows", "auroc")} == {
        "NOT_APPLICABLE"
    }
    assert document["missing"] == []


def test_nothing_but_a_manifest_is_still_a_card(tmp_path: Path) -> None:
    document, text, page = written(facts({"model": MODEL}, record=None, reference=None, approvals=()), tmp_path)
    assert document["version"] == "unnamed"
    assert "not recorded" in text
    assert "0 of 1" in page


def test_without_protected_columns_groups_do_not_apply() -> None:
    card = make_card(facts(declared=spec(protected={}), record=without("groups")))
    assert card.fields["quantitative.groups"].state is State.NOT_APPLICABLE
    assert any("no figure of any group" in limit for limit in card.fields["limits.not_proven"].value)


def test_a_first_version_has_what_was_found_out_when_it_was_adopted() -> None:
    digest = make_bundle(MANIFEST, FILES).digest
    groups, drawn, cost = group_analysis(block(), spec()), curves(), {"wall_seconds": 1.5}
    adopted = {"digest": digest, "groups": groups, "curves": drawn, "trainer": "ab" * 32, "cost": cost}
    fields = make_card(facts(record=None, adopted=adopted)).fields
    assert fields["quantitative.groups"].value == groups
    assert {name: fields[f"curves.{name}"].value for name in drawn} == drawn
    assert (fields["training.cost"].value, fields["lineage.trainer_key"].value) == (cost, "ab" * 32)
    assert not [field.id for field in fields.values() if field.state is State.NOT_RECORDED]


def test_what_a_given_model_cost_to_train_is_known_to_nobody_here() -> None:
    field = make_card(facts({**MANIFEST, "trainer": "given"}, record=None)).fields["training.cost"]
    assert (field.state, field.reason) == (State.NOT_APPLICABLE, "it was trained elsewhere")


def test_a_failed_gate_is_no_quiet_line() -> None:
    card = make_card(facts(record={**without(), "passed": False}))
    assert any("must not be released" in limit for limit in card.fields["limits.not_proven"].value)


def test_it_says_what_it_does_not_prove(tmp_path: Path) -> None:
    document, text, page = written(facts(), tmp_path)
    limits = fields_of(document)["limits.not_proven"]["value"]
    assert any("words of payments@example.com" in limit for limit in limits)
    assert any("one block of 4,000 rows" in limit for limit in limits)
    assert any("take rows as independent" in limit for limit in limits)
    for limit in limits:
        assert limit in text
        assert limit in Page(page).text("limits.not_proven")


def test_no_card_says_compliant(tmp_path: Path) -> None:
    for told in (facts(), facts(record=None, reference=None), facts(declared=spec(declarations={}))):
        assert "compliant" not in " ".join(map(str, written(told, tmp_path))).lower()


# approvals


def test_valid_and_invalid_approvals_stand_side_by_side(tmp_path: Path) -> None:
    document, text, page = written(facts(approvals=(APPROVAL, Refusal("it expired at noon"))), tmp_path)
    found = fields_of(document)
    assert (found["approvals.valid"]["value"], found["approvals.wanted"]["value"]) == (1, 1)
    valid, invalid = found["approvals.filed"]["value"]
    assert valid == {
        "valid": True,
        "reason": "the gates hold",
        "label": "ada",
        "role": "approver",
        "key_id": "cd" * 32,
        "at": (AT - DAY).isoformat(),
        "expires": (AT + DAY).isoformat(),
    }
    assert invalid == {"valid": False, "reason": "it expired at noon"} | dict.fromkeys(
        ("label", "role", "key_id", "at", "expires")
    )
    assert "| no | it expired at noon | none |" in text
    shown = Page(page).text("approvals.filed")
    assert re.search(r"valid adaapprover(cd)+2026.*the gates hold invalid not proven.*it expired at noon", shown)


# hostile text, same bytes, whole files


def test_what_others_wrote_is_text_and_nothing_else(tmp_path: Path) -> None:
    declared = spec(
        owner=HOSTILE, declarations={"card": {**SAID, "caveats": HOSTILE}}, protected={HOSTILE: "categorical"}
    )
    frame = block().select("_label", "_score", pl.lit(HOSTILE).alias(HOSTILE))
    results = [dict.fromkeys(("value", "bound", "limit")) | {"name": HOSTILE, "outcome": HOSTILE, "reason": HOSTILE}]
    told = facts(
        {**MANIFEST, "version": HOSTILE, "params": {HOSTILE: HOSTILE}},
        declared,
        environment=HOSTILE,
        record=None,
        approvals=(APPROVAL.model_copy(update={"label": HOSTILE, "reason": HOSTILE}), Refusal(HOSTILE)),
    )
    told = replace(told, record={**record(told.digest), "groups": group_analysis(frame, declared), "results": results})
    document, text, page = written(told, tmp_path)
    shown = Page(page)
    assert "script" not in shown.tags
    for id in ("caveats.caveats", "details.params", "quantitative.groups", "gates.results", "approvals.filed"):
        assert HOSTILE in shown.text(id), id
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert fields_of(document)["caveats.caveats"]["value"] == HOSTILE


def test_the_page_needs_no_network_and_no_script(tmp_path: Path) -> None:
    _, _, page = written(facts(), tmp_path)
    assert not {"script", "link", "img", "iframe"} & set(Page(page).tags)
    assert not re.findall(r"(?:src|href)=\"(?!#)", page)
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_facts_are_the_same_bytes(tmp_path: Path) -> None:
    digests = [write_card(make_card(facts()), tmp_path / name) for name in "ab"]
    assert digests[0] == digests[1]
    assert list(digests[0]) == ["card.json", "card.md", "card.html"]
    for name, digest in digests[0].items():
        assert digest == sha256((tmp_path / "a" / name).read_bytes()) == sha256((tmp_path / "b" / name).read_bytes())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["card.html", "card.json", "card.md"]


def test_a_folder_that_cannot_be_written_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "card").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_card(make_card(facts()), tmp_path / "card")
    (tmp_path / "card2" / "card.json").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be written"):
        write_card(make_card(facts()), tmp_path / "card2")
    assert [path.name for path in (tmp_path / "card2").iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (lambda: replace(facts(), digest=sha256(b"another")), "the manifest has the digest"),
        (lambda: facts({**MANIFEST, "model": "churn"}), "the manifest is of the model churn"),
        (lambda: facts(record=record(sha256(b"another"))), "the candidate's record is of"),
        (lambda: facts(reference={"digest": sha256(b"another")}), "the reference's record is of"),
    ],
)
def test_facts_of_two_versions_make_no_card(told: Any, said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        make_card(told())


def test_a_card_wants_an_aware_time() -> None:
    with pytest.raises(InputError, match="aware"):
        make_card(facts(at=datetime(2026, 3, 2)))  # noqa: DTZ001


# groups


def test_each_group_and_each_pair_is_counted_once() -> None:
    found, frame = group_analysis(block(), spec()), block()
    for columns in (["age_band"], ["gender"], ["age_band", "gender"]):
        part = [group for group in found if group["columns"] == columns]
        assert sum(group["rows"] for group in part) == frame.height
        assert sum(group["positives"] for group in part) == frame["_label"].sum()
        assert [group["levels"] for group in part] == sorted(group["levels"] for group in part)
    assert len(found) == 3 + 3 + frame.select("age_band", "gender").n_unique()


def test_three_columns_make_three_kinds_of_pairs_and_no_triple() -> None:
    declared = spec(protected={**DECLARED["protected"], "region": "categorical"})
    found = group_analysis(block().with_columns(region=pl.lit("north")), declared)
    kinds = {tuple(group["columns"]) for group in found}
    names = ("age_band", "gender", "region")
    assert kinds == {*((name,) for name in names), *itertools.combinations(names, 2)}


def test_a_group_s_figures_are_those_of_its_rows() -> None:
    frame = block().filter(pl.col("gender") == "f")
    (found,) = [group for group in group_analysis(block(), spec()) if group["levels"] == ["f"]]
    labels, scores = frame["_label"].to_numpy(), frame["_score"].to_numpy()
    exact = paired_auroc_difference(labels, scores, np.zeros(len(scores)))
    assert found["auroc"] == pytest.approx(exact.candidate)
    assert found["auroc_high"] - found["auroc_low"] == pytest.approx(2 * 1.96 * exact.standard_error, rel=0.02)
    assert found["selection_rate"] == pytest.approx((scores >= 0.5).mean())
    assert found["selection_low"] < found["selection_rate"] < found["selection_high"]
    assert found["note"] is None


def test_order_of_rows_does_not_matter() -> None:
    for one, other in zip(*(group_analysis(f, spec()) for f in (block(), block().reverse())), strict=True):
        assert {k: pytest.approx(v) if isinstance(v, float) else v for k, v in one.items()} == other


def test_too_few_rows_have_no_figures_and_say_the_minimum() -> None:
    frame = pl.DataFrame({"_label": [0, 1] * 14, "_score": [0.2, 0.8] * 14, "age_band": "a", "gender": "f"})
    for group in group_analysis(frame, spec()):
        assert group["rows"] == 28
        assert {group[f"{figure}_{end}"] for figure in ("auroc", "selection") for end in ("low", "high")} == {None}
        assert group["auroc"] is group["selection_rate"] is None
        fewer = "; TPR wants 30 rows, here are 14; FPR wants 30 rows, here are 14"
        shares = "a share wants 30 rows, here are 28"
        assert group["note"] == f"AUROC wants 50 rows of each label, here are 14; {shares}{fewer}"


def test_a_faultless_group_has_no_interval_rather_than_none_of_width() -> None:
    frame = pl.DataFrame({"_label": [0, 1] * 60, "_score": [0.2, 0.8] * 60, "age_band": "a", "gender": "f"})
    for group in group_analysis(frame, spec()):
        assert (group["auroc"], group["auroc_low"], group["auroc_high"]) == (1.0, None, None)
        assert "separated without a fault" in group["note"]


def test_rows_without_label_or_score_are_left_out_and_an_unknown_level_is_a_group() -> None:
    frame = block(400).with_columns(
        _score=pl.when(pl.int_range(pl.len()) < 10).then(math.nan).otherwise("_score"),
        _label=pl.when(pl.int_range(pl.len()) >= 390).then(None).otherwise("_label"),
        gender=pl.when(pl.int_range(pl.len()) < 200).then(None).otherwise("gender"),
    )
    genders = {tuple(g["levels"]): g["rows"] for g in group_analysis(frame, spec()) if g["columns"] == ["gender"]}
    assert sum(genders.values()) == 380
    assert genders[(None,)] == 190
    assert list(genders)[-1] == (None,)


def test_nothing_protected_and_no_rows_are_no_groups() -> None:
    assert group_analysis(block(), spec(protected={})) == []
    assert group_analysis(block().head(0), spec()) == []


def test_groups_are_canonical_json() -> None:
    found = group_analysis(block(), spec())
    assert json.loads(canonical(found)) == found


@pytest.mark.slow
@pytest.mark.parametrize(("positives", "negatives"), [(50, 50), (50, 500)])
def test_the_interval_of_an_auroc_holds_it_95_times_in_100(positives: int, negatives: int) -> None:
    random, truth, held = np.random.default_rng(5), 0.8413447460685429, 0  # P(N(sqrt 2, 1) > N(0, 1)) = Phi(1)
    labels = np.repeat([True, False], [positives, negatives])
    for _ in range(2000):
        scores = random.normal(size=len(labels)) + labels * math.sqrt(2)
        _, low, high = auroc_interval(labels, scores)
        held += low is not None and high is not None and low < truth < high
    assert 0.94 < held / 2000 < 0.97


@pytest.mark.parametrize(("rate", "rows"), [(0.02, 100), (0.3, 30), (0.5, 500)])
def test_the_interval_of_a_share_holds_it_95_times_in_100(rate: float, rows: int) -> None:
    random = np.random.default_rng(6)
    bounds = [share_interval(int(count), rows) for count in random.binomial(rows, rate, 2000)]
    held = sum(low <= rate <= high for _, low, high in bounds if low is not None and high is not None)
    assert 0.93 < held / 2000 <= 0.99


# regression


def test_a_regression_s_groups_have_an_mae_with_its_interval() -> None:
    frame = block().with_columns(_label=pl.col("_label") * 3.0, _score=pl.col("_score") * 3)
    entries = group_analysis(frame, spec(task="regression"))
    for entry in entries:
        assert not {"auroc", "positives", "selection_rate"} & set(entry)
        if entry["rows"] < 30:
            assert (entry["mae"], entry["note"]) == (None, f"MAE wants 30 rows, here are {entry['rows']}")
        else:
            assert entry["mae_low"] < entry["mae"] < entry["mae_high"]
    women = frame.filter(pl.col("gender") == "f")
    (entry,) = [entry for entry in entries if entry["levels"] == ["f"]]
    assert entry["mae"] == pytest.approx((women["_label"] - women["_score"]).abs().mean())


def test_what_a_tool_told_stands_with_its_gate_and_what_was_not_asked_says_so(tmp_path: Path) -> None:
    said = without()
    gate = {
        **said["results"][0],
        "name": "secrets",
        "facts": {"tool": "detect-secrets 1.5.0", "levels": {"tv": 0.6125}},
    }
    off = {"vulnerabilities": "it is off (DRIFT_SCAN)"}
    told = facts(record={**said, "results": [*said["results"], gate], "not_asked": off})
    document, text, page = written(told, tmp_path)
    assert fields_of(document)["gates.not_asked"]["value"] == off
    shown = Page(page)
    for words in (shown.text("gates.results"), text):
        assert "detect-secrets 1.5.0" in words
        assert "0.6125" in words
    assert "it is off (DRIFT_SCAN)" in shown.text("gates.not_asked")
