"""Of what contrast a head scan is, by the tissues of its brain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from bids_harmonize.imaging.brain import NoBrain, TissueLevels
from bids_harmonize.model.ood_detector import OODScore

# The contrasts that are told by the order of tissues.
CONTRASTS = ("T1w", "T2w", "FLAIR")
NO_BRAIN = "no brain"
# Grey over white matter, and fluid over grey matter: up to these in T1w scans, from these on in T2w scans.
# Of scans to choose by, familiar T1w scans have at most 0.87 and 0.68, T2w scans at least 1.14 and 1.24.
T1W_MATTER, T1W_FLUID = 0.93, 0.8
T2W_MATTER, T2W_FLUID = 1.0, 1.2
# How much of a change in these ratios (a logarithm) turns a score around.
SOFTNESS = 0.03
# The key by which a model card says that the order of tissues tells.
TISSUE_ORDER = "TissueOrder"
THRESHOLD = 0.5
TINY = 1e-9


def taken_for(levels: TissueLevels) -> str:
    """The contrast that a brain with such tissues shows: T1w, T2w, FLAIR, PDw, or another."""
    for contrast in CONTRASTS:
        if _margin(levels, contrast) >= 0:
            return contrast
    return "another contrast" if levels.grey_matter < levels.white_matter else "PDw"


@dataclass(frozen=True, kw_only=True)
class ContrastDetector:
    """Tells scans of one contrast (one of `CONTRASTS`) from others by their brains.

    Attributes
    ----------
    contrast
        What is familiar.
    """

    contrast: str

    def score_ood(self, found: TissueLevels | NoBrain) -> OODScore:
        """How unlike a scan of the contrast a scan with such a brain is.

        Without a brain it is as unlike as can be. The score is 0.5 where the contrast ends.
        """
        if isinstance(found, NoBrain):
            return OODScore(score=1.0, threshold=THRESHOLD, taken_for=NO_BRAIN)
        score = 0.5 - 0.5 * math.tanh(_margin(found, self.contrast) / (2 * SOFTNESS))
        return OODScore(score=score, threshold=THRESHOLD, taken_for=taken_for(found))

    def card(self) -> dict[str, Any]:
        """What the model card stores."""
        return {TISSUE_ORDER: self.contrast}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """Read what `card` gave.

        Raises
        ------
        ValueError
            It names no contrast that is known.
        """
        if card[TISSUE_ORDER] not in CONTRASTS:
            raise ValueError(f"the contrast {card[TISSUE_ORDER]}")
        return cls(contrast=card[TISSUE_ORDER])


def _margin(levels: TissueLevels, contrast: str) -> float:
    """How far both ratios, as logarithms, are on the right side of where a contrast ends."""
    white, grey, fluid = (
        math.log(max(level, TINY)) for level in (levels.white_matter, levels.grey_matter, levels.csf)
    )
    if contrast == "T1w":
        return min(math.log(T1W_MATTER) - (grey - white), math.log(T1W_FLUID) - (fluid - grey))
    if contrast == "FLAIR":
        return min(grey - white, white - fluid)
    return min(grey - white - math.log(T2W_MATTER), fluid - grey - math.log(T2W_FLUID))
