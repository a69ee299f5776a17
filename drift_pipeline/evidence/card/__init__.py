"""Model card of one version, from facts: each field says what is known, who said so, or who has yet to say it.

Mitchell et al., "Model cards for model reporting", FAT* 2019, plus gates, the champion, approvals and digests. One
record becomes `card.json`, `card.md` and `card.html`. Nothing is measured here but the counts of what was handed in.

`facts.py` has what is known and where it stands, `sections.py` and `limits.py` make the document of it (`document.py`),
`rendering.py` writes it.
"""

from drift_pipeline.evidence.card.document import Document, Field, ModelCard, Section, Source, State
from drift_pipeline.evidence.card.facts import CardFacts, Known, steps_of
from drift_pipeline.evidence.card.rendering import card_files
from drift_pipeline.evidence.card.sections import make_card

__all__ = [
    "CardFacts",
    "Document",
    "Field",
    "Known",
    "ModelCard",
    "Section",
    "Source",
    "State",
    "card_files",
    "make_card",
    "steps_of",
]
