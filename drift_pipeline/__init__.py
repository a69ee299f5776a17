"""Closed-loop drift monitoring and continuous retraining of machine-learning models.

>>> import drift_pipeline as dp
>>> callable(dp.compare)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drift_pipeline.api import Calibration, Comparison, Replayed, calibrate, compare, replay
    from drift_pipeline.homes import Home, open_home

__version__ = "0.1.0"
__all__ = ["Calibration", "Comparison", "Home", "Replayed", "calibrate", "compare", "open_home", "replay"]


def __getattr__(name: str) -> Any:
    """What these modules have is imported when it is asked for: the import of the package itself is light."""
    if name not in __all__:
        raise AttributeError(f"module 'drift_pipeline' has no attribute {name!r}; there are: {', '.join(__all__)}")
    module = "homes" if name in ("Home", "open_home") else "api"
    return getattr(import_module(f"drift_pipeline.{module}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
