"""The public names of the package."""

from __future__ import annotations

import pytest

import bids_harmonize
from bids_harmonize.errors import HarmonizeError
from bids_harmonize.model import Harmonized, Model, Transform


def test_public_names_are_those_of_the_modules() -> None:
    own = {Model, Transform, Harmonized, HarmonizeError}
    assert {getattr(bids_harmonize, name) for name in bids_harmonize.__all__} == own
    assert set(bids_harmonize.__all__) <= set(dir(bids_harmonize))


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        bids_harmonize.Modell  # noqa: B018
