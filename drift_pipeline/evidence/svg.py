"""Inline SVG: elements one by one, and a scale with round ticks.

No drawing library: plotly's script alone is 4.5 MB a page.
"""

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass


class Svg:
    """Grows element by element; text and attributes are escaped, for names come from other people's data."""

    def __init__(self, width: float, height: float, label: str, name: str = "", **attributes: object) -> None:
        self.width, self.height = width, height
        self._label, self._name, self._attributes, self._parts = label, name, attributes, list[str]()

    def add(self, tag: str, text: str = "", title: str = "", **attributes: object) -> None:
        """Attributes in Python's spelling: `class_`, `text_anchor`; a float is written with one decimal."""
        inner = (f"<title>{html.escape(title)}</title>" if title else "") + html.escape(text)
        written = _written(attributes)
        self._parts.append(f"<{tag}{written}>{inner}</{tag}>" if inner else f"<{tag}{written}/>")

    def text(self, x: float, y: float, text: str, class_: str = "", anchor: str = "start", title: str = "") -> None:
        self.add("text", text, title, x=x, y=y, class_=class_ or "label", text_anchor=anchor)

    @contextmanager
    def link(self, href: str, label: str) -> Iterator[None]:
        """What is added meanwhile leads there, by a click or by Tab and Enter."""
        self._parts.append(f'<a href="{html.escape(href)}" aria-label="{html.escape(label)}">')
        yield
        self._parts.append("</a>")

    def __str__(self) -> str:
        box = f'viewBox="0 0 {_value(self.width)} {_value(self.height)}"'
        size = f'width="{_value(self.width)}" height="{_value(self.height)}"'
        name = f' id="{html.escape(self._name)}"' if self._name else ""
        label = html.escape(self._label)
        more = _written(self._attributes)
        role = "group" if any(part.startswith("<a ") for part in self._parts) else "img"
        return f'<svg{name} {box} {size} role="{role}" aria-label="{label}"{more}>{"".join(self._parts)}</svg>'


def _written(attributes: Mapping[str, object]) -> str:
    return "".join(f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"' for name, value in attributes.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return html.escape(str(value))


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to pixels, upwards."""

    low: float
    high: float
    top: float
    bottom: float

    @classmethod
    def around(cls, values: Iterable[float], top: float, bottom: float) -> "Scale":
        """Room for all values and a little air, but none below 0 where no value is: a share or a distance has none."""
        kept = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        low, high = min(kept), max(kept)
        air = (high - low) * 0.08 or abs(high) * 0.1 or 0.05
        return cls(low - air if low < 0 else max(low - air, 0.0), high + air, top, bottom)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top)

    def ticks(self, most: int = 4) -> list[float]:
        """Round numbers inside, `most` at most.

        >>> Scale(0.53, 0.84, 0, 100).ticks()
        [0.6, 0.7, 0.8]
        """
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        steps = (step / 10, step / 5, step / 2, step, 2 * step)
        step = next((s for s in steps if math.floor(self.high / s) - math.ceil(self.low / s) < most), steps[-1])
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)  # 0.6 / 0.2 is below 3
        return [round(number * step, 12) for number in range(first, last + 1)]
