"""A page that stands alone: its facts are embedded as JSON, and every number it shows is looked up in them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from drift_pipeline.clock import DAY, HOUR, MINUTE, format_duration
from drift_pipeline.detection.judging.performance import PERFORMANCE


@dataclass(frozen=True)
class Served:
    """How a page is reached: as a file, which asks for nothing, or `live`, where it asks for itself again by and by.

    csv: where all ticks are to be had; spans: (words, address, whether it is this one) of other spans; home: the index.
    """

    live: bool = False
    csv: str = ""
    spans: Sequence[tuple[str, str, bool]] = ()
    home: str = ""


FILE = Served()


def render(template: str, facts: Mapping[str, Any], *, served: Served = FILE, **parts: object) -> str:
    """The page; text of others is escaped. Templates get `facts`, `fact(path, form)`, `moment` and the parts.

    Parts whose name ends with `_svg` are markup and are not escaped again.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def fact(path: str, form: str = "text") -> Markup:
        value = look_up(facts, path)
        written = Markup('<data data-fact="{}" value="{}"{}>{}</data>')
        return written.format(
            path, json.dumps(value), Markup(' class="none"') if value is None else "", shown(value, form)
        )

    page = Environment(
        loader=PackageLoader("drift_pipeline.replays"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"moment": moment}
    drawn = {name: Markup(part) if name.endswith("_svg") else part for name, part in parts.items()}
    embedded = Markup(embeddable(facts))
    return page.get_template(template).render(facts=facts, fact=fact, embedded=embedded, served=served, **drawn)


def embeddable(facts: Mapping[str, Any]) -> str:
    r"""JSON that cannot end the script element it stands in.

    >>> embeddable({"level": "</script><b>"})
    '{"level":"\\u003c/script\\u003e\\u003cb\\u003e"}'
    """
    text = json.dumps(facts, separators=(",", ":"), default=str, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def look_up(facts: Any, path: str) -> Any:
    """`retrains.0.cost.rows` in nested mappings and lists.

    >>> look_up({"a": [{"b": 1}]}, "a.0.b")
    1
    """
    for name in path.split("."):
        facts = facts[int(name)] if isinstance(facts, list) else facts[name]
    return facts


def shown(value: Any, form: str) -> str:
    """As a person reads it; `facts` has every digit.

    >>> shown(0.73512, "auroc"), shown(-0.002, "auroc_gain"), shown(108000, "count"), shown(None, "auroc")
    ('0.735', '-0.002', '108,000', 'unknown')
    >>> shown(3.14159, "mae"), shown(0.12, "mae_gain")
    ('3.142', '-12.0 %')
    """
    forms: dict[str, Callable[[Any], str]] = {
        "count": lambda number: f"{number:,}",
        "seconds": lambda number: f"{number:,.1f}",
        "number": lambda number: f"{number:.3g}",
        "moment": moment,
        "text": str,
    }
    for measure in PERFORMANCE.values():
        forms |= {measure.kpi: measure.shown, f"{measure.kpi}_gain": measure.shown_gain}
    if value is None:
        return "unknown" if form.removesuffix("_gain") in {m.kpi for m in PERFORMANCE.values()} else "–"
    return forms[form](value)


def moment(value: str | datetime) -> str:
    """The date, with the time of day where it is not midnight.

    >>> moment("2026-03-01T00:00:00+00:00"), moment("2026-03-01T06:30:00+00:00")
    ('2026-03-01', '2026-03-01 06:30')
    """
    read = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{read:%Y-%m-%d}" if (read.hour, read.minute) == (0, 0) else f"{read:%Y-%m-%d %H:%M}"


def told_length(length: timedelta) -> str:
    """In its two largest units.

    >>> told_length(timedelta(days=6, hours=9, minutes=16)), told_length(timedelta(seconds=75.4))
    ('6d9h', '1m15s')
    """
    unit = next((unit for unit in (DAY, HOUR, MINUTE) if length >= unit), timedelta(seconds=1))
    finer = {DAY: HOUR, HOUR: MINUTE}.get(unit, timedelta(seconds=1))
    return format_duration(length // finer * finer)
