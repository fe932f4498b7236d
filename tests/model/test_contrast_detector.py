"""Contrasts are told by the order of a brain's tissues."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.imaging.brain import NoBrain, TissueLevels
from bids_harmonize.model.contrast_detector import CONTRASTS, NO_BRAIN, ContrastDetector, taken_for

levels = st.builds(
    TissueLevels, csf=st.floats(0, 1e5), grey_matter=st.floats(0, 1e5), white_matter=st.floats(0, 1e5)
)


# Ratios as real scans have them: grey and fluid over white matter.
@pytest.mark.parametrize(
    ("grey", "fluid", "contrast"),
    [
        (0.63, 0.30, "T1w"),
        (0.83, 0.51, "T1w"),
        (0.87, 0.52, "T1w"),
        (1.14, 1.80, "T2w"),
        (1.21, 1.67, "T2w"),
        (1.62, 3.09, "T2w"),
        (1.13, 0.63, "FLAIR"),
        (1.26, 0.64, "FLAIR"),
        (1.25, 1.10, "PDw"),
        (0.80, 1.50, "another contrast"),
    ],
)
def test_contrasts_of_real_scans(grey: float, fluid: float, contrast: str) -> None:
    shown = TissueLevels(csf=500 * fluid, grey_matter=500 * grey, white_matter=500)
    assert taken_for(shown) == contrast
    for own in CONTRASTS:
        score = ContrastDetector(contrast=own).score_ood(shown)
        assert score.is_ood is (own != contrast)
        assert score.taken_for == contrast


@given(levels, st.sampled_from(CONTRASTS), st.floats(0.01, 100))
def test_scores_are_finite_agree_with_the_contrast_and_know_no_unit(
    shown: TissueLevels, contrast: str, gain: float
) -> None:
    score = ContrastDetector(contrast=contrast).score_ood(shown)
    assert 0 <= score.score <= 1
    # On the border itself rounding decides.
    if abs(score.score - score.threshold) > 1e-9:
        assert score.is_ood is (taken_for(shown) != contrast)
    if min(shown.csf, shown.grey_matter, shown.white_matter) > 1e-3:
        scaled = TissueLevels(
            csf=gain * shown.csf,
            grey_matter=gain * shown.grey_matter,
            white_matter=gain * shown.white_matter,
        )
        again = ContrastDetector(contrast=contrast).score_ood(scaled)
        assert again.score == pytest.approx(score.score, abs=1e-6)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_what_has_no_brain_is_out_of_distribution(contrast: str) -> None:
    score = ContrastDetector(contrast=contrast).score_ood(NoBrain(reason="no brain was found"))
    assert score.is_ood and score.score == 1
    assert score.taken_for == NO_BRAIN


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_a_card_brings_it_back(contrast: str) -> None:
    detector = ContrastDetector(contrast=contrast)
    assert ContrastDetector.of_card(json.loads(json.dumps(detector.card()))) == detector


@pytest.mark.parametrize("contrast", ["PDw", "", None, 3])
def test_a_card_of_an_unknown_contrast(contrast: object) -> None:
    with pytest.raises(ValueError, match="the contrast"):
        ContrastDetector.of_card({"TissueOrder": contrast})
