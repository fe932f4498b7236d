"""Whether a scan is like those that a model is meant for, by the grid of its histograms.

A small classifier, trained on scans as in training against scans made foreign (`foreign`), looks at where in
the head which intensities lie. It needs no weights of the curve network.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from bids_harmonize.network import AIR_KNOTS, global_features

# A cell with less than this share of foreground does not count.
OCCUPIED = 0.15
# Outer radii of shells around the centre, in standard deviations of the foreground along each axis.
SHELLS = (0.7, 1.05, 1.4, float("inf"))
BINS = 16


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """What was found: the score, 0 (familiar) to 1 (foreign), and from where on a scan is flagged."""

    score: float
    threshold: float

    @property
    def flagged(self) -> bool:
        """Whether the scan is unlike those that the model is meant for."""
        return self.score > self.threshold


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """A classifier with one hidden layer.

    Attributes
    ----------
    centre, spread
        Of every feature in training.
    layers
        Weights and biases: ``(hidden, features)``, ``(hidden,)``, ``(1, hidden)``, ``(1,)``.
    threshold
        Scores above it are flagged.
    """

    centre: Tensor
    spread: Tensor
    layers: tuple[Tensor, ...]
    threshold: float

    def recognize(self, histogram: Tensor) -> Recognition:
        """Judge a scan by its histograms, ``(KNOTS, X, Y, Z)``, axes right, anterior, superior."""
        score = torch.sigmoid(self.logits(describe(histogram).cpu()[None]))
        return Recognition(score=float(score), threshold=self.threshold)

    def logits(self, features: Tensor) -> Tensor:
        """Of ``(n, features)``: positive where foreign is likelier."""
        first, first_bias, second, second_bias = self.layers
        known = ((features - self.centre) / self.spread).clamp(-LARGEST, LARGEST)
        return (torch.nn.functional.silu(known @ first.T + first_bias) @ second.T + second_bias)[:, 0]

    def card(self) -> dict[str, Any]:
        """For the model card."""
        tensors = [self.centre, self.spread, *self.layers]
        return {"Threshold": self.threshold, "Tensors": [_encoded(tensor) for tensor in tensors]}

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> Self:
        """Read what `card` gave.

        Raises
        ------
        LookupError, TypeError, ValueError
            It is damaged.
        """
        centre, spread, *layers = (_decoded(tensor) for tensor in card["Tensors"])
        return cls(centre=centre, spread=spread, layers=tuple(layers), threshold=float(card["Threshold"]))


# Deviations of features, in standard deviations, beyond which they count no more.
LARGEST = 8.0


def describe(histogram: Tensor) -> Tensor:
    """Features of a scan: its global ones, and intensities and foreground of each shell around its centre."""
    features = [global_features(histogram[None])[0].double()]
    radius = _radius(_occupied(histogram))
    low = 0.0
    for high in SHELLS:
        features.append(_shell(histogram[:, (radius >= low) & (radius < high)]))
        low = high
    return torch.cat(features).float()


def _occupied(histogram: Tensor) -> Tensor:
    """Share of foreground in each cell, 0 where there is little."""
    share = histogram[AIR_KNOTS:].sum(0) / histogram.sum(0).clamp(min=1)
    return share * (share > OCCUPIED)


def _radius(occupied: Tensor) -> Tensor:
    """Distance of the cells from the foreground's centre, 1 at one standard deviation along each axis."""
    total = occupied.sum().clamp(min=1)
    square = torch.zeros_like(occupied)
    for axis, count in enumerate(occupied.shape):
        place = torch.arange(count, device=occupied.device, dtype=occupied.dtype)
        place = place.view([-1 if axis == other else 1 for other in range(3)])
        centre = (occupied * place).sum() / total
        variance = (occupied * (place - centre).square()).sum() / total
        square = square + (place - centre).square() / (variance.sqrt() + 0.3).square() / 3
    return square.sqrt()


def _shell(cells: Tensor) -> Tensor:
    """Square roots of the shares of intensities, and the share of foreground, of cells ``(KNOTS, n)``."""
    counts = cells[AIR_KNOTS:].sum(1)
    density = counts / counts.sum().clamp(min=1)
    shares = torch.stack([part.sum() for part in density.tensor_split(BINS)]).sqrt()
    return torch.cat([shares, (counts.sum() / cells.sum().clamp(min=1))[None]])


def _encoded(tensor: Tensor) -> dict[str, Any]:
    values = tensor.numpy().astype("<f2")
    return {"Shape": list(values.shape), "Base64": base64.b64encode(values.tobytes()).decode("ascii")}


def _decoded(stored: Mapping[str, Any]) -> Tensor:
    values = np.frombuffer(base64.b64decode(stored["Base64"], validate=True), dtype="<f2")
    return torch.from_numpy(values.astype(np.float32).reshape(stored["Shape"]))
