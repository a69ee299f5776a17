"""Each audit record that has something to tell becomes one plain sentence for a person."""

import re
from datetime import UTC, datetime
from typing import Any

import pytest

from drift_pipeline.control.audit import Entry, seal
from drift_pipeline.control.store import AuditRecord
from drift_pipeline.evidence.timeline import LONGEST, Kind, Story, Tone, story, told

AT = datetime(2026, 6, 19, 6, 30, tzinfo=UTC)
BUNDLE = "sha256:" + "bd2cfaae201d" + "0" * 52
AUROC = {"name": "auroc", "verdict": "BREACH", "reason": "AUROC 0.620 against 0.810 held out", "value": -0.19}
KEY = "5634b081676d-20260618T0000"
STATUS = {"rollout_id": "fraud-v4", "reason": "submitted", "effects": ["Mirror True"], "phase": "shadow"}
POISON = {"name": "poison_floor", "outcome": "fail", "reason": "AUROC 0.5512 on the trusted holdout: a person decides"}
PASSED = {"name": "auroc", "outcome": "pass", "reason": "not inferior"}
PROOF = {"version": "v4", "auroc": {"before": 0.56931, "after": 0.73204}, "proven_on": {"rows": 1500}}


def record(event: str, details: dict[str, Any], digests: dict[str, str] | None = None, seq: int = 7) -> AuditRecord:
    return seal(Entry("loop", event, "fraud", digests or {}, details), AT, seq)


TOLD: list[tuple[str, dict[str, Any], Kind, Tone, str, str]] = [
    (
        "model.adopted",
        {"version": "v1", "rows": 36000},
        Kind.MODEL,
        Tone.NEUTRAL,
        "v1 is the first champion: trained on 36,000 rows",
        "v1",
    ),
    (
        "model.adopted",
        {"version": "recorded", "rollback": "hand back"},
        Kind.MODEL,
        Tone.NEUTRAL,
        "recorded is the first champion: only its scores are known",
        "recorded",
    ),
    (
        "reference.frozen",
        {"version": "v4", "rows": 6000, "auroc": 0.5629879, "closes": KEY},
        Kind.MODEL,
        Tone.NEUTRAL,
        f"v4 is watched from here on, against 6,000 rows and AUROC 0.563 held out; this ends incident {KEY}",
        "v4",
    ),
    (
        "reference.frozen",
        {"version": "v4", "rows": 6000, "auroc": None, "closes": None},
        Kind.MODEL,
        Tone.NEUTRAL,
        "v4 is watched from here on, against 6,000 rows and no AUROC held out",
        "v4",
    ),
    ("model.registered", {"version": "v4"}, Kind.MODEL, Tone.NEUTRAL, "v4 is registered: it may be shipped", "v4"),
    ("model.promoted", {"version": "v4", "from": "v2"}, Kind.MODEL, Tone.GOOD, "v4 takes over from v2", "v4"),
    (
        "incident.opened",
        {"key": KEY, "kpis": {"auroc": AUROC}, "features": []},
        Kind.INCIDENT,
        Tone.BAD,
        "incident opened: auroc BREACH, AUROC 0.620 against 0.810 held out",
        KEY,
    ),
    (
        "incident.joined",
        {"key": KEY, "kpis": {"auroc": AUROC}, "features": ["price", "age", "device", "country"]},
        Kind.INCIDENT,
        Tone.BAD,
        "incident grows: auroc BREACH, AUROC 0.620 against 0.810 held out; drifting: price, age, device",
        KEY,
    ),
    (
        "incident.reopened",
        {"key": KEY, "kpis": {"auroc": AUROC}, "features": []},
        Kind.INCIDENT,
        Tone.BAD,
        "incident is back: auroc BREACH, AUROC 0.620 against 0.810 held out",
        KEY,
    ),
    (
        "incident.closed",
        {"key": KEY, "kpis": {"auroc": {**AUROC, "verdict": "OK"}}, "features": []},
        Kind.INCIDENT,
        Tone.GOOD,
        "incident closed: auroc OK",
        KEY,
    ),
    (
        "monitoring.undecided",
        {"key": "undecided-20260619T0630", "kpis": {}, "features": []},
        Kind.ALERT,
        Tone.BAD,
        "monitoring is undecided: there is too little evidence",
        "undecided-20260619T0630",
    ),
    (
        "decision.made",
        {"action": "hotfix_retrain", "reasons": ["auroc BREACH: fell 19.00 pp, allowed are 5.00 pp"]},
        Kind.DECISION,
        Tone.BAD,
        "policy decides hotfix_retrain: auroc BREACH: fell 19.00 pp, allowed are 5.00 pp",
        "fraud-7",
    ),
    (
        "decision.made",
        {"action": "ignore", "reasons": []},
        Kind.DECISION,
        Tone.NEUTRAL,
        "policy decides ignore: no reason is given",
        "fraud-7",
    ),
    (
        "training.started",
        {"version": "v4", "rows": 14000, "block": 1500},
        Kind.TRAINING,
        Tone.NEUTRAL,
        "v4 gets 14,000 labelled rows, of which the newest 1,500 prove it",
        "v4",
    ),
    (
        "training.refused",
        {"decision": "fraud-6", "because": "300 labelled rows are too few"},
        Kind.TRAINING,
        Tone.BAD,
        "no training: 300 labelled rows are too few",
        "fraud-6",
    ),
    (
        "candidate.trained",
        {"version": "v4", "rows": 12345},
        Kind.TRAINING,
        Tone.NEUTRAL,
        "v4 trained on 12,345 rows",
        "v4",
    ),
    (
        "candidate.proven",
        {**PROOF, "results": [PASSED]},
        Kind.TRAINING,
        Tone.GOOD,
        "v4 passed its gates: AUROC 0.569 -> 0.732 on 1,500 unseen rows",
        "v4",
    ),
    (
        "candidate.proven",
        {**PROOF, "auroc": {"before": None, "after": 0.7}, "results": [PASSED]},
        Kind.TRAINING,
        Tone.GOOD,
        "v4 passed its gates: AUROC unknown -> 0.700 on 1,500 unseen rows",
        "v4",
    ),
    (
        "candidate.rejected",
        {**PROOF, "results": [PASSED, POISON]},
        Kind.TRAINING,
        Tone.BAD,
        "v4 rejected: poison_floor: AUROC 0.551 on the trusted holdout: a person decides",
        "v4",
    ),
    (
        "rollout.shadow",
        STATUS,
        Kind.ROLLOUT,
        Tone.NEUTRAL,
        "v4 in the shadow: it scores a copy of the traffic",
        "v4",
    ),
    ("rollout.awaiting_approval", STATUS, Kind.ROLLOUT, Tone.NEUTRAL, "v4 waits for approval", "v4"),
    (
        "rollout.canary",
        {**STATUS, "effects": ["SetWeight 10"]},
        Kind.ROLLOUT,
        Tone.NEUTRAL,
        "canary: 10 % of traffic to v4",
        "v4",
    ),
    ("rollout.full", STATUS, Kind.ROLLOUT, Tone.GOOD, "v4 is champion (100 %)", "v4"),
    (
        "rollout.rolled_back",
        {**STATUS, "reason": "canary: AUROC {0.5} against 0.7"},
        Kind.ROLLOUT,
        Tone.BAD,
        "v4 rolled back: canary: AUROC {0.5} against 0.7",
        "v4",
    ),
    (
        "approval.refused",
        {"reason": "expired"},
        Kind.APPROVAL,
        Tone.BAD,
        "an approval of v4 does not count: expired",
        "v4",
    ),
    (
        "approval.accepted",
        {"reason": "fine", "approver": "1a2b3c" + "4" * 58, "label": "replay-only"},
        Kind.APPROVAL,
        Tone.GOOD,
        "v4 approved by replay-only key 1a2b3c",
        "v4",
    ),
    (
        "approval.given",
        {"reason": "fine", "approver": "1a2b3c" + "4" * 58, "version": "v4", "environment": "production"},
        Kind.APPROVAL,
        Tone.NEUTRAL,
        "loop key 1a2b3c files an approval of v4",
        "v4",
    ),
]


@pytest.mark.parametrize(("event", "details", "kind", "tone", "words", "key"), TOLD)
def test_an_event_is_told(event: str, details: dict[str, Any], kind: Kind, tone: Tone, words: str, key: str) -> None:
    said = told(record(event, details, {"bundle": BUNDLE}), {BUNDLE: "v4"})
    assert said is not None
    assert (said.at, said.kind, said.tone, said.words, said.key) == (AT, kind, tone, words, key)


def test_there_are_no_words_for_an_unknown_event() -> None:
    assert told(record("erased", {})) is None
    assert story([record("erased", {}), record("model.registered", {"version": "v4"}, seq=8)])[0].key == "v4"


def test_a_story_remembers_which_version_a_digest_is() -> None:
    """An approval names only the digest; without the record before it, twelve hex digits stand for the version."""
    approval = record("approval.accepted", {"reason": "", "approver": "1a2b3c4d", "label": "ada"}, {"bundle": BUNDLE})
    alone = told(approval)
    assert alone is not None
    assert alone.words == "bundle bd2cfaae201d approved by ada key 1a2b3c"
    teller = Story()
    teller.tell(record("candidate.trained", {"version": "v4", "rows": 5}, {"bundle": BUNDLE}))
    after = teller.tell(approval)
    assert after is not None
    assert after.words == "v4 approved by ada key 1a2b3c"


def test_hostile_text_stays_one_short_printable_line() -> None:
    """Labels and reasons are other people's text, and a terminal obeys control characters."""
    nasty = "\x1b[31mred\nsecond line\u202e " + "f" * 64 + " 0.123456789 " + "x" * 1000
    said = told(record("training.refused", {"decision": "fraud-6", "because": nasty}))
    assert said is not None
    assert said.words.isprintable()
    assert len(said.words) <= LONGEST
    assert not re.search(r"[0-9a-f]{13}", said.words)
    assert "0.123 " in said.words
