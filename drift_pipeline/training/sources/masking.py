"""What a store says of a failure, fit to be told: one line, without a credential."""

import os
import re

_LONGEST = 500
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|SAS", re.IGNORECASE)
_MASK = "***"


def masked(text: str, *secrets: str) -> str:
    """Without the secrets, values of the environment whose name says that they are one, and passwords of addresses.

    >>> masked("cannot reach postgresql://ann:pa55@db/features with dapi123", "dapi123")
    'cannot reach postgresql://***@db/features with ***'
    """
    known = [*secrets, *(value for name, value in os.environ.items() if _SECRET.search(name) and len(value) > 5)]
    for secret in sorted(filter(None, known), key=len, reverse=True):
        text = text.replace(secret, _MASK)
    return re.sub(r"//[^/@\s]+@", f"//{_MASK}@", " ".join(text.split()))[:_LONGEST]
