"""What commands share: exit codes, arguments, options and their types."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from drift_pipeline.clock import parse_duration, system_clock

if TYPE_CHECKING:
    from drift_pipeline.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any] | click.Command)
OK, NEGATIVE, BAD_INPUT, INCONCLUSIVE, NOTHING_TO_DO, INTERRUPTED = 0, 1, 2, 3, 4, 130


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


class Since(click.ParamType[datetime]):
    """A time, or how long ago: `2026-01-31`, `30d`."""

    name = "time or duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return system_clock().now() - parse_duration(value)
        except (ValueError, OverflowError):
            moment: datetime = Moment().convert(value, param, ctx)
            return moment


class Whole(click.Group):
    """A group whose help does not cut what its commands do."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.section(formatter, "Commands", self.list_commands(ctx))

    def section(self, formatter: click.HelpFormatter, title: str, names: Iterable[str]) -> None:
        """The first sentence of each command that there is."""
        wide = max(map(len, self.commands))
        known = [
            (f"{name:<{wide}}", self.commands[name].get_short_help_str(500)) for name in names if name in self.commands
        ]
        if known:
            with formatter.section(title):
                formatter.write_dl(known)


def example(*lines: str) -> str:
    """A command's epilog."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


def _models(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    """Names of models to complete: those that DRIFT_MODELS declares. Whatever is wrong there, the command tells."""
    from contextlib import suppress

    from drift_pipeline.loop.home import models_of
    from drift_pipeline.settings import Settings

    with suppress(Exception):
        return [name for name in models_of(Settings()) if name.startswith(begun)]
    return []


def model_argument(**more: Any) -> Callable[[Command], Command]:
    """MODEL, as every command takes it."""
    return click.argument("model", shell_complete=_models, **more)


home_option = click.option(
    "--home", type=click.Path(path_type=Path), help="A home, or a replay's folder; else DRIFT_HOME, or drift_home."
)
reason_option = click.option("--reason", required=True, help="Why; it stands in the audit.")
actor_option = click.option("--actor", envvar="DRIFT_ACTOR", help="Who; else DRIFT_ACTOR, or your login name.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def long_lived(command: Callable[..., int]) -> Callable[..., int]:
    """What the command logs goes to stderr as DRIFT_LOG says, and to DRIFT_LOG_OTLP."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> int:
        from drift_pipeline.logs import to_stderr
        from drift_pipeline.observability.lines import line_handlers
        from drift_pipeline.settings import Settings

        settings = Settings()
        with to_stderr(settings.log, *line_handlers(settings.log_otlp, f"drift-{command.__name__}")):
            return command(*arguments, **options)

    return run


def settings_of(home: Path | None) -> "Settings":
    """The settings of the environment; of another home where one is named, which is its folder alone."""
    from drift_pipeline.settings import FILES_ALONE, Settings

    of_environment = Settings()
    if home is None or home.absolute() == of_environment.home.absolute():
        return of_environment
    return Settings(home=home, **FILES_ALONE)
