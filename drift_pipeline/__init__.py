"""Closed-loop drift monitoring and continuous retraining of machine-learning models.

>>> import drift_pipeline as dp
>>> callable(dp.compare)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drift_pipeline.api import Calibration, Comparison, Replayed, calibrate, compare, replay

__version__ = "0.1.0"
__all__ = ["Calibration", "Comparison", "Replayed", "calibrate", "compare", "replay"]


def __getattr__(name: str) -> Any:
    """What `drift_pipeline.api` has is imported when it is asked for: the import of the package itself is light."""
    if name not in __all__:
        raise AttributeError(f"module 'drift_pipeline' has no attribute {name!r}; there are: {', '.join(__all__)}")
    return getattr(import_module("drift_pipeline.api"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
