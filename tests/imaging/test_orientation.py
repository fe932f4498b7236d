"""Volumes turned to right, anterior, superior, and back."""

from __future__ import annotations

from itertools import permutations

import nibabel as nib
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.imaging.orientation import from_ras, to_ras

orders = st.sampled_from(list(permutations(range(3))))
signs = st.tuples(*[st.sampled_from([-1, 1])] * 3)


def affine_of(order: tuple[int, ...], sign: tuple[int, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) * sign)[list(order)]
    return affine


@given(orders, signs)
def test_turned_as_nibabel_does_and_back(order: tuple[int, ...], sign: tuple[int, ...]) -> None:
    volume = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    affine = affine_of(order, sign)
    turned = to_ras(volume, affine)
    expected = nib.as_closest_canonical(nib.Nifti1Image(volume, affine)).get_fdata()
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(from_ras(turned, affine), volume)
