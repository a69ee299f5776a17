"""The one error tree. Expected outcomes (a breach, a refused gate) are return types, not errors.

```
DriftError
├── InputError          what the user gave cannot be used            terminal   exit 2
│   ├── SpecError       the model's YAML is wrong; names file, line and key
│   ├── RefusedError    asked for rightly, and not allowed as things stand      exit 1
│   └── NothingToDoError  there is nothing of it to do; nothing was changed     exit 4
├── IntegrityError      stored bytes, signature or chain do not fit  terminal   exit 1
├── ConflictError       somebody else changed the state first        transient
└── UnavailableError    a backend did not answer or gave no answer   transient  exit 3
```
"""


class DriftError(Exception):
    """Base of every error that drift_pipeline raises on purpose."""

    exit_code = 1


class InputError(DriftError):
    """What the user gave cannot be used; the message says what, where and what to do."""

    exit_code = 2


class SpecError(InputError):
    """A model's YAML is wrong."""


class RefusedError(InputError):
    """What was asked for is not allowed as things stand; the message says what is lacking. Nothing was changed."""

    exit_code = 1


class NothingToDoError(InputError):
    """There is nothing of what was asked for, such as no rollout to promote: no mistake of who asked."""

    exit_code = 4


class IntegrityError(DriftError):
    """Stored bytes, a signature or the audit chain do not fit their digest."""


class ConflictError(DriftError):
    """A compare-and-set lost: the state moved on since it was read. Read again, then decide again."""


class UnavailableError(DriftError):
    """A backend did not answer; the caller treats the question as undecided, never as a yes."""

    exit_code = 3
