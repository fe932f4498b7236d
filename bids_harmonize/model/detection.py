"""What a scan shows, and whether a model is meant for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from bids_harmonize.brain.search import find_brain
from bids_harmonize.imaging.brain import Brain, NoBrain, TissueLevels
from bids_harmonize.imaging.orientation import Affine
from bids_harmonize.imaging.types import Volume
from bids_harmonize.model.contrast_detector import ContrastDetector
from bids_harmonize.model.ood_detector import OODDetector, OODScore


@dataclass(frozen=True, kw_only=True, eq=False)
class Detection:
    """What is found in a scan, when it is first asked for: it may take longer than to harmonize the scan.

    Attributes
    ----------
    block_means, zooms, affine
        The scan in `Blocks`, their size in mm, and which way its axes point.
    histogram
        Counts of `bilateral_grid.splat`; axes are right, anterior, superior.
    detector
        The model's; None if it has none.
    is_head
        Whether the model is meant for heads.
    look
        Finds the brain, if somebody does so already; None to look for it when it is asked for.
    """

    block_means: Volume
    zooms: tuple[float, float, float]
    affine: Affine
    histogram: Tensor
    detector: OODDetector | ContrastDetector | None
    is_head: bool
    look: Callable[[], Brain | NoBrain] | None = None

    @cached_property
    def brain(self) -> Brain | NoBrain:
        """Where the brain lies in the blocks, if the model is meant for heads."""
        if not self.is_head:
            return NoBrain(reason="brains are looked for in heads only")
        if self.look is not None:
            return self.look()
        return find_brain(self.block_means, self.zooms, self.affine)

    @cached_property
    def levels(self) -> TissueLevels | NoBrain:
        """What the tissues of the brain look like in the scan, if it shows one."""
        return self.brain if isinstance(self.brain, NoBrain) else self.brain.levels(self.block_means)

    @cached_property
    def ood_score(self) -> OODScore | None:
        """How far the scan is from those that the model is meant for; None if the model cannot tell."""
        match self.detector:
            case None:
                return None
            case ContrastDetector():
                return self.detector.score_ood(self.levels)
            case OODDetector():
                return self.detector.score_ood(self.histogram)
