"""Numbers as they are stored: no more digits than asked for, and never far off."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.files.rounding import round_significant


@given(st.floats(-1e30, 1e30).filter(lambda value: abs(value) > 1e-30), st.integers(1, 9))
def test_rounding_keeps_the_digits_that_were_asked_for(value: float, digits: int) -> None:
    rounded = round_significant(value, digits)
    assert rounded == pytest.approx(value, rel=0.5000001 * 10 ** (1 - digits))
    assert round_significant(rounded, digits) == rounded


@pytest.mark.parametrize(("value", "text"), [(0.123456, "0.1235"), (98765.0, "98760.0"), (0.0, "0.0")])
def test_rounded_numbers_are_short_in_json(value: float, text: str) -> None:
    assert json.dumps(round_significant(value, 4)) == text
