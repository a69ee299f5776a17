"""Reads a page back: what it shows under which fact, the facts embedded in it, and the texts of its charts."""

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any


@dataclass(frozen=True)
class Shown:
    """One `<data>`: where its fact stands, the value in its attribute, and the text a person reads."""

    path: str
    value: Any
    text: str


@dataclass
class ReadPage(HTMLParser):
    """Tags are counted, facts and shown values are kept."""

    shown: list[Shown] = field(default_factory=list)
    tags: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    rows: dict[str, list[str]] = field(default_factory=dict)
    addresses: list[str] = field(default_factory=list)
    facts: Any = None

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._data: tuple[str, str] | None = None
        self._text, self._in_facts = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [given[name] for name in ("src", "href", "xlink:href", "action") if name in given]
        for name in ("data-retrain", "data-incident", "data-kpi", "data-month", "data-column", "data-row"):
            if name in given:
                self.rows.setdefault(name, []).append(given[name])
        if tag == "data":
            self._data, self._text = (given["data-fact"], given["value"]), ""
        self._in_facts = tag == "script" and given.get("id") == "facts"

    def handle_data(self, data: str) -> None:
        self._text += data
        self.texts.append(data)
        if self._in_facts:
            self.facts = json.loads(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "data" and self._data:
            self.shown.append(Shown(self._data[0], json.loads(self._data[1]), self._text))
            self._data = None
        self._in_facts = False


def read_page(html: str) -> ReadPage:
    page = ReadPage()
    page.feed(html)
    page.close()
    return page
