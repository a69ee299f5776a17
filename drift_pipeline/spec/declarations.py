"""Declarations: what only people can say of a model, in `declarations.yaml` beside its `defs.yaml`.

Nothing in it is ever inferred, and nothing here checks that it is true. What is left out is shown as missing in the
documents, with who has to supply it.
"""

import json
from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, FiniteFloat, field_validator, model_validator
from pydantic_core import PydanticSerializationError

from drift_pipeline.spec.parts import Part

Profile = Literal["limited_risk", "art6_3_exempt", "high_risk", "public_deployer"]
Stated = str | bool | int | FiniteFloat | tuple[str, ...]


class Statement(Part):
    """One thing that is said: a value, or why there can be none. `by` and `at` are the file's where left out."""

    value: Stated | None = None
    not_applicable: str | None = Field(default=None, min_length=1)
    by: str | None = Field(default=None, min_length=1)
    at: date | None = None

    @field_validator("value")
    @classmethod
    def _told_apart(cls, value: Stated | None) -> Stated | None:
        if isinstance(value, int) and abs(value) >= 2**53:
            raise ValueError(f"{value} is a number that JSON does not tell apart from its neighbours; write it as text")
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if self.value is not None and self.not_applicable is not None:
            raise ValueError("is said and not_applicable at once; keep one of value and not_applicable")
        return self

    @property
    def said(self) -> bool:
        empty = self.value.strip() == "" if isinstance(self.value, str) else self.value == ()
        return self.value is not None and not empty


def _statement(given: Any) -> Any:
    """A plain value is a statement of whoever answers for the file."""
    return {"value": given} if isinstance(given, str | int | float | list | tuple) else given


Said = Annotated[Statement | None, BeforeValidator(_statement)]


class CardPart(Part):
    """Mitchell et al., "Model cards for model reporting", 2019."""

    intended_use: Said = None
    intended_users: Said = None
    out_of_scope_use: Said = None
    ethical_considerations: Said = None
    caveats: Said = None


class DatasheetPart(Part):
    """Gebru et al., "Datasheets for datasets", CACM 64(12), 2021."""

    purpose: Said = None
    creators: Said = None
    funding: Said = None
    instances: Said = None
    errors_and_noise: Said = None
    confidential_data: Said = None
    people: Said = None
    collection_mechanism: Said = None
    collectors: Said = None
    consent: Said = None
    ethical_review: Said = None
    labelling: Said = None
    raw_data: Said = None
    other_uses: Said = None
    unsuitable_uses: Said = None
    distribution: Said = None
    licence: Said = None
    maintainer: Said = None
    updates: Said = None


class AnnexPart(Part):
    """Of Annexes IV and VIII of the AI Act, what no fact of the loop can tell."""

    provider: Said = None
    submitter: Said = None
    authorised_representative: Said = None
    trade_name: Said = None
    components: Said = None
    operating_logic: Said = None
    status: Said = None
    certificate: Said = None
    certificate_scan: Said = None
    member_states: Said = None
    declaration_of_conformity: Said = None
    instructions_for_use: Said = None
    url: Said = None
    art6_3_condition: Said = None
    art6_4_assessment: Said = None
    deployer: Said = None
    provider_entry_url: Said = None
    fria_summary: Said = None
    dpia_summary: Said = None
    development_process: Said = None
    human_oversight: Said = None
    metrics_rationale: Said = None
    risk_management: Said = None
    standards: Said = None
    post_market_plan: Said = None


class Article50Part(Part):
    """The transparency duties of Article 50, by paragraph."""

    interaction: Said = None
    synthetic_content: Said = None
    emotion_or_biometric: Said = None
    deep_fakes_and_text: Said = None
    clear_and_timely: Said = None


class Risk(Part):
    """Which duties people hold to be theirs; None: nobody has said so yet. `annex_iii` is the point of Annex III, where
    it is one of its cases."""

    profile: Profile | None = None
    annex_iii: str | None = Field(default=None, min_length=1)
    profiling: bool | None = None
    rationale: Said = None

    @property
    def in_force(self) -> Profile:
        """By which the dossier is made."""
        return self.profile or "limited_risk"

    @model_validator(mode="after")
    def _profiling_is_high_risk(self) -> Self:
        of_annex_iii = self.in_force == "art6_3_exempt" or (self.in_force == "limited_risk" and self.annex_iii)
        if self.profiling and of_annex_iii:
            raise ValueError(
                f"{self.in_force} is refused: a system of Annex III that profiles natural persons is always high-risk "
                "(Article 6(3)); declare profile: high_risk, or public_deployer where it is another provider's"
            )
        return self


Bound = tuple[FiniteFloat, FiniteFloat] | tuple[str, ...]


class Floors(Part):
    """`performance`: the least AUROC, or the largest MAE; `parity_gap`: the widest gap of a protected column."""

    performance: FiniteFloat | None = None
    parity_gap: float | None = Field(default=None, ge=0, le=1)


class ChangeEnvelope(Part):
    """Changes that were foreseen at the first assessment (Article 43(4)); what is left out is not bounded.

    feature_schema: `feature_schema(features)`. hyperparameters: of each name the least and the largest value, or the
    texts that it may be. data_sources: routes that training rows may have come by.
    """

    feature_schema: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    trainers: tuple[str, ...] = ()
    hyperparameters: dict[str, Bound] = Field(default_factory=dict)
    data_sources: tuple[str, ...] = ()
    floors: Floors = Floors()

    @field_validator("hyperparameters")
    @classmethod
    def _bounds_in_order(cls, bounds: dict[str, Bound]) -> dict[str, Bound]:
        for name, bound in bounds.items():
            if not bound:
                raise ValueError(f"{name}: has no value; write [least, largest], or the texts that it may be")
            if isinstance(bound[0], float) and bound[0] > bound[1]:
                raise ValueError(f"{name}: [{bound[0]:g}, {bound[1]:g}] is no range; write [least, largest]")
        return bounds


class Declarations(Part):
    """All of it. `asserted_by` answers for what does not say `by`; the spec's owner where nobody is named."""

    asserted_by: str | None = Field(default=None, min_length=1)
    at: date | None = None
    risk: Risk = Risk()
    card: CardPart = CardPart()
    datasheet: DatasheetPart = DatasheetPart()
    annexes: AnnexPart = AnnexPart()
    article_50: Article50Part = Article50Part()
    change_envelope: ChangeEnvelope | None = None

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        try:
            json.dumps(self.model_dump(mode="json"), ensure_ascii=False).encode()
        except (UnicodeError, PydanticSerializationError) as error:
            raise ValueError(f"holds half of a character, which no text has: {error}") from error
        return self
