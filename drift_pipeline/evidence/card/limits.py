"""What does not follow from a card; each sentence stands there because of a fact above it."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from drift_pipeline.detection.judging.performance import Performance, performance_of
from drift_pipeline.evidence.card.document import Field, Section, Source, State
from drift_pipeline.evidence.card.facts import CardFacts, Known


def limits(known: Known, sections: Sequence[Section]) -> Section:
    """The card's last section."""
    fields = {field.id: field for section in sections for field in section.fields}
    source = Source("card", "card:sections")
    told = known.counted("limits.not_proven", list(_not_proven(known.facts, fields)), source)
    return Section("limits", "What this card does not prove", (told,))


def _not_proven(facts: CardFacts, fields: Mapping[str, Field]) -> Iterator[str]:
    if any(field.state is State.DECLARED for field in fields.values()):
        yield f"Declared fields are the words of {facts.spec.owner}; nothing here checked them against what happens."
    block = fields["evaluation.proven_on"].value
    if block is not None:
        yield (
            f"The candidate's figures are of one block of {_rows(block)} rows "
            f"from {block.get('from', 'an unknown time')} on: they say nothing of a later world."
        )
        yield "They trust the recorded outcomes: wrong or missing labels make them wrong, and nobody would see it here."
    groups = fields["quantitative.groups"].value
    if groups:
        yield from _not_proven_of_groups(groups, performance_of(facts.spec))
    elif groups is not None or fields["quantitative.groups"].state is not State.AUTO:
        yield "It holds no figure of any group: how the model treats people of different groups is not known from it."
    if fields["gates.passed"].value is None:
        yield "No gate was asked about this version."
    elif not fields["gates.passed"].value:
        yield "A gate did not pass: this version was kept as a record and must not be released."
    yield (
        f"Approvals are as of {facts.at.astimezone(UTC).isoformat()} and for {facts.environment}: "
        "what was withdrawn or expired since is not on this card."
    )
    yield "It is no approval and no legal assessment. Its digests tell that bytes are the same, not that they are good."


def _rows(block: Mapping[str, Any]) -> str:
    return f"{block['rows']:,}" if "rows" in block else "an unknown number of"


def _not_proven_of_groups(groups: Sequence[Mapping[str, Any]], measure: Performance) -> Iterator[str]:
    low = f"{measure.kpi}_low"
    silent = sum(group.get(low) is None for group in groups)
    shown = sum(group.get(name) is not None for group in groups for name in (low, "selection_low"))
    yield (
        f"The {shown} intervals of groups hold 95 % each, not together: about {shown * 0.05:.1f} miss by chance. "
        "They take rows as independent; people or days that come more than once make them too narrow."
    )
    if silent:
        without = f"For {silent} of {len(groups)} groups the {measure.name} has no interval"
        yield f"{without}: no difference shown is no equality."
    yield "A difference between groups is told, not its cause; groups that were not recorded are not looked at."
