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
    from bids_harmonize.model.harmonizer import Harmonized, Model
    from bids_harmonize.model.transform import Transform

__all__ = ["HarmonizeError", "Harmonized", "Model", "Transform"]

_MODULES = {
    "HarmonizeError": "errors",
    "Harmonized": "model.harmonizer",
    "Model": "model.harmonizer",
    "Transform": "model.transform",
}


def __getattr__(name: str) -> Any:
    # The import is delayed because it loads PyTorch, for which `--help` would have to wait.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
