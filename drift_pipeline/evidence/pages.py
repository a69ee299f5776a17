"""Pages of evidence: Jinja templates, and how numbers, digests and other people's text are written in them."""

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drift_pipeline.evidence.card import ModelCard, Source


def render(template: str, card: "ModelCard") -> str:
    """The page of a card. HTML is escaped by itself; Markdown where the template says `md`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("drift_pipeline.evidence"),
        autoescape=template.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "md": _markdown, "place": _place, "words": _words}
    page.tests |= {"digest": _is_digest, "quantity": _is_number}
    groups = card.fields["quantitative.groups"].value or []
    axes = {name: Axis.of(groups, name) for name in (card.performance.kpi, "selection")}
    kpi, decides = card.performance.kpi, card.performance.kpi == "auroc"
    figures = [f"{name}{end}" for name in (kpi, *(("selection",) if decides else ())) for end in ("", "_low", "_high")]
    names = ["columns", "levels", "rows", *(["positives"] if decides else []), *figures, "note"]
    columns = ["selection_rate" if name == "selection" else name for name in names]
    drawn = {"axes": axes, "measure": card.performance, "decides": decides, "columns": columns}
    return page.get_template(template).render(card=card, fields=card.fields, **drawn)


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


def number(value: float) -> str:
    """Four significant digits, or one decimal from 1,000 on; whole numbers in full. `card.json` has every digit.

    >>> [number(value) for value in (0.81543, 12345.678, 2957, -0.00083366)]
    ['0.8154', '12,345.7', '2,957', '-0.0008337']
    """
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"


def _markdown(text: object) -> str:
    r"""Text of others as one line that Markdown, its tables and the HTML in it leave alone.

    >>> _markdown("a <b>\n| [x](y) `z`")
    'a &lt;b&gt; \\| \\[x\\](y) \\`z\\`'
    """
    return re.sub(r"([\\`*\[\]|~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def _words(id: str) -> str:
    return id.rpartition(".")[2].replace("_", " ").replace("auroc", "AUROC").replace("mae", "MAE")


def _place(source: "Source") -> str:
    """Document and place in it, as in `manifest#params`; the page tells each document's uri once."""
    path = source.uri.partition("#")[2]
    return f"{source.kind}#{path}" if path else source.kind


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"(sha256:)?[0-9a-f]{64}", value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
