"""Numbers as readers want them."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.report.components import numbers
from bids_harmonize.report.components.numbers import SPACE


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.012345, "0.0123"), (99.96, "100"), (1234.5, "1234"), (math.nan, "–"), (math.inf, "–")],
)
def test_digits(value: float, text: str) -> None:
    assert numbers.digits(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.123456, "12.3"), (0.0123456, "1.2"), (0, "0"), (1, "100"), (0.00012, "0.012")]
)
def test_percent(share: float, text: str) -> None:
    assert numbers.percent(share) == f"{text}{SPACE}%"


@pytest.mark.parametrize(
    ("change", "text"), [(0.4, "0"), (-0.4, "0"), (29.4, "+29"), (-29.4, "−29"), (100, "+100")]
)
def test_signed_percent(change: float, text: str) -> None:
    assert numbers.signed_percent(change) == f"{text}{SPACE}%"


def test_shares_without_decimals() -> None:
    assert numbers.whole_percent(0.126) == f"13{SPACE}%"


def test_decibel_and_what_it_stands_for() -> None:
    assert numbers.decibel(21.46) == f"21.5{SPACE}dB"
    assert numbers.decibel(numbers.UNCHANGED) == "identical"
    assert numbers.decibel_as_percent(20) == f"10{SPACE}%"
    assert numbers.decibel_as_percent(21.5) == f"8.4{SPACE}%"


@given(st.floats(0, 1e6))
def test_durations_are_in_units_that_readers_use(seconds: float) -> None:
    text = numbers.duration(seconds)
    values = [int(number) for number in re.findall(r"\d+", text)]
    *before, unit = text.split()
    scale = {"s": 1, "min": 60}[unit]
    total = sum(n * factor for n, factor in zip(reversed(values), (scale, 3600), strict=False))
    assert total == pytest.approx(seconds, abs=scale / 2)
    assert ("h" in before) == (len(values) == 2)


def test_plurals_lists_and_sentences() -> None:
    assert [numbers.pluralize(n, "scan") for n in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
    assert [numbers.join_values(value) for value in (["a", 1], "b", None, 0)] == ["a; 1", "b", "", ""]
    assert [numbers.sentence(text) for text in ("a b", "", "A")] == ["A b.", ".", "A."]
