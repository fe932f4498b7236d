"""Agreement of two images: closed forms, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.measures.agreement import agreement_db

A = np.random.default_rng(0).uniform(0, 1000, 5000).astype(np.float32)
ERROR = np.random.default_rng(1).normal(0, 1, 5000).astype(np.float32)
few = settings(max_examples=30)


def test_by_hand() -> None:
    a = np.arange(10_001, dtype=np.float32)
    # The 1 to 99 % range of both together is about 9800 wide: -20 log10(98 / 9800).
    assert agreement_db(a, a + 98) == pytest.approx(40, abs=0.1)


@few
@given(st.floats(1e-3, 1e5), st.floats(-1e3, 1e3))
def test_neither_unit_nor_offset_matters(factor: float, offset: float) -> None:
    b = A + 30 * ERROR
    scaled = agreement_db(A * np.float64(factor) + offset, b * np.float64(factor) + offset)
    assert scaled == pytest.approx(agreement_db(A, b), abs=1e-3)


@few
@given(st.floats(1, 100))
def test_symmetric_and_falling_with_the_error(size: float) -> None:
    near, far = A + np.float32(size) * ERROR, A + np.float32(2 * size) * ERROR
    assert agreement_db(A, near) == pytest.approx(agreement_db(near, A))
    assert agreement_db(A, near) > agreement_db(A, far) + 3


def test_shape_does_not_matter() -> None:
    b = A + ERROR
    assert agreement_db(A.reshape(50, 100), b.reshape(50, 100)) == agreement_db(A, b)


@pytest.mark.filterwarnings("error")
def test_identical_images_agree_without_limit() -> None:
    assert agreement_db(A, A) == np.inf
