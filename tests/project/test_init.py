"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import bids_harmonize
from bids_harmonize.errors import HarmonizeError
from bids_harmonize.model.harmonizer import Harmonized, Model
from bids_harmonize.model.transform import Transform


def test_public_names_are_those_of_the_modules() -> None:
    own = {Model, Transform, Harmonized, HarmonizeError}
    assert {getattr(bids_harmonize, name) for name in bids_harmonize.__all__} == own
    assert set(bids_harmonize.__all__) <= set(dir(bids_harmonize))


def test_other_names_are_unknown() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Modell'"):
        bids_harmonize.Modell  # noqa: B018


def test_no_level_loads_what_another_needs() -> None:
    asked = "import sys, bids_harmonize.commands.dispatch; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    others = {
        "bids_harmonize.commands.train",
        "bids_harmonize.report.group.page",
        "bids_harmonize.commands.participant",
    }
    assert not others & {*loaded.split()}
