"""A home with candidates but without training: records, sealed bundles and keys, as the loop would leave them."""

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from drift_pipeline.clock import ManualClock
from drift_pipeline.control.signing import Signer
from drift_pipeline.control.store import Entry, Put
from drift_pipeline.control.trust import appoint, open_store
from drift_pipeline.evidence.approve import rollouts_of
from drift_pipeline.evidence.card import CardFacts, ModelCard, make_card
from drift_pipeline.evidence.curves import curves_of
from drift_pipeline.evidence.groups import group_analysis
from drift_pipeline.evidence.statements import asked_of
from drift_pipeline.registry.backends.local import LocalRegistry
from drift_pipeline.registry.bundle import Bundle
from drift_pipeline.rollout.approval import read_approvals, verify_approval
from drift_pipeline.rollout.plan import rollout_id
from drift_pipeline.settings import Settings
from drift_pipeline.spec import ModelSpec

MODEL = "fraud"
AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SAID = {
    "intended_use": "Order the queue of payments that a person looks at.",
    "intended_users": "The payments team.",
    "out_of_scope_use": "Refusing a payment without a person.",
    "ethical_considerations": "A false alarm delays a salary.",
    "caveats": "Trained on one country.",
}
DECLARED: dict[str, Any] = {
    "name": MODEL,
    "owner": "payments@example.com",
    "task": "binary_classification",
    "features": {"amount": "numeric", "country": "categorical"},
    "outcome": {"column": "fraud", "delay": "6h"},
    "protected": {"age_band": "categorical", "gender": "categorical"},
    "declarations": {"card": SAID},
}


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec.model_validate({**DECLARED, **changes})


def block(rows: int = 4000, seed: int = 0) -> pl.DataFrame:
    """Labelled and scored rows; of gender x and of the oldest there are few."""
    random = np.random.default_rng(seed)
    labels = random.random(rows) < 0.3
    return pl.DataFrame(
        {
            "_label": labels.astype(np.int8),
            "_score": 1 / (1 + np.exp(1 - labels - random.normal(size=rows))),
            "age_band": random.choice(["18-39", "40-64", "65+"], rows, p=[0.5, 0.48, 0.02]),
            "gender": random.choice(["f", "m", "x"], rows, p=[0.5, 0.495, 0.005]),
        }
    ).with_columns(amount=pl.col("_score"), country=pl.lit("DE"))


@cache
def curves() -> dict[str, Any]:
    """Of a model whose score is the amount."""
    return curves_of(block(), spec(), lambda rows: rows["amount"])


@cache
def groups() -> list[dict[str, Any]]:
    return group_analysis(block(), spec())


def record(digest: str, **changes: Any) -> dict[str, Any]:
    gates = [
        {"name": "auroc", "outcome": "pass", "value": 0.0312, "bound": 0.0104, "limit": 0, "reason": "not inferior"},
        {"name": "latency", "outcome": "pass", "value": 12.25, "bound": None, "limit": 150, "reason": "p95 is 12.2 ms"},
    ]
    return {
        "version": "v2",
        "digest": digest,
        "decision": "fraud-12",
        "data": {
            "from": "2025-03-01T00:00:00+00:00",
            "to": "2026-03-01T00:00:00+00:00",
            "predictions": 7,
            "outcomes": 6,
        },
        "proven_on": {"from": "2026-02-20T00:00:00+00:00", "rows": 4000},
        "auroc": {"before": 0.7411903456781234, "after": 0.7724123456789012},
        "passed": True,
        "results": gates,
        "trained_from": "2025-09-01T00:00:00+00:00",
        "unseen_from": "2026-02-20T00:00:00+00:00",
        "groups": groups(),
        "curves": curves(),
        "cost": {"wall_seconds": 12.5, "rows": 31000, "trials": 12},
        "policy_digest": "sha256:" + "9e" * 32,
        "trainer": "ab" * 32,
        **changes,
    }


class Home:
    """A home on disk, as the loop makes it: its chain begins with the key that attests trainings."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder, database="", models=folder / "no_models")
        self.registry = LocalRegistry(self.settings.registry)
        self.settings.registry.mkdir(parents=True)
        self.clock = ManualClock(AT)
        self.trainer = Signer.generate("trainer")
        self.trainer.save(self.private("trainer"))
        self.store = open_store(self.settings, self.clock, self.trainer)

    def signer(self, label: str, known: bool = True, identity: str | None = None) -> Signer:
        """A pair at `<folder>/../<label>.pem`, appointed in the home where it is known."""
        signer = Signer.generate(label, identity)
        signer.save(self.private(label))
        if known:
            appoint(self.settings, self.store, signer.public, "test", label)
        return signer

    def private(self, label: str) -> Path:
        return self.settings.home.parent / f"{label}.pem"

    def candidate(self, name: str = "v2", model: str = MODEL, **changes: Any) -> Bundle:
        fields = {
            "model": model,
            "version": name,
            "created_at": "2026-03-01T00:00:00+00:00",
            "trainer": "gradient_boosting",
            "params": {"max_iter": 125, "learning_rate": 0.05427960265555804},
            "rows": 31000,
            "trained_from": "2025-09-01T00:00:00+00:00",
            "validation_auroc": 0.7561,
            "features": {"amount": "numeric", "country": "categorical"},
            "libraries": {"scikit-learn": "1.9.1"},
        }
        bundle = self.registry.put(fields, {"model.skops": f"{model} {name}".encode()})
        body = record(bundle.digest, **{"version": name, "trainer": self.trainer.key_id, **changes})
        entry = Entry("loop", "candidate.proven", model, digests={"bundle": bundle.digest})
        self.store.commit(entry, [Put("candidate", f"{model}/{bundle.digest}", body)])
        return bundle

    def filed(self) -> list[Path]:
        return sorted((self.settings.gitops / "approvals").rglob("*.json"))

    def card(self, bundle: Bundle, at: datetime, environment: str = "production") -> ModelCard:
        """The card of what is on disk now."""
        found = self.store.get("candidate", f"{MODEL}/{bundle.digest}")
        assert found is not None
        here, version = self.settings.model_copy(update={"environment": environment}), found.body["version"]
        asked = asked_of(here, self.store, found.body, MODEL, at)
        rollout = rollout_id(MODEL, version, rollouts_of(self.store, MODEL, version))
        filed = read_approvals(self.settings.gitops, MODEL, bundle.digest)
        outcomes = [verify_approval(envelope, asked, rollout) for envelope in filed]
        return make_card(
            CardFacts(spec(), bundle.manifest, bundle.digest, found.body, None, tuple(outcomes), 1, environment, at)
        )


def audited(home: Home, event: str) -> list[Any]:
    return [record for record in home.store.records() if record.event == event]


def read_json(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


DAY = timedelta(days=1)
