"""A card as files: JSON with every digit, and pages in Markdown and HTML with its pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drift_pipeline.evidence.card.document import ModelCard
from drift_pipeline.evidence.card.drawing import pictures
from drift_pipeline.evidence.card.forest import drift_history, forest
from drift_pipeline.evidence.groups import FIGURES, ends_of
from drift_pipeline.evidence.pages import render

_WORDS = {
    "selection_rate": "Share of positive decisions",
    "true_positive_rate": "True positive rate",
    "false_positive_rate": "False positive rate",
}


def card_files(card: ModelCard) -> dict[str, bytes]:
    """`card.json`, `card.md` and `card.html`; the same card gives the same bytes."""
    texts = {
        "card.json": json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n",
        "card.md": _page("card.md.j2", card),
        "card.html": _page("card.html.j2", card),
    }
    return {name: text.encode() for name, text in texts.items()}


@dataclass(frozen=True)
class Figure:
    """One figure of the groups: the keys of its value and of its interval's ends, and its name in words."""

    name: str
    words: str

    @property
    def low(self) -> str:
        return f"{ends_of(self.name)}_low"

    @property
    def high(self) -> str:
        return f"{ends_of(self.name)}_high"


def _page(template: str, card: ModelCard) -> str:
    groups, measure = card.fields["quantitative.groups"].value or [], card.performance
    decides = measure.kpi == "auroc"
    figured = _figured(groups, measure.kpi, measure.name)
    ends = [key for figure in figured for key in (figure.name, figure.low, figure.high)]
    columns = ["columns", "levels", "rows", *(["positives"] if decides else []), *ends, "note"]
    curves = {id.removeprefix("curves."): field.value for id, field in card.fields.items() if id.startswith("curves.")}
    lost = f"{measure.name} {'lost' if measure.higher_is_better else 'added'}"
    drawn = {f"curves.{name}": svg for name, svg in pictures(curves, lost).items()}
    overall = card.fields[f"quantitative.{measure.kpi}"].value
    whole = {measure.kpi: overall if isinstance(overall, float) else None}
    forests = [forest(groups, one.name, one.low, one.high, one.words, whole.get(one.name)) for one in figured]
    return render(
        template,
        card=card,
        fields=card.fields,
        pictures=drawn,
        forests=forests,
        figured=figured,
        measure=measure,
        decides=decides,
        columns=columns,
        history=_drawn_history(card),
    )


def _figured(groups: Sequence[Mapping[str, Any]], kpi: str, name: str) -> list[Figure]:
    """Those that were recorded: versions that were proven before have fewer."""
    recorded = groups[0] if groups else {}
    return [Figure(one, _WORDS.get(one, name)) for one in (FIGURES if kpi == "auroc" else (kpi,)) if one in recorded]


def _drawn_history(card: ModelCard) -> str:
    reigns = card.fields["history.reigns"].value
    return drift_history(reigns, card.fields["history.incidents"].value, card.at) if reigns else ""
