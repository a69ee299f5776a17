"""A `declarations.yaml` to fill in: every key that there is, commented out, with what it asks."""

from collections.abc import Iterator

from drift_pipeline.spec.declarations import AnnexPart, Article50Part, CardPart, DatasheetPart
from drift_pipeline.spec.parts import Part
from drift_pipeline.spec.questions import QUESTIONS

_HEAD = """\
# What only people can say of this model; nothing of it is inferred. What is left out is shown as missing in the model's
# documents, with who has to supply it. A value is a text, a list of texts, or {value: ..., by: ..., at: 2026-01-31},
# or {not_applicable: why}. A change is seen within a tick, audited, and the documents are made anew.
# asserted_by: you@example.com  # who answers for it; else the spec's owner
# at: 2026-01-31                # when
# risk:
#   profile: limited_risk       # or art6_3_exempt, high_risk, public_deployer: a human classification
#   annex_iii: "5(b)"           # the point of Annex III, where it is one of its cases
#   profiling: false            # whether it profiles natural persons
#   rationale: why
"""
_ENVELOPE = """\
# change_envelope:              # Article 43(4): a candidate outside of it is not promoted by itself
#   feature_schema: sha256:...  # drift docs tells it
#   trainers: [gradient_boosting]
#   hyperparameters: {learning_rate: [0.01, 0.3]}
#   data_sources: [history, stable, canary]
#   floors: {performance: 0.7, parity_gap: 0.1}
"""


def drafted_declarations() -> str:
    """The file's text."""
    return _HEAD + "\n".join(_lines()) + "\n" + _ENVELOPE


def _lines() -> Iterator[str]:
    parts: dict[str, type[Part]] = {
        "card": CardPart,
        "datasheet": DatasheetPart,
        "annexes": AnnexPart,
        "article_50": Article50Part,
    }
    for part, kind in parts.items():
        yield f"# {part}:"
        yield from (f"#   {name}:  # {QUESTIONS[part][name]}" for name in kind.model_fields)
