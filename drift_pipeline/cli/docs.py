"""The documents of a version, and of an incident: which there are, and what people have yet to say."""

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drift_pipeline.cli.operate import incident
from drift_pipeline.cli.options import NEGATIVE, OK, example, home_option, json_option, model_argument
from drift_pipeline.cli.telling import at_work, say, table
from drift_pipeline.cli.watch import card_of, home_at
from drift_pipeline.clock import system_clock
from drift_pipeline.errors import InputError, RefusedError

if TYPE_CHECKING:
    from drift_pipeline.evidence.incident_pack import Pack
    from drift_pipeline.homes import Home
    from drift_pipeline.settings import Settings

WITH_FIELDS, BILLS = ("card", "datasheet", "annex"), ("ml-bom.cdx.json", "sbom.cdx.json")


@click.command(
    epilog=example("drift docs fraud v3", "drift docs fraud v3 --require-complete", "drift docs fraud v3 --sbom")
)
@model_argument()
@click.argument("version")
@click.option("--require-complete", is_flag=True, help="End with 1 where a document or a declaration is missing.")
@click.option("--sbom", is_flag=True, help="Make the SBOM of this environment first (seconds), if VERSION is of it.")
@click.option("--open", "browse", is_flag=True, help="Show them in the browser.")
@home_option
@json_option
def docs(
    model: str, version: str, require_complete: bool, sbom: bool, browse: bool, home: Path | None, as_json: bool
) -> int:
    """List the documents of VERSION of MODEL (v3, or its digest), with how many of their fields are filled.

    What is missing is written into declarations.yaml beside the model's defs.yaml.
    """
    folder = card_of(home_at(home), model, version).parent
    if sbom:
        with at_work(f"{model} {version}: its environment is listed"):
            _add_sbom(home_at(home).settings, model, folder)
    found = [_look(folder, name) for name in (*(f"{stem}.html" for stem in WITH_FIELDS), *BILLS)]
    missing = [field for one in found for field in one["missing"]]
    lacking = [one["document"] for one in found if not one["there"] and one["document"] != BILLS[-1]]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "documents": found, "complete": not missing + lacking}, indent=2))
    else:
        say(f"{folder}")
        say(table(("document", "fields", "missing"), [_row(one) for one in found]))
    opened = all(not click.launch((folder / f"{stem}.html").absolute().as_uri()) for stem in WITH_FIELDS if browse)
    if not opened:
        say("no browser could be opened here", err=True)
    return NEGATIVE if not opened or (require_complete and (missing or lacking)) else OK


def _look(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    told = {"document": name, "there": path.is_file(), "status": None, "missing": []}
    if not name.endswith(".html") or not told["there"]:
        return told
    file = path.with_suffix(".json")
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        return {**told, "status": str(read["status"]), "missing": [f"{path.stem}: {id}" for id in read["missing"]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: cannot be read: {error}; see drift audit verify") from error


def _row(one: Mapping[str, Any]) -> tuple[str, str, str]:
    if not one["there"]:
        how = "drift docs --sbom makes it" if one["document"] == BILLS[-1] else "written when something of it moves"
        return one["document"], "not there", how
    shown = ", ".join(field.partition(": ")[2] for field in one["missing"])
    return one["document"], one["status"] or "", shown


def _add_sbom(settings: "Settings", model: str, folder: Path) -> None:
    """Raises RefusedError for a version of another environment, or one that did not record which."""
    from drift_pipeline.evidence.documents import write_documents
    from drift_pipeline.evidence.sbom import environment_digest, keep_sbom
    from drift_pipeline.loop.declared import spec_in_force
    from drift_pipeline.loop.forms import frozen
    from drift_pipeline.loop.home import opened

    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    digest, version = card["digest"], card["version"]
    with opened(settings, system_clock()) as at:
        made = at.store.get("candidate", f"{model}/{digest}") or at.store.get("adopted", f"{model}/{digest}")
        of = made.body.get("environment") if made else None
        if of != environment_digest():
            told = f"in another environment ({of})" if of else "in an environment that was not recorded"
            raise RefusedError(f"{model} {version}: was trained {told}: its SBOM cannot be made here")
        keep_sbom(settings)
        spec = frozen(at.store, spec_in_force(settings, at.store, model))
        write_documents(settings, at.store, at.registry, spec, digest, at.clock.now(), card["environment"])


@incident.command(epilog=example("drift incident pack fraud --out pack", "drift incident pack fraud KEY --out pack"))
@model_argument()
@click.argument("key", metavar="[INCIDENT]", required=False)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="A folder that is not there yet, or empty.")
@home_option
@json_option
def pack(model: str, key: str | None, out: Path, home: Path | None, as_json: bool) -> int:
    """Write what is known of INCIDENT of MODEL, else of its last one: facts, times of Article 73, KPIs, records.

    It says what people have yet to say; whether it is a serious incident is theirs to say.
    """
    from drift_pipeline.evidence.incident_pack import DAYS, find_incident, pack_files
    from drift_pipeline.files import write_whole

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not an empty folder; name a new one")
    at, now = home_at(home), system_clock().now()
    found = find_incident(at.records(model), model, _owner(at, model), key)
    answered = [one for one in at.versions(model).to_dicts() if _answered(one, found.opened)]
    version, digest = (answered[-1]["version"], answered[-1]["digest"]) if answered else ("unknown", "")
    files = pack_files(found, version, digest, at.settings.environment, _kpis(at, found), now)
    for name, page in files.items():
        write_whole(out / name, page)
    if as_json:
        click.echo(
            json.dumps({"incident": found.key, "open": found.open, "out": str(out), "files": [*files]}, indent=2)
        )
        return OK
    say(f"incident    {found.key}, opened {found.opened:%Y-%m-%d %H:%M} UTC{', open' if found.open else ''}")
    due = found.opened + timedelta(days=min(DAYS.values()))
    say(f"first due   {due:%Y-%m-%d %H:%M} UTC, if it is serious and of Article 73(3); the report has all times")
    say(f"written to  {out}: {', '.join(files)}")
    return OK


def _owner(at: "Home", model: str) -> str:
    """Of the spec in force; of a home that keeps none, whoever that is."""
    from drift_pipeline.loop.declared import spec_in_force
    from drift_pipeline.loop.home import reading

    with suppress(InputError), reading(at.settings) as store:
        return spec_in_force(at.settings, store, model).owner
    return "the model's owner"


def _answered(one: Mapping[str, Any], at: datetime) -> bool:
    """Whether the version answered then, or before, as far as its last reign tells."""
    return one["answers_from"] is not None and one["answers_from"] <= at


def _kpis(at: "Home", found: "Pack") -> bytes:
    """From a week before it opened to its end, as CSV."""
    import polars as pl

    rows = at.kpis(found.model, since=found.opened - timedelta(days=7)).with_columns(pl.col("worst").list.join(" "))
    kept = rows if found.ended is None else rows.filter(pl.col("at") <= found.ended)
    return kept.write_csv().encode()


COMMANDS = (docs,)
