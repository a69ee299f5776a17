"""What each declaration asks, in a few words: for the drafted file, and for the documents where it is missing.

Points are those of Regulation (EU) 2024/1689 as amended by Regulation (EU) 2026/1744, Annexes IV and VIII; for
orientation, and no legal advice.
"""

from collections.abc import Mapping

LAW = "Regulation (EU) 2024/1689 as amended by Regulation (EU) 2026/1744"
QUESTIONS: Mapping[str, Mapping[str, str]] = {
    "risk": {"rationale": "why this profile holds"},
    "card": {
        "intended_use": "what it is for",
        "intended_users": "who uses it",
        "out_of_scope_use": "what it must not be used for",
        "ethical_considerations": "whom it may harm, and what is done about it",
        "caveats": "what a user has to know beside the figures",
    },
    "datasheet": {
        "purpose": "what the data was collected for",
        "creators": "who created it",
        "funding": "who paid for it",
        "instances": "what one row stands for",
        "errors_and_noise": "known errors, noise, redundancies",
        "confidential_data": "whether it holds confidential data",
        "people": "whether it relates to people, and which",
        "collection_mechanism": "how it was collected",
        "collectors": "who collected it",
        "consent": "what people were told and agreed to",
        "ethical_review": "whether a review was made, and what it said",
        "labelling": "how labels come about",
        "raw_data": "whether the raw data is kept, and where",
        "other_uses": "what else it is or could be used for",
        "unsuitable_uses": "what it must not be used for",
        "distribution": "who gets it, and how",
        "licence": "under which terms",
        "maintainer": "who keeps it, and how to reach them",
        "updates": "how errors are mended, and who is told",
    },
    "annexes": {
        "provider": "name, address and contact of the provider (VIII A1, B1)",
        "submitter": "who submits for the provider or deployer (VIII A2, B2, C2)",
        "authorised_representative": "name, address and contact (VIII A3, B3)",
        "trade_name": "trade name, and further reference that identifies it (VIII A4, B4)",
        "components": "the components and functions that it supports (VIII A5)",
        "operating_logic": "the operating logic in a few words (VIII A6)",
        "status": "on the market, in service, no longer, recalled (VIII A7, B8)",
        "certificate": "type, number, expiry, notified body (VIII A8)",
        "certificate_scan": "where the certificate's scan lies (VIII A9)",
        "member_states": "where it is on the market or in service (VIII A10)",
        "declaration_of_conformity": "where the EU declaration lies (VIII A11, IV 8)",
        "instructions_for_use": "where they lie (VIII A12)",
        "url": "for further information, if there is one (VIII A13)",
        "art6_3_condition": "which condition of Article 6(3) holds (VIII B6)",
        "art6_4_assessment": "the documented assessment of Article 6(4)",
        "deployer": "name, address and contact of the deployer (VIII C1)",
        "provider_entry_url": "the provider's entry in the EU database (VIII C3)",
        "fria_summary": "summary of the fundamental rights impact assessment (VIII C4)",
        "dpia_summary": "summary of the data protection impact assessment (VIII C5)",
        "development_process": "methods, steps and choices of its development (IV 2)",
        "human_oversight": "the measures of human oversight (IV 2(e), 3)",
        "metrics_rationale": "why these metrics are appropriate (IV 4)",
        "risk_management": "the risk management system of Article 9 (IV 5)",
        "standards": "harmonised standards or other solutions that were applied (IV 7)",
        "post_market_plan": "the post-market monitoring plan of Article 72 (IV 9)",
    },
    "article_50": {
        "interaction": "whether people meet it directly, and how they are told so (50(1))",
        "synthetic_content": "whether it makes synthetic content, and how it is marked (50(2))",
        "emotion_or_biometric": "whether it reads emotions or sorts by biometrics, and how people are told (50(3))",
        "deep_fakes_and_text": "whether it makes deep fakes or texts of public interest, and how it says so (50(4))",
        "clear_and_timely": "how the information is given clearly at the first interaction at the latest (50(5))",
    },
}
