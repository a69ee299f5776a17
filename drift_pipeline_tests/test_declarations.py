"""What people declare beside the spec: read strictly, taken up within a second, and audited."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from drift_pipeline.control.canonical import canonical, read_canonical, sha256
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.errors import SpecError
from drift_pipeline.loop.declared import LiveSpecs, declared, spec_in_force
from drift_pipeline.spec import Declarations, Part, read_spec, spec_of
from drift_pipeline.spec.declarations import AnnexPart, Article50Part, CardPart, DatasheetPart
from drift_pipeline.spec.drafted import drafted_declarations
from drift_pipeline.spec.questions import QUESTIONS
from drift_pipeline_tests.evidence.worlds import DECLARED, MODEL, Home

SPEC = yaml.safe_dump({"attributes": {name: value for name, value in DECLARED.items() if name != "declarations"}})


def folder(tmp_path: Path, said: str | None) -> Path:
    """A model's folder; its spec's path."""
    path = tmp_path / MODEL / "defs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SPEC)
    if said is not None:
        path.with_name("declarations.yaml").write_text(said)
    return path


def test_what_stands_beside_the_spec_is_part_of_it(tmp_path: Path) -> None:
    found = read_spec(
        folder(tmp_path, "asserted_by: ada\nat: 2026-01-31\ncard: {intended_use: Queue, caveats: [a, b]}")
    )
    said = found.declarations
    assert said.card.intended_use is not None
    assert said.card.intended_use.value == "Queue"
    assert said.card.caveats is not None
    assert said.card.caveats.value == ("a", "b")
    assert (said.asserted_by, str(said.at)) == ("ada", "2026-01-31")


def test_what_is_filed_of_it_reads_back_the_same(tmp_path: Path) -> None:
    text = "risk: {profile: high_risk}\nannexes: {url: {not_applicable: none, at: 2026-01-31}}\n"
    text += "change_envelope: {hyperparameters: {learning_rate: [0, 1], loss: [a, b]}, floors: {performance: 1}}"
    found = read_spec(folder(tmp_path, text))
    again = spec_of(read_canonical(canonical(found.model_dump(mode="json"))))
    assert again.declarations == found.declarations


@pytest.mark.parametrize("said", [None, "", "# all of it is commented out\n", drafted_declarations()])
def test_nothing_declared_is_nothing_said(tmp_path: Path, said: str | None) -> None:
    assert read_spec(folder(tmp_path, said)).declarations == Declarations()


def test_the_drafted_file_asks_for_every_key_and_is_valid_once_it_is_filled_in() -> None:
    text = drafted_declarations()
    filled = "\n".join(line[2:] for line in text.splitlines()[4:] if line.startswith("# "))
    filled = filled.replace("sha256:...", "sha256:" + "0" * 64).replace(":  # ", ": # ")
    read = yaml.safe_load(filled)
    parts: dict[str, type[Part]] = {
        "card": CardPart,
        "datasheet": DatasheetPart,
        "annexes": AnnexPart,
        "article_50": Article50Part,
    }
    for name, part in parts.items():
        assert [*read[name]] == [*part.model_fields] == [*QUESTIONS[name]]
    assert spec_of({**DECLARED, "declarations": read}).declarations.risk.annex_iii == "5(b)"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("crad: {}", "declarations.yaml:1: crad: unknown key; did you mean 'card'?"),
        (
            "card:\n  intended_uses: x",
            "declarations.yaml:2: card.intended_uses: unknown key; did you mean 'intended_users'?",
        ),
        ("card: {caveats: {valu: x}}", "declarations.yaml:1: card.caveats.valu: unknown key"),
        (
            "card: {caveats: {value: x, not_applicable: y}}",
            "declarations.yaml:1: card.caveats: is said and not_applicable",
        ),
        ("card: {caveats: {not_applicable: ''}}", "declarations.yaml:1: card.caveats.not_applicable:"),
        ("risk: {profile: minimal}", "declarations.yaml:1: risk.profile: 'minimal' is not supported; what works:"),
        ("risk: {profile: art6_3_exempt, profiling: true}", "declarations.yaml:1: risk: art6_3_exempt is refused"),
        ("at: yesterday", "declarations.yaml:1: at:"),
        ("card: {caveats: .nan}", "declarations.yaml:1: card.caveats.value"),
        ("card: {caveats: 9007199254740993}", "declarations.yaml:1: card.caveats.value"),
        ("change_envelope: {floors: {performance: .inf}}", "declarations.yaml:1: change_envelope.floors.performance:"),
        (
            "change_envelope: {hyperparameters: {a: [.nan, 1]}}",
            "declarations.yaml:1: change_envelope.hyperparameters.a",
        ),
        ('card: {caveats: "\\ud800"}', "declarations.yaml:1: spec: holds half of a character"),
        ("card: {}\ncard: {}", "declarations.yaml:2: the key 'card' stands twice"),
        ("asserted_by: '{{ env.WHO }}'", "declarations.yaml:1: '{{' found"),
        ("- a list", "declarations.yaml: declarations are a YAML mapping"),
        ("card: [", "declarations.yaml:1: not valid YAML"),
        ("card: {caveats: \x00}", "declarations.yaml: not valid YAML"),
        ("x: " + "y" * 200_000, "declarations.yaml: is longer than 131,072 bytes"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(tmp_path: Path, said: str, message: str) -> None:
    path = folder(tmp_path, said)
    with pytest.raises(SpecError) as refused:
        read_spec(path)
    assert str(refused.value).startswith(f"{path.parent}/{message}")
    assert refused.value.exit_code == 2


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    path = folder(tmp_path, None)
    path.with_name("declarations.yaml").mkdir()
    with pytest.raises(SpecError, match="cannot be read"):
        read_spec(path)


def test_declarations_stand_in_one_place(tmp_path: Path) -> None:
    path = folder(tmp_path, "card: {caveats: x}")
    path.write_text(yaml.safe_dump(DECLARED))
    with pytest.raises(SpecError, match="keep them in one place"):
        read_spec(path)


def test_another_spec_of_the_folder_does_not_take_them(tmp_path: Path) -> None:
    path = folder(tmp_path, "card: {caveats: x}")
    other = path.with_name("other.yaml")
    other.write_text(SPEC)
    assert read_spec(other).declarations == Declarations()


# live


def caveat(specs: LiveSpecs) -> Any:
    said = specs[MODEL].declarations.card.caveats
    return said and said.value


def test_a_change_is_taken_up_within_a_second_and_a_wrong_one_leaves_what_was_said(tmp_path: Path) -> None:
    path, now = folder(tmp_path, "card: {caveats: one}"), [0.0]
    live = LiveSpecs(tmp_path, {MODEL: read_spec(path)}, lambda: now[0])
    said = path.with_name("declarations.yaml")
    told = list[Any]()
    for text in ("card: {caveats: two}", "card: {caveat: three}", None, "card: {caveats: four}"):
        said.unlink() if text is None else said.write_text(text)
        if text is not None:
            os.utime(said, ns=(len(told), len(told)))  # two writes of one moment are two
        now[0] += 1.5
        told.append(caveat(live))
    assert told == ["two", "two", None, "four"]


def test_who_asks_for_one_model_gets_no_other_whose_folder_is_new(tmp_path: Path) -> None:
    path = folder(tmp_path, "card: {caveats: one}")
    both = {only: LiveSpecs(tmp_path, {MODEL: read_spec(path)}, only=only) for only in (None, MODEL)}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "defs.yaml").write_text(path.read_text().replace(MODEL, "other"))
    assert {only: set(live) for only, live in both.items()} == {None: {MODEL, "other"}, MODEL: {MODEL}}


def test_the_audit_names_what_was_declared_once_for_each_change(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.store.commit(Entry("loop", "model.adopted", MODEL), [Put("model", MODEL, {"digest": "x", "version": "v1"}, 0)])
    first = read_spec(folder(tmp_path, "card: {caveats: one}"))
    second = read_spec(folder(tmp_path, "card: {caveats: two}"))
    for spec in (first, first, second, second):
        declared(home.settings, home.store, spec)
    records = [record for record in home.store.records() if record.event.startswith("spec.")]
    assert [record.event for record in records] == ["spec.declared", "spec.changed"]
    for record, spec in zip(records, (first, second), strict=True):
        said = canonical(spec.declarations.model_dump(mode="json"))
        assert record.details["declarations"] == sha256(said)
        assert json.loads((home.settings.gitops / "specs" / f"{record.digests['spec'][7:]}.json").read_text())[
            "declarations"
        ] == json.loads(said)
    assert records[1].details["changed"] == ["declarations"]
    assert spec_in_force(home.settings, home.store, MODEL).declarations == second.declarations
