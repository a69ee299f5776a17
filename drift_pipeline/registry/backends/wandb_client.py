"""The child process that has W&B's client: one verb, a job as JSON on stdin, the answer as the last line of stdout."""

import fcntl
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import wandb

from drift_pipeline.errors import IntegrityError
from drift_pipeline.registry.bundle import MANIFEST, read_manifest
from drift_pipeline.registry.mirror import digest_alias, merged

MOST_BYTES = 1 << 30  # of a file that is written: a server may send without end
_LOCAL = "entity", "project"
_FOR_GOOD = (400, 413, 415, 422)  # says that it is what was sent; 401, 403 and 404 say that it is the account


def offline(folder: Path) -> wandb.Settings:
    """Of a run that is written below the folder and says nothing of the machine or its environment."""
    return wandb.Settings(
        mode="offline",
        root_dir=str(folder),
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )


def write(job: Mapping[str, Any]) -> dict[str, Any]:
    """Each run in a hidden place, then moved to where whole ones lie: one that was cut short is never sent."""
    folder = Path(job["folder"])
    incoming = Path(tempfile.mkdtemp(prefix="incoming-", dir=folder))
    try:
        for run in job["runs"]:
            final, copies, kept = (folder / room for room in (f"offline-run-{run['name']}", *rooms(run["name"])))
            if not final.exists():
                for room in (copies, kept):
                    shutil.rmtree(room, ignore_errors=True)  # of one that was cut short
                _write(job, run, incoming, copies)
                made = next((incoming / "wandb").glob("offline-run-*"))
                _link(copies, kept)
                if not final.exists():  # else another process was faster
                    made.rename(final)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return {}


def _write(job: Mapping[str, Any], told: Mapping[str, Any], incoming: Path, copies: Path) -> None:
    (incoming / "wandb").mkdir(exist_ok=True)
    where = {name: job[name] for name in _LOCAL if job[name]}
    about = {"id": told["name"], "name": told["title"], "group": told["group"], "job_type": told["kind"]}
    run = wandb.init(config=told["config"], settings=offline(incoming), **where, **about)
    for one in told["uses"]:
        if one["texts"]:  # use_artifact refuses offline; this is what it does online with one that is not sent yet
            artifact = _artifact(one, copies / one["name"])
            run._log_artifact(artifact, aliases=list(one["aliases"]), is_user_created=True, use_after_commit=True)
    for step in told["history"]:
        run.log(dict(step))
    for name, table in told["tables"].items():
        run.log({name: wandb.Table(columns=table["columns"], data=table["rows"], allow_mixed_types=True)})
    run.summary.update(told["summary"])
    for one in told["makes"]:
        run.log_artifact(_artifact(one, copies / f"{one['name']}-{one['aliases'][0]}"), aliases=list(one["aliases"]))
    run.finish()


def _artifact(told: Mapping[str, Any], copies: Path) -> Any:
    """Of copies: `wandb sync` DELETES the files that an offline run's artifact names, wherever they lie."""
    made = wandb.Artifact(told["name"], told["kind"], metadata=dict(told["metadata"]))
    copies.mkdir(parents=True)
    for name, path in told["files"].items():
        shutil.copyfile(path, copies / name)
    for name, text in told["texts"].items():
        (copies / name).write_text(text, encoding="utf-8")
    for path in sorted(copies.iterdir()):
        made.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
    return made


def rooms(name: str) -> tuple[str, str]:
    """Below the folder: the files that a run names, which `wandb sync` deletes, and links to them for the next try."""
    return f"copies/{name}", f"kept/{name}"


def _link(files: Path, to: Path) -> None:
    """Those that are not there yet: what `wandb sync` had deleted when it was killed is sent again."""
    for path in files.rglob("*"):
        if path.is_file() and not (link := to / path.relative_to(files)).exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)


def send(job: Mapping[str, Any]) -> dict[str, Any]:
    """One after the other, for their order is that of the aliases. Which ones went, the marker beside each tells; the
    others are `left` with why, or `refused`: for good, and once more after another one went."""
    tried = {run: _sync(job, run) for run in job["runs"]}
    refused = list[str]()
    if any(map(_is_sent, tried)):  # else it may be the server
        tried |= {run: _sync(job, run) for run, (_, status) in tried.items() if status in _FOR_GOOD}
        refused = [run for run, (_, status) in tried.items() if status in _FOR_GOOD]
    left = [run for run in tried if run not in refused and not _is_sent(run)]
    refused_and_left = ({Path(run).name: tried[run][0] for run in runs} for runs in (refused, left))
    return dict(zip(("refused", "left"), refused_and_left, strict=True))


def _sync(job: Mapping[str, Any], run: str) -> tuple[str, int | None]:
    """Why it did not go, and by which status of an answer; nothing where it went."""
    from wandb.cli.cli import cli

    where = [part for name in _LOCAL if job[name] for part in (f"--{name}", job[name])]
    copies, kept = rooms(Path(run).name.removeprefix("offline-run-"))
    _link(Path(job["folder"], kept), Path(job["folder"], copies))
    before = set(_logs())
    with redirect_stderr(io.StringIO()) as said:
        cli(["sync", *where, run], standalone_mode=False)
    if _is_sent(run):
        return "", None
    lines = [line for line in said.getvalue().splitlines() if line.strip()]
    return (lines or ["no reason is told"])[-1], _answered(run, set(_logs()) - before)


def _is_sent(run: str) -> bool:
    return any(Path(run).glob("*.wandb.synced"))


def _logs() -> Iterator[Path]:
    return Path(os.environ["WANDB_CACHE_DIR"], "wandb", "logs").glob("debug-sync.*.log")


def _answered(run: str, logs: Iterable[Path]) -> int | None:
    """The status of the last answer that wandb-core could not use, by its own log: it tells nobody else."""
    found: int | None = None
    for line in (line for log in logs for line in log.read_text(errors="replace").splitlines()):
        with suppress(ValueError):
            told = json.loads(line)
            if isinstance(told, dict) and str(told.get("sync_path", "")).startswith(f"{run}/"):
                found = told.get("status", found)
    return found


class _PendingError(Exception):
    """An artifact was begun and its files never came: `wandb sync` marks a run as sent all the same."""

    def __init__(self, name: str, alias: str) -> None:
        super().__init__(f"{name} {alias}")
        self.made = {"name": name, "alias": alias}


def stand(job: Mapping[str, Any]) -> dict[str, Any]:
    """Edges first, then each version; what W&B will never take, or has in part only, is told, and stops nothing."""
    api = wandb.Api(timeout=max(int(job["seconds"] / 2), 1))
    told: dict[str, list[Any]] = {"refused": [], "partial": []}
    kinds = [(_used, "uses"), (_looked, "made"), (_stands, "standings")]
    steps = [(do, one) for do, kind in kinds for one in job[kind]]
    held = [(step, error) for step in steps if (error := _step(api, job, *step, told)) is not None]
    if held and len(held) == len(steps):  # none went: it may be the server
        raise held[0][1]
    for (do, one), _ in held:
        if (error := _step(api, job, do, one, told)) is not None:
            told["refused"].append(f"{one['name']} does not stand as it should: it is refused: {error}"[:300])
    return told


def _step(api: Any, job: Mapping[str, Any], do: Any, one: Any, told: Mapping[str, list[Any]]) -> Exception | None:
    """What says that it is refused for good, if anything does."""
    try:
        why = do(api, job, one)
    except _PendingError as error:
        told["partial"].extend([error.made] if error.made not in told["partial"] else [])
    except wandb.errors.CommError as error:
        if _status(error.exc) not in _FOR_GOOD:
            raise
        refused: Exception = error
        return refused
    else:
        told["refused"].extend([why[:300]] if why else [])
    return None


def _status(error: Any) -> int | None:
    """Of what the server answered: to wandb-core, or to requests."""
    answer = getattr(error, "response", None)
    found: int | None = getattr(answer, "http_status", None) or getattr(answer, "status_code", None)
    return found


def _stands(api: Any, job: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    artifact = _named(api, job, one["name"], digest_alias(one["digest"]))
    if artifact is None:
        return f"{one['name']} {one['digest']} is not there, and so does not stand as it should"
    artifact.metadata = merged(artifact.metadata, one["metadata"])
    artifact.aliases = sorted({*artifact.aliases, *one["add"]}.difference(one["drop"]))
    artifact.save()
    if one["link"] and job["registry"]:
        try:
            artifact.link(f"wandb-registry-{job['registry']}/{one['name']}")
        except Exception as error:  # whatever the client raises where there is no such registry, or no right to it
            return f"{one['name']} is not linked to the registry {job['registry']}: {error}"
    return ""


def _used(api: Any, job: Mapping[str, Any], use: Mapping[str, Any]) -> str:
    """The edge of a run that is over: `wandb sync` tells only that of an artifact which came with the run."""
    artifact = _named(api, job, use["name"], use["alias"])
    if artifact is not None:
        api.run(f"{_project(api, job)}/{use['run']}").use_artifact(artifact)
    return ""


def _looked(api: Any, job: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """Only whether it is there whole."""
    if _named(api, job, made["name"], made["alias"]) is None:
        return f"{made['name']} {made['alias']} is not there: it was not taken with its run, or is deleted"
    return ""


def fetch(job: Mapping[str, Any]) -> dict[str, Any]:
    """A bundle by its digest, of whichever model: no name of a file is believed but a plain one of its manifest."""
    found = _found(wandb.Api(timeout=max(int(job["seconds"] / 2), 1)), job)
    if found is None:
        return {"found": False}
    found.get_entry(MANIFEST).download(job["to"], skip_cache=True)
    try:
        names = read_manifest(job["digest"], Path(job["to"], MANIFEST).read_bytes())["files"]
    except IntegrityError:  # who asked says so
        return {"found": True}
    for name in names:
        found.get_entry(name).download(job["to"], skip_cache=True)
    return {"found": True}


def _found(api: Any, job: Mapping[str, Any]) -> Any:
    for kind in ("model", "reference"):
        for collection in api.artifact_collections(_project(api, job), kind):
            if (found := _named(api, job, collection.name, digest_alias(job["digest"]))) is not None:
                return found
    return None


def _named(api: Any, job: Mapping[str, Any], name: str, alias: str) -> Any:
    """None where there is none; the client's own `artifact_exists` says so, too, where it is not answered."""
    try:
        found = api.artifact(f"{_project(api, job)}/{name}:{alias}")
        if found.state == "PENDING":
            raise _PendingError(name, alias)
        return found
    except wandb.errors.CommError as error:
        if isinstance(error.exc, ValueError):
            return None
        if isinstance(error.exc, AssertionError):  # what the client makes of one without its files
            raise _PendingError(name, alias) from error
        raise


def _project(api: Any, job: Mapping[str, Any]) -> str:
    return f"{job['entity'] or api.default_entity}/{job['project']}"


def _end_with(parent: int) -> None:
    """Who asked may have been killed, and asks again: two clients would take each other's copies away."""
    while os.getppid() == parent:
        time.sleep(0.1)
    os._exit(1)


def main() -> None:
    """One at a time but for fetching, which touches no run; it ends itself when its time, or who asked, is over."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    job = json.loads(sys.stdin.read())
    signal.alarm(int(job["seconds"]) + 2)
    if sys.argv[1] != "fetch":
        os.dup2(os.open(Path(job["folder"], ".client"), os.O_RDWR | os.O_CREAT, 0o600), sys.stdin.fileno())
        fcntl.flock(sys.stdin, fcntl.LOCK_EX)  # wandb-core inherits it: the next client waits for an orphan's end, too
    try:
        told = {"ok": True, **{"write": write, "send": send, "stand": stand, "fetch": fetch}[sys.argv[1]](job)}
    except Exception as error:  # the edge of the process: whatever the client raises is told to who asked
        told = {"ok": False, "why": f"{type(error).__name__}: {error}" if str(error) else repr(error)}
    sys.stdout.write(f"\n{json.dumps(told)}\n")
    sys.stdout.flush()
    if not told["ok"]:
        os._exit(1)  # a client that failed may wait at its exit for what never comes


if __name__ == "__main__":
    main()
