"""Features: whether what a model saw is what its feature store says."""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from drift_pipeline.cli.options import (
    INCONCLUSIVE,
    NEGATIVE,
    OK,
    Duration,
    Whole,
    example,
    home_option,
    json_option,
    model_argument,
    settings_of,
)
from drift_pipeline.cli.telling import at_work, say, table, wrapped
from drift_pipeline.clock import DAY, Window, system_clock

if TYPE_CHECKING:
    from drift_pipeline.training.sources.skew import Skew

_CODES = {"OK": OK, "BREACH": NEGATIVE, "INCONCLUSIVE": INCONCLUSIVE}


@click.group(cls=Whole)
def features() -> None:
    """Features as the model saw them beside those of its feature store."""


@features.command(epilog=example("drift features check fraud --since 24h", "drift features check fraud --online"))
@model_argument()
@click.option("--since", type=Duration(), default=DAY, help="How far back rows are compared.  [default: 24h]")
@click.option("--online", is_flag=True, help="Also what the feature server answers now.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Of two numbers, relative.  [default: 1e-6]")
@click.option("--at-most", type=click.FloatRange(0, 1), help="The share of rows that may differ.  [default: 0.01]")
@home_option
@json_option
def check(
    model: str,
    since: timedelta,
    online: bool,
    tolerance: float | None,
    at_most: float | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Look for training-serving skew: did MODEL see the features that its feature store would have served?

    Each recent row is joined with the store's values as of its time. 0: no feature differs in more rows than allowed,
    1: one does, 3: too few rows, or the store does not answer. Values are told of nobody; nothing is changed or noted.
    """
    from drift_pipeline.loop.features import check_features
    from drift_pipeline.training.sources.skew import AT_MOST, TOLERANCE, worst

    now, settings = system_clock().now(), settings_of(home)
    limits = {
        "tolerance": TOLERANCE if tolerance is None else tolerance,
        "at_most": AT_MOST if at_most is None else at_most,
    }
    with at_work(f"{model}: asking its feature store"):
        found = check_features(settings, model, Window(now - since, now), online=online, **limits)
    verdict = worst(found)
    if as_json:
        told = {"since": (now - since).isoformat(), "until": now.isoformat(), **limits}
        click.echo(json.dumps({"model": model, "verdict": verdict, **told, "checks": [one.to_json() for one in found]}))
    else:
        for one in found:
            _say(model, one)
    return _CODES[verdict]


def _say(model: str, found: "Skew") -> None:
    newest = f"; the newest of {found.of:,}" if found.of > found.rows else ""
    unknown = f"; the store knows nothing of {found.unknown:,}" if found.unknown else ""
    say(wrapped(f"{model}, {found.against}: {found.verdict}: {found.reason}{newest}{unknown}"))
    if found.features:
        head = ("feature", "verdict", "unequal", "share", "only seen", "only stored", "higher", "lower", "other level")
        rows = [
            (
                one.name,
                one.verdict,
                *(f"{one.unequal:,}", f"{one.share:.2%}", f"{one.only_seen:,}", f"{one.only_stored:,}"),
                *(f"{one.higher:,}", f"{one.lower:,}", f"{one.other:,}"),
            )
            for one in found.features
        ]
        say(table(head, rows))


COMMANDS = (features,)
