"""What commands share: exit codes, types of options, progress."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.clock import parse_duration

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings

OK, NEGATIVE, BAD_INPUT, INCONCLUSIVE, INTERRUPTED = 0, 1, 2, 3, 130


class Duration(click.ParamType[timedelta]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def listed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(filter(None, (name.strip() for name in (value or "").split(","))))


class Moment(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time; write ISO 8601 such as 2026-01-31 or 2026-01-31T12:00Z", param, ctx)


class AtLeast(click.ParamType[float]):
    """A number of things as an int, or a share of them as a float: `14`, `0.9`, `90%`."""

    name = "number or share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            if text.endswith("%"):
                least: float = float(text.removesuffix("%")) / 100
            else:
                least = float(text) if "." in text else int(text)
        except ValueError:
            least = -1
        if not (0 < least <= 1 if isinstance(least, float) else least > 0):
            self.fail(f"{text!r} is no number of columns such as 14, and no share such as 0.9 or 90%", param, ctx)
        return least


class bar:  # noqa: N801  # used as a function that is a context
    """A progress bar on stderr; it writes nothing where stderr is no terminal."""

    def __init__(self, unit: str = "tick") -> None:
        self._unit = unit

    def __enter__(self) -> Any:
        from tqdm import tqdm

        self._bar: Any = tqdm(file=sys.stderr, unit=self._unit, dynamic_ncols=True, disable=None, leave=False)
        return self._show

    def _show(self, done: int, total: int | None, words: str) -> None:
        self._bar.total = total
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)
        if words:
            self._bar.refresh()

    def __exit__(self, *_: object) -> None:
        self._bar.close()


home_option = click.option("--home", type=click.Path(path_type=Path), help="A home; else DRIFT_HOME, or drift_home.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def settings_of(home: Path | None) -> "Settings":
    """The settings of the environment, of another home where one is named."""
    from drift_pipeline.settings import Settings

    return Settings() if home is None else Settings(home=home, database="")
