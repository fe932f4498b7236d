"""Bring T1w and T2w MRI scans of any scanner to the intensities of one reference group.

>>> import nibabel
>>> from bids_harmonize import Model
>>> result = Model.load("T1w").harmonize(nibabel.load("sub-01_T1w.nii.gz"))
>>> result.image, result.transform, result.summary
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bids_harmonize.errors import HarmonizeError
    from bids_harmonize.model import Harmonized, Model, Transform

__all__ = ["HarmonizeError", "Harmonized", "Model", "Transform"]

_MODULES = {"HarmonizeError": "errors", "Harmonized": "model", "Model": "model", "Transform": "model"}


def __getattr__(name: str) -> Any:
    # Not at the top: PyTorch comes along, and --help would wait for it.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
