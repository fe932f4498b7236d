"""Model cards that several test modules use."""

from __future__ import annotations

from typing import Any

from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.card_entries import InputDistribution, OutputScale, TrainingData

SHA256 = "ab" * 32


def toy_card(**changes: Any) -> ModelCard:
    """A card of what every card holds, and of the changes."""
    return ModelCard(
        **{
            "name": "T1w-head",
            "modality": "T1w",
            "body_parts": ["BRAIN", "HEAD"],
            "output_scale": OutputScale(unit=1000.0, description="the median of white matter is 1000"),
            "input_distribution": InputDistribution(
                mean=[0.5] * (2 * KNOTS), standard_deviation=[0.1] * (2 * KNOTS)
            ),
            "sha256": SHA256,
        }
        | changes
    )


def toy_data(**changes: Any) -> TrainingData:
    """A dataset of one scan."""
    return TrainingData(**{"name": "Balls", "reference_group": ["a"]} | changes)
