"""How well the network does on scans that are held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch

from bids_harmonize.imaging.foreground import Box
from bids_harmonize.measures.agreement import UNCHANGED, agreement_db
from bids_harmonize.model.bilateral_grid import splat
from bids_harmonize.model.card_entries import HeldOutAgreement
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.training.loss import slice_at
from bids_harmonize.training.pairs import Pair, draw_pair
from bids_harmonize.training.recipe import Recipe
from bids_harmonize.training.schedule import VALIDATION, Schedule
from bids_harmonize.training.sources import ReferenceExample


@dataclass(frozen=True)
class Validation:
    """Pairs of held-out scans, the same at every checkpoint: unaltered, and altered as in training."""

    unaltered: Sequence[Pair]
    augmented: Sequence[Pair]

    @classmethod
    def of(cls, held_out: Sequence[ReferenceExample], schedule: Schedule, recipe: Recipe) -> Self:
        """Draw the pairs."""
        drawn = [
            draw_pair(held_out, np.random.default_rng([schedule.seed, VALIDATION, index]), recipe)
            for index in range(schedule.effort.validation_pairs if held_out else 0)
        ]
        # Pairs that a factor undoes say nothing of alterations; unaltered scans are measured besides.
        augmented = [pair for pair in drawn if _rescaled_agreement(pair) < UNCHANGED]
        return cls([_unaltered(example) for example in held_out], augmented)

    def measure(self, network: CurveNetwork) -> HeldOutAgreement:
        """How well the pairs agree with their originals; without altered ones, unaltered ones count twice."""
        augmented = self.augmented or self.unaltered
        return HeldOutAgreement(
            unaltered=_mean(_agreement(network, pair) for pair in self.unaltered),
            augmented=_mean(_agreement(network, pair) for pair in augmented),
            rescaled=_mean(_rescaled_agreement(pair) for pair in augmented),
        )


def _unaltered(example: ReferenceExample) -> Pair:
    pair = Pair(
        augmented=example.volume,
        target=example.volume,
        region=example.region,
        zooms=example.zooms,
        box=Box.whole(example.volume.shape),
    )
    return pair.with_augmented(example.volume)


def _agreement(network: CurveNetwork, pair: Pair) -> float:
    histogram = splat(torch.from_numpy(pair.augmented), pair.cells)[None]
    with torch.no_grad():
        curves = network(histogram.to(next(network.parameters()).device))[0]
        output = slice_at(curves, pair, np.flatnonzero(pair.region))
    return agreement_db(output.cpu().numpy(), pair.target[pair.region])


def _rescaled_agreement(pair: Pair) -> float:
    """Agreement once the median is brought to the original's: the plainest harmonization."""
    augmented, target = pair.augmented[pair.region], pair.target[pair.region]
    factor = np.median(target) / max(float(np.median(augmented)), 1e-6)
    return agreement_db(augmented * np.float32(factor), target)


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 2)
