"""A small home made by the product's own doors: adopted, with a producer, an alert, an approved rollout and a card."""

from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from drift_pipeline.clock import DAY, ManualClock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.trust import home_key, open_store
from drift_pipeline.evidence.approve import Given, approve, make_key
from drift_pipeline.evidence.documents import write_documents
from drift_pipeline.loop.adopting import adopt
from drift_pipeline.loop.home import Home, opened
from drift_pipeline.loop.loop import Loop
from drift_pipeline.serving.keys import add_producer
from drift_pipeline.serving.refused import telling
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec, read_spec
from drift_pipeline.telemetry.history import read_history
from drift_pipeline.telemetry.refusals import Refused
from drift_pipeline.telemetry.synthetic import SAMPLE_SPEC, START, synthetic_history

DAYS = 40
NOW = START + DAYS * DAY
SPEC = SAMPLE_SPEC + "retrain: {trials: 1, trainer: logistic_regression}\n"
MODEL = "recommendation_v3"


def settings_of(folder: Path) -> Settings:
    return Settings(home=folder / "home", models=folder / "models", database="")


def spec_of(settings: Settings) -> ModelSpec:
    assert settings.models is not None
    return read_spec(settings.models / MODEL / "defs.yaml")


def adopted(folder: Path) -> Settings:
    """One model, adopted; its spec lies below `models`."""
    settings = settings_of(folder)
    (folder / "models" / MODEL).mkdir(parents=True)
    (folder / "models" / MODEL / "defs.yaml").write_text(SPEC.replace("score: score, ", ""))
    spec = spec_of(settings)
    synthetic_history(DAYS, 60, 0, score=False).write_parquet(folder / "history.parquet")
    with opened(settings, ManualClock(NOW), new=True) as at:
        adopt(at, spec, read_history(folder / "history.parquet", spec))
    return settings


def candidate(at: Home, loop: Loop, name: str, blocked: Sequence[str] = ()) -> str:
    """A version that its gates passed, as is only said: to prove it would take a retrain. Returns its digest.

    Args:
        blocked: gates that it did not pass; then it is rejected, as its decision's queue tells.
    """
    champion = at.registry.get(str(loop.ledger.get("model")["digest"]))
    digest = at.registry.put({"model": MODEL, "version": name}, {"model.skops": champion.files["model.skops"]}).digest
    body = {**loop.ledger.get("model"), "digest": digest, "version": name, "decision": f"{MODEL}-1"}
    gates: list[dict[str, Any]] = [{"name": "auroc", "outcome": "pass", "reason": "better"}]
    gates += [{"name": gate, "outcome": "fail", "reason": "below its floor"} for gate in blocked]
    gates = [{**gate, "value": 0.5, "bound": None, "limit": 0.6} for gate in gates]
    body |= {"trainer": home_key(at.settings, at.store).key_id, "passed": not blocked, "results": gates}
    told = {"version": name, "auroc": {"before": 0.7, "after": 0.8}, "proven_on": {"rows": 500}, "results": []}
    puts: dict[str, dict[str, Any]] = {f"candidate/{digest}": body}
    if blocked:
        puts["retrain/1"] = {"decision": "1", "status": "rejected", "digest": digest, "lane": "normal"}
        puts["training/1"] = {"champion": loop.ledger.get("model")["digest"]}
    loop.ledger.commit("candidate.proven", told, {"bundle": digest}, puts=puts)
    return digest


def lived(folder: Path) -> Settings:
    """The home after a day of what people and producers do there."""
    settings, clock = adopted(folder), ManualClock(NOW)
    spec = spec_of(settings)
    with closing(open_store(settings, clock)) as store:
        add_producer(store, "app", [MODEL], 100, "ops")
    with telling(settings, {MODEL: spec}, clock) as tell:
        tell([Refused(MODEL, 90, 100)])
    ada, _ = make_key(folder / "ada.pem", "ada", None, settings, "ops", clock)
    with opened(settings, clock) as at:
        loop = at.resumed(spec)
        digest = candidate(at, loop, "v2")
        assert loop.release(digest)
        given(settings, ada, "v2", clock)
        loop.advance()
        write_documents(settings, at.store, at.registry, spec, digest, clock.now())
    return settings


def given(settings: Settings, signer: Signer, version: str, clock: ManualClock) -> Given:
    found = approve(settings, signer, MODEL, version, "read the card", timedelta(days=30), clock)
    assert isinstance(found, Given), found
    return found
