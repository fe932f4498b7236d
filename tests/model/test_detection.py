"""What a scan shows is found when it is asked for, once, and not before."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bids_harmonize.imaging.brain import NoBrain
from bids_harmonize.model import detection as module
from bids_harmonize.model.contrast_detector import ContrastDetector
from bids_harmonize.model.detection import Detection
from tests.helpers.toy_heads import ALWAYS, NEVER, ood_detector


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """The zooms of every volume that was searched for a brain."""
    seen: list[tuple[float, ...]] = []

    def searched(volume: object, zooms: tuple[float, ...], affine: object) -> NoBrain:
        seen.append(zooms)
        return NoBrain(reason="no brain was found")

    monkeypatch.setattr(module, "find_brain", searched)
    return seen


def detection(**changes) -> Detection:
    known = {
        "block_means": np.ones((4, 4, 4), dtype=np.float32),
        "zooms": (2.0, 2.0, 2.0),
        "affine": np.eye(4),
        "histogram": torch.zeros(49, 2, 2, 2, dtype=torch.float64),
        "detector": None,
        "is_head": True,
    }
    return Detection(**known | changes)


def test_a_brain_is_searched_once_and_only_when_asked_for(searches: list) -> None:
    found = detection(detector=ContrastDetector(contrast="T1w"))
    assert searches == []
    assert found.ood_score is not None and found.ood_score.is_ood
    assert isinstance(found.brain, NoBrain)
    assert searches == [(2.0, 2.0, 2.0)]


def test_without_a_detector_nothing_is_told(searches: list) -> None:
    assert detection().ood_score is None
    assert searches == []


@pytest.mark.parametrize(("logit", "is_ood"), [(ALWAYS, True), (NEVER, False)])
def test_a_fitted_detector_needs_no_brain(searches: list, logit: float, is_ood: bool) -> None:
    score = detection(detector=ood_detector(logit)).ood_score
    assert score is not None and score.is_ood is is_ood
    assert searches == []


def test_other_body_parts_have_no_brain(searches: list) -> None:
    found = detection(is_head=False).brain
    assert isinstance(found, NoBrain) and "heads only" in found.reason
    assert searches == []
