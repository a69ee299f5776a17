"""Approvals of versions, and waivers of their gates: what a person signs about a version."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.options import NEGATIVE, OK, Duration, example, home_option, json_option, model_argument
from drift_pipeline.cli.telling import at_work, say
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import DriftError, InputError

if TYPE_CHECKING:
    from drift_pipeline.evidence.approve import Given
    from drift_pipeline.evidence.waive import Waived
    from drift_pipeline.rollout.signed import Refusal
    from drift_pipeline.settings import Settings


def _settings_for(home: Path | None, environment: str | None) -> "Settings":
    """The settings of a home and where the version may run."""
    from drift_pipeline.settings import FILES_ALONE, Settings

    if environment == "":
        raise InputError("--environment: is empty; name where the version may run, such as production")
    given: dict[str, Any] = ({} if home is None else {"home": home, **FILES_ALONE}) | (
        {} if environment is None else {"environment": environment}
    )
    return Settings(**given)


def _write_cards(settings: "Settings", model: str) -> None:
    """With what was approved; what cannot be written now the next tick writes, or tells why it cannot."""
    from drift_pipeline.control.trust import open_store
    from drift_pipeline.evidence.documents import refresh_documents
    from drift_pipeline.loop.declared import spec_in_force
    from drift_pipeline.loop.forms import frozen
    from drift_pipeline.registry.backends import kept_registry

    clock = system_clock()
    with suppress(DriftError), closing(open_store(settings, clock)) as store:
        spec = frozen(store, spec_in_force(settings, store, model))
        refresh_documents(settings, store, kept_registry(settings), spec, clock.now())


def _signing_options(what: str, lasts: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Of a command by which a person signs something about a version."""
    file, holds = click.Path(path_type=Path), f"How long the {what} holds."
    options = (
        click.option("--key", "key_file", required=True, type=file, help="Your private key (drift key)."),
        click.option("--role", help="As which you sign, where your key was appointed with several roles."),
        click.option("--reason", required=True, help="Why; it stands on the model's card."),
        click.option("--expires", type=Duration(), default=lasts, show_default=True, help=holds),
        click.option("--environment", help="Where the version may run; else DRIFT_ENVIRONMENT, or production."),
        home_option,
        json_option,
    )

    def with_options(command: Callable[..., int]) -> Callable[..., int]:
        for option in reversed(options):
            command = option(command)
        return command

    return with_options


@click.command(epilog=example('drift approve fraud v3 --key ada.pem --reason "read the card"'))
@model_argument()
@click.argument("version")
@_signing_options("approval", "14d")
def approve(
    model: str,
    version: str,
    key_file: Path,
    role: str | None,
    reason: str,
    expires: timedelta,
    environment: str | None,
    home: Path | None,
    as_json: bool,
) -> int:
    """Sign your approval of VERSION of MODEL (v3, or its digest) and file it in the home's GitOps folder.

    It is for one rollout: the one under way, or else the next.

    Refused, with nothing filed, when a gate did not pass and is not waived, when the stored bytes changed, or when the
    approval would not count: an unknown key, another role, the trainer's own, a replay's outside of a replay.
    """
    from drift_pipeline.control.signing import Signer
    from drift_pipeline.evidence.approve import approve as give
    from drift_pipeline.rollout.signed import Refusal

    settings = _settings_for(home, environment)
    with at_work(f"{model} {version}: its bytes and gates are looked at"):
        found = give(settings, Signer.load(key_file), model, version, reason, expires, system_clock(), role)
    if isinstance(found, Refusal):
        return _refused("approved", f"{model} {version}: NOT APPROVED for {settings.environment}", found, as_json)
    _write_cards(settings, model)
    card = settings.evidence / model / found.version / "card.html"
    if as_json:
        _dump("approved", model, settings, {**asdict(found), "card": str(card) if card.is_file() else None})
    else:
        _tell_approved(model, found, settings, card)
    return OK


def _tell_approved(model: str, found: "Given", settings: "Settings", card: Path) -> None:
    wanted = (
        f"of {found.wanted} approvals valid now" if found.wanted else "valid now (no spec here says how many it wants)"
    )
    click.echo(
        f"{model} {found.version}: {found.rollout} approved for {settings.environment} by {found.approver} "
        f"until {found.expires:%Y-%m-%d %H:%M} UTC"
    )
    click.echo(f"approvals   {found.valid} {wanted}\nfiled in    {found.path}")
    click.echo(f"its card    {card}" if card.is_file() else "its card    is not written yet")
    _tell_others(found.refused)


@click.command(epilog=example('drift waive fraud v3 --gate poison_floor --key ada.pem --reason "it turned"'))
@model_argument()
@click.argument("version")
@click.option("--gate", required=True, help="Which of its gates that did not pass, as its card names it.")
@_signing_options("waiver", "7d")
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

    settings = _settings_for(home, environment)
    with at_work(f"{model} {version}: its bytes and gates are looked at"):
        found = give(settings, Signer.load(key_file), model, version, gate, reason, expires, system_clock(), role)
    if isinstance(found, Refusal):
        return _refused("waived", f"{model} {version}: {gate} NOT WAIVED for {settings.environment}", found, as_json)
    _write_cards(settings, model)
    if as_json:
        _dump("waived", model, settings, asdict(found))
    else:
        _tell_waived(model, gate, found, settings)
    return OK


def _tell_waived(model: str, gate: str, found: "Waived", settings: "Settings") -> None:
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
    _tell_others(found.refused)


def _refused(done: str, told: str, found: "Refusal", as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({done: False, "reason": found.reason}, indent=2))
    else:
        say(f"{told}: {found.reason}")
    return NEGATIVE


def _dump(done: str, model: str, settings: "Settings", found: dict[str, Any]) -> None:
    document = {done: True, "model": model, "environment": settings.environment, **found}
    click.echo(json.dumps(document, indent=2, default=str))


def _tell_others(refused: Sequence[str]) -> None:
    """Those that were filed before and do not count."""
    for other in refused:
        click.echo(f"refused     {other}")


COMMANDS = (approve, waive)
