"""Waivers of gates."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from drift_pipeline.cli.approvals import settings_for, signing_options, write_cards
from drift_pipeline.cli.options import NEGATIVE, OK, example, model_argument
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import system_clock


@click.command(epilog=example('drift waive fraud v3 --gate poison_floor --key ada.pem --reason "it turned"'))
@model_argument()
@click.argument("version")
@click.option("--gate", required=True, help="Which of its gates that did not pass, as its card names it.")
@signing_options("waiver", "7d")
def waive(
    model: str,
    version: str,
    gate: str,
    key_file: Path,
    role: str | None,
    reason: str,
    expires: timedelta,
    environment: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Sign that one gate which VERSION of MODEL (v3, or its digest) did not pass may stand aside, for a while.

    It takes as many people, of the same roles, as an approval. Once each such gate is waived the loop begins the
    rollout at its next tick; the waivers have to hold at each step of it, and the version has to be approved as well.

    Refused, with nothing filed, when the gate passed, or when the waiver would not count: as of drift approve.
    """
    from drift_pipeline.control.signing import Signer
    from drift_pipeline.evidence.waive import waive as give
    from drift_pipeline.rollout.signed import Refusal

    settings = settings_for(home, environment)
    with at_work(f"{model} {version}: its bytes and gates are looked at"):
        found = give(settings, Signer.load(key_file), model, version, gate, reason, expires, system_clock(), role)
    if isinstance(found, Refusal):
        if as_json:
            click.echo(json.dumps({"waived": False, "reason": found.reason}, indent=2))
        else:
            say(f"{model} {version}: {gate} NOT WAIVED for {settings.environment}: {found.reason}")
        return NEGATIVE
    write_cards(settings, model)
    if as_json:
        told = {"waived": True, "model": model, "environment": settings.environment, **asdict(found)}
        click.echo(json.dumps(told, indent=2, default=str))
        return OK
    click.echo(
        f"{model} {found.version}: {gate} waived for {settings.environment} by {found.approver} "
        f"until {found.expires:%Y-%m-%d %H:%M} UTC\nfiled in    {found.path}"
    )
    for name, count in found.lacking.items():
        click.echo(f"lacking     {name}: {count} of {found.wanted} waivers")
    if not found.lacking:
        click.echo(
            "next        its rollout begins at the loop's next tick; it has to be approved as ever (drift approve)"
        )
    for other in found.refused:
        click.echo(f"refused     {other}")
    return OK


COMMANDS = (waive,)
