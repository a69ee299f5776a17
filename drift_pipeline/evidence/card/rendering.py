"""A card as files: JSON with every digit, and pages in Markdown and HTML that draw the groups' intervals."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drift_pipeline.evidence.card.document import ModelCard
from drift_pipeline.evidence.card.drawing import pictures
from drift_pipeline.evidence.pages import render


def card_files(card: ModelCard) -> dict[str, bytes]:
    """`card.json`, `card.md` and `card.html`; the same card gives the same bytes."""
    texts = {
        "card.json": json.dumps(card.to_json(), indent=2, ensure_ascii=False) + "\n",
        "card.md": _page("card.md.j2", card),
        "card.html": _page("card.html.j2", card),
    }
    return {name: text.encode() for name, text in texts.items()}


def _page(template: str, card: ModelCard) -> str:
    groups, measure = card.fields["quantitative.groups"].value or [], card.performance
    axes = {name: Axis.of(groups, name) for name in (measure.kpi, "selection")}
    decides = measure.kpi == "auroc"
    figures = [
        f"{name}{end}" for name in (measure.kpi, *(["selection"] if decides else [])) for end in ("", "_low", "_high")
    ]
    names = ["columns", "levels", "rows", *(["positives"] if decides else []), *figures, "note"]
    columns = ["selection_rate" if name == "selection" else name for name in names]
    curves = {id.removeprefix("curves."): field.value for id, field in card.fields.items() if id.startswith("curves.")}
    lost = f"{measure.name} {'lost' if measure.higher_is_better else 'added'}"
    drawn_curves = {f"curves.{name}": svg for name, svg in pictures(curves, lost).items()}
    drawn = {"pictures": drawn_curves, "axes": axes, "measure": measure, "decides": decides, "columns": columns}
    return render(template, card=card, fields=card.fields, **drawn)


@dataclass(frozen=True)
class Axis:
    """A scale of tenths that holds every interval of one figure; `x` is in pixels."""

    low: float
    high: float
    width: int = 200
    margin: int = 8

    @classmethod
    def of(cls, groups: Sequence[Mapping[str, Any]], name: str) -> "Axis":
        keys = (f"{name}_low", f"{name}_high")
        ends = [group[key] for group in groups for key in keys if group.get(key) is not None]
        low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
        low, high = math.floor(round(low * 10, 6)) / 10, math.ceil(round(high * 10, 6)) / 10
        return cls(low, high if high > low else low + 0.1)

    @property
    def ticks(self) -> tuple[float, ...]:
        return self.low, round((self.low + self.high) / 2, 4), self.high

    def x(self, value: float) -> float:
        return round(self.margin + (value - self.low) / (self.high - self.low) * (self.width - 2 * self.margin), 1)
