"""Pages of evidence: Jinja templates, and how numbers, digests and other people's text are written in them."""

import html
import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jinja2 import Environment


class _Source(Protocol):
    """What a page tells of where a value stands: the document's kind, and its uri with the place in it."""

    kind: str
    uri: str


def render(template: str, **values: object) -> str:
    """A page of a template and its values. HTML is escaped by itself; Markdown where the template says `md`."""
    return _pages(template.endswith(".html.j2")).get_template(template).render(**values)


@cache
def _pages(escaped: bool) -> "Environment":
    """Kept, with the templates that it compiled."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    page = Environment(
        loader=PackageLoader("drift_pipeline.evidence"),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters |= {"number": number, "md": _markdown, "place": _place, "words": _words, "moment": _moment}
    page.tests |= {"digest": _is_digest, "quantity": _is_number}
    return page


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


def _moment(at: str) -> str:
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _words(id: str) -> str:
    return (
        id.rpartition(".")[2]
        .replace("_", " ")
        .replace("auroc", "AUROC")
        .replace("roc", "ROC curve")
        .replace("mae", "MAE")
    )


def _place(source: _Source) -> str:
    """Document and place in it, as in `manifest#params`; the page tells each document's uri once."""
    path = source.uri.partition("#")[2]
    return f"{source.kind}#{path}" if path else source.kind


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch(r"(sha256:)?[0-9a-f]{64}", value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
