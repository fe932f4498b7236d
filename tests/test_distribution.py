"""Distribution of a scan in few numbers: what they must not depend on, and what they find in the phantom."""

from __future__ import annotations

import json

import numpy as np
import pytest
from heads import HEAD_GRID, T2_SPIN_ECHO
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bids_harmonize.distribution import TISSUES, block_means, describe_distribution, read_distribution
from bids_harmonize.image import intensity_scale
from bids_harmonize.phantom import LABELS, Head, Receiver, render
from bids_harmonize.reference import QUANTILES

few = settings(max_examples=20)
HEAD = {"modality": "T1w", "head": True}


def described(volume: NDArray[np.float32], after: NDArray[np.float32] | None, **changes):
    return describe_distribution(volume, after, intensity_scale(volume), HEAD_GRID.zooms, **HEAD | changes)


@pytest.fixture(scope="module")
def t2w(head: Head) -> NDArray[np.float32]:
    return render(head, T2_SPIN_ECHO, HEAD_GRID, Receiver(gain=700, snr=40, shading=0.1), seed=(2,))


def test_the_phantom_has_a_brain_with_its_tissues(head: Head, t2w: NDArray[np.float32]) -> None:
    found = described(t2w, 3 * t2w, modality="T2w")
    assert json.loads(json.dumps(found)) == found
    assert not found["SkullStripped"] and "NoBrain" not in found
    labels = head.labels_on(HEAD_GRID)
    white = np.median(t2w[labels == LABELS.index("white matter")])
    assert found["Tissues"]["After"]["WhiteMatter"] == pytest.approx(3 * white, rel=0.12)
    medians = [found["Tissues"]["After"][name] for name in TISSUES]
    assert medians == sorted(medians)
    for region in ("Foreground", "Brain"):
        assert len(found[region]["After"]) == len(QUANTILES)
        assert found[region]["After"] == sorted(found[region]["After"])


@few
@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_before_has_no_unit_and_after_its_own(
    head_volume: NDArray[np.float32], before: float, after: float
) -> None:
    volume = head_volume[::2, ::2, ::2]
    one = described(volume, volume)
    other = described(volume * np.float32(before), volume * np.float32(after))
    assert other["Foreground"]["Before"] == pytest.approx(one["Foreground"]["Before"], rel=2e-3)
    scaled = [value * after for value in one["Foreground"]["After"]]
    assert other["Foreground"]["After"] == pytest.approx(scaled, rel=2e-3)


def test_what_was_passed_through_has_no_after(t2w: NDArray[np.float32]) -> None:
    found = described(t2w, None, modality="T2w")
    assert read_distribution(found, "After") is None
    before = read_distribution(found, "Before")
    assert before is not None and before.brain is not None and set(before.tissues) == set(TISSUES)


def test_no_brain_is_looked_for_elsewhere(head_volume: NDArray[np.float32]) -> None:
    found = described(head_volume, head_volume, head=False)
    assert found["NoBrain"] == "brains are looked for in heads only"
    read = read_distribution(found, "After")
    assert read is not None
    assert (read.brain, read.tissues, found["SkullStripped"]) == (None, {}, False)


def test_a_brain_alone_is_told_from_a_head(head: Head, head_volume: NDArray[np.float32]) -> None:
    stripped = head_volume * np.isin(
        head.labels_on(HEAD_GRID),
        [LABELS.index(name) for name in ("white matter", "grey matter", "deep grey matter", "csf")],
    )
    found = described(stripped.astype(np.float32), None)
    assert found["SkullStripped"] and found["Brain"] is not None


@settings(max_examples=60)
@given(
    arrays(
        np.float32,
        st.tuples(*[st.integers(1, 7)] * 3),
        elements=st.sampled_from([0.0, 1.0, 1.0, 50.0, 100.0, 1e6]),
        fill=st.nothing(),
    ),
    st.tuples(*[st.sampled_from([0.4, 1.0, 2.0, 5.0])] * 3),
)
def test_no_scan_is_too_odd(volume: NDArray[np.float32], zooms: tuple[float, float, float]) -> None:
    if not volume.any():
        volume.flat[0] = 1
    found = describe_distribution(volume, volume, intensity_scale(volume), zooms, **HEAD)
    json.dumps(found, allow_nan=False)
    assert ("NoBrain" in found) == (found["Brain"] is None)


def test_block_means_by_hand() -> None:
    volume = np.arange(30, dtype=np.float32).reshape(2, 3, 5)
    # The third of y and the fifth of z are left out.
    assert block_means(volume, (2, 2, 2)).tolist() == [[[10.5, 12.5]]]
    assert block_means(volume, (1, 1, 1)).tolist() == volume.tolist()


@pytest.mark.parametrize("wrong", [None, [], {}, {"Levels": {"Count": 3}}])
def test_what_another_release_wrote_is_not_read(wrong: object) -> None:
    assert read_distribution(wrong, "After") is None
