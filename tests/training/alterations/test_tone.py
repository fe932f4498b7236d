"""Maps through the intensities of tissues, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bids_harmonize.training.alterations.tone import blend, piecewise_linear_map

KNOWN = {"white matter": 1.0, "csf": 0.2, "grey matter": 0.6}
VALUES = np.array([0, 0.1, 0.2, 0.4, 0.6, 1, 1.5, 2], np.float32)


def test_tissues_get_the_intensities_that_are_wanted() -> None:
    wanted = {"csf": 1.0, "grey matter": 0.5, "white matter": 2.0}
    mapped = piecewise_linear_map(VALUES, KNOWN, wanted)
    # Zero stays zero, and what is brighter than all tissues keeps its ratio to the brightest one.
    assert mapped == pytest.approx([0, 0.5, 1, 0.75, 0.5, 2, 3, 4])
    assert mapped.dtype == np.float32


def test_tissues_that_keep_their_intensities_change_nothing() -> None:
    assert piecewise_linear_map(VALUES, KNOWN, KNOWN) == pytest.approx(VALUES)


def test_without_known_tissues_nothing_changes() -> None:
    assert np.array_equal(piecewise_linear_map(VALUES, {}, {"bone": 3.0}), VALUES)


def test_a_blend_takes_the_inner_one_inside() -> None:
    inner, outer = np.full(3, 5, np.float32), np.full(3, 1, np.float32)
    assert blend(inner, outer, np.array([1, 0, 0.5], np.float32)) == pytest.approx([5, 1, 3])
