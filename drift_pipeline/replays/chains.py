"""The page of a version's causal chain: the stages drawn with what leads from one to the other, and every record."""

import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

from drift_pipeline.evidence.chain import Chain, Stage, Step
from drift_pipeline.evidence.svg import Svg
from drift_pipeline.files import write_whole
from drift_pipeline.replays.page import FILE, Served, render

_LETTER, _LINE, _HEAD, _GAP = 6.3, 16, 28, 26  # px: a letter's width at most, a line, a box's head, between boxes
_MOST = 7  # lines of a box; the others stand in the table below
_BAD = {"incident.opened", "incident.reopened", "incident.joined", "candidate.rejected", "rollout.rolled_back"}
_BAD |= {"training.failed", "training.refused", "approval.refused", "approval.withdrawn", "model.put_back"}
_PASSED = {"pass": "\u2713", "fail": "\u2715"}
_GOOD = {"candidate.proven", "approval.given", "approval.accepted", "rollout.full", "incident.closed"}


def write_chain(chain: Chain, out: Path, card: Path | None = None) -> Path:
    """Write the page to a file, linked with the version's card, where there is one. Errors as of `write_whole`."""
    link = "" if card is None else quote(os.path.relpath(card.absolute(), out.parent.absolute()))
    return write_whole(out, chain_page(chain, link))


def chain_page(chain: Chain, card: str = "", model: str = "", served: Served = FILE) -> str:
    """The page as HTML; it needs no script.

    Args:
        card, model: addresses of the version's card and of the model's page; "" = there is none.
    """
    facts = chain.to_json()
    rooms = (("mid", 690, 3), ("wide", 1130, 5), ("narrow", 360, 1))
    drawn = "".join(drawing(chain, width, columns, look) for look, width, columns in rooms)
    return render("chain.html.j2", facts, served=served, chain_svg=drawn, chain=chain, card=card, page=model, tone=tone)


def tone(step: Step) -> str:
    return "bad" if step.event in _BAD else "good" if step.event in _GOOD else ""


def drawing(chain: Chain, width: float, columns: int, look: str) -> str:
    """The stages as boxes in order, row by row; each leads to its part of the table."""
    wide = (width - _GAP * (columns - 1)) / columns
    texts = {stage: list(_fitted(_lines(chain, stage), int((wide - 20) / _LETTER))) for stage in chain.stages}
    rows = [chain.stages[start : start + columns] for start in range(0, len(chain.stages), columns)]
    tall = [_HEAD + 10 + _LINE * max(len(texts[stage]) for stage in row) for row in rows]
    at = {
        stage: (column * (wide + _GAP), 2 + sum(tall[:number]) + number * (_GAP + 10), tall[number])
        for number, row in enumerate(rows)
        for column, stage in enumerate(row)
    }
    below = max(y + height for _, y, height in at.values()) + 4
    svg = Svg(width, below, f"{chain.model} {chain.version}: {' to '.join(chain.stages)}", class_=f"chain {look}")
    for before, after in pairwise(chain.stages):
        _arrow(svg, at[before], at[after], wide, dashed=not (chain.of(before) and chain.of(after)))
    for stage, place in at.items():
        _box(svg, chain, stage, place, wide, texts[stage])
    return str(svg)


def _lines(chain: Chain, stage: Stage) -> list[str]:
    steps = chain.of(stage)
    if not steps:
        return [next(why for lacking, why in chain.lacks if lacking is stage)]
    return [line for step in steps for line in _short(step)]


def _short(step: Step) -> list[str]:
    """As few words as tell what the step was; the table has all of them."""
    facts, day = step.facts, step.at[5:10]
    match step.stage:
        case Stage.BREACH:
            told = [f"{day} {kpi['kpi']} {kpi['verdict']}{_shown(kpi['value'])}" for kpi in facts["kpis"]]
        case Stage.DECISION:
            told = [f"{day} {facts['action']}"]
        case Stage.DATA:
            delta = [f"{name} @ {version}" for name, version in facts["delta"].items()]
            told = [f"{day} {facts['rows']:,} rows", f"{facts['proving_rows']:,} of them prove", *delta]
        case Stage.CANDIDATE if step.event == "candidate.trained":
            digest = step.digests["bundle"].removeprefix("sha256:")[:12]
            told = [f"{day} {facts['rows']:,} rows", f"sha256 {digest}", f"trainer {str(facts['trainer'])[:12]}"]
        case Stage.GATES if "gates" in facts:
            told = [f"{_PASSED.get(str(gate['outcome']), '?')} {gate['name']}" for gate in facts["gates"]]
        case Stage.OUTCOME:
            told = [f"{day} {re.split('[:,]', step.words)[0]}"]
        case _:
            told = [f"{day} {step.event.partition('.')[2].replace('_', ' ')} {facts.get('label', '')}".rstrip()]
    return told


def _shown(value: float | None) -> str:
    return "" if value is None else f" {value:.3g}"


def _fitted(lines: Sequence[str], letters: int) -> Iterator[str]:
    """Lines that fit a box; a sentence goes on in the next line, as far as there is room."""
    cut = [part for line in lines for part in textwrap.wrap(line, letters, max_lines=3, placeholder="\u2026")]
    yield from cut[:_MOST] if len(cut) <= _MOST else [*cut[: _MOST - 1], f"and {len(cut) - _MOST + 1} more lines"]


_Place = tuple[float, float, float]


def _box(svg: Svg, chain: Chain, stage: Stage, place: _Place, wide: float, lines: Sequence[str]) -> None:
    x, y, tall = place
    steps = chain.of(stage)
    tones = {tone(step) for step in steps} - {""}
    look = "lacks" if not steps else tones.pop() if len(tones) == 1 else "plain"
    numbers = ", ".join(dict.fromkeys(f"#{step.seq}" for step in steps)) or "missing"
    with svg.link(f"#stage-{stage}", f"{stage}: {'; '.join(lines)}"):
        svg.add("rect", x=x, y=y, width=wide, height=tall, rx=6, class_=f"node {look}")
        svg.add("rect", x=x, y=y, width=5, height=tall, rx=2, class_=f"edge {look}")
        svg.text(x + 14, y + 19, str(stage), "panel-name")
        left = int((wide - 24) / _LETTER) - len(stage) - 3
        svg.text(x + wide - 8, y + 19, numbers if len(numbers) <= left else f"{len(steps)} records", anchor="end")
        for number, line in enumerate(lines):
            svg.text(x + 14, y + _HEAD + 10 + number * _LINE, line, "step")


def _arrow(svg: Svg, before: _Place, after: _Place, wide: float, *, dashed: bool) -> None:
    """To the right; from the end of a row down, and along the gutter to the next row's begin."""
    (x, y, tall), (to_x, to_y, _) = before, after
    look = "flow dashed" if dashed else "flow"
    if to_y == y:
        svg.add("path", d=f"M{x + wide:.1f} {y + 14:.1f}H{to_x - 6:.1f}", class_=look)
        svg.add("path", d=f"M{to_x - 1:.1f} {y + 14:.1f}l-8 -5v10z", class_="head")
        return
    gutter, middle = to_y - (_GAP + 10) / 2, to_x + wide / 2
    svg.add("path", d=f"M{x + wide / 2:.1f} {y + tall:.1f}V{gutter:.1f}H{middle:.1f}V{to_y - 6:.1f}", class_=look)
    svg.add("path", d=f"M{middle:.1f} {to_y - 1:.1f}l-5 -8h10z", class_="head")
