"""How commands tell people: lines that fit the terminal, colour where it is one, and progress of what takes long."""

import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from drift_pipeline.clock import DAY, HOUR, MINUTE

_PATIENCE, _SPARSE = 2.0, 10.0  # seconds until work is told of; between two lines where stderr is no terminal
_COLOURS = {
    **{"NOT VERIFIED": "red", "NOT APPROVED": "red", "FAILED": "red", "BREACH": "red"},
    **{"WARN": "yellow", "INCONCLUSIVE": "cyan", "OK": "green"},
}
_WORDS = re.compile(rf"\b({'|'.join(_COLOURS)})\b")


def say(text: str, *, err: bool = False) -> None:
    """Print, verdicts in colour where it is a terminal and NO_COLOR is not set."""
    click.echo(_WORDS.sub(lambda found: click.style(found[0], fg=_COLOURS[found[0]]), text), err=err)


def width() -> int:
    """Of the terminal in letters; 80 where there is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, 40)


def wrapped(text: str, first: str = "", then: str | None = None) -> str:
    """The text on lines that fit, the first after `first`, the others after `then` (None = as wide, of spaces)."""
    indent = " " * len(first) if then is None else then
    lines = textwrap.wrap(text, width(), initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines) or first.rstrip()


def told_below(told: Sequence[tuple[str, str | Path]]) -> list[str]:
    """Lines of what is told by name, beneath a heading. A path stays whole, to be copied."""
    longest = max((len(name) for name, _ in told), default=0)
    firsts = [(f"  {name:<{longest}}  ", words) for name, words in told]
    return [f"{first}{words}" if isinstance(words, Path) else wrapped(words, first) for first, words in firsts]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as what they hold; the last has the rest of the line and goes on beneath itself.

    Where less than a third of the line is left to it, it has lines of its own.
    """
    lines = [[*head], *([*row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    firsts = ["  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=False)) + "  " for line in lines]
    if len(firsts[0]) <= width() * 2 // 3:
        return "\n".join(wrapped(line[-1], first) for line, first in zip(lines, firsts, strict=True))
    return "\n".join(
        f"{first.rstrip()}\n{wrapped(line[-1], '    ')}" if line[-1] else first.rstrip()
        for line, first in zip(lines, firsts, strict=True)
    )


def minute(moment: datetime | None) -> str:
    """
    >>> minute(datetime(2026, 3, 1, 12, 0, 59, 5, tzinfo=UTC))
    '2026-03-01 12:00'
    """
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def rough(span: timedelta) -> str:
    """
    >>> [rough(timedelta(seconds=s)) for s in (19.2, 300, 7200, 200_000, -5)]
    ['19s', '5m', '2h', '2d', '0s']
    """
    if span < MINUTE:
        return f"{max(span, timedelta()).seconds}s"
    if span < HOUR:
        return f"{span // MINUTE}m"
    return f"{span // HOUR}h" if span < 2 * DAY else f"{span // DAY}d"


class at_work:  # noqa: N801  # used as a function that is a context
    """Tells on stderr what takes longer than two seconds; what it gives is called with the next stage.

    On a terminal one line with the seconds, which goes when it is done; elsewhere a line for each stage.
    """

    def __init__(self, words: str) -> None:
        self._words, self._told = words, words
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> Callable[[str], None]:
        self._stream, self._begun = sys.stderr, time.monotonic()
        self._thread.start()
        return self._next

    def _next(self, words: str) -> None:
        self._words = words

    def _tell(self) -> None:
        while not self._over.wait(_PATIENCE if self._told == self._words else 1):
            seconds = time.monotonic() - self._begun
            if self._stream.isatty():
                self._stream.write(f"\r{self._words} ({seconds:.0f} s)"[: width()] + "\x1b[K")
                self._stream.flush()
            elif self._words != self._told:
                click.echo(self._words, file=self._stream)
                self._told = self._words

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")


class bar:  # noqa: N801  # used as a function that is a context
    """A progress bar on stderr; where that is no terminal, a line each ten seconds."""

    def __init__(self, unit: str = "tick") -> None:
        self._unit = unit

    def __enter__(self) -> Any:
        from tqdm import tqdm

        self._bar: Any = tqdm(file=sys.stderr, unit=self._unit, dynamic_ncols=True, disable=None, leave=False)
        self._told_at, self._stream = time.monotonic(), sys.stderr
        return self._show

    def _show(self, done: int, total: int | None, words: str) -> None:
        if self._bar.disable:
            self._line(done, total, words)
            return
        self._bar.total = total
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)
        if words:
            self._bar.refresh()

    def _line(self, done: int, total: int | None, words: str) -> None:
        if time.monotonic() - self._told_at >= _SPARSE:
            self._told_at = time.monotonic()
            of = f" of {total:,}" if total else ""
            click.echo(f"{done:,}{of} {self._unit}s{f': {words}' if words else ''}", file=self._stream)

    def __exit__(self, *_: object) -> None:
        self._bar.close()
