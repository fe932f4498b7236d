"""Distribution of a scan in few numbers: what they must not depend on, and what they find in the phantom."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from bids_harmonize.brain.search import find_brain
from bids_harmonize.imaging.brain import Brain, NoBrain
from bids_harmonize.imaging.intensity import intensity_scale
from bids_harmonize.measures.intensity_profile import describe_intensities
from bids_harmonize.measures.quantiles import QUANTILES
from bids_harmonize.measures.scan_intensities import TISSUES, IntensityProfile, ScanIntensities
from bids_harmonize.phantom.anatomy import PHANTOM_LABELS, Head
from bids_harmonize.phantom.scanner import Receiver, render
from tests.helpers.toy_heads import HEAD_GRID, T2_SPIN_ECHO

few = settings(max_examples=20)
NOT_LOOKED_FOR = NoBrain(reason="brains are looked for in heads only")


def described(
    volume: NDArray[np.float32],
    after: NDArray[np.float32] | None,
    brain: Brain | NoBrain = NOT_LOOKED_FOR,
    **changes,
) -> ScanIntensities:
    scale = intensity_scale(volume)
    return describe_intensities(
        volume, after, scale, HEAD_GRID.zooms, **{"brain": brain, "head": True} | changes
    )


def profiles(found: ScanIntensities) -> tuple[IntensityProfile, IntensityProfile]:
    assert found.before is not None and found.after is not None
    return found.before, found.after


@pytest.fixture(scope="module")
def t2w(head: Head) -> NDArray[np.float32]:
    return render(head, T2_SPIN_ECHO, HEAD_GRID, Receiver(gain=700, snr=40, shading=0.1), seed=(2,))


@pytest.fixture(scope="module")
def brain(head: Head) -> Brain:
    labels = head.labels_on(HEAD_GRID)
    csf, grey, white = (
        labels == PHANTOM_LABELS.index(name) for name in ("csf", "grey matter", "white matter")
    )
    return Brain(
        mask=csf | grey | white, csf=csf, grey_matter=grey, white_matter=white, zooms=HEAD_GRID.zooms
    )


def test_a_brain_has_its_tissues(head: Head, t2w: NDArray[np.float32], brain: Brain) -> None:
    found = described(t2w, 3 * t2w, brain)
    assert not found.stripped and found.no_brain is None
    assert found.after is not None and found.after.brain is not None
    labels = head.labels_on(HEAD_GRID)
    white = np.median(t2w[labels == PHANTOM_LABELS.index("white matter")])
    assert found.after.tissues["WhiteMatter"] == pytest.approx(3 * white, rel=0.12)
    medians = [found.after.tissues[name] for name in TISSUES]
    assert medians == sorted(medians)
    for curve in (found.after.foreground, found.after.brain):
        assert len(curve) == len(QUANTILES)
        assert np.all(np.diff(curve) >= 0)


def test_json_keeps_all(head_volume: NDArray[np.float32], t2w: NDArray[np.float32], brain: Brain) -> None:
    for found in (
        described(t2w, 3 * t2w, brain),
        described(t2w, None, brain),
        described(head_volume, head_volume, head=False),
    ):
        content = json.loads(json.dumps(found.to_json(), allow_nan=False))
        again = ScanIntensities.from_json(content, Path("x.json"))
        assert again.to_json() == found.to_json() == content
        assert (again.stripped, again.no_brain) == (found.stripped, found.no_brain)
        assert (again.after is None) == (found.after is None)


@few
@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1e4))
def test_before_has_no_unit_and_after_its_own(
    head_volume: NDArray[np.float32], before: float, after: float
) -> None:
    volume = head_volume[::2, ::2, ::2]
    plain = profiles(described(volume, volume))
    scaled = profiles(described(volume * np.float32(before), volume * np.float32(after)))
    assert scaled[0].foreground == pytest.approx(plain[0].foreground, rel=2e-3)
    assert scaled[1].foreground == pytest.approx(plain[1].foreground * after, rel=2e-3)


def test_what_was_passed_through_has_no_after(t2w: NDArray[np.float32], brain: Brain) -> None:
    found = described(t2w, None, brain)
    assert found.after is None
    assert found.before is not None and found.before.brain is not None
    assert set(found.before.tissues) == set(TISSUES)


def test_no_brain_is_looked_for_elsewhere(head_volume: NDArray[np.float32]) -> None:
    found = described(head_volume, head_volume, head=False)
    assert found.no_brain == "brains are looked for in heads only"
    assert found.after is not None
    assert (found.after.brain, found.after.tissues, found.stripped) == (None, {}, False)


def test_a_brain_alone_is_told_from_a_head(head: Head, head_volume: NDArray[np.float32]) -> None:
    stripped = head_volume * np.isin(
        head.labels_on(HEAD_GRID),
        [PHANTOM_LABELS.index(name) for name in ("white matter", "grey matter", "deep grey matter", "csf")],
    )
    assert described(stripped.astype(np.float32), None).stripped
    assert not described(head_volume, None).stripped


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
    brain = find_brain(volume, zooms, np.eye(4))
    found = describe_intensities(volume, volume, intensity_scale(volume), zooms, brain=brain, head=True)
    content = found.to_json()
    json.dumps(content, allow_nan=False)
    assert ("NoBrain" in content) == (content["Brain"] is None)


@pytest.mark.parametrize("levels", [{}, {"Levels": {"Count": 3}}])
def test_curves_of_other_levels_are_not_read(levels: dict[str, object]) -> None:
    curves = {"Before": [1.0] * len(QUANTILES), "After": [1.0] * len(QUANTILES)}
    content = levels | {"Foreground": curves, "SkullStripped": True}
    found = ScanIntensities.from_json(content, Path("x.json"))
    assert found == ScanIntensities(stripped=True)


@pytest.fixture
def ball() -> Callable[[float], NDArray[np.float32]]:
    """Make a ball of a radius, in nothing."""

    def make(radius_mm: float) -> NDArray[np.float32]:
        axes = np.meshgrid(*(3.5 * (np.arange(80) - 40) for _ in range(3)), indexing="ij")
        inside = sum(np.square(axis) for axis in axes) < radius_mm**2
        return np.where(inside, 400 + np.float32(0.1) * axes[0], 0).astype(np.float32)

    return make


def test_a_head_in_air_set_to_0_is_not_skull_stripped(ball) -> None:
    # Balls of 1.2 and 4.2 l: the second is too large for a brain.
    assert described(ball(66), None).stripped is True
    assert described(ball(100), None).stripped is False
    assert described(ball(66), None, head=False).stripped is False


@pytest.mark.parametrize("stated", [True, False])
def test_what_is_known_of_skull_stripping_is_believed(ball, stated: bool) -> None:
    for radius in (66, 100):
        assert described(ball(radius), None, stripped=stated).stripped is stated
